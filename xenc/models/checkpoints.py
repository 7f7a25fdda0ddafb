"""Loads checkpoints with flash-attn's weight names into transformers' own XLM-RoBERTa.

jinaai/jina-reranker-v2-base-multilingual and its fine-tunes say model_type "xlm-roberta" and point to remote
code (jinaai/xlm-roberta-flash-implementation) written after flash_attn/models/bert.py. Only the names differ
from XLM-RoBERTa's. Without that code, transformers initialises the weights it does not find at random, and
only mentions it in its load report. The layout, stored name first:

    roberta.emb_ln                           roberta.embeddings.LayerNorm
    roberta.encoder.layers.N.mixer.Wqkv      roberta.encoder.layer.N.attention.self.query, key, value
                        .... mixer.out_proj                     .... attention.output.dense
                        .... norm1                              .... attention.output.LayerNorm
                        .... mlp.fc1                            .... intermediate.dense
                        .... mlp.fc2                            .... output.dense
                        .... norm2                              .... output.LayerNorm
    roberta.embeddings.*, classifier.*       the same

Wqkv is query, key and value on top of each other, [3 x heads x head size, hidden]. Norms follow their
residual sum, with layer_norm_eps. gelu is exact; gelu_new, gelu_fast and gelu_pytorch_tanh are the tanh
formula; other activations are not allowed. Positions start at pad_token_id + 1, token types are all 0, and
the head is tanh between two linear layers, over the first token. Defaults of absent config fields agree.
Sources: the model code and the converter of that repository (which goes the other way), flash-attn's MHA and
Block, vLLM's jina mapper, and transformers' conversion of jina_embeddings_v3.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_utils import load_state_dict
from transformers.utils.hub import cached_file

from ..errors import ModelError

_FAMILIES: Final = frozenset({"xlm-roberta", "roberta"})

_WEIGHT_FILES: Final = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
"""In the order transformers looks for them."""

_FLASH: Final = re.compile(r"\.mixer\.|(^|\.)emb_ln\.")
_LAYER: Final = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)$")
_ADAPTER: Final = re.compile(r"\.parametrizations\.|lora_", re.IGNORECASE)
_UNREAD: Final = re.compile(r"^roberta\.pooler\.|\.(position_ids|token_type_ids)$")
"""Stored names that logits do not depend on."""

_STORED_PART: Final[Mapping[str, tuple[str, int | None]]] = {
    "attention.self.query": ("mixer.Wqkv", 0),
    "attention.self.key": ("mixer.Wqkv", 1),
    "attention.self.value": ("mixer.Wqkv", 2),
    "attention.output.dense": ("mixer.out_proj", None),
    "attention.output.LayerNorm": ("norm1", None),
    "intermediate.dense": ("mlp.fc1", None),
    "output.dense": ("mlp.fc2", None),
    "output.LayerNorm": ("norm2", None),
}
"""Part of a native layer -> part of a stored layer, and which third of it if it is Wqkv."""

_TOKEN_TYPES: Final = "roberta.embeddings.token_type_embeddings"

_ALLOWED: Final[Mapping[str, tuple[str | None, ...]]] = {
    "position_embedding_type": (None, "absolute"),
    "hidden_act": ("gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"),
}
"""Settings that XLM-RoBERTa computes as the flash implementation does."""

_ELSEWHERE: Final = (
    "Choose another checkpoint, or run its own code with sentence-transformers and trust_remote_code=True."
)


def restore_flash_weights(model: PreTrainedModel, name_or_path: str, **download: Any) -> bool:
    """Fill `model` from the checkpoint it was loaded from, if that has flash-attn's names.

    dtype, device and training mode of the model stay. Nothing is downloaded, and of an ordinary checkpoint
    only the weights' names are read.

    Args:
        model: a sequence classifier of transformers' own.
        name_or_path: a directory, or the model's name on the hub.
        **download: how transformers found the weights: `revision`, `cache_dir`, `subfolder`, ...

    Returns:
        Whether the checkpoint has flash-attn's names, and the model now has its weights.

    Raises:
        ModelError: a weight is missing, of another shape or unknown to XLM-RoBERTa; a config that it cannot
            follow; weights that are not found again. The model is then unchanged.
    """
    if model.config.model_type not in _FAMILIES or any(map(_FLASH.search, model.state_dict())):
        return False  # another architecture, or remote code
    file = _weight_file(str(name_or_path), model.config, download)
    names = () if file is None else _tensors(file, "meta").keys()
    if file is None or not any(map(_FLASH.search, names)):
        return False
    if adapter := next((key for key in names if _ADAPTER.search(key)), None):
        raise ModelError(f"{name_or_path}: {adapter} is a LoRA adapter's: merge it into the weights first.")
    for field, allowed in _ALLOWED.items():
        value = getattr(model.config, field, None)
        if value not in allowed:
            raise ModelError(f"{name_or_path}: {field}={value!r} is none of {allowed}. {_ELSEWHERE}")
    if any(parameter.is_meta for parameter in model.parameters()):
        raise ModelError(f"{name_or_path}: its weights need converting, so load it without offloading.")
    weights = _native_weights(name_or_path, model, _tensors(file))
    _seat_token_types(model)
    model.load_state_dict(weights, strict=True)
    return True


def _weight_file(name: str, config: PretrainedConfig, download: Mapping[str, Any]) -> Path | None:
    options = {**download, "local_files_only": True, "force_download": False}
    for filename in _WEIGHT_FILES:
        found = cached_file(
            name, filename, **options,
            _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False,
        )  # fmt: skip
        if found is not None:
            return Path(found)
    if "XLMRobertaFlash" in str(getattr(config, "auto_map", None)):
        raise ModelError(
            f"{name}: its weights may need converting and are not found again: pass the cache_dir, revision "
            f"and subfolder it was loaded with, and load no variant."
        )
    return None


def _tensors(file: Path, map_location: str = "cpu") -> dict[str, Tensor]:
    """The weights of a file, or of all shards of an index."""
    shards = [file]
    if file.suffix == ".json":
        names = json.loads(file.read_text(encoding="utf-8"))["weight_map"].values()
        shards = [file.parent / name for name in sorted(set(names))]
    parts = (load_state_dict(shard, map_location=map_location) for shard in shards)
    return {name: tensor for part in parts for name, tensor in part.items()}


def _native_weights(name: str, model: PreTrainedModel, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A tensor of the model's shape for each of the model's own names."""
    native: dict[str, Tensor] = {}
    unused = {key for key in stored if not _UNREAD.search(key)}
    for own, present in model.state_dict().items():
        key, third = _source(own)
        unused.discard(key)
        shape = tuple(present.shape)
        if own == f"{_TOKEN_TYPES}.weight" and key not in stored:
            native[own] = torch.zeros(max(shape[0], 1), shape[1])  # absent token types add nothing
            continue
        if key not in stored:
            raise ModelError(f"{name}: {key} is missing, so {own} would be random: save the model again.")
        found, expected = tuple(stored[key].shape), shape if third is None else (3 * shape[0], *shape[1:])
        if found != expected:
            raise ModelError(f"{name}: {key} is {found}, config.json says {expected}: correct either.")
        native[own] = stored[key] if third is None else stored[key].chunk(3)[third]
    if unused:
        raise ModelError(f"{name}: XLM-RoBERTa has no place for {min(unused)}. {_ELSEWHERE}")
    return native


def _source(own: str) -> tuple[str, int | None]:
    """The stored name that a native name is filled from, and which third of it."""
    match = _LAYER.search(own)
    if match is None or match[2] not in _STORED_PART:
        return own.replace("embeddings.LayerNorm", "emb_ln"), None
    part, third = _STORED_PART[match[2]]
    return f"{own[: match.start()]}encoder.layers.{match[1]}.{part}.{match[3]}", third


def _seat_token_types(model: PreTrainedModel) -> None:
    """Give a token type table without rows a row of zeros, since XLM-RoBERTa looks type 0 up."""
    table = model.get_submodule(_TOKEN_TYPES)
    if isinstance(table, torch.nn.Embedding) and table.num_embeddings == 0:
        weight = torch.nn.Parameter(table.weight.new_zeros(1, table.embedding_dim))
        table.num_embeddings, table.weight, model.config.type_vocab_size = 1, weight, 1
