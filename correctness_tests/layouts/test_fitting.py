"""A batch that does not fit the memory is halved: scores stay, no pair is lost, it is said once."""

from __future__ import annotations

import gc
import logging
import random
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import xenc
from correctness_tests import oracle
from correctness_tests.layouts import test_shared_prefix as shared
from correctness_tests.scoring import assert_close, logits, nothing_compiles, on_cpu
from correctness_tests.strategies import FEW
from correctness_tests.waiting import SOON, held, run_python, until
from xenc import CompileError, Execution, OutOfMemoryError
from xenc.batching.packed_plan import token_budgets
from xenc.layouts import fitting

LAYOUTS = {
    "packed": Execution(compile_mode=None, token_budgets=256),
    "padded": Execution(compile_mode=None, layout="padded"),
    "unsorted": Execution(compile_mode=None, layout="padded", sort=False),
    "bucketed": Execution(compile_mode=None, layout="bucketed"),
}
POOL = [("where is it", "here it is " * words) for words in range(24)]
SIZES = token_budgets(256, 64, usual=2048)


@dataclass
class Memory:
    """What happened in a memory of so many tokens."""

    most: int
    tried: list[tuple[int, ...]] = field(default_factory=list)
    halved: list[tuple[int, int]] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    def take(self, batch) -> None:
        """Raise what CUDA raises for a batch that does not fit."""
        ids = getattr(batch, "packed", batch).input_ids
        self.tried.append(tuple(ids.shape))
        if ids.numel() > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has 1 GiB")


@contextmanager
def memory_of(tokens: int, model: xenc.CrossEncoder) -> Iterator[Memory]:
    """The model's pipeline as it is now runs in a memory of so many tokens."""
    memory, pipeline, said = Memory(tokens), model.pipeline, logging.Handler()
    owner, name = (pipeline._layout, "forward") if pipeline.compiled is None else (pipeline.compiled, "_call")
    run, halve = getattr(owner, name), pipeline.halve

    def limited(batch):
        memory.take(batch)
        return run(batch)

    def noted(plan, asked, pairs):
        memory.halved += [plan.shape] if (smaller := halve(plan, asked, pairs)) else []
        return smaller

    said.emit = lambda record: memory.said.append(record.getMessage())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, limited)
        patch.setattr(pipeline, "halve", noted)
        fitting.logger.addHandler(said)
        try:
            yield memory
        finally:
            fitting.logger.removeHandler(said)


def anew(model: xenc.CrossEncoder, execution: Execution) -> None:
    """A pipeline that has learned nothing."""
    model.execution = "packed-eager"
    model.execution = execution


@pytest.fixture(scope="module")
def model(tiny) -> Iterator[xenc.CrossEncoder]:
    with on_cpu(tiny) as model:
        yield model


@pytest.fixture(scope="module")
def expected(tiny) -> list[float]:
    """The oracle's logits of POOL."""
    return oracle.logits(tiny, POOL, max_length=64).tolist()


@pytest.fixture(scope="module")
def counts(model) -> list[int]:
    model.predict(POOL)
    return list(model.last_report.token_counts)


