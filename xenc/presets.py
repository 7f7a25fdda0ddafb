"""Executions with a name."""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from .errors import ExecutionError
from .execution import Execution

PRESETS: Final = MappingProxyType(
    {
        "eager-unsorted": Execution(layout="padded", attention="eager", sort=False, compile_mode=None),
        "eager-sorted": Execution(layout="padded", attention="eager", compile_mode=None),
        "sdpa-unsorted": Execution(layout="padded", sort=False, compile_mode=None),
        "sdpa-sorted": Execution(layout="padded", compile_mode=None),
        "compiled-eager-sorted": Execution(layout="bucketed", attention="eager", compile_mode="max-autotune"),
        "compiled-sdpa-sorted": Execution(layout="bucketed", compile_mode="max-autotune"),
        "bucketed": Execution(layout="bucketed"),
        "packed": Execution(),
        "packed-eager": Execution(compile_mode=None),
        "packed-deterministic": Execution(deterministic=True),
        "packed-shared-prefix": Execution(share_prefix=True),
        "packed-int8": Execution(quantize="int8"),
        "packed-float8": Execution(quantize="float8"),
    }
)
"""The first six: what everybody does (eager or SDPA attention, sorted or not) and its compiled counterpart.
"bucketed" is "compiled-sdpa-sorted" without the minutes of autotuning. "packed" is the default; the presets
after it change one field of it."""

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
        "bucketed-no-cudagraphs": 'Execution(layout="bucketed", compile_mode="max-autotune-no-cudagraphs")',
        "packed-static": "Execution(dynamic=False)",
        "packed-max-autotune": 'Execution(compile_mode="max-autotune")',
        "packed-no-cudagraphs": 'Execution(compile_mode="max-autotune-no-cudagraphs")',
        "nested-eager": "'packed-eager'",
        **dict.fromkeys(
            ("packed-cudagraphs", "packed-frozen", "nested", "tensorrt", "onnxruntime", "openvino"),
            "'packed'",
        ),
    }
)
"""Presets of earlier versions, and what to write instead."""


def resolve_execution(execution: Execution | str) -> Execution:
    """The `Execution` itself, or that of a preset's name.

    Raises:
        ExecutionError: another type or an unknown name. The message lists the presets, or the replacement
            for a preset of an earlier version.
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
