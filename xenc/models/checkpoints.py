"""Checkpoints whose weights bear flash-attn's names, loaded into transformers' own XLM-RoBERTa.

jinaai/jina-reranker-v2-base-multilingual and its fine-tunes say model_type "xlm-roberta" and point to remote
code (jinaai/xlm-roberta-flash-implementation) written after flash_attn/models/bert.py. The network is
XLM-RoBERTa's; only the names differ. Loaded without that code, transformers draws every weight it does not
find at random, and says so in its load report alone. The layout, stored name first:

    roberta.emb_ln                           roberta.embeddings.LayerNorm
    roberta.encoder.layers.N.mixer.Wqkv      roberta.encoder.layer.N.attention.self.query, key, value
                        .... mixer.out_proj                     .... attention.output.dense
                        .... norm1                              .... attention.output.LayerNorm
                        .... mlp.fc1                            .... intermediate.dense
                        .... mlp.fc2                            .... output.dense
                        .... norm2                              .... output.LayerNorm
    roberta.embeddings.*, classifier.*       the same

Wqkv is query, key and value on top of each other, [3 x heads x head size, hidden]. Norms follow their
residual sum: norm1 that of attention, norm2 that of the MLP, both with layer_norm_eps. gelu is exact, and
gelu_new, gelu_fast and gelu_pytorch_tanh are the tanh formula, as in transformers; no other activation is
allowed. Positions start at pad_token_id + 1 (a table of 1026 seats 1024 tokens), token types are all 0, and
the head is tanh between two linear layers, over the first token. Defaults of absent config fields agree.
Sources: the model code and the converter of that repository (which takes transformers' weights the other
way), flash-attn's MHA and Block, vLLM's jina mapper, and transformers' conversion of jina_embeddings_v3.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
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
"""Stored names that no logit depends on."""

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
"""Part of a native layer -> part of a stored layer, and which third of it."""

_TOKEN_TYPES: Final = "roberta.embeddings.token_type_embeddings"

_ACTIVATIONS: Final = frozenset({"gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh"})

_ELSEWHERE: Final = (
    "Choose another checkpoint, or run its own code with sentence-transformers and trust_remote_code=True."
)


def restore_flash_weights(model: PreTrainedModel, name_or_path: str, **download: Any) -> bool:
    """Fill `model` from the checkpoint it was loaded from, if that bears flash-attn's names.

    dtype, device and training mode of the model stay. Only names are read of an ordinary checkpoint, and
    nothing is ever downloaded: the weights are where transformers put them when it loaded the model.

    Args:
        model: a natively loaded sequence classifier.
        name_or_path: a directory, or the model's name on the hub.
        **download: what transformers found the weights with: `revision`, `cache_dir`, `subfolder`, ...

    Returns:
        Whether the checkpoint bears flash-attn's names, and the model now has its weights.

    Raises:
        ModelError: a weight that is missing, of another shape, or that native XLM-RoBERTa has no place for;
            a config that it cannot follow; weights that are not found again. The model is then as it was.
    """
    if model.config.model_type not in _FAMILIES or any(map(_FLASH.search, model.state_dict())):
        return False  # another network, or its own code
    file = _weight_file(str(name_or_path), model.config, download)
    names = () if file is None else _names(file)
    if file is None or not any(map(_FLASH.search, names)):
        return False
    if adapter := next((key for key in names if _ADAPTER.search(key)), None):
        raise ModelError(f"{name_or_path}: {adapter} is a LoRA adapter's: merge it into the weights first.")
    _check_config(name_or_path, model.config)
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


def _names(file: Path) -> Collection[str]:
    if file.suffix == ".json":
        return set(json.loads(file.read_text(encoding="utf-8"))["weight_map"])
    return load_state_dict(file, map_location="meta").keys()


def _tensors(file: Path) -> dict[str, Tensor]:
    if file.suffix != ".json":
        return load_state_dict(file)
    shards = sorted(set(json.loads(file.read_text(encoding="utf-8"))["weight_map"].values()))
    return {key: tensor for shard in shards for key, tensor in load_state_dict(file.parent / shard).items()}


def _check_config(name: str, config: PretrainedConfig) -> None:
    """Refuse what the flash implementation computes otherwise than native XLM-RoBERTa."""
    positions = getattr(config, "position_embedding_type", None) or "absolute"
    if positions != "absolute":
        raise ModelError(f"{name}: position_embedding_type={positions!r} is not XLM-RoBERTa's. {_ELSEWHERE}")
    if config.hidden_act not in _ACTIVATIONS:
        raise ModelError(f"{name}: hidden_act={config.hidden_act!r} is none of flash-attn's. {_ELSEWHERE}")


def _native_weights(name: str, model: PreTrainedModel, stored: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A tensor for each of the model's own names, each of the model's shape."""
    native: dict[str, Tensor] = {}
    unused = {key for key in stored if not _UNREAD.search(key)}
    for own, present in model.state_dict().items():
        key, third = _source(own)
        unused.discard(key)
        shape = tuple(present.shape)
        if own == f"{_TOKEN_TYPES}.weight" and key not in stored:
            native[own] = torch.zeros(max(shape[0], 1), shape[1])  # a model stored without adds nothing
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
    """Native XLM-RoBERTa looks type 0 up even in a table of no rows."""
    table = model.get_submodule(_TOKEN_TYPES)
    if isinstance(table, torch.nn.Embedding) and table.num_embeddings == 0:
        weight = torch.nn.Parameter(table.weight.new_zeros(1, table.embedding_dim))
        table.num_embeddings, table.weight, model.config.type_vocab_size = 1, weight, 1
