"""Models that torch.compile cannot compile: which errors say so, and what to say of them."""

from __future__ import annotations

import inspect
import re
from types import CodeType
from typing import Final

from torch._dynamo.exc import FailOnRecompileLimitHit, TorchDynamoException
from torch.nn import Module

from ..errors import first_line

UNCOMPILABLE: Final = (TorchDynamoException, FailOnRecompileLimitHit)
"""What Dynamo and Inductor raise where they cannot compile; Inductor's are among Dynamo's."""

_FRAME: Final = re.compile(r'^\s*File "(.+)", line (\d+), in ', re.MULTILINE)


def why_uncompilable(model: Module, error: Exception) -> str:
    """The first line of what PyTorch said, and in which of the model's modules that was.

    Args:
        model: the model that was to be compiled.
        error: one of UNCOMPILABLE; it quotes the lines of code that were being traced.
    """
    reason = first_line(getattr(error, "inner_exception", error))  # the outer one names the backend alone
    return f"{type(model).__name__} cannot be compiled: {reason} (in {_place(model, str(error))})"


def _place(model: Module, said: str) -> str:
    """The innermost module whose forward was being traced, by its name; else the model's class."""
    modules = [(name, module) for name, module in model.named_modules() if name]
    for file, line in reversed(_FRAME.findall(said)):
        for name, module in modules:
            if _holds(module, file, int(line)):
                return f"{name}, a {type(module).__name__}"
    return type(model).__name__


def _holds(module: Module, file: str, line: int) -> bool:
    """Whether a line is one of a module's forward."""
    code = getattr(inspect.unwrap(module.forward), "__code__", None)
    if not isinstance(code, CodeType) or code.co_filename != file:
        return False
    return line in {at for _, _, at in code.co_lines()}
