"""Laws of shared prefixes: they change the work, never the scores."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, reduce
from itertools import chain, groupby
from pathlib import Path

import numpy as np
import pytest
import sentence_transformers
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM

import xenc
from correctness_tests import checkpoints, oracle, strategies
from correctness_tests.models import test_causal
from correctness_tests.waiting import SOON
from xenc import PRESETS, Execution, ExecutionError, watch_compiles
from xenc.batching import prefix_plan as common
from xenc.batching.packed_plan import Budgets, plan_packed, warmup_plans
from xenc.batching.prefix_plan import LEAST_SAVED, common_tokens, plan_shared, prefix_budgets
from xenc.layouts import packed
from xenc.serving.request import Request
from xenc.text.tokens import TokenizedPairs

MAX_LENGTH = 128
TOLERANCE = 1e-4
SMALL = Execution(share_prefix=True, compile_mode=None, token_budgets=(32, 64, 128))
BUDGETS = Budgets((32, 64, 128), 128, MAX_LENGTH)

Rows = list[list[int]]

_ids = st.one_of(st.integers(3, 5), st.integers(3, 400))


@st.composite
def requests(draw: st.DrawFn) -> Rows:
    """Token ids of pairs that begin alike, perhaps in no token, perhaps in all of them."""
    start = draw(st.lists(_ids, max_size=70))
    own = draw(st.lists(st.lists(_ids, min_size=1, max_size=40), min_size=1, max_size=8))
    again = draw(st.lists(st.sampled_from(own), max_size=2))
    return [start + ids for ids in own + again]


EDGES: tuple[Rows, ...] = (
    [[7] * 50],  # alone
    [[7] * 50] * 6,  # identical
    [[7] * 60 + [8], [7] * 60 + [9]] * 3,  # of one token each
    [[7] * 40, [8] * 40, [9] * 40],  # nothing in common
    [[7] * 30, [7] * 60, [7] * 128],  # one begins another
    [[8]] * 4,
    [list(range(3, 110)) + [number] * 21 for number in range(12)],  # several batches
)


def on_edges(law):
    return reduce(lambda law, rows: example(rows=rows)(law), EDGES, law)


# ---- which prefix, and what it saves


@on_edges
@given(rows=requests())
def test_what_rows_have_in_common_is_the_longest_beginning_that_leaves_each_a_token(rows):
    counts = range(min(map(len, rows)))
    same = [count for count in counts if all(ids[:count] == rows[0][:count] for ids in rows)]
    assert common_tokens(rows) == max(same)


@given(rows=requests(), unread=st.lists(st.integers(0, 30), min_size=10, max_size=10))
@example(rows=[[1] * 9, [1] * 9], unread=[0, 0])
def test_each_row_keeps_a_token_that_the_head_can_read_if_it_has_one(rows, unread):
    rows = [ids + [1] * count for ids, count in zip(rows, unread, strict=False)]
    count = common_tokens(rows, unread_id=1)
    assert count == 0 or all(any(token != 1 for token in ids[count:]) for ids in rows)


@on_edges
@given(rows=requests())
def test_a_plan_runs_each_pair_once_and_its_prefix_once(rows):
    plan = plan_shared(rows, BUDGETS, prefix_budgets(MAX_LENGTH))
    assert sorted(row for batch in plan.batches for row in batch.rows) == list(range(len(rows)))
    assert len({batch.prefix for batch in plan.batches}) == 1
    count = 0 if plan.batches[0].prefix is None else len(plan.batches[0].prefix.ids)
    assert plan.shared_tokens == count * (len(rows) - 1)
    first, *others = plan.batches
    assert count <= first.prefix_tokens
    assert (first.prefix_tokens > 0) == (count > 0)
    assert not any(batch.prefix_tokens for batch in others)
    for batch in plan.batches:
        assert sum(len(rows[row]) - count for row in batch.rows) <= batch.tokens
    assert 0 <= plan.waste < 1


@pytest.mark.parametrize("count", [1, 31, 32, 33, MAX_LENGTH])
def test_a_prefix_is_read_in_as_few_slots_as_hold_it_and_what_is_left(count):
    read_in = prefix_budgets(MAX_LENGTH)
    [plan] = plan_packed([count], read_in).batches
    assert plan.max_sequences == (2 if count < MAX_LENGTH else 4)
    assert replace(plan, rows=()) in warmup_plans(read_in)


def test_one_of_the_edges_fills_several_batches_and_an_empty_request_none():
    several, none = (plan_shared(rows, BUDGETS, prefix_budgets(MAX_LENGTH)) for rows in (EDGES[-1], []))
    assert len(several.batches) > 1
    assert several.shared_tokens
    assert none.batches == ()


@on_edges
@given(rows=requests())
def test_a_prefix_is_shared_only_where_the_device_processes_fewer_tokens(rows):
    plan = plan_shared(rows, BUDGETS, prefix_budgets(MAX_LENGTH))
    apart = common._plan(rows, 0, BUDGETS, prefix_budgets(MAX_LENGTH))
    saved = apart.all_tokens - plan.all_tokens
    assert saved >= LEAST_SAVED if plan.shared_tokens else saved == 0


# ---- the scores


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    """Two layers, four heads that share two keys and values."""
    return test_causal.make(tmp_path_factory.mktemp("causal"))


def loaded(checkpoint: Path, execution: Execution = SMALL, **kwargs) -> xenc.CrossEncoder:
    return xenc.CrossEncoder(str(checkpoint), device="cpu", execution=execution, **kwargs)


@pytest.fixture(scope="module")
def eager(checkpoint) -> Iterator[xenc.CrossEncoder]:
    with loaded(checkpoint) as model:
        yield model


@contextmanager
def always_shared() -> Iterator[None]:
    """Share every prefix, even if that saves nothing."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(common, "LEAST_SAVED", -(10**9))
        yield


