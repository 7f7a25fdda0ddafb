"""Errors xenc raises. Each message names the value at fault and the remedy."""


class XencError(Exception):
    """Base of every error xenc raises on purpose."""


class ExecutionError(XencError, ValueError):
    """An `Execution` that cannot be: unknown preset, bad buckets, contradicting choices."""


class NotInstalledError(XencError, ImportError):
    """An optional package that an `Execution` needs and that is not there."""


class ModelError(XencError, ValueError):
    """A checkpoint that cannot be loaded, a length it has no positions for, a question it cannot answer."""


class PairError(XencError, ValueError):
    """An input that is not a pair of two strings."""


class CompileError(XencError, RuntimeError):
    """Something compiled after warm-up, in strict mode."""


class Overloaded(XencError, RuntimeError):
    """More pairs would wait than `max_waiting_pairs` allows; nothing of the request was accepted.

    Attributes:
        pairs: how many were asked for.
        waiting: how many waited when they were.
        limit: how many may.
    """

    def __init__(self, message: str, *, pairs: int = 0, waiting: int = 0, limit: int = 0) -> None:
        super().__init__(message)
        self.pairs, self.waiting, self.limit = pairs, waiting, limit

    @property
    def retry_helps(self) -> bool:
        """False if the request alone exceeds the limit: it must be split."""
        return self.pairs <= self.limit


class NonFiniteScoreError(XencError, ArithmeticError):
    """The model answered NaN for some pairs."""


class BaselineError(XencError, ValueError):
    """A stored baseline that cannot be read."""


def first_line(said: object) -> str:
    """The first line of an error, or of a reason that PyTorch gives: what our messages quote of theirs."""
    return next(iter(str(said).strip().splitlines()), "no reason given")
