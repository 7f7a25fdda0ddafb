"""The executions that have a name, one per technique."""

from __future__ import annotations

from functools import partial
from types import MappingProxyType
from typing import Final

from .errors import ExecutionError
from .execution import Attention, Execution


def _compiled(attention: Attention, *, sort: bool) -> Execution:
    return Execution(layout="bucketed", attention=attention, sort=sort, compile_mode="max-autotune")


def _eager(attention: Attention, *, sort: bool) -> Execution:
    return Execution(layout="padded", attention=attention, sort=sort, compile_mode=None)


_bucketed = partial(Execution, layout="bucketed")


PRESETS: Final = MappingProxyType(
    {
        "eager-unsorted": _eager("eager", sort=False),
        "eager-sorted": _eager("eager", sort=True),
        "sdpa-unsorted": _eager("sdpa", sort=False),
        "sdpa-sorted": _eager("sdpa", sort=True),
        "compiled-eager-unsorted": _compiled("eager", sort=False),
        "compiled-eager-sorted": _compiled("eager", sort=True),
        "compiled-sdpa-unsorted": _compiled("sdpa", sort=False),
        "compiled-sdpa-sorted": _compiled("sdpa", sort=True),
        "bucketed": _bucketed(),
        "bucketed-32": _bucketed(buckets=32),
        "bucketed-powers-of-two": _bucketed(buckets="powers-of-two"),
        "bucketed-max-length": _bucketed(buckets="max-length"),
        "bucketed-static": _bucketed(dynamic=False),
        "bucketed-automatic": _bucketed(dynamic=None),
        "bucketed-cudagraphs": _bucketed(compile_mode="reduce-overhead"),
        "bucketed-no-cudagraphs": _bucketed(compile_mode="max-autotune-no-cudagraphs"),
        "packed": Execution(),
        "packed-eager": Execution(compile_mode=None),
        "packed-deterministic": Execution(deterministic=True),
        "packed-shared-prefix": Execution(share_prefix=True),
        "packed-int8": Execution(quantize="int8"),
        "packed-float8": Execution(quantize="float8"),
        "packed-static": Execution(dynamic=False),
        "packed-cudagraphs": Execution(compile_mode="reduce-overhead"),
        "packed-max-autotune": Execution(compile_mode="max-autotune"),
        "packed-no-cudagraphs": Execution(compile_mode="max-autotune-no-cudagraphs"),
    }
)
"""The named executions. The first eight are the rows of the table: attention x compiled x sorted;
"bucketed" is compiled as "compiled-sdpa-sorted" is, without the minutes of autotuning, and those named after
it differ from it in one thing; so do those named after "packed", which is the default."""

DEFAULT_PRESET: Final = "packed"

_GONE: Final = dict.fromkeys(
    ("nested", "nested-eager", "tensorrt", "onnxruntime", "openvino"), "execution='packed'"
)


def resolve_execution(execution: Execution | str) -> Execution:
    """The `Execution` a caller means by a record or by a preset's name.

    Raises:
        ExecutionError: an unknown name (the message lists the known ones, or says what to use instead of
            one that is gone), or neither of the two types.
    """
    if isinstance(execution, Execution):
        return execution
    if isinstance(execution, str) and execution in PRESETS:
        return PRESETS[execution]
    if isinstance(execution, str) and execution in _GONE:
        raise ExecutionError(f"execution={execution!r} is gone. Use {_GONE[execution]}.")
    raise ExecutionError(
        f"execution={execution!r} is no Execution and no preset. Presets: {', '.join(PRESETS)}."
    )
