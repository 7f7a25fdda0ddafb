"""Large requests are tokenized in chunks: memory is bounded, and small requests need not wait for them."""

from __future__ import annotations

import textwrap

import numpy as np
import pytest

from correctness_tests.serving.conftest import FINE
from correctness_tests.waiting import SOON, held, run_python, until
from xenc.serving.queue import MOST_WAITING

CHUNK = 64


def test_the_queue_is_bounded_while_a_large_request_is_tokenized(model, monkeypatch):
    stream, waiting = model.pipeline.queue, []
    add, bound = stream.add, MOST_WAITING * stream._budgets.usual
    monkeypatch.setattr(stream, "add", lambda *args: add(*args) or waiting.append(stream._tokens))
    pairs = [("a", "b " * 8)] * 20_000
    with held(model):
        future = model.submit(pairs)
        assert until(lambda: bool(stream._paused))
        assert not future.done()
        assert stream._tokens <= bound + CHUNK * 64
    assert future.result(60).shape == (20_000,)
    assert bound < max(waiting) <= bound + CHUNK * 64
    assert len(waiting) == -(-20_000 // CHUNK)


def test_a_small_request_does_not_wait_for_a_huge_one_to_end(model):
    huge = model.submit([("a", "b " * 60)] * 5_000)
    small = model.submit([FINE])
    assert small.result(60).shape == (1,)
    assert not huge.done()
    assert huge.cancel()


def test_each_text_of_a_request_is_tokenized_once(model, monkeypatch):
    reader, texts = model.pipeline.reader, []
    ids = reader._ids
    monkeypatch.setattr(reader, "_ids", lambda asked: texts.extend(asked) or ids(asked))
    model.predict([("one question", f"document {index}") for index in range(5 * CHUNK)])
    assert len(texts) == len(set(texts)) == 1 + 5 * CHUNK


NESTED = """
    both = threading.Barrier(2)

    def activation(logits):
        both.wait(10)
        model.predict(PAIRS)
        return logits

    for _ in range(2):
        asks(lambda: model.predict(PAIRS, activation_fn=activation))
    """

FAILED = """
    run, faults = model.pipeline.forward, [RuntimeError("once")]

    def forward(batch):
        time.sleep(0.3)
        if faults:
            raise faults.pop()
        return run(batch)

    model.pipeline.forward = forward
    again = Future()
    model.submit(PAIRS).add_done_callback(lambda _: again.set_result(model.predict(PAIRS)))
    asks(again.result)
    """

EMPTY = """
    model._worker.on_device(time.sleep, 0.3)
    again = Future()
    model.submit([]).add_done_callback(lambda _: again.set_result(model.predict(PAIRS)))
    asks(again.result)
    """

CLOSED = """
    model.submit(PAIRS).add_done_callback(lambda _: model.close())
    time.sleep(0.5)
    asks(lambda: model.predict(PAIRS))
    """


SCRIPTS = {
    "an activation function": NESTED,
    "a failed request's callback": FAILED,
    "an empty request's callback": EMPTY,
    "a callback that closes": CLOSED,
}


@pytest.fixture(scope="module")
def answered(tiny) -> list[str]:
    """In which places a model answers; in a process of its own, which deadlocks would keep from ending."""
    script = """
    from concurrent.futures import Future
    asked = []

    def ask(name, work):
        answer = Future()
        threading.Thread(target=lambda: answer.set_result(work()), daemon=True).start()
        asked.append((name, answer))
    """
    for number, (name, part) in enumerate(SCRIPTS.items()):
        body = textwrap.indent(textwrap.dedent(part), " " * 8)
        script += f"\n    def part_{number}(model, asks):\n{body}\n"
        script += f"\n    part_{number}(copy.deepcopy(model), functools.partial(ask, {name!r}))\n"
    script += """
    time.sleep(8)
    print(*(name for name, answer in asked if answer.done()), sep=os.linesep, flush=True)
    os._exit(0)
    """
    done = run_python("import copy, functools\n" + textwrap.dedent(script), tiny)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("place", "times"), [(place, 2 if script is NESTED else 1) for place, script in SCRIPTS.items()]
)
def test_a_model_used_from_its_own_threads_answers(answered, place, times):
    assert answered.count(place) == times


def test_submit_inside_a_callback_answers(model):
    chained: list = []
    model.submit([FINE]).add_done_callback(lambda _: chained.append(model.submit([FINE])))
    assert until(lambda: bool(chained))
    np.testing.assert_array_equal(chained[0].result(SOON), model.predict([FINE]))


def test_submit_answers_as_predict_does_for_odd_inputs(model):
    for inputs in ([], ("a", "b"), np.array([["a", "b"], ["c", "d"]]), [["a", "b"]]):
        expected = model.predict(inputs)
        answered = model.submit(inputs).result(SOON)
        assert np.shape(answered) == np.shape(expected)
        np.testing.assert_allclose(answered, expected, rtol=0, atol=1e-5)
