"""The techniques that users hear of, each a row of one table: what it is worth here, and when to use it.

All run on the same model and the same pairs, and are compared with plain `sdpa-sorted` in the device's own
precision. A technique that loses keeps its row as long as the library has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import pytest
import torch

from perf_tests import workloads
from perf_tests.workloads import Workload
from xenc import PRESETS, Execution, fastest_dtype
from xenc.models.precision import has_int8_instructions

BATCH_SIZE: Final = 16

ROUNDS: Final = 7


@dataclass(frozen=True, kw_only=True)
class Technique:
    """One row.

    Attributes:
        name: what the table calls it.
        chapter: what it is a choice of.
        when: when to use it, in a few words.
        execution: how pairs are scored.
        batch_size: rows of padded and bucketed batches.
        dtype: what the model computes in; None for the device's usual one.
        slow: whether its warm-up takes minutes on two cores.
        not_everywhere: whether a device, PyTorch or absent packages may refuse it; the row then says why.
    """

    name: str
    chapter: str
    when: str
    execution: Execution
    batch_size: int = BATCH_SIZE
    dtype: torch.dtype | None = None
    slow: bool = False
    not_everywhere: bool = False


def _preset(name: str, chapter: str, when: str, **changes: Any) -> Technique:
    return Technique(name=name, chapter=chapter, when=when, execution=PRESETS[name], **changes)


def _fields(name: str, chapter: str, when: str, *, slow: bool = False, **fields: Any) -> Technique:
    """A row of an execution without a name, by its fields."""
    return Technique(name=name, chapter=chapter, when=when, execution=Execution(**fields), slow=slow)


_bucketed = partial(_fields, layout="bucketed")


_LAYOUTS: Final = (
    _preset("packed", "layout", "the default: no padding worth naming, one graph"),
    _preset("packed-eager", "layout", "a model used once or changed often: nothing to compile"),
    _preset("packed-deterministic", "layout", "scores must be the same to the last bit in any company"),
    _fields(
        "packed, a graph per budget", "layout",
        "a long-lived process: minutes of warm-up, then a little faster", slow=True, dynamic=False,
    ),
    _preset("bucketed", "layout", "architectures that cannot be packed"),
)  # fmt: skip

_SHAPES: Final = (
    _bucketed(
        "bucketed, multiples of 32", "buckets",
        "half the shapes to record as CUDA graphs, for a little padding", buckets=32,
    ),
    _bucketed(
        "bucketed, powers of two", "buckets",
        "fewest shapes; lengths far apart pay up to twice", buckets="powers-of-two",
    ),
    _bucketed(
        "bucketed, max_length alone", "buckets",
        "documents that all fill the model; else it pays for padding", buckets="max-length",
    ),
    _bucketed(
        "bucketed, a graph per bucket", "graphs",
        "hardly: compiled one by one", slow=True, dynamic=False,
    ),
    _bucketed(
        "bucketed, dynamic=None", "graphs",
        "hardly: the first shape's graph may be compiled for nothing", dynamic=None,
    ),
)  # fmt: skip

_TUNED: Final = "max-autotune-no-cudagraphs"

_MODES: Final = (
    _preset("packed-cudagraphs", "compile mode", "a GPU that waits for launches: small requests"),
    _fields(
        "packed, max-autotune", "compile mode",
        "a GPU and a long-lived process", slow=True, compile_mode="max-autotune",
    ),
    _fields(
        f"packed, {_TUNED}", "compile mode",
        "as packed, max-autotune, with less memory", slow=True, compile_mode=_TUNED,
    ),
    _bucketed(
        "bucketed, CUDA graphs", "compile mode",
        "as packed-cudagraphs, for what cannot be packed", compile_mode="reduce-overhead",
    ),
    _preset("compiled-sdpa-sorted", "compile mode", "as packed, max-autotune, for the same", slow=True),
    _bucketed(
        f"bucketed, {_TUNED}", "compile mode",
        f"as packed, {_TUNED}, for the same", slow=True, compile_mode=_TUNED,
    ),
)  # fmt: skip


def _batches(preset: str, size: int, when: str) -> Technique:
    return replace(_preset(preset, "batch size", when, batch_size=size), name=f"{preset}, batch {size}")


_BATCH_SIZES: Final = (
    _batches("sdpa-sorted", 1, "no padding and nothing to wait for; short pairs leave cores idle"),
    _batches("sdpa-sorted", 32, "a GPU"),
    _batches("bucketed", 1, "one pair at a time"),
    _batches("bucketed", 32, "a GPU"),
)

_PRECISIONS: Final = (
    replace(
        _preset(
            "packed", "precision", "a device with bfloat16 instructions", dtype=torch.bfloat16, slow=True
        ),
        name="packed, bfloat16",
    ),
    replace(
        _preset(
            "packed", "precision", "a GPU without bfloat16; mind overflow", dtype=torch.float16, slow=True
        ),
        name="packed, float16",
    ),
    _preset(
        "packed-int8",
        "precision",
        "a device with int8 instructions, and long texts",
        slow=True,
        not_everywhere=True,
    ),
    replace(
        _preset("packed-float8", "precision", "Hopper and later", dtype=torch.bfloat16, not_everywhere=True),
        name="packed-float8, bfloat16",
    ),
)

TECHNIQUES: Final = (*_LAYOUTS, *_SHAPES, *_MODES, *_BATCH_SIZES, *_PRECISIONS)


SHORT: Final = (
    "packed", "packed-eager", "bucketed-powers-of-two", "sdpa-sorted, batch 1", "sdpa-sorted, batch 32",
)  # fmt: skip
"""What `make bench` has time for on two cores."""


def why_not(technique: Technique, device: str) -> str | None:
    """Why a technique has nothing to show on a device; None if it has."""
    records = technique.execution.compile_mode == "reduce-overhead"
    return "CUDA graphs are for CUDA" if records and device == "cpu" else None


def lacking(technique: Technique, device: str) -> str | None:
    """Why a technique is slow on a device though it answers rightly; None if it need not be."""
    if device != "cpu":
        return None
    if technique.execution.quantize == "int8" and not has_int8_instructions(device):
        return "this processor has no int8 instructions"
    if technique.dtype == torch.bfloat16 != fastest_dtype(device):
        return "this processor has no bfloat16 instructions"
    if technique.dtype == torch.float16 and not torch.cpu._is_amx_fp16_supported():
        return "this processor has no float16 instructions"
    return None


def workload(device: str) -> Workload:
    """Short documents of many lengths; the last batch is not full."""
    return workloads.brief(pairs=60 if device == "cpu" else 1020, batch_size=BATCH_SIZE)


def techniques() -> list[Any]:
    """Pytest parameters: each technique on each device."""
    return [
        pytest.param(
            technique, device, id=f"{marker}-{re.sub(', | ', '-', technique.name)}",
            marks=[getattr(pytest.mark, mark) for mark in (marker, *_marks(technique, device))],
        )
        for marker, device in (("cpu", "cpu"), ("gpu", "cuda"))
        for technique in TECHNIQUES
    ]  # fmt: skip


def _marks(technique: Technique, device: str) -> Iterator[str]:
    if technique.slow or (device == "cpu" and technique.name not in SHORT):
        yield "slow"
    here = device == "cuda" or technique.execution.quantize != "float8"
    if technique.chapter != "precision" or not here:
        yield "technique"
