"""T5 rerankers: what the decoder's first step says of a word, as plain transformers says it of one pair."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pickle
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import sentence_transformers
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSeq2SeqLM, PretrainedConfig

import xenc
from correctness_tests import t5_checkpoints
from correctness_tests.checkpoints import PAIRS
from correctness_tests.scoring import assert_close, logits, nothing_compiles, on_cpu
from correctness_tests.t5_checkpoints import MAX_LENGTH, PROMPT
from xenc import FirstStep, ModelError
from xenc.models import foreign_code
from xenc.models.first_step import generates
from xenc.text.prompts import read_prompts

EAGER = xenc.Execution(layout="bucketed", compile_mode=None)
MANY = FirstStep(
    targets=(("▁true", "▁false"), ("▁relevant", "▁irrelevant")), decoder_prefixes=("", "the document is")
)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return t5_checkpoints.make(tmp_path_factory.mktemp("t5"))


load = partial(on_cpu, execution=EAGER)
raw = partial(logits, pairs=PAIRS, batch_size=4)


def one_by_one(
    checkpoint: Path, asked: FirstStep | None = None, dtype: torch.dtype = torch.float32, prompt: str = ""
) -> np.ndarray:
    """[N, S]: plain transformers, each pair alone and unpadded, its whole vocabulary's logits."""
    asked = asked or FirstStep()
    words, vocabulary = t5_checkpoints.tokenizer(), t5_checkpoints.tokenizer().get_vocab()
    model = AutoModelForSeq2SeqLM.from_pretrained(checkpoint, attn_implementation="eager", dtype=dtype).eval()
    rows = []
    for query, document in PAIRS:
        ids = t5_checkpoints.prompt_ids(words, prompt + query, document, MAX_LENGTH)
        row = []
        for prefix in asked.decoder_prefixes:
            said = [0, *words(prefix, add_special_tokens=False)["input_ids"]]
            logits = t5_checkpoints.first_step_logits(model, ids, said).float()
            row += [logits[vocabulary[right]] - logits[vocabulary[wrong]] for right, wrong in asked.targets]
        rows.append(row)
    return np.array(rows)


T5_V1_1 = {"tie_word_embeddings": False, "feed_forward_proj": "gated-gelu"}


@pytest.mark.parametrize(("family", "changes"), [("t5", {}), ("t5", T5_V1_1), ("mt5", {}), ("umt5", {})])
def test_a_t5_scores_as_plain_transformers_does_one_by_one(family, changes, tmp_path):
    checkpoint = t5_checkpoints.make(tmp_path, family, **changes)
    expected = one_by_one(checkpoint)[:, 0]
    assert expected.std() > 0.3
    for execution in (EAGER, "sdpa-sorted"):
        model = load(checkpoint, execution=execution)
        assert_close(raw(model), expected)
        assert model.last_report.truncated_pairs == 3  # scored by the fast path, which alone reports
        assert max(model.last_report.token_counts) == MAX_LENGTH


def test_by_default_a_score_is_a_probability(checkpoint):
    scores = load(checkpoint).predict(PAIRS)
    assert_close(scores, 1 / (1 + np.exp(-one_by_one(checkpoint)[:, 0])))


@pytest.mark.parametrize("asked", [FirstStep(), MANY], ids=["one score", "four scores"])
def test_sentence_transformers_own_predict_answers_alike(checkpoint, asked):
    model = load(checkpoint, first_step=asked)
    for prompt in ("", "please: "):
        scores = raw(model, prompt=prompt)
        asks = partial(sentence_transformers.CrossEncoder.predict, model)  # knows nothing of our batches
        theirs = asks(PAIRS, batch_size=4, activation_fn=torch.nn.Identity(), prompt=prompt)
        assert_close(scores, theirs, 1e-5)
        assert_close(scores.reshape(len(PAIRS), -1), one_by_one(checkpoint, asked, prompt=prompt))


def test_no_head_is_ever_drawn_at_random(checkpoint):
    """sentence-transformers loads the same checkpoint as a classifier, differently each time."""
    scores, theirs = [], []
    for seed in (1, 2):
        torch.manual_seed(seed)
        scores.append(raw(load(checkpoint)))
        torch.manual_seed(seed)
        theirs.append(raw(sentence_transformers.CrossEncoder(str(checkpoint), device="cpu"), pairs=PAIRS[:1]))
    assert (scores[0] == scores[1]).all()
    assert (theirs[0] != theirs[1]).all()


def test_a_checkpoint_without_some_weight_is_refused_by_name(checkpoint, tmp_path):
    name = "decoder.block.0.layer.1.EncDecAttention.q.weight"
    t5_checkpoints.make(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights[name]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=rf"{name}.*would be random"):
        load(tmp_path)


