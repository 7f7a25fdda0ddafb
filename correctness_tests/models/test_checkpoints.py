"""Checkpoints with flash-attn's names: loaded natively, they score as their own network does."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import save_torch_state_dict
from torch import Tensor
from torch.nn.functional import embedding, gelu, layer_norm, linear
from transformers import AutoModelForSequenceClassification

import xenc.models.checkpoints
from correctness_tests import checkpoints
from perf_tests import workloads
from xenc import ModelError
from xenc.models.checkpoints import restore_flash_weights

LAYERS, HEADS, HIDDEN, INNER, PADDING = 2, 4, 32, 64, 1
LAYER = "roberta.encoder.layers.{}"
TOKEN_TYPES = "roberta.embeddings.token_type_embeddings.weight"
Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def tokenizer():
    return checkpoints._unigram()


@pytest.fixture(scope="module")
def pairs(tokenizer) -> dict[str, Tensor]:
    """Twelve tokenized pairs of several lengths, so that some are padded."""
    queries, documents = zip(*workloads.seed(pairs=12, batch_size=4).round(0), strict=True)
    texts = [query[:40] for query in queries], [text[: 20 * at] for at, text in enumerate(documents, 1)]
    return dict(tokenizer(*texts, truncation=True, max_length=64, padding=True, return_tensors="pt"))


@pytest.fixture(scope="module")
def weights(tokenizer, pairs) -> Weights:
    return drawn_weights(tokenizer, pairs)


def drawn_weights(tokenizer, pairs, layers: int = LAYERS, labels: int = 1, types: int = 1) -> Weights:
    """Drawn wide, norms and biases too, so that no two parts could be exchanged unnoticed."""
    torch.manual_seed(0)
    shapes = {
        "roberta.embeddings.word_embeddings.weight": (len(tokenizer), HIDDEN),
        "roberta.embeddings.position_embeddings.weight": (66, HIDDEN),
        TOKEN_TYPES: (types, HIDDEN),
    }
    linears = {"classifier.dense": (HIDDEN, HIDDEN), "classifier.out_proj": (labels, HIDDEN)}
    norms = ["roberta.emb_ln"]
    for layer in map(LAYER.format, range(layers)):
        linears |= {f"{layer}.mixer.Wqkv": (3 * HIDDEN, HIDDEN), f"{layer}.mixer.out_proj": (HIDDEN, HIDDEN)}
        linears |= {f"{layer}.mlp.fc1": (INNER, HIDDEN), f"{layer}.mlp.fc2": (HIDDEN, INNER)}
        norms += [f"{layer}.norm1", f"{layer}.norm2"]
    for name, shape in [*linears.items(), *((name, (HIDDEN,)) for name in norms)]:
        shapes |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    scales = {f"{name}.weight" for name in norms}
    drawn = {key: 0.3 * torch.randn(shape) + (key in scales) for key, shape in shapes.items()}
    drawn["classifier.out_proj.weight"] /= 2 * reference(drawn, pairs).std()
    return drawn


def reference(
    weights: Weights, pairs: dict[str, Tensor], approximate: str = "none", eps: float = 1e-5
) -> Tensor:
    """The network as its authors' code runs it without flash-attn, step by step, in double precision."""
    weights = {key: tensor.double() for key, tensor in weights.items()}

    def dense(name: str, x: Tensor) -> Tensor:
        return linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name: str, x: Tensor) -> Tensor:
        return layer_norm(x, (HIDDEN,), weights[f"{name}.weight"], weights[f"{name}.bias"], eps)

    ids, real = pairs["input_ids"], pairs["attention_mask"].bool()
    positions = torch.where(real, real.cumsum(1), 0) + PADDING
    x = embedding(ids, weights["roberta.embeddings.word_embeddings.weight"])
    x = x + embedding(positions, weights["roberta.embeddings.position_embeddings.weight"])
    if TOKEN_TYPES in weights:
        x = x + weights[TOKEN_TYPES][0]
    x = norm("roberta.emb_ln", x)
    for layer in map(LAYER.format, range(sum(key.endswith("Wqkv.weight") for key in weights))):
        qkv = dense(f"{layer}.mixer.Wqkv", x).unflatten(-1, (3, HEADS, HIDDEN // HEADS))
        query, key, value = (qkv[:, :, third].transpose(1, 2) for third in range(3))
        likeness = query @ key.transpose(-1, -2) / (HIDDEN // HEADS) ** 0.5
        attention = likeness.masked_fill(~real[:, None, None, :], -10000.0).softmax(-1)
        mixed = (attention @ value).transpose(1, 2).flatten(-2)
        x = norm(f"{layer}.norm1", dense(f"{layer}.mixer.out_proj", mixed) + x)
        inner = gelu(dense(f"{layer}.mlp.fc1", x), approximate=approximate)
        x = norm(f"{layer}.norm2", dense(f"{layer}.mlp.fc2", inner) + x)
    return dense("classifier.out_proj", dense("classifier.dense", x[:, 0]).tanh()).float()


def save(directory: Path, weights: Weights, *, suffix: str = "safetensors", shards: bool = False, **changes):
    """A directory such as jinaai/jina-reranker-v2-base-multilingual's."""
    remote = {
        "AutoConfig": "configuration_xlm_roberta.XLMRobertaFlashConfig",
        "AutoModelForSequenceClassification": "modeling_xlm_roberta.XLMRobertaForSequenceClassification",
    }
    config = {
        "model_type": "xlm-roberta", "architectures": ["XLMRobertaForSequenceClassification"],
        "auto_map": remote, "hidden_act": "gelu", "hidden_size": HIDDEN, "intermediate_size": INNER,
        "layer_norm_eps": 1e-5, "num_attention_heads": HEADS, "num_hidden_layers": LAYERS,
        "max_position_embeddings": 66, "position_embedding_type": "absolute", "type_vocab_size": 1,
        "use_flash_attn": True, "pad_token_id": PADDING, "bos_token_id": 0, "eos_token_id": 2,
        "id2label": {"0": "LABEL_0"}, "vocab_size": len(weights["roberta.embeddings.word_embeddings.weight"]),
    }  # fmt: skip
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config | changes))
    size = "20KB" if shards else "1GB"
    save_torch_state_dict(weights, directory, max_shard_size=size, safe_serialization=suffix == "safetensors")
    return directory


def load(directory: Path | str, **options):
    torch.manual_seed(1)
    return AutoModelForSequenceClassification.from_pretrained(
        directory, trust_remote_code=False, **{"dtype": torch.float32} | options
    ).eval()


def restored(directory: Path, **options):
    model = load(directory, **options)
    assert restore_flash_weights(model, str(directory))
    return model


@torch.no_grad()
def logits(model, pairs: dict[str, Tensor]) -> Tensor:
    return model(**pairs).logits.float()


def assert_scores_as_the_reference(model, weights: Weights, pairs: dict[str, Tensor], **how) -> None:
    torch.testing.assert_close(logits(model, pairs), reference(weights, pairs, **how), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("family", "layers", "labels", "types"), [("xlm-roberta", LAYERS, 1, 1), ("roberta", 11, 3, 2)]
)
def test_a_restored_model_scores_as_its_own_network(
    tmp_path, tokenizer, pairs, family, layers, labels, types
):
    weights = drawn_weights(tokenizer, pairs, layers, labels, types)
    config = {"model_type": family, "num_hidden_layers": layers, "type_vocab_size": types}
    id2label = {str(label): f"LABEL_{label}" for label in range(labels)}
    directory = save(tmp_path, weights, **config, id2label=id2label)
    expected = reference(weights, pairs)
    assert 0.3 < expected.std() < 3
    assert (logits(load(directory), pairs) - expected).abs().max() > 0.1, "the native load alone would do"
    assert_scores_as_the_reference(restored(directory), weights, pairs)


@pytest.mark.parametrize("execution", ["packed-eager", "sdpa-sorted"])
def test_a_cross_encoder_restores_it_by_itself(tmp_path, weights, tokenizer, execution):
    """Without the remote code that the checkpoint names."""
    tokenizer.save_pretrained(save(tmp_path, weights))
    with xenc.CrossEncoder(str(tmp_path), device="cpu", execution=execution, max_length=64) as model:
        assert_scores_texts_as_the_reference(model, weights, tokenizer)


@pytest.mark.parametrize("given", [{}, {"automodel_args": {"revision": "v2"}, "tokenizer_args": {}}])
def test_arguments_under_their_old_names_restore_it_too(tmp_path, weights, tokenizer, given):
    """Of the renamed arguments the name, the folder and the revision are needed to find the weights again."""
    repository, commit = tmp_path / "models--someone--reranker", "0123456789" * 4
    tokenizer.save_pretrained(save(repository / "snapshots" / commit, weights))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    (repository / "refs" / "v2").write_text(commit)
    with xenc.CrossEncoder(
        model_name="someone/reranker", cache_dir=str(tmp_path), device="cpu", max_length=64,
        execution="packed-eager", local_files_only=True, **given,
    ) as model:  # fmt: skip
        assert_scores_texts_as_the_reference(model, weights, tokenizer)


def assert_scores_texts_as_the_reference(model, weights, tokenizer) -> None:
    texts = [("a question", "an answer " * words) for words in (1, 3, 9, 40)]
    scores = model.predict(texts, activation_fn=torch.nn.Identity(), convert_to_tensor=True)
    for (query, document), score in zip(texts, scores, strict=True):
        tokens = dict(tokenizer(query, document, truncation=True, max_length=64, return_tensors="pt"))
        torch.testing.assert_close(score, reference(weights, tokens)[0, 0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("suffix", ["safetensors", "bin", "old bin"])
@pytest.mark.parametrize("shards", [False, True])
def test_every_file_format_restores(tmp_path, weights, pairs, suffix, shards):
    directory, old, suffix = tmp_path, suffix == "old bin", suffix.rpartition(" ")[2]
    save(directory, weights, suffix=suffix, shards=shards)
    for file in directory.glob("*.bin") if old else ():
        torch.save(torch.load(file), file, _use_new_zipfile_serialization=False)
    assert len(list(directory.glob(f"*.{suffix}"))) > 1 or not shards
    assert_scores_as_the_reference(restored(directory), weights, pairs)


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16])
def test_half_precision_weights_convert_exactly_and_keep_their_dtype(tmp_path, weights, pairs, stored):
    halves = {key: tensor.to(stored) for key, tensor in weights.items()}
    directory = save(tmp_path, halves)
    rounded = {key: tensor.float() for key, tensor in halves.items()}
    assert_scores_as_the_reference(restored(directory), rounded, pairs)
    model = restored(directory, dtype="auto")
    assert {parameter.dtype for parameter in model.parameters()} == {stored}
    assert_scores_as_the_reference(model.float(), rounded, pairs)


@pytest.mark.parametrize(
    ("setting", "meant"),
    [
        ({"hidden_act": "gelu_new"}, {"approximate": "tanh"}),
        ({"hidden_act": "gelu_fast"}, {"approximate": "tanh"}),
        ({"hidden_act": "gelu_pytorch_tanh"}, {"approximate": "tanh"}),
        ({"layer_norm_eps": 0.1}, {"eps": 0.1}),
    ],
    ids=str,
)
def test_activation_and_epsilon_are_those_of_config_json(tmp_path, weights, pairs, setting, meant):
    model = restored(save(tmp_path, weights, **setting))
    assert_scores_as_the_reference(model, weights, pairs, **meant)
    assert (logits(model, pairs) - reference(weights, pairs)).abs().max() > 1e-4


@pytest.mark.parametrize("types", [0, 1, 2])
def test_absent_token_types_add_nothing(tmp_path, weights, pairs, types):
    without = {key: tensor for key, tensor in weights.items() if key != TOKEN_TYPES}
    assert_scores_as_the_reference(restored(save(tmp_path, without, type_vocab_size=types)), without, pairs)


def test_what_no_logit_depends_on_may_be_stored(tmp_path, weights, pairs):
    names = ("roberta.pooler.dense.weight", "roberta.pooler.dense.bias", "roberta.embeddings.position_ids")
    unread = {name: torch.ones(2) for name in names}
    assert_scores_as_the_reference(restored(save(tmp_path, weights | unread)), weights, pairs)


def test_a_name_on_the_hub_is_found_in_the_cache_by_its_revision(tmp_path, weights, pairs):
    repository, commit = tmp_path / "models--someone--reranker", "0123456789" * 4
    save(repository / "snapshots" / commit, weights)
    (repository / "refs").mkdir()
    (repository / "refs" / "v2").write_text(commit)
    found = {"cache_dir": str(tmp_path), "revision": "v2"}
    model = load("someone/reranker", local_files_only=True, **found)
    assert restore_flash_weights(model, "someone/reranker", **found)
    assert_scores_as_the_reference(model, weights, pairs)


def test_a_subfolder_is_found(tmp_path, weights, pairs):
    save(tmp_path / "inner", weights)
    model = load(tmp_path, subfolder="inner")
    assert restore_flash_weights(model, str(tmp_path), subfolder="inner")
    assert_scores_as_the_reference(model, weights, pairs)


def test_weights_that_may_need_converting_and_are_not_found_again_are_asked_for(tmp_path, weights):
    model = load(save(tmp_path, weights))
    with pytest.raises(ModelError, match=r"someone/reranker.*cache_dir"):
        restore_flash_weights(model, "someone/reranker", cache_dir=str(tmp_path / "empty"))


@pytest.mark.parametrize("architecture", ["xlm-roberta", "roberta", "bert"])
def test_an_ordinary_checkpoint_is_left_as_it_is_and_only_its_names_are_read(
    tmp_path, monkeypatch, architecture
):
    model = load(checkpoints.make(tmp_path, architecture))
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    whole = xenc.models.checkpoints.load_state_dict

    def only_names(file, map_location="cpu"):
        assert map_location == "meta"
        return whole(file, map_location=map_location)

    monkeypatch.setattr(xenc.models.checkpoints, "load_state_dict", only_names)
    assert not restore_flash_weights(model, str(tmp_path))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_a_model_of_the_checkpoints_own_code_has_its_weights_already(tmp_path, weights):
    own_code = SimpleNamespace(config=load(save(tmp_path, weights)).config, state_dict=lambda: weights)
    assert not restore_flash_weights(own_code, str(tmp_path))


def test_a_restored_model_saved_again_is_an_ordinary_checkpoint(tmp_path, weights, pairs):
    restored(save(tmp_path / "flash", weights)).save_pretrained(tmp_path / "native")
    model = load(tmp_path / "native")
    assert not restore_flash_weights(model, str(tmp_path / "native"))
    assert_scores_as_the_reference(model, weights, pairs)


def drop(key: str):
    return lambda weights: {kept: tensor for kept, tensor in weights.items() if kept != key}


def add(key: str, *shape: int):
    return lambda weights: weights | {key: torch.ones(shape)}


WQKV = f"{LAYER.format(1)}.mixer.Wqkv"


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (drop(f"{WQKV}.bias"), f"{WQKV}.bias"),
        (drop("roberta.emb_ln.weight"), "roberta.emb_ln.weight"),
        (drop("classifier.out_proj.weight"), "classifier.out_proj.weight"),
        (add(f"{WQKV}.weight", 2 * HIDDEN, HIDDEN), f"{WQKV}.weight"),
        (add(f"{LAYER.format(0)}.norm1.weight", 1), f"{LAYER.format(0)}.norm1.weight"),
        (add(f"{LAYER.format(LAYERS)}.norm1.weight", HIDDEN), f"{LAYER.format(LAYERS)}.norm1.weight"),
        (add(f"{LAYER.format(0)}.mixer.rotary_emb.inv_freq", 4), "rotary_emb.inv_freq"),
        (add(f"{WQKV}.parametrizations.weight.0.lora_A", 5, 4, HIDDEN), "lora_A.*merge"),
    ],
    ids=["no-bias", "no-norm", "no-head", "two-thirds", "broadcast", "one-layer-more", "rotary", "adapter"],
)  # fmt: skip
def test_a_weight_that_does_not_fit_is_named_and_nothing_is_changed(tmp_path, weights, change, key):
    directory = save(tmp_path, change(weights))
    model = load(directory)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ModelError, match=key):
        restore_flash_weights(model, str(directory))
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


@pytest.mark.parametrize("changed", [{"position_embedding_type": "rotary"}, {"hidden_act": "relu"}])
def test_a_config_that_native_xlmr_cannot_follow_is_refused_by_name(tmp_path, weights, changed):
    directory = save(tmp_path, weights, **changed)
    [(field, value)] = changed.items()
    with pytest.raises(ModelError, match=f"{field}='{value}'.*trust_remote_code=True"):
        restore_flash_weights(load(directory), str(directory))
