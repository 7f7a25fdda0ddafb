"""Whether a model runs code that is neither transformers' nor PyTorch's.

A kernel may replace or skip a module only if that does what transformers' code says: not where somebody
wrapped a forward, put in a layer of their own, patched a class or set a hook. And a hook or a wrapped forward
sees what sentence-transformers would give it only if sentence-transformers calls the model.
"""

from __future__ import annotations

from functools import partial
from itertools import chain
from types import FunctionType, MethodType
from typing import Any, Final

from torch.nn import Module
from torch.nn.modules import module as torch_modules

OURS: Final = f"{(__package__ or 'xenc.models').rpartition('.')[0]}."
"""How the names of this package's modules begin."""

_KNOWN: Final = ("transformers.", "sentence_transformers.", "torch.", OURS)
"""Packages whose code is not foreign."""

GLOBAL_HOOKS: Final[tuple[dict[int, Any], ...]] = (
    torch_modules._global_forward_pre_hooks,
    torch_modules._global_forward_hooks,
    torch_modules._global_backward_pre_hooks,
    torch_modules._global_backward_hooks,
)
"""Number -> hook that runs in every module."""


def hooks_of(module: Module) -> tuple[dict[int, Any], ...]:
    """As `GLOBAL_HOOKS`, of one module. Those for the backward pass run in the forward pass too."""
    return (
        module._forward_pre_hooks, module._forward_hooks,
        module._backward_pre_hooks, module._backward_hooks,
    )  # fmt: skip


def foreign_code(model: Module) -> str | None:
    """Which foreign code runs in a model, for an error or a report; None if there is none."""
    return attached_code(model) or _first(model, foreign_code_of)


def attached_code(model: Module) -> str | None:
    """As `foreign_code`, without the modules that somebody wrote: hooks, wrapped forwards, patched classes.

    And `compile` of a module, since it then runs by what it was compiled with.
    """
    return "somebody's hooks run in every module" if any(GLOBAL_HOOKS) else _first(model, _attached_to)


def foreign_code_of(module: Module) -> str | None:
    """As `foreign_code`, for one module without its children, and without the global hooks."""
    attached, kind = _attached_to(module), type(module)
    return attached or (None if _is_known_class(kind) else f"somebody's {kind.__name__} runs")


def _first(model: Module, what: Any) -> str | None:
    found = ((what(module), name) for name, module in model.named_modules())
    return next((f"{code} in {name or 'the model'}" for code, name in found if code is not None), None)


def _attached_to(module: Module) -> str | None:
    hooks = chain.from_iterable(map(dict.values, hooks_of(module)))
    if not all(map(is_known, hooks)):  # transformers' own collect hidden states on request
        return "somebody's hooks run"
    if "forward" in vars(module):
        return "somebody's forward runs"
    if module._compiled_call_impl is not None:
        return "torch.compile's code runs"
    kind = type(module)
    if kind.__module__.startswith(_KNOWN) and not _is_known_class(kind):
        return f"a patched {kind.__name__} runs"
    return None if all(map(is_known, _functions_in(module))) else "somebody's function runs"


def _is_known_class(kind: type[Module]) -> bool:
    return all(map(is_known, code_of(kind)))


def code_of(kind: type[Module]) -> tuple[Any, ...]:
    """The functions of a class that say what its modules compute."""
    return forward_of(kind), kind.__call__, *_functions_in(kind)


def _functions_in(holder: Module | type[Module]) -> list[Any]:
    """The functions written in Python that are attributes of a module, or of a class itself.

    Of transformers and PyTorch only: those above hold functions of a user's as settings, like an activation.
    """
    kind = holder if isinstance(holder, type) else type(holder)
    if not kind.__module__.startswith(("transformers.", "torch.")):
        return []
    found = (value.func if isinstance(value, partial) else value for value in vars(holder).values())
    return [value for value in found if isinstance(value, (FunctionType, MethodType))]


def forward_of(kind: type[Module]) -> Any:
    """The `forward` of a class; None for those of torch.jit, which only objects have."""
    return getattr(kind, "forward", None)


def is_known(function: Any) -> bool:
    """By the module of its globals, which `functools.wraps` does not change, and those of what it wraps."""
    while function is not None:
        if not getattr(function, "__globals__", {}).get("__name__", "").startswith(_KNOWN):
            return False
        function = getattr(function, "__wrapped__", None)
    return True
