"""Whether a model runs code that is neither transformers' nor PyTorch's.

A kernel may replace or skip a module only if that does what transformers' code says: not where somebody
wrapped a forward, put in a layer of their own, patched a class or set a hook.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import Any, Final

from torch.nn import Module
from torch.nn.modules import module as torch_modules

_KNOWN: Final = ("transformers.", "torch.", f"{(__package__ or 'xenc.models').rpartition('.')[0]}.")
"""Packages whose code is not foreign."""


def foreign_code(model: Module) -> str | None:
    """Which foreign code runs in a model, for an error or a report; None if there is none."""
    if global_hooks():
        return "somebody's hooks run in every module"
    for name, module in model.named_modules():
        what = foreign_code_of(module)
        if what is not None:
            return f"{what} in {name or 'the model'}"
    return None


def foreign_code_of(module: Module) -> str | None:
    """As `foreign_code`, for one module without its children, and without the global hooks."""
    if any(True for _ in foreign_hooks(module)):
        return "somebody's hooks run"
    if "forward" in vars(module):
        return "somebody's forward runs"
    kind = type(module)
    if not (_is_known(kind.forward) and _is_known(kind.__call__)):
        return f"somebody's {kind.__name__} runs"
    return None


def foreign_hooks(module: Module) -> Iterator[tuple[int, Any]]:
    """Number and function of each foreign hook. Transformers' own collect hidden states on request."""
    hooks = chain(module._forward_pre_hooks.items(), module._forward_hooks.items())
    return ((number, hook) for number, hook in hooks if not _is_known(hook))


def global_hooks() -> tuple[int, ...]:
    """The numbers of the hooks that run in every module."""
    return (*torch_modules._global_forward_pre_hooks, *torch_modules._global_forward_hooks)


def _is_known(function: Any) -> bool:
    """By the module of its globals, which `functools.wraps` does not change, and those of what it wraps."""
    while function is not None:
        if not getattr(function, "__globals__", {}).get("__name__", "").startswith(_KNOWN):
            return False
        function = getattr(function, "__wrapped__", None)
    return True