@pytest.fixture(scope="module")
def expected(checkpoint):
    """Token ids -> the log-odds after them, by plain transformers, one row at a time."""

    @cache
    def causal(dtype: torch.dtype):
        return AutoModelForCausalLM.from_pretrained(checkpoint, dtype=dtype, attn_implementation="eager")

    @cache
    @torch.inference_mode()
    def log_odds(ids: tuple[int, ...], dtype: torch.dtype) -> float:
        logits = causal(dtype)(input_ids=torch.tensor([ids])).logits[0, -1].float()
        return float(logits[10] - logits[11])

    return lambda rows, dtype=torch.float32: np.array([log_odds(tuple(ids), dtype) for ids in rows])


def submit(model: xenc.CrossEncoder, rows: Rows):
    """Score token ids; the future of what `Scored` holds."""
    tokens = TokenizedPairs(input_ids=rows)
    pairs, as_scored = [("", "")] * len(rows), lambda scored: scored
    return model.pipeline.schedule(Request(pairs, batch_size=1, answer=as_scored, tokenize=lambda _: tokens))


def scores(model: xenc.CrossEncoder, rows: Rows) -> np.ndarray:
    return submit(model, rows).result(SOON).logits[:, 0].numpy()


def close_to(ours, wanted) -> None:
    np.testing.assert_allclose(ours, wanted, rtol=0, atol=TOLERANCE)


def plain(model: xenc.CrossEncoder, pairs, **kwargs) -> np.ndarray:
    return np.array(model.predict(pairs, activation_fn=torch.nn.Identity(), **kwargs))


@strategies.FEW
@on_edges
@given(rows=requests())
def test_sharing_changes_no_score(eager, expected, rows):
    with always_shared():
        close_to(scores(eager, rows), expected(rows))


def test_the_models_scores_are_not_all_alike(expected):
    draw = random.Random(0)
    assert expected([[draw.randint(3, 400) for _ in range(30)] for _ in range(20)]).std() > 0.3


