"""What one would use instead of xenc: the same checkpoint and the same truncation in other systems.

Each peer is configured as its documentation advises for texts of many lengths. What it has to prepare once,
compiling or exporting, is done when it is made, so that nothing of it is left for the timed region.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import sentence_transformers
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

Pair = tuple[str, str]
Arrays = dict[str, np.ndarray]

MAX_LENGTH: Final = 512

STEP: Final = 16
"""Compiled, sentence-transformers pads to multiples of this."""


class Peer(Protocol):
    """A system ready to be timed."""

    def logits(self, pairs: Sequence[Pair]) -> np.ndarray:
        """[N] float32 logits, in the caller's order."""
        ...


Factory = Callable[[Path, str, torch.dtype, int], Peer]
"""(checkpoint, device, dtype, batch_size) -> the peer."""

_MODULES: Final = {
    "sentence-transformers": (),
    "sentence-transformers-compiled": (),
    "onnxruntime": ("onnx", "onnxscript", "onnxruntime"),
    "openvino": ("onnx", "onnxscript", "openvino"),
}


def missing(name: str) -> str | None:
    """Why a peer cannot be made, and the remedy; None if all its packages are there."""
    absent = [module for module in _MODULES[name] if find_spec(module) is None]
    return "not installed: pip install 'xenc[peers]'" if absent else None


def unsupported(name: str, device: str, dtype: torch.dtype) -> str | None:
    """Why an installed peer cannot run on a device in a dtype; None if it can."""
    if name not in ("onnxruntime", "openvino"):
        return None
    if device != "cpu":
        return f"{name} is measured on the CPU only"
    if dtype == torch.float32:
        return None
    if name == "openvino" and dtype == torch.bfloat16:
        from openvino import Core

        capable = "BF16" in Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
        return None if capable else "this CPU has no bfloat16: OpenVINO would compute in float32"
    return f"{name} on a CPU is measured in float32, not {dtype}"


def make(name: str, checkpoint: Path, device: str, dtype: torch.dtype, batch_size: int) -> Peer:
    """A peer, warmed up.

    Raises:
        ValueError: its packages are missing, or it cannot run on this device in this dtype.
    """
    reason = missing(name) or unsupported(name, device, dtype)
    if reason is not None:
        raise ValueError(f"{name}: {reason}")
    return FACTORIES[name](checkpoint, device, dtype, batch_size)


class SentenceTransformers:
    """The stock CrossEncoder: sorts by characters, pads to the longest, SDPA attention."""

    def __init__(self, checkpoint: Path, device: str, dtype: torch.dtype, batch_size: int) -> None:
        self.model = sentence_transformers.CrossEncoder(
            str(checkpoint), device=device, max_length=MAX_LENGTH, model_kwargs={"dtype": dtype}
        )
        self.batch_size = batch_size

    def logits(self, pairs: Sequence[Pair]) -> np.ndarray:
        """[N] float32 logits, in the caller's order."""
        return self._predict(pairs)

    def _predict(self, pairs: Sequence[Pair], **options: Any) -> np.ndarray:
        scores: np.ndarray = self.model.predict(
            pairs,
            batch_size=self.batch_size,
            activation_fn=torch.nn.Identity(),
            show_progress_bar=False,
            **options,
        )
        return scores


class CompiledSentenceTransformers(SentenceTransformers):
    """The stock CrossEncoder, compiled as its documentation says; padded lengths are multiples of STEP."""

    def __init__(self, checkpoint: Path, device: str, dtype: torch.dtype, batch_size: int) -> None:
        super().__init__(checkpoint, device, dtype, batch_size)
        self.model.compile(dynamic=True)
        self._warm_up()

    def logits(self, pairs: Sequence[Pair]) -> np.ndarray:
        """[N] float32 logits, in the caller's order."""
        return self._at_most(MAX_LENGTH, pairs)

    def _warm_up(self) -> None:
        """Every padded length: full batches, one pair (a graph of its own), and as many pairs as tokens.

        The longest is first: traced with as many pairs as tokens, the two would be tied together.
        """
        for length in range(MAX_LENGTH, 0, -STEP):
            pair = ("a " * length, "a " * length)
            for rows in sorted({1, self.batch_size, min(self.batch_size, length)}, reverse=True):
                self._at_most(length, [pair] * rows)

    def _at_most(self, length: int, pairs: Sequence[Pair]) -> np.ndarray:
        return self._predict(
            pairs, processing_kwargs={"text": {"pad_to_multiple_of": STEP, "max_length": length}}
        )


