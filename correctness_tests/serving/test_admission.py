"""At most max_waiting_pairs wait; each accepted pair counts until just before it is answered."""

from __future__ import annotations

import copy
import os
import pickle
import random
import threading
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress

import pytest

import xenc
from correctness_tests.serving.conftest import FINE as PAIR
from correctness_tests.serving.conftest import POISON, assert_right, refuse, submit
from correctness_tests.waiting import SOON, held, run_python
from xenc import ExecutionError, Overloaded, PairError
from xenc.serving.admission import Admission


@pytest.fixture
def model(model):
    model.max_waiting_pairs = 10
    return model


def test_the_count_is_exact_under_threads():
    admission, most = Admission(10), []

    def client(seed: int) -> int:
        draw, accepted = random.Random(seed), 0
        for _ in range(3000):
            with suppress(Overloaded), admission.accept(draw.randint(1, 4)) as leave:
                most.append(admission.waiting)
                accepted += 1
                leave()
                leave()
        return accepted

    with ThreadPoolExecutor(8) as threads:
        assert sum(threads.map(client, range(8))) > 0
    assert max(most) <= 10
    assert admission.waiting == 0


@pytest.mark.parametrize("limit", [0, -1, True, 2.5, "10"])
def test_a_limit_that_is_no_number_of_pairs_is_refused(tiny, model, limit):
    with pytest.raises(ExecutionError, match=rf"max_waiting_pairs={limit!r} must be a positive number"):
        xenc.CrossEncoder(str(tiny), device="cpu", max_waiting_pairs=limit)
    with pytest.raises(ExecutionError, match="max_waiting_pairs"):
        model.max_waiting_pairs = limit
    assert model.max_waiting_pairs == 10


def test_a_request_that_would_exceed_the_limit_is_refused_at_once_with_the_count(model, expected):
    with held(model):
        accepted = [submit(model, [PAIR] * 4), submit(model, [PAIR] * 4)]
        for ask in (model.submit, model.predict):
            with pytest.raises(Overloaded, match=r"8 pairs wait already, and 3 more .*=10: retry later, ra"):
                ask([PAIR] * 3)
        accepted.append(submit(model, [PAIR] * 2))
        assert model.waiting_pairs == 10
        with pytest.raises(Overloaded) as refused:
            model.submit(PAIR)
        assert (refused.value.waiting, refused.value.retry_helps) == (10, True)
    for future in accepted:
        assert_right(future, expected)
    assert model.waiting_pairs == 0
    assert_right(submit(model, [PAIR] * 10), expected)


def test_a_refusal_does_not_wait_for_a_pipeline_that_another_thread_builds(model):
    model.max_waiting_pairs = 1
    with ThreadPoolExecutor(1) as another, model._lock:
        assert another.submit(model.predict, [PAIR] * 2).exception(SOON).limit == 1


def test_a_request_larger_than_the_limit_is_always_refused_and_told_to_split(model):
    with pytest.raises(Overloaded, match=r"11 pairs can never .*=10: split it, or raise") as refused:
        model.predict([PAIR] * 11)
    assert not refused.value.retry_helps
    assert model.waiting_pairs == 0


def test_overloaded_crosses_processes():
    error = Overloaded("full", pairs=1, waiting=2, limit=2)
    assert vars(pickle.loads(pickle.dumps(error))) == vars(error)


@pytest.mark.parametrize(
    ("pairs", "activation_fn"), [([PAIR] * 3, None), ([POISON] * 3, None), ([PAIR] * 3, refuse)]
)
def test_answered_pairs_no_longer_count_when_the_answer_is_seen(model, monkeypatch, pairs, activation_fn):
    """So that a caller is never refused because of its own last request."""
    counted = []
    for name in ("set_result", "set_exception"):
        settle = getattr(Future, name)

        def counting(future, value, settle=settle):
            if future is asked[0]:
                counted.append(model.waiting_pairs)
            settle(future, value)

        monkeypatch.setattr(Future, name, counting)
    with held(model):
        asked = [submit(model, pairs, activation_fn)]
        assert model.waiting_pairs == 3
    futures.wait(asked, timeout=SOON)
    assert counted == [0]