def test_several_scores_are_those_of_one_at_a_time(checkpoint):
    together = raw(load(checkpoint, first_step=MANY))
    assert (together.std(axis=0) > 0.1).all()
    each = itertools.product(MANY.decoder_prefixes, MANY.targets)
    for column, (prefix, targets) in enumerate(each):
        alone = raw(load(checkpoint, first_step=FirstStep(targets=(targets,), decoder_prefixes=(prefix,))))
        assert_close(together[:, column], alone, 1e-5)


def test_the_encoder_runs_once_however_many_scores_there_are(checkpoint, monkeypatch):
    model, calls = load(checkpoint, first_step=MANY), []
    network = model.transformers_model
    call = type(network.encoder).__call__
    monkeypatch.setattr(foreign_code, "_KNOWN", (*foreign_code._KNOWN, __name__))

    def counted(part, *arguments, **options):
        calls.append(part)
        return call(part, *arguments, **options)

    monkeypatch.setattr(type(network.encoder), "__call__", counted)
    raw(model)
    assert model.num_labels == 4
    batches = model.last_report.batches
    assert [calls.count(part) for part in (network.encoder, network.decoder)] == [batches, 2 * batches]


def test_compiled_there_is_one_graph_for_all_lengths_and_nothing_compiles_after_warm_up(tmp_path):
    """With as many targets as rows in a batch, which shall not be tied to one another."""
    checkpoint = t5_checkpoints.make(tmp_path, num_layers=1)
    model = load(checkpoint, execution=xenc.Execution(layout="bucketed", strict=True), first_step=MANY)
    assert model.warmup(batch_size=4).graphs == 1
    with nothing_compiles():
        scores = raw(model)
    assert len({count // 16 for count in model.last_report.token_counts}) > 1
    assert_close(scores, one_by_one(checkpoint, MANY))


def test_in_bfloat16_it_errs_at_most_twice_as_much_as_plain_transformers(checkpoint):
    exact = one_by_one(checkpoint)[:, 0]
    plain = np.abs(one_by_one(checkpoint, dtype=torch.bfloat16)[:, 0] - exact).max()
    model = load(checkpoint, model_kwargs={"dtype": torch.bfloat16})
    step = np.abs(exact).max() * torch.finfo(torch.bfloat16).eps
    assert np.abs(raw(model) - exact).max() <= 2 * plain + step


@pytest.mark.parametrize("module", ["xenc.models.first_step", "xenc.encoder_decoder.scorer"])
def test_a_saved_model_asks_the_same_again_even_if_version_0_1_saved_it(checkpoint, tmp_path, module):
    asked = dataclasses.replace(MANY, prompt="Document: {document} Query: {query} Relevant:")
    model = load(checkpoint, first_step=asked)
    model.save_pretrained(str(tmp_path))
    [saved] = json.loads((tmp_path / "modules.json").read_text())
    assert saved["type"] == "xenc.models.first_step.FirstStepScorer"
    saved["type"] = f"{module}.FirstStepScorer"
    (tmp_path / "modules.json").write_text(json.dumps([saved]))
    again = load(tmp_path)
    assert again[0].first_step == asked
    assert (raw(again) == raw(model)).all()
    assert (raw(load(tmp_path, first_step=MANY)) == raw(load(checkpoint, first_step=MANY))).all()


def test_sentence_transformers_refuses_a_saved_model_that_it_would_misread(checkpoint, tmp_path):
    load(checkpoint).save_pretrained(str(tmp_path))
    with pytest.raises(ValueError, match="trust_remote_code"):
        sentence_transformers.CrossEncoder(str(tmp_path), device="cpu")


def test_a_model_that_was_pickled_scores_the_same(checkpoint):
    """A process pool does that."""
    model = load(checkpoint, first_step=MANY)
    np.testing.assert_array_equal(raw(pickle.loads(pickle.dumps(model))), raw(model))


def test_another_question_is_another_score_without_loading_again(checkpoint):
    model = load(checkpoint)
    before = raw(model)
    model[0].first_step = FirstStep(targets=(("▁false", "▁true"),))
    assert_close(raw(model), -before, 1e-5)


words_ = st.lists(st.sampled_from(["name", "names", "Python", "{query}", "the", "0", "…"]), max_size=30)


@settings(max_examples=100)
@given(query=words_.map(" ".join), document=words_.map(" ".join), max_length=st.integers(14, 60))
def test_a_long_document_is_cut_and_the_question_behind_it_stays(query, document, max_length):
    words = t5_checkpoints.tokenizer()
    fixed = len(t5_checkpoints.prompt_ids(words, "", "", 10**6))
    max_length = max(max_length, fixed)
    expected = t5_checkpoints.prompt_ids(words, query, document, max_length)
    read = read_prompts(FirstStep(), words, max_length, [(query, document)])
    assert read.input_ids == [expected]
    end = [*words(PROMPT[2], add_special_tokens=False)["input_ids"], words.eos_token_id]
    assert read.input_ids[0][-len(end) :] == end
    uncut = t5_checkpoints.prompt_ids(words, query, document, 10**6)
    assert read.truncated_pairs == (len(uncut) > max_length)


@settings(max_examples=100)
@given(query=words_.map("".join), document=words_.map("".join), max_length=st.integers(4, 40))
def test_a_prompt_without_spaces_is_never_too_long(query, document, max_length):
    asked = FirstStep(prompt="Q:{query}D:{document}R:")
    with suppress(ModelError):
        rows = read_prompts(asked, t5_checkpoints.tokenizer(), max_length, [(query, document)]).input_ids
        assert len(rows[0]) <= max_length
        assert rows[0][-1] == 1


def test_a_tokenizer_that_cuts_on_the_left_keeps_the_documents_end():
    words = t5_checkpoints.tokenizer()
    words.truncation_side = "left"
    document = "first " * 40 + "last"
    read = read_prompts(FirstStep(), words, 40, [("a", document)]).input_ids[0]
    uncut = t5_checkpoints.prompt_ids(words, "a", document, 10**6)
    before = len(words(PROMPT[0] + "a" + PROMPT[1], add_special_tokens=False)["input_ids"])
    assert read == [*uncut[:before], *uncut[before + len(uncut) - 40 :]]


def test_max_length_must_hold_the_question_itself(checkpoint):
    with pytest.raises(ModelError, match=r"max_length=5 must be at least \d\d"):
        load(checkpoint, max_length=5)
    assert raw(load(checkpoint, max_length=40)).shape == (len(PAIRS),)


def test_half_of_a_character_is_named(checkpoint):
    with pytest.raises(xenc.PairError, match="pair 1 holds"):
        raw(load(checkpoint), pairs=[("a", "b"), ("a", "\ud800")])


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("prompt", "Query: {query}", r"write \{query\} and \{document\}"),
        ("prompt", "{query} {query} {document}", "once each"),
        ("targets", ("true", "false"), "tuple of pairs"),
        ("targets", (), "tuple of pairs"),
        ("targets", (("true", "true"),), "two different words"),
        ("decoder_prefixes", (), "tuple of texts"),
        ("decoder_prefixes", "said", "tuple of texts"),
    ],
)
def test_a_question_that_cannot_be_is_refused(field, value, message):
    with pytest.raises(ModelError, match=message):
        FirstStep(**{field: value})


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (("two words", "false"), "'two words' is .*not one token.*FirstStep"),
        (("▁true", "漢"), "'漢' is .*not one token"),
        (("▁true", "true"), "the same token"),
    ],
)
def test_a_target_that_is_no_token_is_refused_by_name(checkpoint, targets, message):
    with pytest.raises(ModelError, match=message):
        load(checkpoint, first_step=FirstStep(targets=(targets,)))