def least(layout: str, count: int) -> int:
    """The tokens of the smallest batch that holds a pair."""
    return {"packed": SIZES.at_least(count), "bucketed": -(-count // 16) * 16}.get(layout, count)


requests = st.lists(st.lists(st.integers(0, len(POOL) - 1), min_size=1, max_size=40), min_size=1, max_size=5)


@pytest.mark.parametrize("layout", LAYOUTS)
@FEW
@given(asked=requests, most=st.integers(32, 300), batch_size=st.integers(1, 9))
@example(asked=[[23] * 9 + [0] * 30, [1, 2, 3], [23, 0]], most=70, batch_size=8)
@example(asked=[[0, 23, 0, 1], [1, 2, 3], [4] * 20], most=40, batch_size=4)
@example(asked=[list(range(24))] * 5, most=64, batch_size=9)
def test_scores_stay_no_pair_is_lost_and_what_did_not_fit_is_said_once(
    model, expected, counts, layout, asked, most, batch_size
):
    anew(model, LAYOUTS[layout])
    identity = torch.nn.Identity()
    with memory_of(most, model) as memory:
        for _ in range(2):
            known = len(memory.halved)
            with held(model):
                futures = [
                    model.submit([POOL[row] for row in rows], batch_size=batch_size, activation_fn=identity)
                    for rows in asked
                ]
            for rows, future in zip(asked, futures, strict=True):
                needs = {counts[row]: least(layout, counts[row]) for row in rows}
                if max(needs.values()) <= most:
                    assert_close(future.result(SOON), [expected[row] for row in rows])
                    continue
                error = future.exception(SOON)
                assert isinstance(error, OutOfMemoryError)
                assert any(f"a pair of {count} tokens" in str(error) for count in needs)
        fits = max(least(layout, counts[row]) for rows in asked for row in rows) <= most
        assert not fits or len(memory.halved) == known  # the second time all is within what fits
        assert len(set(memory.halved)) == len(memory.halved)
        warned = " ".join(memory.said)
        for shape in memory.halved:
            named = f"{shape[0]:,} tokens" if layout == "packed" else f"{shape[0]} x {shape[1]} tokens"
            times = warned.count(f"a batch of {named} (2.00 GiB could not be allocated)")
            assert times == 1 if fits else times <= 1
        assert len(memory.said) <= len(memory.halved)
    assert until(lambda: model.waiting_pairs == 0)


@pytest.mark.parametrize(("layout", "field"), [("packed", "token_budgets=64"), ("bucketed", "batch_size=1")])
def test_the_report_counts_halved_batches_and_the_warning_says_what_to_set(model, expected, layout, field):
    anew(model, LAYOUTS[layout])
    with memory_of(64, model) as memory:
        assert_close(logits(model, POOL, batch_size=4), expected)
        assert model.last_report.halved == len(memory.halved) == 2
        assert model.last_report.batches == len(memory.tried) - 2
        [said] = memory.said
        assert "did not fit the memory, a batch of" in said
        assert field in said
        logits(model, POOL, batch_size=4)
        assert model.last_report.halved == 0
    assert len(memory.said) == 1


def test_the_error_of_a_pair_that_never_fits_names_its_tokens_the_memory_and_the_remedy(model, counts):
    anew(model, LAYOUTS["packed"])
    with memory_of(48, model):
        with held(model):
            alone, others = model.submit(POOL[-1:]), model.submit(POOL[:5])
        assert others.result(SOON).shape == (5,)
        with pytest.raises(
            OutOfMemoryError, match=r"of 64 tokens .*2\.00 GiB.* 64 tokens.*max_length.*dtype"
        ):
            alone.result(SOON)
    assert counts[-1] == 64


def test_a_pair_that_needs_more_is_tried_alone_when_memory_may_be_free_again(model, expected):
    anew(model, LAYOUTS["packed"])
    with memory_of(48, model) as memory:
        with pytest.raises(OutOfMemoryError):
            model.predict(POOL)
        memory.most = 64
        memory.tried.clear()
        assert_close(logits(model, POOL), expected)
    assert (64,) in memory.tried


def test_batch_invariant_scores_keep_their_one_size(model, expected):
    anew(model, Execution(compile_mode=None, deterministic=True, token_budgets=256))
    with memory_of(128, model) as memory:
        for _ in range(2):
            with pytest.raises(OutOfMemoryError, match=r"a batch of 256 tokens.*deterministic=True"):
                model.predict(POOL)
        memory.most = 256
        assert_close(logits(model, POOL), expected)
        alone = logits(model, POOL[3:4])
        np.testing.assert_array_equal(alone, logits(model, POOL)[3:4])
    assert set(memory.tried) == {(256,)}
    assert memory.halved == []


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), CompileError("late"), LookupError("x")])
def test_other_errors_are_not_retried_in_halves(model, monkeypatch, error):
    anew(model, LAYOUTS["packed"])
    tried = []

    def broken(batch):
        tried.append(batch.shape)
        raise error

    monkeypatch.setattr(model.pipeline._layout, "forward", broken)
    with pytest.raises(type(error)):
        model.predict([POOL[4]] * 10)  # one batch
    assert len(tried) == 1
    assert model.pipeline._layout.limit.most is None