def test_requests_with_other_prefixes_and_with_none_in_turns_keep_their_own(eager, expected):
    draw = random.Random(1)
    with always_shared():
        for count in (40, 3, 0, 60, 0, 1, 40):
            rows = some_rows(draw, pairs=4, common=count)
            close_to(scores(eager, rows), expected(rows))


def some_rows(draw: random.Random, *, pairs: int, common: int) -> Rows:
    start = [draw.randint(3, 400) for _ in range(common)]
    return [start + [draw.randint(3, 400) for _ in range(draw.randint(1, 30))] for _ in range(pairs)]


def test_a_prefix_is_read_once_and_costs_what_arithmetic_says(eager, monkeypatch):
    draw = random.Random(2)
    rows = some_rows(draw, pairs=30, common=50)
    forward, read = eager.pipeline._layout.forward, []
    monkeypatch.setattr(forward, "_read", lambda batch, run=forward._read: read.append(batch) or run(batch))
    report = submit(eager, rows).result(SOON).report
    assert report.batches > 1
    assert [int(batch.cu_seqlens[1]) for batch in read] == [50]
    own = sum(len(ids) - 50 for ids in rows)
    plan = eager.pipeline.plan(TokenizedPairs(input_ids=rows), batch_size=1)
    batches = sum(batch.tokens for batch in plan.batches)
    assert own <= batches < own + 32
    assert report.all_tokens == batches + 64  # the smallest power of two that holds 50
    assert report.shared_tokens == 29 * 50
    assert report.token_counts == tuple(map(len, rows))
    assert report.waste == pytest.approx(1 - (own + 50) / report.all_tokens)


def test_a_prefix_is_read_again_after_a_weight_has_changed(checkpoint):
    with loaded(checkpoint) as model:
        rows = some_rows(random.Random(3), pairs=8, common=60)
        before = scores(model, rows)
        with torch.no_grad():
            model.transformers_model.model.layers[0].self_attn.v_proj.weight.mul_(-1)
        changed = scores(model, rows)
        model.execution = replace(SMALL, share_prefix=False)
        assert np.abs(changed - before).max() > 0.1
        close_to(changed, scores(model, rows))


def test_a_prefix_that_could_not_be_read_fails_its_own_request_alone(eager, expected, monkeypatch):
    rows = some_rows(random.Random(4), pairs=8, common=60)
    forward, faults = eager.pipeline._layout.forward, [LookupError("once")]

    def read(batch, run=forward._read):
        if faults:
            raise faults.pop()
        return run(batch)

    monkeypatch.setattr(forward, "_read", read)
    with pytest.raises(LookupError, match="once"):
        scores(eager, rows)
    close_to(scores(eager, rows), expected(rows))


