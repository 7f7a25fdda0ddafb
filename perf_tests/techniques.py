"""The techniques that users hear of, each a row of one table: its worth here, and when to use it.

All run on the same model and pairs and are compared with plain `sdpa-sorted` in the device's own precision. A
technique that loses keeps its row as long as the library has it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest
import torch

from perf_tests import workloads
from perf_tests.workloads import Workload
from xenc import PRESETS, Execution, fastest_dtype
from xenc.models.precision import has_int8_instructions

BATCH_SIZE = 16

ROUNDS = 7


@dataclass(frozen=True, kw_only=True)
class Technique:
    """One row.

    Attributes:
        name: in the table.
        chapter: what it is a choice of.
        when: when to use it, in a few words.
        execution: how pairs are scored.
        batch_size: rows of padded and bucketed batches.
        dtype: what the model computes in; None for the device's usual one.
        not_everywhere: a device, PyTorch or absent packages may refuse it; the row then says why.
    """

    name: str
    chapter: str
    when: str
    execution: Execution
    batch_size: int = BATCH_SIZE
    dtype: torch.dtype | None = None
    not_everywhere: bool = False


def _preset(preset: str, chapter: str, when: str, suffix: str = "", **changes: Any) -> Technique:
    execution = PRESETS[preset]
    return Technique(name=f"{preset}{suffix}", chapter=chapter, when=when, execution=execution, **changes)


def _fields(name: str, chapter: str, when: str, **fields: Any) -> Technique:
    """A row of an execution without a name, by its fields."""
    return Technique(name=name, chapter=chapter, when=when, execution=Execution(**fields))


def _batches(preset: str, size: int, when: str) -> Technique:
    return _preset(preset, "batch size", when, f", batch {size}", batch_size=size)


_bucketed = partial(_fields, layout="bucketed")

_TUNED = "max-autotune-no-cudagraphs"

TECHNIQUES = (
    _preset("packed", "layout", "the default: hardly any padding, one graph"),
    _preset("packed-eager", "layout", "a model used once or changed often: nothing to compile"),
    _preset("packed-deterministic", "layout", "scores must be batch-invariant (bitwise)"),
    _fields(
        "packed, a graph per budget", "layout",
        "a long-lived process: minutes of warm-up, then a little faster", dynamic=False,
    ),
    _preset("bucketed", "layout", "architectures that cannot be packed"),
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
    _bucketed("bucketed, a graph per bucket", "graphs", "hardly: compiled one by one", dynamic=False),
    _bucketed(
        "bucketed, dynamic=None", "graphs",
        "hardly: the first shape's graph may be compiled for nothing", dynamic=None,
    ),
    _fields(
        "packed, launched one by one", "compile mode", "hardly: without CUDA graphs",
        compile_mode="default",
    ),
    _fields(
        "packed, max-autotune", "compile mode", "a GPU and a long-lived process", compile_mode="max-autotune"
    ),
    _fields(
        f"packed, {_TUNED}", "compile mode", "as packed, max-autotune, with less memory", compile_mode=_TUNED
    ),
    _bucketed(
        "bucketed, launched one by one", "compile mode", "as packed, launched one by one",
        compile_mode="default",
    ),
    _preset("compiled-sdpa-sorted", "compile mode", "as packed, max-autotune, for the same"),
    _bucketed(
        f"bucketed, {_TUNED}", "compile mode", f"as packed, {_TUNED}, for the same", compile_mode=_TUNED
    ),
    _batches("sdpa-sorted", 1, "no padding and nothing to wait for; short pairs leave cores idle"),
    _batches("sdpa-sorted", 32, "a GPU"),
    _batches("bucketed", 1, "one pair at a time"),
    _batches("bucketed", 32, "a GPU"),
    _preset(
        "packed", "precision", "a device with bfloat16 instructions", ", bfloat16", dtype=torch.bfloat16
    ),
    _preset(
        "packed", "precision", "a GPU without bfloat16; mind overflow", ", float16", dtype=torch.float16
    ),
    _preset(
        "packed-int8", "precision", "a device with int8 instructions, and long texts", not_everywhere=True
    ),
    _preset(
        "packed-float8", "precision", "Hopper and later", ", bfloat16",
        dtype=torch.bfloat16, not_everywhere=True,
    ),
)  # fmt: skip

SHORT = ("packed", "packed-eager", "sdpa-sorted, batch 1", "sdpa-sorted, batch 32")
"""The rows that `make bench` has time for on two cores."""


def why_not(technique: Technique, device: str) -> str | None:
    """Why a technique cannot be measured on a device; None if it can."""
    launches = technique.execution.compile_mode == "default"
    return "only CUDA has CUDA graphs to leave out" if launches and device == "cpu" else None


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
    if device == "cpu" and technique.name not in SHORT:
        yield "slow"
    here = device == "cuda" or technique.execution.quantize != "float8"
    if technique.chapter != "precision" or not here:
        yield "technique"
