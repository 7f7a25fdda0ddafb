"""A model -> an ONNX file, made once and kept in a folder.

The file's name is a fingerprint of all that it was made from, so that another model, another weight, another
version of a library or of this room is another file. It stands in the folder whole or not at all.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..errors import ModelError, first_line
from ..forward import classify
from .runtime import INPUTS, OUTPUT

logger = logging.getLogger(__name__)

_FILE: Final = "model.onnx"
"""Weights stand beside it, since a file of this format holds 2 GB at most."""

_SUMS: Final = "sha256.json"

_LIBRARIES: Final = ("torch", "transformers", "onnx", "onnxscript")

Forward = Callable[..., Tensor]
"""(model, ids, mask, token types) -> logits [B, C]; see `forward.classify`."""

_one_at_a_time = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Exported:
    """An ONNX file and what it was made from.

    Attributes:
        file: the graph; its weights stand in the same folder.
        fingerprint: of the model, see `fingerprint`.
        temporary: the folder, if it could not be kept: it goes when this object does.
    """

    file: Path
    fingerprint: str
    temporary: tempfile.TemporaryDirectory[str] | None = None


def default_folder() -> Path:
    """Where exported models are kept if no folder is given: `xenc/onnx` in the user's cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "xenc" / "onnx"


def exported(
    model: PreTrainedModel, *, token_types: bool, folder: Path | None, function: Forward = classify
) -> Exported:
    """The model as ONNX, any batch by any length: what is in the folder, or made now.

    The graph has int64 inputs [B, L] and float32 logits [B, C].

    Args:
        model: on its device, in the attention implementation that shall be exported.
        token_types: whether the graph shall take token_type_ids.
        folder: where to look and to keep it; None for `default_folder`.
        function: the forward pass that becomes the graph, called as `forward.classify` is.

    Raises:
        ModelError: the model cannot be exported.
    """
    made_from = fingerprint(model, token_types=token_types, function=function)
    folder = folder or default_folder()
    place = folder / f"onnx-{made_from}"
    with _one_at_a_time:
        try:
            fault = _fault(place)
            if fault is not None:
                if place.exists():
                    logger.warning("%s cannot be used and will be exported anew: %s", place, fault)
                _make(_Classifier(model, function), place, token_types=token_types)
            return Exported(file=place / _FILE, fingerprint=made_from)
        except OSError as error:
            logger.warning("the exported model cannot be kept in %s: %s", folder, str(error))
        temporary = tempfile.TemporaryDirectory(prefix="xenc-onnx-")
        place = Path(temporary.name)
        _export(_Classifier(model, function), place / _FILE, token_types=token_types)
        return Exported(file=place / _FILE, fingerprint=made_from, temporary=temporary)


def fingerprint(model: PreTrainedModel, *, token_types: bool, function: Forward = classify) -> str:
    """A hash of all that an exported graph depends on: weights, settings, structure, versions, code."""
    config = json.loads(model.config.to_json_string())
    config.pop("_name_or_path", None)
    settings = {
        "config": config,
        "attention": model.config._attn_implementation,
        "dtype": str(model.dtype),
        "token types": token_types,
        "forward": function.__name__,
        "structure": repr(model),
        "versions": {name: version(name) for name in _LIBRARIES},
    }
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for file in (Path(__file__), Path(inspect.getfile(function)), *_sources(model)):
        digest.update(file.read_bytes())
    for name, tensor in _tensors(model):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:32]


def _tensors(model: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def _sources(model: PreTrainedModel) -> list[Path]:
    """Files of the model's modules that no library's version stands for."""
    names = {type(module).__module__ for module in model.modules()}
    own = {name for name in names if name.partition(".")[0] not in ("torch", "transformers")}
    files = {getattr(sys.modules.get(name), "__file__", None) for name in own}
    return sorted(Path(file) for file in files if file is not None)


def _fault(place: Path) -> str | None:
    """Why what stands there is not what was written there; None if it is."""
    try:
        sums = json.loads((place / _SUMS).read_text())
        return None if sums == _sums(place) else "it is not what was written"
    except (ValueError, OSError) as error:
        return str(error)


def _sums(place: Path) -> dict[str, str]:
    sums = {}
    for path in sorted(place.iterdir()):
        if path.name != _SUMS:
            with path.open("rb") as file:
                sums[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return sums


def _make(classifier: _Classifier, place: Path, *, token_types: bool) -> None:
    """Export beside the place, then put everything there in one step."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix="partial-", dir=place.parent, ignore_cleanup_errors=True
    ) as directory:
        made = Path(directory) / "made"
        made.mkdir()
        _export(classifier, made / _FILE, token_types=token_types)
        (made / _SUMS).write_text(json.dumps(_sums(made)))
        if _fault(place) is None:  # another process was quicker
            return
        with suppress(FileNotFoundError):  # what is damaged goes with the directory
            os.replace(place, Path(directory) / "damaged")
        try:
            os.replace(made, place)
        except OSError:
            if _fault(place) is not None:
                raise


class _Classifier(torch.nn.Module):
    """A forward pass as a module, for that is what can be exported."""

    def __init__(self, model: PreTrainedModel, function: Forward) -> None:
        super().__init__()
        self.model, self._function = model, function

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        return self._function(self.model, input_ids, attention_mask, token_type_ids).float()


def _export(classifier: _Classifier, file: Path, *, token_types: bool) -> None:
    # two sizes that differ, and neither 0 nor 1: a graph traced with these would hold for these only
    shape, model = (2, 8), classifier.model
    arguments = {  # a tensor each: two inputs that are one when traced stay one
        name: torch.zeros(shape, dtype=torch.int64, device=model.device)
        for name in (INPUTS if token_types else INPUTS[:2])
    }
    arguments["attention_mask"][:, :5] = 1  # a mask of ones alone might be left out
    options: dict[str, Any] = {
        "dynamic_shapes": {name: {0: "batch", 1: "length"} for name in arguments},
        "output_names": [OUTPUT],
        "external_data": True,
        "verbose": False,
    }
    try:
        with torch.inference_mode(False), torch.no_grad():
            torch.onnx.export(classifier.eval(), (), file, kwargs=arguments, dynamo=True, **options)
    except OSError:
        raise
    except Exception as error:
        raise ModelError(
            f"{type(model).__name__} cannot be exported to ONNX ({_first_cause(error)}). Use runtime='torch'."
        ) from error


def _first_cause(error: BaseException) -> str:
    """In one line, what made it fail."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {first_line(error)}"
