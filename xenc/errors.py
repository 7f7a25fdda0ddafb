"""Errors that xenc raises. Each message names the value at fault and the remedy."""

from __future__ import annotations

from typing import Any, Final


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


class OutOfMemoryError(XencError, MemoryError):
    """A pair that does not fit the device's memory in the smallest batch that holds it."""


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


def first_line(said: object) -> str:
    """The first line of an error or of a reason given by PyTorch, to be quoted in a message."""
    return next(iter(str(said).strip().splitlines()), "no reason given")


def of_both_kinds(error: XencError, cause: BaseException) -> XencError:
    """The error, which is now also an instance of its cause's class and has the cause's attributes.

    So that code that expects the cause (an OSError of a loader, say) catches it too. It can be pickled.
    """
    if isinstance(error, type(cause)):
        return error
    return _made(type(error), type(cause), error.args, _attributes(cause) | _attributes(error))


_OF_AN_OSERROR: Final = ("errno", "strerror", "filename", "filename2")
_MADE_BY_CODE: Final = 1 << 9
"""Python's flag of classes that are not written in C."""


def _attributes(error: BaseException) -> dict[str, Any]:
    system = {name: getattr(error, name, None) for name in _OF_AN_OSERROR}
    return {**{name: value for name, value in system.items() if value is not None}, **vars(error)}


def _both(kind: type[XencError], cause: type[BaseException]) -> type[XencError]:
    """A class with both bases, and the first one's name. The cause may have its own way to be pickled."""
    own = {
        "__module__": kind.__module__,
        "__str__": lambda self: str(self.args[0]),
        "__reduce_ex__": lambda self, _: (_made, (kind, cause, self.args, _attributes(self))),
    }
    return type(kind.__name__, (kind, cause), own)


def _made(
    kind: type[XencError], cause: type[BaseException], args: tuple[Any, ...], attributes: dict[str, Any]
) -> XencError:
    """An instance of both classes, made without the cause's `__init__`, which may want other arguments."""
    made = _both(kind, cause)
    base: Any = made
    while base.__flags__ & _MADE_BY_CODE:
        base = base.__base__
    error: XencError = base.__new__(made, *args)
    error.args = args
    for name, value in attributes.items():
        setattr(error, name, value)
    return error
