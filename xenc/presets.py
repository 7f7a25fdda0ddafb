"""The executions that have a name."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from .errors import ExecutionError
from .execution import Attention, Execution


def _eager(attention: Attention, *, sort: bool) -> Execution:
    return Execution(layout="padded", attention=attention, sort=sort, compile_mode=None)


def _compiled(attention: Attention) -> Execution:
    return Execution(layout="bucketed", attention=attention, compile_mode="max-autotune")


PRESETS: Final = MappingProxyType(
    {
        "eager-unsorted": _eager("eager", sort=False),
        "eager-sorted": _eager("eager", sort=True),
        "sdpa-unsorted": _eager("sdpa", sort=False),
        "sdpa-sorted": _eager("sdpa", sort=True),
        "compiled-eager-sorted": _compiled("eager"),
        "compiled-sdpa-sorted": _compiled("sdpa"),
        "bucketed": Execution(layout="bucketed"),
        "packed": Execution(),
        "packed-eager": Execution(compile_mode=None),
        "packed-deterministic": Execution(deterministic=True),
        "packed-shared-prefix": Execution(share_prefix=True),
        "packed-int8": Execution(quantize="int8"),
        "packed-float8": Execution(quantize="float8"),
        "packed-cudagraphs": Execution(compile_mode="reduce-overhead"),
    }
)
"""The first six are the rows of the original recipe. "bucketed" is compiled as "compiled-sdpa-sorted" is,
without the minutes of autotuning; "packed" is the default, and those named after it differ from it in one
field."""

DEFAULT_PRESET: Final = "packed"

REPLACED: Final = MappingProxyType(
    {
        "compiled-eager-unsorted": (
            'Execution(layout="bucketed", attention="eager", sort=False, compile_mode="max-autotune")'
        ),
        "compiled-sdpa-unsorted": 'Execution(layout="bucketed", sort=False, compile_mode="max-autotune")',
        "bucketed-32": 'Execution(layout="bucketed", buckets=32)',
        "bucketed-powers-of-two": 'Execution(layout="bucketed", buckets="powers-of-two")',
        "bucketed-max-length": 'Execution(layout="bucketed", buckets="max-length")',
        "bucketed-unfilled": "'bucketed'",
        "bucketed-static": 'Execution(layout="bucketed", dynamic=False)',
        "bucketed-unfilled-static": 'Execution(layout="bucketed", dynamic=False)',
        "bucketed-automatic": 'Execution(layout="bucketed", dynamic=None)',
        "bucketed-cudagraphs": 'Execution(layout="bucketed", compile_mode="reduce-overhead")',
        "bucketed-no-cudagraphs": ('Execution(layout="bucketed", compile_mode="max-autotune-no-cudagraphs")'),
        "packed-frozen": "'packed'",
        "packed-static": "Execution(dynamic=False)",
        "packed-max-autotune": 'Execution(compile_mode="max-autotune")',
        "packed-no-cudagraphs": 'Execution(compile_mode="max-autotune-no-cudagraphs")',
        "nested": "'packed'",
        "nested-eager": "'packed-eager'",
        "tensorrt": "'packed'",
        "onnxruntime": "'packed'",
        "openvino": "'packed'",
    }
)
"""Presets of earlier versions, and the Python to write instead."""


def resolve_execution(execution: Execution | str) -> Execution:
    """The `Execution` a caller means by a record or by a preset's name.

    Raises:
        ExecutionError: neither of the two types, or an unknown name. The message lists the presets, or says
            what to write instead of one of an earlier version.
    """
    if isinstance(execution, Execution):
        return execution
    if isinstance(execution, str) and execution in PRESETS:
        return PRESETS[execution]
    if isinstance(execution, str) and execution in REPLACED:
        raise ExecutionError(
            f"execution={execution!r} is no preset any more. Write execution={REPLACED[execution]}."
        )
    raise ExecutionError(
        f"execution={execution!r} is no Execution and no preset. Presets: {', '.join(PRESETS)}."
    )
