"""ONNX Runtime on a processor: float32, and int8 with activations scaled as they come.

Its own optimiser joins attention, normalisation and activation into one operator each. It recognises
attention only in graphs that the older exporter traced from eager attention.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Final

import numpy as np
import torch

from perf_tests.peers.exported import Classifier, kept
from perf_tests.peers.padded import Arrays, Padded, Session
from perf_tests.peers.peer import require
from xenc.models.precision import has_int8_instructions

_FILE: Final = "model.onnx"


def onnxruntime(checkpoint: Path, threads: int, batch_size: int, *, int8: bool = False) -> Padded:
    """The peer, loaded; in int8 its weights are quantized by column. Raises Absent without its packages."""
    require("onnx", "onnxruntime")
    file = _quantised(checkpoint) if int8 else _exported(checkpoint)
    return Padded(checkpoint, _session(file, threads), batch_size)


def _session(file: Path, threads: int) -> Session:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def run(arrays: Arrays) -> np.ndarray:
        logits: np.ndarray = session.run(None, dict(arrays))[0]
        return logits

    return run


def _exported(checkpoint: Path) -> Path:
    def save(folder: Path) -> None:
        from onnxruntime.transformers.optimizer import optimize_model

        classifier = Classifier(checkpoint, "eager")
        folder.mkdir(parents=True)
        traced = folder / "traced.onnx"
        example = classifier.example()
        axes = {name: {0: "batch", 1: "length"} for name in example}
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is a newer exporter
            torch.onnx.export(
                classifier, tuple(example.values()), traced, dynamo=False, opset_version=17,
                input_names=list(example), output_names=["logits"], dynamic_axes=axes,
            )  # fmt: skip
        config = classifier.model.config
        optimize_model(
            str(traced), model_type="bert", num_heads=config.num_attention_heads,
            hidden_size=config.hidden_size, opt_level=0,
        ).save_model_to_file(str(folder / _FILE))  # fmt: skip
        traced.unlink()

    return kept("onnx", checkpoint, Path(__file__), ("onnx", "onnxruntime"), save) / _FILE


def _quantised(checkpoint: Path) -> Path:
    def save(folder: Path) -> None:
        import onnx
        from onnxruntime.quantization import QuantType, quantize_dynamic

        folder.mkdir(parents=True)
        quantize_dynamic(
            onnx.load(_exported(checkpoint)), folder / _FILE, weight_type=QuantType.QInt8, per_channel=True,
            op_types_to_quantize=["MatMul", "Attention"], reduce_range=sums_overflow,
            # of tensors between operators of its own, whose type ONNX cannot infer
            extra_options={"DefaultTensorType": onnx.TensorProto.FLOAT},
        )  # fmt: skip

    # without VNNI or AMX, products of uint8 and int8 are summed in sixteen bits: weights get seven then
    sums_overflow = not has_int8_instructions("cpu")
    libraries = ("onnx", "onnxruntime")
    return kept("onnx-int8", checkpoint, Path(__file__), libraries, save, sums_overflow) / _FILE
