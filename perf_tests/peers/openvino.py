"""OpenVINO on a processor: float32, bfloat16, and int8 as NNCF calibrates it.

The model is converted from PyTorch and not from ONNX, so that its attention stays one operator.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from perf_tests.peers.exported import Classifier, kept
from perf_tests.peers.padded import Arrays, Padded, Session
from perf_tests.peers.peer import Absent, Pair, require

_HINTS: Final = {torch.float32: ("f32", "FP32"), torch.bfloat16: ("bf16", "BF16")}
"""By dtype: the precision to ask for, and the capability it needs."""

_FILE: Final = "model.xml"


def openvino(
    checkpoint: Path, dtype: torch.dtype, threads: int, batch_size: int, calibrate_on: Sequence[Pair] = ()
) -> Padded:
    """The peer, loaded; in int8 if there are pairs to calibrate it on.

    Raises:
        Absent: a package is missing, or the instructions for dtype.
    """
    require("openvino", *(["nncf"] if calibrate_on else []))
    import openvino

    core = openvino.Core()
    if _HINTS[dtype][1] not in core.get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise Absent(f"OpenVINO has no instructions for {_HINTS[dtype][1]} here")
    file = _quantised(checkpoint, calibrate_on) if calibrate_on else _converted(checkpoint)
    return Padded(checkpoint, _session(core, file, dtype, threads), batch_size)


def _session(core: Any, file: Path, dtype: torch.dtype, threads: int) -> Session:
    configuration = {
        "INFERENCE_PRECISION_HINT": _HINTS[dtype][0],
        "INFERENCE_NUM_THREADS": threads,
        "PERFORMANCE_HINT": "LATENCY",  # one batch at a time, which all threads share
        "ENABLE_CPU_PINNING": False,  # two models would be pinned to the same cores
    }
    request = core.compile_model(file, "CPU", configuration).create_infer_request()

    def run(arrays: Arrays) -> np.ndarray:
        logits: np.ndarray = request.infer(arrays, share_inputs=True)[0]
        return logits

    return run


def _converted(checkpoint: Path) -> Path:
    def save(folder: Path) -> None:
        import openvino

        classifier = Classifier(checkpoint, "sdpa")
        with torch.no_grad():
            model = openvino.convert_model(classifier, example_input=classifier.example())
        folder.mkdir(parents=True)
        openvino.save_model(model, folder / _FILE, compress_to_fp16=False)

    return kept("openvino", checkpoint, Path(__file__), ("openvino",), save) / _FILE


def _quantised(checkpoint: Path, pairs: Sequence[Pair]) -> Path:
    def save(folder: Path) -> None:
        import nncf
        import openvino

        one_by_one = Padded(checkpoint, lambda arrays: np.empty(0), batch_size=1)
        samples = [dict(arrays) for _, arrays in one_by_one.batches(pairs)]
        model = nncf.quantize(
            openvino.Core().read_model(_converted(checkpoint)), nncf.Dataset(samples),
            model_type=nncf.ModelType.TRANSFORMER, subset_size=len(samples),
        )  # fmt: skip
        folder.mkdir(parents=True)
        openvino.save_model(model, folder / _FILE, compress_to_fp16=False)

    libraries = ("openvino", "nncf")
    return kept("openvino-int8", checkpoint, Path(__file__), libraries, save, tuple(pairs)) / _FILE
