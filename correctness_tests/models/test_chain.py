"""Cross-encoders of several modules: each scores as its encoder, its pooling and its layers by hand."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import sentence_transformers
import torch
from sentence_transformers.base.modules import Dense, Transformer
from sentence_transformers.sentence_transformer.modules import Dropout, LayerNorm, Normalize, Pooling
from transformers import AutoModel, AutoTokenizer

import xenc
from correctness_tests import checkpoints
from correctness_tests.checkpoints import PAIRS
from correctness_tests.scoring import alone, assert_close, logits, nothing_compiles, on_cpu
from xenc.models.chain import chain_of

HIDDEN = 32
EAGER = {
    layout: xenc.Execution(layout=layout, compile_mode=None) for layout in ("packed", "bucketed", "padded")
}
NOTHING = torch.nn.Identity()


MADE = {*checkpoints.ARCHITECTURES, *checkpoints.VARIANTS}
"""gte only since transformers 5.23."""


def scores(labels=1, read="sentence_embedding"):
    return Dense(
        HIDDEN, labels, activation_function=NOTHING, module_input_name=read, module_output_name="scores"
    )


def dense(**options):
    return Dense(HIDDEN, HIDDEN, **options)


BEHIND = {
    "ettin": lambda: [
        dense(bias=False, activation_function=torch.nn.GELU()), LayerNorm(HIDDEN), scores()
    ],
    "three scores": lambda: [Normalize(), Dropout(0.5), scores(3)],
    "a residual": lambda: [dense(use_residual=True), scores()],
    "beside": lambda: [dense(module_output_name="beside"), Dropout(0.5), scores(read="beside")],
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Makes the checkpoint of a chain, once."""

    @cache
    def make(architecture: str, mode: str = "cls", behind: str = "ettin") -> Path:
        folder = tmp_path_factory.mktemp("chain")
        encoder = checkpoints.make(folder / "encoder", architecture)
        torch.manual_seed(1)
        layers = BEHIND[behind]()
        for layer in layers:
            for parameter in layer.parameters():
                torch.nn.init.normal_(parameter, std=0.4)
        first = Transformer(str(encoder), transformer_task="feature-extraction")
        chain = [first, Pooling(HIDDEN, pooling_mode=mode), *layers]
        model = sentence_transformers.CrossEncoder(modules=chain, device="cpu")
        with torch.no_grad():
            layers[-1].linear.weight.div_(float(logits(model, PAIRS).std()))
        model.save_pretrained(str(folder / "chain"), create_model_card=False)
        return folder

    return make


@torch.no_grad()
def by_hand(folder: Path, pairs=PAIRS, max_length=64) -> np.ndarray:
    """Each pair alone through plain transformers, then what the layers compute, written out."""
    tokenizer = AutoTokenizer.from_pretrained(folder / "encoder")
    encoder = AutoModel.from_pretrained(folder / "encoder", attn_implementation="eager").eval()
    _, pooling, *layers = sentence_transformers.CrossEncoder(str(folder / "chain"), device="cpu")
    read = {"cls": lambda h: h[0], "lasttoken": lambda h: h[-1], "mean": lambda h: h.mean(0)}
    rows = []
    for query, document in pairs:
        encoded = tokenizer(
            [query], [document], truncation="longest_first", max_length=max_length, return_tensors="pt"
        )
        row = read[pooling.pooling_mode](encoder(**encoded).last_hidden_state[0])
        features = {"sentence_embedding": row}
        for layer in layers:
            x = features[getattr(layer, "module_input_name", "sentence_embedding")]
            features[getattr(layer, "module_output_name", "sentence_embedding")] = computed(layer, x)
        rows.append(features["scores"])
    return torch.stack(rows).squeeze(-1).numpy()


def computed(layer, x):
    if isinstance(layer, Dense):
        y = x @ layer.linear.weight.T + (layer.linear.bias if layer.bias else 0)
        return layer.activation_function(y) + (x if layer.use_residual else 0)
    if isinstance(layer, LayerNorm):
        normed = (x - x.mean()) / (x.var(unbiased=False) + layer.norm.eps).sqrt()
        return normed * layer.norm.weight + layer.norm.bias
    return x / x.norm() if isinstance(layer, Normalize) else x


