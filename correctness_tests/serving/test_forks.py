"""A forked child scores, whatever the parent's other threads did at that moment."""

from __future__ import annotations

import os

import pytest

from correctness_tests.waiting import run_python

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")

IN_A_CHILD = """
    import signal, sys, traceback

    def in_a_child(check):
        '''Whether a child ends well in time.'''
        child = os.fork()
        if child == 0:
            signal.alarm(60)
            torch.set_num_threads(1)  # OpenMP's threads do not survive a fork
            try:
                check()
            except BaseException:
                traceback.print_exc()
                os._exit(3)
            os._exit(0)
        return os.waitpid(child, 0)[1]

    expected = model.predict(PAIRS)

    def scores():
        assert abs(model.predict(PAIRS) - expected).max() < 1e-5
"""

HELD = """
    from contextlib import ExitStack
    from tqdm import TMonitor, tqdm
    from xenc.compiling import wrapper
    from xenc.kernels import library
    from xenc.text import tokenizer

    tqdm.monitor_interval = 0  # its thread takes both of tqdm's locks, of which one alone is held below
    for thread in threading.enumerate():
        if isinstance(thread, TMonitor):
            thread.exit()
    compile_ = torch.compile
    torch.compile = lambda function, *, mode, **others: compile_(function, backend="eager", **others)
    model.execution = "packed"
    model.predict(PAIRS[:1])
    locks = {
        "the model's": model._lock,
        "the queue's": model.pipeline.queue._lock,
        "admission's": model._admission._lock,
        "the tokenizers'": tokenizer._making_a_lock,
        "the settings'": wrapper._SETTING,
        "Dynamo's": torch._dynamo.convert_frame.compile_lock,
        "the kernels'": library._LOADING,
        "progress bars'": tqdm.get_lock().locks[-1],
    }
    for name, lock in locks.items():
        held, go = threading.Event(), threading.Event()

        def hold():
            with lock:
                held.set()
                go.wait()

        holder = threading.Thread(target=hold, daemon=True)
        holder.start()
        held.wait()

        def compiles_and_scores():
            library.library()
            scores()
            model.predict(PAIRS, show_progress_bar=True)
            model.execution = xenc.Execution(dynamic=False)
            scores()

        assert in_a_child(compiles_and_scores) == 0, name
        go.set()
        holder.join()
"""


TOKENIZING = """
    from xenc.text.tokenizer import tokenizer_lock

    held, order = threading.Event(), []

    def hold():
        with tokenizer_lock(model.tokenizer):
            held.set()
            time.sleep(0.5)
            order.append("free")

    holder = threading.Thread(target=hold)
    holder.start()
    held.wait()

    def forked_when_free():
        assert order == ["free"]
        scores()

    assert in_a_child(forked_when_free) == 0
    scores()
"""


def test_a_fork_waits_until_no_tokenizer_is_in_use(tiny):
    """The lock inside a tokenizer cannot be freed in a child."""
    done = run_python(IN_A_CHILD + TOKENIZING, tiny, seconds=120)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_child_finds_every_lock_free(tiny):
    done = run_python(IN_A_CHILD + HELD, tiny, seconds=300)
    assert done.returncode == 0, done.stderr[-3000:]


WAITING = """
    go = threading.Event()
    model._worker.on_device(go.wait, 100)
    called, waiting = [], model.submit(PAIRS)
    waiting.add_done_callback(called.append)
    while len(model.pipeline.queue._waiting) < 8:
        time.sleep(0.01)

    def begins_anew():
        assert waiting.cancelled()
        assert not called
        assert model.waiting_pairs == 0
        assert len(model.pipeline.queue._waiting) == 0
        scores()
        model.close()

    assert in_a_child(begins_anew) == 0
    go.set()
    assert len(waiting.result(60)) == 8
    assert called == [waiting]
"""


def test_what_waits_in_the_parent_is_answered_there_and_cancelled_in_the_child(tiny):
    done = run_python(IN_A_CHILD + WAITING, tiny, seconds=120)
    assert done.returncode == 0, done.stderr[-3000:]


UNDER_LOAD = """
    stop = threading.Event()

    def load():
        with xenc.CrossEncoder(os.environ["CHECKPOINT"], device="cpu", execution="packed-eager") as other:
            while not stop.is_set():
                for each in (model, other):
                    each.predict([(str(time.monotonic()), "here it is " * 9)] * 20)
                other.execution = "sdpa-sorted" if other.execution.layout == "packed" else "packed-eager"

    threads = [threading.Thread(target=load, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    ended = []
    for fork in range(int(os.environ["FORKS"])):
        time.sleep(0.003 * (fork % 7))
        ended.append(in_a_child(scores))
    stop.set()
    for thread in threads:
        thread.join()
    assert not any(ended), ended
"""


@pytest.mark.parametrize("forks", [12, pytest.param(200, marks=pytest.mark.slow)])
def test_no_child_of_a_busy_process_hangs(tiny, forks):
    done = run_python(IN_A_CHILD + UNDER_LOAD, tiny, seconds=3600, FORKS=str(forks))
    assert done.returncode == 0, done.stderr[-3000:]