def test_nothing_of_a_failed_batch_is_alive_when_its_halves_run(model, monkeypatch):
    anew(model, LAYOUTS["packed"])
    layout, held_alive = model.pipeline._layout, []
    run = layout.forward

    def forward(batch):
        assert not any(each() is not None for each in held_alive)
        if len(batch.input_ids) > 64:
            activation = torch.ones(len(batch.input_ids))
            held_alive.append(weakref.ref(activation))
            try:
                raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB")
            except torch.OutOfMemoryError as error:
                kept = error  # a cycle, as some of PyTorch's frames are  # noqa: F841
                raise
        return run(batch)

    monkeypatch.setattr(layout, "forward", forward)
    gc.disable()
    try:
        model.predict(POOL)
    finally:
        gc.enable()
    assert len(held_alive) == 2


def test_many_threads_get_their_own_scores_while_sizes_are_learned(model, expected):
    for layout in ("packed", "bucketed"):
        anew(model, LAYOUTS[layout])

        def client(seed: int) -> None:
            draw = random.Random(seed)
            for _ in range(10):
                rows = draw.choices(range(len(POOL)), k=draw.randint(1, 9))
                scores = logits(model, [POOL[row] for row in rows], batch_size=8)
                assert_close(scores, [expected[row] for row in rows])

        with memory_of(64, model), ThreadPoolExecutor(8) as threads:
            list(threads.map(client, range(8)))


# ---- compiled


@pytest.mark.parametrize("when", ["at warm-up", "after it"])
@pytest.mark.parametrize("layout", ["packed", "bucketed"])
def test_nothing_compiles_after_warm_up(tiny, expected, layout, when):
    sizes = {"token_budgets": 256} if layout == "packed" else {"buckets": 32}
    with on_cpu(tiny, Execution(layout=layout, strict=True, **sizes)) as model:
        with memory_of(150 if when == "at warm-up" else 10**6, model) as memory:
            report = model.warmup(batch_size=8, passes=1)
            early = when == "at warm-up"
            assert bool(report.too_large) == early
            assert len(memory.said) == early
            assert (
                all(np.prod(shape[:1] if layout == "packed" else shape) <= 150 for shape in report.shapes)
                == early
            )
            memory.most = 150
            with nothing_compiles():
                for _ in range(2):
                    assert_close(logits(model, POOL, batch_size=8), expected)
        assert len(memory.said) == 1
        assert (memory.halved == []) == early
        assert model.pipeline.compiled.graphs == 1


@pytest.mark.usefixtures("dynamo_alone")
@pytest.mark.parametrize("strict", [False, True])
def test_shapes_that_have_to_be_compiled_are_compiled_at_once_and_said(tiny, expected, strict):
    execution = Execution(layout="bucketed", buckets=32, dynamic=False, strict=strict)
    with on_cpu(tiny, execution) as model:
        model.warmup(batch_size=8, passes=1)
        with memory_of(256, model) as memory:
            if strict:
                with pytest.raises(CompileError, match=r"8 x 64 tokens did not fit .*batch_size=4"):
                    model.predict(POOL, batch_size=8)
            else:
                assert_close(logits(model, POOL, batch_size=8), expected)
                assert "graphs compiled meanwhile: 1" in memory.said[0]
            with nothing_compiles():
                assert_close(logits(model, POOL, batch_size=8), expected)
        assert len(memory.said) == 1


