"""The rows: what one would use instead, each in every batch size, and xenc."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import torch

from perf_tests.cpu.setting import Setting
from perf_tests.peers import Absent, SentenceTransformers
from perf_tests.peers.onnxruntime import onnxruntime
from perf_tests.peers.openvino import openvino
from perf_tests.peers.zentorch import zentorch
from perf_tests.workloads import Workload
from xenc import PRESETS, Execution
from xenc.models.precision import has_int8_instructions

ST: Final = "sentence-transformers"
OPENVINO: Final = "OpenVINO"
ONNXRUNTIME: Final = "ONNX Runtime"
ZENTORCH: Final = "zentorch"
XENC: Final = "xenc"

MakePeer = Callable[[Setting, Workload], Any]
"""A peer in the first batch size; its `at` gives it in another one. Raises `Absent`."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        group: the system.
        precision: "float32", "bfloat16", or "int8" with the dtype of the rest.
        preset: of xenc, where a table has several in one precision.
        dtype: of what is not quantized.
        int8: whether products are of int8.
        execution: how xenc scores; None for a peer.
        peer: makes a peer; None for xenc.
        per_workload: whether each workload has a peer of its own.
    """

    group: str
    precision: str
    dtype: torch.dtype
    int8: bool = False
    execution: Execution | None = None
    peer: MakePeer | None = None
    per_workload: bool = False
    preset: str = ""

    @property
    def name(self) -> str:
        return " ".join(filter(None, (self.group, self.preset, self.precision)))


DTYPES: Final = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def table_rows() -> tuple[Row, ...]:
    """All rows, in the order of the table."""
    float32 = ("float32",)
    return (
        *_rows(ST, _sentence_transformers),
        *_rows(OPENVINO, _openvino), *_rows(OPENVINO, _openvino, int8=True),
        *_rows(ONNXRUNTIME, _onnxruntime, float32), *_rows(ONNXRUNTIME, _onnxruntime, float32, int8=True),
        *_rows(XENC), *_rows(XENC, int8=True), *_rows(ZENTORCH, _zentorch),
    )  # fmt: skip


def _rows(
    group: str, make: Any = None, precisions: Iterable[str] = tuple(DTYPES), int8: bool = False
) -> Iterator[Row]:
    """Rows of a peer, or of xenc if none makes one, in some precisions."""
    for precision in precisions:
        dtype = DTYPES[precision]
        yield Row(
            group=group, precision=f"int8 + {precision}" if int8 else precision, dtype=dtype, int8=int8,
            execution=PRESETS["packed-int8" if int8 else "packed"] if make is None else None,
            peer=None if make is None else partial(make, dtype=dtype, int8=int8),
            per_workload=int8 and group == OPENVINO,
        )  # fmt: skip


def _sentence_transformers(setting: Setting, _: Workload, dtype: torch.dtype, int8: bool) -> Any:
    check_native(setting, dtype)
    return SentenceTransformers(setting.checkpoint(), "cpu", dtype, setting.batch_sizes[0])


def _openvino(setting: Setting, workload: Workload, dtype: torch.dtype, int8: bool) -> Any:
    calibrate_on = setting.calibration_of(workload) if int8 else ()
    return openvino(setting.one_model(), dtype, setting.threads, setting.batch_sizes[0], calibrate_on)


def _onnxruntime(setting: Setting, _: Workload, dtype: torch.dtype, int8: bool) -> Any:
    return onnxruntime(setting.one_model(), setting.threads, setting.batch_sizes[0], int8=int8)


def _zentorch(setting: Setting, _: Workload, dtype: torch.dtype, int8: bool) -> Any:
    check_native(setting, dtype)
    return zentorch(setting.one_model(), dtype, setting.batch_sizes[0])


CASE: Final = (
    ST, OPENVINO, ONNXRUNTIME, "sdpa-sorted", "bucketed", "packed",
    *(["packed-int8"] if has_int8_instructions("cpu") else []),
)  # fmt: skip
"""Names of the rows of `make bench`: peers, and presets of xenc."""


def case_row(name: str, fastest: torch.dtype) -> Row:
    """A row of `make bench`, in the processor's fastest dtype; ONNX Runtime has float32 alone."""
    precision = str(fastest).removeprefix("torch.")
    if name in PRESETS:
        int8 = PRESETS[name].quantize == "int8"
        return Row(
            group=XENC, precision=f"int8 + {precision}" if int8 else precision, dtype=fastest, int8=int8,
            execution=PRESETS[name], preset=name,
        )  # fmt: skip
    wanted = f"{name} {'float32' if name == ONNXRUNTIME else precision}"
    return next(row for row in table_rows() if row.name == wanted)


def check_native(setting: Setting, dtype: torch.dtype) -> None:
    """Raise Absent for a dtype that the processor would emulate."""
    if dtype not in (torch.float32, setting.fastest):
        raise Absent(f"this processor has no instructions for {str(dtype).removeprefix('torch.')}")
