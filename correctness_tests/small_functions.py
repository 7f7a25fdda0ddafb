"""Small functions to compile, whose graphs leave no trace in the tests that follow."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import FunctionType

import torch
from torch._dynamo.eval_frame import remove_from_cache

Function = Callable[[torch.Tensor], torch.Tensor]


def double(x: torch.Tensor) -> torch.Tensor:
    return x * 2


def broken(x: torch.Tensor) -> torch.Tensor:
    x = x * 2
    torch._dynamo.graph_break()
    return x + 1


def copies() -> Iterator[Callable[..., FunctionType]]:
    """A maker of copies with code of their own. It forgets them at its end, lest later watches see them."""
    made = []

    def copy(function: Function) -> FunctionType:
        name = f"{function.__name__}_{len(made)}"
        code = function.__code__.replace(co_name=name)
        made.append(FunctionType(code, function.__globals__, name))
        return made[-1]

    yield copy
    for function in made:
        remove_from_cache(function)


def static(function: FunctionType, **options: object) -> Function:
    """One graph per size, quickly made."""
    return torch.compile(function, backend="eager", dynamic=False, **options)


def run_sizes(function: Function, count: int) -> None:
    """Sizes from 2 on: 0 and 1 are special to Dynamo."""
    for size in range(2, 2 + count):
        function(torch.ones(size))