class OnnxRuntime:
    """ONNX Runtime on the plain ONNX export."""

    def __init__(self, checkpoint: Path, device: str, dtype: torch.dtype, batch_size: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        self._session = onnxruntime.InferenceSession(
            export(checkpoint), options, providers=["CPUExecutionProvider"]
        )
        self._tokenizer, self._batch_size = AutoTokenizer.from_pretrained(checkpoint), batch_size

    def logits(self, pairs: Sequence[Pair]) -> np.ndarray:
        """[N] float32 logits, in the caller's order."""
        logits = np.empty(len(pairs), np.float32)
        for rows, arrays in batches(self._tokenizer, pairs, self._batch_size):
            logits[rows] = self._session.run(["logits"], arrays)[0][:, 0]
        return logits


class OpenVino:
    """OpenVINO on the same ONNX file."""

    def __init__(self, checkpoint: Path, device: str, dtype: torch.dtype, batch_size: int) -> None:
        import openvino

        # one request at a time: an asynchronous queue (THROUGHPUT) was no faster on two cores
        configuration = {
            "INFERENCE_PRECISION_HINT": "bf16" if dtype == torch.bfloat16 else "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        }
        model = openvino.Core().compile_model(export(checkpoint), "CPU", configuration)
        self._request = model.create_infer_request()
        self._tokenizer, self._batch_size = AutoTokenizer.from_pretrained(checkpoint), batch_size

    def logits(self, pairs: Sequence[Pair]) -> np.ndarray:
        """[N] float32 logits, in the caller's order."""
        logits = np.empty(len(pairs), np.float32)
        for rows, arrays in batches(self._tokenizer, pairs, self._batch_size):
            logits[rows] = self._request.infer(arrays)["logits"][:, 0]
        return logits


FACTORIES: Final[dict[str, Factory]] = {
    "sentence-transformers": SentenceTransformers,
    "sentence-transformers-compiled": CompiledSentenceTransformers,
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
}


def batches(tokenizer: Any, pairs: Sequence[Pair], size: int) -> Iterator[tuple[list[int], Arrays]]:
    """Rows of the pairs and their arrays [B, L]: longest first by token count, padded to the longest."""
    queries, documents = [query for query, _ in pairs], [document for _, document in pairs]
    tokens = tokenizer(queries, documents, truncation="longest_first", max_length=MAX_LENGTH)
    counts = [len(ids) for ids in tokens["input_ids"]]
    order = sorted(range(len(pairs)), key=lambda row: -counts[row])
    for start in range(0, len(order), size):
        rows = order[start : start + size]
        batch = {name: [values[row] for row in rows] for name, values in tokens.items()}
        yield rows, dict(tokenizer.pad(batch, return_tensors="np"))


def export(checkpoint: Path) -> Path:
    """The checkpoint as ONNX in float32, any batch by any length; made once, next to the checkpoint."""
    version = hashlib.sha256(f"{torch.__version__} {Path(__file__).read_text()}".encode()).hexdigest()[:8]
    exported = checkpoint.with_name(f"{checkpoint.name}-{version}.onnx")
    if not exported.exists():
        model = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=torch.float32).eval()
        texts = [["a", "b c"], ["a b c d", "e"]]
        sample = AutoTokenizer.from_pretrained(checkpoint)(*texts, padding=True, return_tensors="pt")
        partial = exported.with_name(f"{exported.name}.{os.getpid()}")
        torch.onnx.export(
            model,
            (),
            partial,
            kwargs=dict(sample),
            dynamic_shapes={name: {0: "batch", 1: "length"} for name in sample},
            output_names=["logits"],
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        partial.rename(exported)
    return exported
