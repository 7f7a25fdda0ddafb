"""The executions that have a name, one per technique."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from .errors import ExecutionError
from .execution import Attention, Execution


def _compiled(attention: Attention, *, sort: bool) -> Execution:
    return Execution(layout="bucketed", attention=attention, sort=sort, compile_mode="max-autotune")


def _eager(attention: Attention, *, sort: bool) -> Execution:
    return Execution(layout="padded", attention=attention, sort=sort, compile_mode=None)


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
        "bucketed": Execution(layout="bucketed"),
        "packed": Execution(),
        "packed-eager": Execution(compile_mode=None),
        "packed-deterministic": Execution(deterministic=True),
        "packed-frozen": Execution(freeze=True),
        "packed-cudagraphs": Execution(compile_mode="reduce-overhead"),
        "packed-max-autotune": Execution(compile_mode="max-autotune"),
        "onnxruntime": Execution(runtime="onnxruntime", layout="padded", compile_mode=None),
        "openvino": Execution(runtime="openvino", layout="padded", compile_mode=None),
        # one engine per shape, so that there should be few
        "tensorrt": Execution(runtime="tensorrt", layout="bucketed", buckets="powers-of-two", dynamic=False),
    }
)
"""The named executions. The first eight are the rows of the table: attention x compiled x sorted;
"bucketed" is compiled as "compiled-sdpa-sorted" is, without the minutes of autotuning; "packed" is the
default; the last three need an extra of their name."""

DEFAULT_PRESET: Final = "packed"


def resolve_execution(execution: Execution | str) -> Execution:
    """The `Execution` a caller means by a record or by a preset's name.

    Raises:
        ExecutionError: an unknown name (the message lists the known ones), or neither of the two types.
    """
    if isinstance(execution, Execution):
        return execution
    if isinstance(execution, str) and execution in PRESETS:
        return PRESETS[execution]
    raise ExecutionError(
        f"execution={execution!r} is no Execution and no preset. Presets: {', '.join(PRESETS)}."
    )
