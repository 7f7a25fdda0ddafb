"""Errors that xenc raises. Each message names the value at fault and the remedy."""


class XencError(Exception):
    """Base class of xenc's errors."""


class ExecutionError(XencError, ValueError):
    """An invalid `Execution`: unknown preset, bad buckets, contradicting settings."""


class NotInstalledError(XencError, ImportError):
    """An `Execution` needs an optional package that is not installed."""


class ModelError(XencError, ValueError):
    """A checkpoint that cannot be loaded, or settings that it does not support."""


class PairError(XencError, ValueError):
    """An input that is not a pair of two strings."""


class CompileError(XencError, RuntimeError):
    """In strict mode: something compiled after warm-up, or the model cannot be compiled."""


class Overloaded(XencError, RuntimeError):
    """More pairs would wait than `max_waiting_pairs` allows. No pair of the request was accepted.

    Attributes:
        pairs: pairs of the request.
        waiting: pairs already waiting.
        limit: the most that may wait.
    """

    def __init__(self, message: str, *, pairs: int = 0, waiting: int = 0, limit: int = 0) -> None:
        super().__init__(message)
        self.pairs, self.waiting, self.limit = pairs, waiting, limit

    @property
    def retry_helps(self) -> bool:
        """False if the request exceeds the limit by itself and must be split."""
        return self.pairs <= self.limit


class NonFiniteScoreError(XencError, ArithmeticError):
    """Some pairs' logits are NaN."""


class BaselineError(XencError, ValueError):
    """A stored baseline cannot be read."""


def first_line(said: object) -> str:
    """The first line of an error or of a reason given by PyTorch, to be quoted in a message."""
    return next(iter(str(said).strip().splitlines()), "no reason given")