BOTH_WAYS = (
    "bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert", "modernbert-windows", "eurobert",
    "gte",
)  # fmt: skip
CAUSAL = ("qwen2", "qwen3", "qwen3-windows", "llama", "mistral-windows", "gemma")
CASES = [
    *((name, mode) for name in BOTH_WAYS for mode in ("cls", "mean") if name in MADE),
    *((name, "lasttoken") for name in CAUSAL),
]


@pytest.mark.parametrize("layout", EAGER)
@pytest.mark.parametrize(("architecture", "mode"), CASES)
def test_every_encoder_and_pooling_scores_as_by_hand(made, architecture, mode, layout):
    folder = made(architecture, mode)
    model = on_cpu(folder / "chain", EAGER[layout])
    found = logits(model, PAIRS, batch_size=4)
    assert model.execution.layout == layout
    expected = by_hand(folder)
    assert expected.std() > 0.3
    assert_close(found, expected)
    assert max(model.last_report.token_counts) == 64


@pytest.mark.parametrize("layout", ["packed", "bucketed"])
@pytest.mark.parametrize("behind", [name for name in BEHIND if name != "ettin"])
def test_whatever_stands_behind_the_pooling_is_run(made, behind, layout):
    folder = made("modernbert", "mean", behind)
    model = on_cpu(folder / "chain", EAGER[layout])
    assert model.num_labels == (3 if behind == "three scores" else 1)
    assert_close(logits(model, PAIRS), by_hand(folder))


@pytest.mark.parametrize("layout", ["packed", "bucketed"])
def test_compiled_it_scores_the_same_in_one_graph_and_nothing_compiles(made, layout):
    folder = made("modernbert")
    model = on_cpu(folder / "chain", xenc.Execution(layout=layout, strict=True))
    assert model.warmup(batch_size=4).graphs == 1
    with nothing_compiles():
        found = logits(model, PAIRS, batch_size=4)
    assert_close(found, by_hand(folder))


def test_deterministic_scores_have_the_same_bits_in_other_company(made):
    execution = xenc.Execution(deterministic=True, compile_mode=None)
    model = on_cpu(made("modernbert", "mean") / "chain", execution)
    together = logits(model, PAIRS)
    assert np.array_equal(together, np.array([logits(model, [pair])[0] for pair in PAIRS]))
    assert np.array_equal(together[::-1], logits(model, PAIRS[::-1]))


def test_lower_precision_errs_at_most_twice_as_much_as_sentence_transformers(made):
    folder, exact = made("modernbert") / "chain", by_hand(made("modernbert"))
    bfloat16 = {"model_kwargs": {"dtype": torch.bfloat16}}
    plain = sentence_transformers.CrossEncoder(str(folder), device="cpu", **bfloat16)
    theirs = np.array([logits(plain, [pair])[0] for pair in PAIRS])
    ours = logits(xenc.CrossEncoder(str(folder), device="cpu", execution=EAGER["packed"], **bfloat16), PAIRS)
    assert np.abs(ours - exact).max() <= 2 * np.abs(theirs - exact).max() + 2**-8 * np.abs(exact).max()


@pytest.mark.parametrize("mode", ["max", "weightedmean", ("cls", "mean")])
def test_other_poolings_run_in_buckets_and_say_so(made, mode, caplog):
    model = on_cpu(made("modernbert", "mean") / "chain", EAGER["packed"])
    model[1].pooling_mode = mode
    if isinstance(mode, tuple):
        model[2] = Dense(2 * HIDDEN, HIDDEN)
    plain = sentence_transformers.CrossEncoder(modules=list(model), device="cpu")
    found = logits(model, PAIRS)
    assert model.execution.layout == "bucketed"
    assert f"{mode} pooling" in caplog.text
    assert_close(found, np.array([logits(plain, [pair])[0] for pair in PAIRS]))