def test_requests_from_many_threads_never_see_each_others_prefix(eager, expected):
    def client(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(12):
            rows = some_rows(draw, pairs=draw.randint(1, 12), common=draw.choice((0, 20, 60)))
            close_to(scores(eager, rows), expected(rows))

    with always_shared(), ThreadPoolExecutor(8) as threads:
        list(threads.map(client, range(8)))


def test_in_bfloat16_the_error_is_at_most_twice_that_of_plain_execution(checkpoint, expected):
    dtype = torch.bfloat16
    draw = random.Random(5)
    requests = [some_rows(draw, pairs=10, common=60) for _ in range(4)]
    with loaded(checkpoint, model_kwargs={"dtype": dtype}) as model:
        scored = [submit(model, rows).result(SOON) for rows in requests]
    assert all(each.report.shared_tokens for each in scored)
    ours = np.concatenate([each.logits[:, 0].float().numpy() for each in scored])
    exact, rounded = (expected(list(chain(*requests)), each) for each in (torch.float32, dtype))
    allowed = 2 * np.abs(rounded - exact).max() + torch.finfo(dtype).eps * np.abs(exact).max()
    assert np.abs(ours - exact).max() <= allowed


# ---- compiled, and by the public calls


QUERY = "How does Python look up names, and what of those that are bound in another block?"
DOCUMENTS = ("Names are bound.", "", "b " * 30, "The following constructs bind names.", "c", "a b c d e f g")


def one_by_one(checkpoint: Path, pairs, prompt: str | None) -> np.ndarray:
    model = sentence_transformers.CrossEncoder(str(checkpoint), device="cpu")
    return np.array([plain(model, pair, prompt=prompt) for pair in pairs])


@pytest.mark.parametrize("slots_of", ["cpu", "cuda"])
def test_compiled_it_has_two_graphs_and_any_request_compiles_nothing(
    checkpoint, expected, monkeypatch, slots_of
):
    monkeypatch.setitem(packed.TOKENS_PER_SEQUENCE, "cpu", packed.TOKENS_PER_SEQUENCE[slots_of])
    execution = Execution(share_prefix=True, strict=True, token_budgets=(64, 160))
    with loaded(checkpoint, execution) as model:
        report = model.warmup()
        assert report.graphs == model.pipeline.compiled.graphs == 2  # one reads, one classifies
        assert [size for size, _ in groupby(tokens for tokens, _ in report.shapes)] == [64, 32, 128, 160, 64]
        assert len(report.shapes) == (5 if slots_of == "cpu" else 9)
        draw, shared = random.Random(6), 0
        with watch_compiles() as watch:
            for _ in range(30):
                rows = some_rows(draw, pairs=draw.randint(1, 10), common=draw.randint(0, 90))
                scored = submit(model, rows).result(SOON)
                shared += scored.report.shared_tokens > 0
                close_to(scored.logits[:, 0].numpy(), expected(rows))
            for prompt in (None, "Judge this: "):
                pairs = [(QUERY, document) for document in DOCUMENTS]
                close_to(plain(model, pairs, prompt=prompt), one_by_one(checkpoint, pairs, prompt))
                assert model.last_report.shared_tokens > 100
        assert watch.report.clean, watch.report.describe()
        assert 5 < shared < 30
        graphs = model.pipeline.compiled
        model.execution = replace(execution, strict=False)
        assert model.pipeline.compiled is graphs
        assert not graphs.strict


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3"])
def test_a_causal_classifier_shares_prefixes_too(tmp_path, architecture):
    """Its head passes over padding, wherever that stands."""
    checkpoint = checkpoints.make(tmp_path, architecture)
    pairs = [("where are names bound, and how", text) for text in (*DOCUMENTS, "[PAD]", "a [PAD] [PAD]")]
    with loaded(checkpoint, replace(SMALL, token_budgets=(32, 64))) as model:
        close_to(plain(model, pairs), oracle.logits(checkpoint, pairs, max_length=64))
        assert model.last_report.shared_tokens > 50


# ---- what cannot be


def test_contradictions_are_refused():
    with pytest.raises(ExecutionError, match="share_prefix is for layout='packed', not 'bucketed'"):
        Execution(share_prefix=True, layout="bucketed")
    with pytest.raises(ExecutionError, match=r"deterministic with share_prefix.*Give one of the two"):
        Execution(share_prefix=True, deterministic=True)


@pytest.mark.parametrize(
    ("architecture", "layout", "reason"),
    [
        ("bert", "packed", "BertForSequenceClassification attends both ways"),
        ("mpnet", "packed", "MPNetForSequenceClassification attends both ways"),
        ("megatron-bert", "bucketed", "MegatronBertForSequenceClassification is not among the packable"),
        ("gemma2-capped", "packed", "Gemma2ForSequenceClassification with a cap of its attention's scores"),
        ("qwen3-windows", "packed", "Qwen3ForSequenceClassification with sliding windows"),
    ],
)
def test_a_model_that_cannot_share_runs_as_it_would_without(tmp_path, caplog, architecture, layout, reason):
    checkpoint = checkpoints.make(tmp_path, architecture)
    execution = replace(PRESETS["packed-shared-prefix"], compile_mode=None)
    model = loaded(checkpoint, execution)
    said = [record.message for record in caplog.records if "share_prefix" in record.message]
    assert len(said) == 1
    assert said[0].startswith(reason)
    assert not model.execution.share_prefix
    assert model.execution.layout == layout