@pytest.mark.usefixtures("dynamo_alone")
@pytest.mark.parametrize("layout", ["packed", "bucketed"])
def test_warm_up_fails_where_nothing_fits_and_leaves_out_what_does_not(tiny, layout):
    execution = Execution(
        layout=layout, strict=True, **({"token_budgets": 128} if layout == "packed" else {})
    )
    with (
        on_cpu(tiny, execution) as model,
        memory_of(8, model),
        pytest.raises(OutOfMemoryError, match=r"no batch fits .*2\.00 GiB.*dtype"),
    ):
        model.warmup(batch_size=4, passes=1)
    with on_cpu(tiny, execution) as model, memory_of(48, model) as memory:
        report = model.warmup(batch_size=4, passes=1)
        assert {size for size, *_ in report.shapes} == ({32} if layout == "packed" else {1, 2})
        memory.most, memory.tried[:] = 10**6, []
        with nothing_compiles():
            model.predict(POOL[:6], batch_size=4)
            if layout == "packed":
                with pytest.raises(OutOfMemoryError, match=r"of 64 tokens .* warm-up found none"):
                    model.predict(POOL[-1:], batch_size=4)
        assert all(np.prod(shape) <= 48 for shape in memory.tried)


# ---- after a shared prefix


@pytest.fixture(scope="module")
def causal(tmp_path_factory):
    with shared.loaded(shared.test_causal.make(tmp_path_factory.mktemp("causal"))) as model:
        yield model


@FEW
@given(rows=shared.requests(), most=st.sampled_from([32, 64, 100]), readable=st.sampled_from([0, 32, 64]))
@example(rows=shared.EDGES[-1], most=64, readable=64)
@example(rows=shared.EDGES[2], most=64, readable=32)
@example(rows=[[7] * 40 + [number] * 30 for number in range(8)], most=64, readable=64)
def test_batches_after_a_prefix_are_halved_and_what_cannot_be_read_is_not_shared(
    causal, rows, most, readable
):
    anew(causal, shared.SMALL)
    with shared.always_shared():
        wanted = shared.scores(causal, rows)
        anew(causal, shared.SMALL)
        forward, memory, reads = causal.pipeline._layout.forward, Memory(most), Memory(readable)
        classify, read = forward._classify, forward._read
        forward._classify = lambda batch: memory.take(batch) or classify(batch)
        forward._read = lambda batch: reads.take(batch) or read(batch)
        for _ in range(2):
            with suppress(OutOfMemoryError):
                scored = shared.submit(causal, rows).result(SOON)
                shared.close_to(scored.logits[:, 0].numpy(), wanted)
                assert 0 <= scored.report.waste < 1
                assert readable or not scored.report.shared_tokens
                continue
            assert shared.BUDGETS.at_least(max(map(len, rows))) > most
        failed = [shape for shape in reads.tried if shape[0] > readable]
        assert len(failed) <= 1


# ---- a process that truly runs out of memory

TRULY = """
    import resource, threading
    from xenc import Execution
    threading.stack_size(1 << 20)
    model.execution = Execution(compile_mode=None, token_budgets=1 << 19)
    pairs = [("where is it", "here it is " * (number % 19)) for number in range(12_000)]
    wanted = model.predict(pairs[:19], activation_fn=torch.nn.Identity())
    pages = int(open("/proc/self/statm").read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + ROOM, -1))
    scores = model.predict(pairs, activation_fn=torch.nn.Identity())
    assert abs(scores - [wanted[number % 19] for number in range(12_000)]).max() < 1e-4
    report, tokens = model.last_report, model.pipeline._layout.budgets.usual
    print(report.halved, report.pairs, tokens)
    model.predict(pairs)
    print(model.last_report.halved)
    """


@pytest.mark.slow
def test_a_process_whose_allocator_truly_fails_scores_all_pairs_in_smaller_batches(tiny):
    # threads that are started later, and their own arenas, would take more than there is room for
    alone = {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    done = run_python(TRULY.replace("ROOM", "(144 << 20)"), tiny, seconds=300, **alone)
    assert done.returncode == 0, done.stderr[-3000:]
    halved, pairs, tokens, later = map(int, done.stdout.split())
    assert (pairs, later) == (12_000, 0)
    assert halved >= 1
    assert tokens < 1 << 19
    assert "DefaultCPUAllocator" in done.stderr or "could not be allocated" in done.stderr
