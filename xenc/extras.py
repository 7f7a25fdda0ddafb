"""What may be missing: optional packages, named with the extra that installs them, and a C++ compiler."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Final

from .errors import NotInstalledError, first_line
from .execution import Execution

EXTRAS: Final = {"torchao": ("torchao",)}
"""The modules that each extra installs, as in `pip install 'xenc[torchao]'`."""


def missing(extra: str) -> str | None:
    """Why an extra cannot be used, and the remedy; None if its modules are installed."""
    absent = [module for module in EXTRAS[extra] if find_spec(module) is None]
    return f"not installed: pip install 'xenc[{extra}]'" if absent else None


def require(extra: str, purpose: str) -> None:
    """Raise unless an extra is installed.

    Args:
        extra: its name.
        purpose: the setting that needs it, for the message.

    Raises:
        NotInstalledError: one of its modules is missing.
    """
    if (reason := missing(extra)) is not None:
        raise NotInstalledError(f"{purpose} needs {', '.join(EXTRAS[extra])}, which is {reason}")


def missing_for(execution: Execution) -> str | None:
    """Why packages are missing for an execution, and the remedy; None if it can run."""
    return missing("torchao") if execution.quantize is not None else None


@cache
def missing_compiler() -> str | None:
    """Why `torch.compile` cannot generate code for the CPU; None if there is a working C++ compiler."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:
        return f"torch.compile has no C++ compiler ({first_line(error)})"
    return None