class Doubled(Dense):
    def forward(self, features):
        features = super().forward(features)
        return {**features, "scores": 2 * features["scores"]}


class OwnPooling(Pooling):
    def forward(self, features):
        return {**features, "sentence_embedding": features["token_embeddings"][:, 1]}


def test_other_modules_are_scored_by_sentence_transformers(made, caplog):
    model = on_cpu(made("modernbert") / "chain", EAGER["packed"])
    assert model.pipeline
    first, pooling, *layers = model
    other = Doubled(HIDDEN, 1, module_output_name="scores")
    without_prompt = Pooling(HIDDEN, pooling_mode="cls", include_prompt=False)
    for modules in (
        [first, pooling], [first, *layers], [first, pooling, other], [first, pooling, layers[0]],
        [first, OwnPooling(HIDDEN), *layers], [first, without_prompt, *layers],
        [first, pooling, scores(read="nothing")],
    ):  # fmt: skip
        assert chain_of(modules) is None
    model[-1] = other
    expected = logits(sentence_transformers.CrossEncoder(modules=list(model), device="cpu"), PAIRS)
    with caplog.at_level("INFO", "xenc"):
        assert_close(logits(model, PAIRS), expected)
    assert "scored by sentence-transformers' own predict" in caplog.text


def train(model):
    with torch.no_grad():
        model[-1].linear.weight.mul_(3)


def replace(model):
    model[-1] = scores()


def shift(model):
    model[-1].register_forward_hook(lambda _, __, features: {**features, "scores": features["scores"] + 1})


def activate(model):
    model[2].activation_function = torch.nn.Sigmoid()


def twice(model):
    model.insert(3, model[2])


def mix(model):
    model[2].activation_function = torch.nn.Softmax(dim=0)


def mix_below(model):
    model[2].linear = torch.nn.Sequential(model[2].linear, torch.nn.Softmax(dim=0))


def read_before(model):
    model[0].modality_config["text"]["method_output_name"] = ("hidden_states", 0)


def listed(model):
    model[1].pooling_mode = ["mean"]


@pytest.mark.parametrize("layout", ["packed", "bucketed"])
@pytest.mark.parametrize("change", [twice, mix, mix_below, read_before, listed])
def test_what_cannot_run_on_one_row_for_each_pair_is_scored_as_by_sentence_transformers(made, change, layout):
    model = on_cpu(made("distilbert") / "chain", EAGER[layout])
    logits(model, PAIRS)
    change(model)
    plain = sentence_transformers.CrossEncoder(modules=list(model), device="cpu")
    expected = [logits(plain, PAIRS)] if change in (mix, mix_below) else [
        np.array([logits(plain, [pair])[0] for pair in PAIRS])
    ]  # fmt: skip
    assert_close(logits(model, PAIRS), expected[0])


@pytest.mark.parametrize("execution", [EAGER["packed"], "packed"], ids=["eager", "compiled"])
@pytest.mark.parametrize("change", [train, replace, shift, activate])
def test_what_is_changed_behind_the_pooling_changes_the_scores(made, change, execution):
    model = on_cpu(made("distilbert") / "chain", execution)
    before = logits(model, PAIRS)
    change(model)
    expected = alone(model, PAIRS)
    assert np.abs(expected - before).max() > 0.1
    assert_close(logits(model, PAIRS), expected)


def test_saved_again_it_is_the_same_chain(made, tmp_path):
    model = on_cpu(made("bert") / "chain", EAGER["packed"])
    model.save_pretrained(str(tmp_path))
    assert_close(
        logits(sentence_transformers.CrossEncoder(str(tmp_path), device="cpu"), PAIRS), logits(model, PAIRS)
    )


def test_pairs_of_a_causal_chain_share_no_prefix(made, caplog):
    folder = made("qwen3", "lasttoken")
    model = on_cpu(folder / "chain", xenc.Execution(share_prefix=True, compile_mode=None))
    assert_close(logits(model, PAIRS), by_hand(folder))
    assert "is followed by other modules: execution.share_prefix is now False" in caplog.text
