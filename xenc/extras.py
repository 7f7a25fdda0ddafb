"""What may be absent: optional packages, which extra of xenc brings them, and a C++ compiler."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import Final

from .errors import NotInstalledError, first_line
from .execution import Execution

EXTRAS: Final = {"torchao": ("torchao",)}
"""By extra, as in `pip install 'xenc[torchao]'`: the modules it brings."""


def missing(extra: str) -> str | None:
    """Why what an extra brings cannot be used, and the remedy; None if all of it is installed."""
    absent = [module for module in EXTRAS[extra] if find_spec(module) is None]
    return f"not installed: pip install 'xenc[{extra}]'" if absent else None


def require(extra: str, purpose: str) -> None:
    """Insist on an extra.

    Args:
        extra: its name.
        purpose: what was asked for, as the caller wrote it.

    Raises:
        NotInstalledError: one of its packages is absent.
    """
    reason = missing(extra)
    if reason is not None:
        absent = ", ".join(module for module in EXTRAS[extra] if find_spec(module) is None)
        raise NotInstalledError(f"{purpose} needs {absent}, which is {reason}")


def missing_for(execution: Execution) -> str | None:
    """Why an execution cannot run for want of packages, and the remedy; None if all of them are installed."""
    return missing("torchao") if execution.quantize is not None else None


@cache
def missing_compiler() -> str | None:
    """Why `torch.compile` cannot make code for a processor; None if there is a C++ compiler that runs."""
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        get_cpp_compiler()
    except Exception as error:
        return f"torch.compile has no C++ compiler ({first_line(error)})"
    return None