def test_a_word_may_be_written_as_text_or_as_the_vocabulary_has_it(checkpoint):
    as_text, as_token = (
        load(checkpoint, first_step=FirstStep(targets=(targets,)))[0].ids
        for targets in (("yes", "no"), ("▁yes", "▁no"))
    )
    assert as_text == as_token


def test_what_does_not_belong_to_the_model_is_refused(checkpoint, one_layer):
    with pytest.raises(ModelError, match=r"Bert.* is not a T5 that generates"):
        load(one_layer, first_step=FirstStep())
    with pytest.raises(ModelError, match="num_labels=3: this T5 has 1 score"):
        load(checkpoint, num_labels=3)
    with pytest.raises(ModelError, match="backend='onnx'"):
        load(checkpoint, backend="onnx")


@pytest.mark.parametrize(
    ("model_type", "architecture", "ours"),
    [
        ("t5", "T5ForConditionalGeneration", True),
        ("t5", "T5WithLMHeadModel", True),
        ("t5", None, True),
        ("umt5", "UMT5ForConditionalGeneration", True),
        ("t5", "T5ForSequenceClassification", False),
        ("t5", "T5EncoderModel", False),
        ("bart", "BartForConditionalGeneration", False),
        ("bert", None, False),
    ],
)
def test_only_a_t5_that_generates_is_asked_a_question(model_type, architecture, ours):
    config = PretrainedConfig(architectures=None if architecture is None else [architecture])
    config.model_type = model_type
    assert generates(config) == ours


def test_a_t5_without_a_length_of_its_own_takes_as_many_tokens_as_its_config_says(tmp_path):
    t5_checkpoints.make(tmp_path)
    stored = json.loads((tmp_path / "tokenizer_config.json").read_text())
    del stored["model_max_length"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(stored))
    with pytest.raises(ModelError, match="pass max_length="):
        load(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | {"n_positions": 48}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load(tmp_path).pipeline.reranker.max_length == 48
    assert load(tmp_path, max_length=60).pipeline.reranker.max_length == 60


def test_a_question_that_is_refused_leaves_the_one_before(checkpoint):
    model = load(checkpoint)
    with pytest.raises(ModelError, match="not one token"):
        model[0].first_step = FirstStep(targets=(("two words", "false"),))
    assert model[0].first_step == FirstStep()