def test_bad_input_leaves_nothing_behind(model):
    for error, ask in {
        PairError: lambda: model.submit([PAIR, ("a", None)]).result(SOON),
        ExecutionError: lambda: model.submit([PAIR], batch_size=0),
        ValueError: lambda: model.predict([PAIR], prompt_name="no such prompt"),
    }.items():
        with pytest.raises(error):
            ask()
    assert model.waiting_pairs == 0


def test_an_empty_request_is_never_refused(model):
    with held(model):
        submit(model, [PAIR] * 10)
        model.max_seq_length = 0  # which is refused for any pair
        assert len(model.predict([])) == 0


def test_close_settles_every_future_and_makes_room_for_later_calls(model, expected):
    model.max_waiting_pairs = 15_000
    waiting = [submit(model, [PAIR] * 5000) for _ in range(3)]
    model.close()
    assert futures.wait(waiting, timeout=SOON).not_done == set()
    assert model.waiting_pairs == 0
    assert_right(submit(model, [PAIR] * 10), expected)


def test_what_sentence_transformers_scores_counts_too(model):
    begun, go = threading.Event(), threading.Event()

    def wait(logits):
        begun.set()
        assert go.wait(SOON)
        return logits

    slow = model.submit([PAIR] * 6, apply_softmax=True, activation_fn=wait)
    assert begun.wait(SOON)
    for ask in (model.submit, model.predict):
        with pytest.raises(Overloaded, match="6 pairs wait"):
            ask([PAIR] * 5, apply_softmax=True)
    go.set()
    slow.result(SOON)
    assert model.waiting_pairs == 0
    with pytest.raises(LookupError):
        model.predict([PAIR] * 10, apply_softmax=True, activation_fn=refuse)
    with pytest.raises(LookupError):
        model.submit([PAIR] * 10, apply_softmax=True, activation_fn=refuse).result(SOON)
    assert model.waiting_pairs == 0


def test_a_slow_request_cancelled_before_it_began_makes_room(model, monkeypatch):
    monkeypatch.setattr(model._worker, "call", lambda job: Future())
    future = model.submit([PAIR] * 10, apply_softmax=True)
    assert model.waiting_pairs == 10
    assert future.cancel()
    assert model.waiting_pairs == 0


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_of_a_model_at_work_has_the_limit_and_threads_and_a_count_of_its_own(
    model, expected, duplicate
):
    with held(model):
        going = submit(model, [PAIR] * 8)
        with duplicate(model) as twin:
            assert (twin.max_waiting_pairs, twin.waiting_pairs) == (10, 0)
            assert_right(submit(twin, [PAIR] * 10), expected)
            twin.max_waiting_pairs = 3
        assert (model.max_waiting_pairs, model.waiting_pairs, going.done()) == (10, 8, False)
    assert_right(going, expected)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_forked_child_answers_and_counts_from_zero(tiny):
    script = """
        expected = model.predict(PAIRS)
        model.max_waiting_pairs = 10
        go = threading.Event()
        model._worker.on_device(go.wait, 100)
        waiting = model.submit(PAIRS)
        while len(model.pipeline.queue._waiting) < 8:
            time.sleep(0.01)
        model._admission._lock.acquire()  # as another thread might, just then
        child = os.fork()
        if child == 0:
            torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
            before = model.waiting_pairs
            waiting.cancel()
            answered = abs(model.predict(PAIRS) - expected).max() < 1e-5
            os._exit(0 if before == 0 and answered and model.waiting_pairs == 0 else 3)
        model._admission._lock.release()
        assert os.waitpid(child, 0)[1] == 0
        assert model.waiting_pairs == 8
        go.set()
        assert len(waiting.result(60)) == 8
    """
    done = run_python(script, tiny, seconds=120)
    assert done.returncode == 0, done.stderr[-2000:]
