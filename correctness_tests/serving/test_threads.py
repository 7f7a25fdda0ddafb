"""Threads end with their model and the interpreter, and take their settings from the caller."""

from __future__ import annotations

import gc
import textwrap
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
import torch

import xenc
from correctness_tests import oracle
from correctness_tests.comparison import assert_same
from correctness_tests.scoring import assert_close, logits, nothing_compiles, on_cpu
from correctness_tests.waiting import SOON, run_python, threads_of_xenc, until
from xenc import Execution
from xenc.serving.worker import Worker

PAIRS = [("where is it", "here it is " * words) for words in range(8)]


@pytest.fixture
def begun():
    """The threads that begin meanwhile and have not ended."""
    before = threads_of_xenc()
    return lambda: threads_of_xenc() - before


def test_close_ends_the_threads_and_a_later_call_starts_new_ones(tiny, begun):
    model = on_cpu(tiny, "packed-eager")
    before = model.predict(PAIRS)
    assert begun()
    model.close()
    assert until(lambda: not begun())
    np.testing.assert_array_equal(model.predict(PAIRS), before)
    model.close()
    assert until(lambda: not begun())


def wrong_answers(models, also=lambda: None):
    """How many answers of models that are asked at once differ from those before, in 60 rounds each."""
    expected = models[0].predict(PAIRS)

    def wrong(model):
        answers = []
        for _ in range(60):
            with suppress(CancelledError):
                answers.append(model.predict(PAIRS))
        return sum(not np.allclose(each, expected, atol=1e-4) for each in answers)

    with ThreadPoolExecutor(len(models)) as pool:
        counts = [pool.submit(wrong, model) for model in models]
        while not all(count.done() for count in counts):
            also()
            time.sleep(0.01)
    return [count.result() for count in counts]


@pytest.mark.parametrize("products", [None, "torch"])
def test_a_model_that_is_closed_while_others_ask_it_scores_as_before(tiny, products):
    model = on_cpu(tiny, Execution(compile_mode=None, products=products))
    assert wrong_answers([model] * 3, also=model.close) == [0, 0, 0]


@pytest.mark.parametrize(
    ("ask", "threads"),
    [(Worker.on_device, "_device"), (Worker.read, "_readers"), (Worker.call, "_answerers")],
)
def test_a_job_for_threads_that_are_just_ended_goes_to_the_new_ones(monkeypatch, ask, threads):
    worker = Worker()
    pool = getattr(worker, threads)
    submit = pool.submit

    def submit_late(*job):
        worker.close()
        return submit(*job)

    monkeypatch.setattr(pool, "submit", submit_late)
    assert ask(worker, lambda: 7).result(SOON) == 7
    worker.close()


@pytest.mark.parametrize("other", ["packed-eager", "sdpa-sorted", "eager-unsorted"])
def test_models_over_the_same_modules_do_not_disturb_each_other(tiny, other):
    one = on_cpu(tiny, Execution(compile_mode=None, products="torch"))
    execution = Execution(compile_mode=None, products="torch") if other == "packed-eager" else other
    two = xenc.CrossEncoder(modules=list(one.children()), device="cpu", execution=execution)
    assert wrong_answers([one, two]) == [0, 0]


def test_a_with_block_ends_the_threads(tiny, begun):
    with on_cpu(tiny, "packed-eager") as model, suppress(LookupError):
        model.predict(PAIRS)
        assert begun()
        raise LookupError
    model.close()
    assert until(lambda: not begun())


@pytest.mark.parametrize("execution", ["packed-eager", "packed"])
def test_threads_end_with_their_model(one_layer, begun, execution):
    model = on_cpu(one_layer, execution)
    model.predict(PAIRS)
    assert begun()
    del model
    gc.collect()
    assert until(lambda: not begun())


def test_an_exception_after_submit_ends_the_interpreter(tiny):
    done = run_python("model.submit(PAIRS * 500)\nraise SystemExit(7)", tiny)
    assert done.returncode == 7, done.stderr[-2000:]


def test_the_interpreter_ends_although_a_thread_goes_on_asking(tiny):
    script = """
        def ask():
            while True:
                model.predict(PAIRS * 30)
        model.predict(PAIRS)
        threading.Thread(target=ask).start()
        time.sleep(0.3)
    """
    run_python(script, tiny)


SLOW_COMPILER = """
    import signal
    begun = threading.Event()

    def compiler(graph, _):
        begun.set()
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            time.sleep(0.01)
        print("compiled", flush=True)
        return graph

    compile_ = torch.compile
    torch.compile = lambda function, *, mode, **others: compile_(function, backend=compiler, **others)
    model.execution = "packed"
    main = threading.main_thread().ident
    threading.Thread(target=lambda: (begun.wait(), signal.pthread_kill(main, signal.SIGINT))).start()
    signal.signal(signal.SIGINT, signal.default_int_handler)
"""
INTERRUPTED = """
    try:
        {}
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def _script(seconds, *parts):
    return "".join(map(textwrap.dedent, (SLOW_COMPILER.replace("SECONDS", seconds), *parts)))


@pytest.mark.parametrize("ask", ["model.predict(PAIRS)", "model.warmup()"])
def test_an_interrupt_during_a_compilation_reaches_the_caller_and_ends_the_interpreter(tiny, ask):
    done = run_python(_script("50", INTERRUPTED.format(ask)), tiny)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr[-2000:]


@pytest.mark.parametrize(
    "ask", ["model.submit(PAIRS).add_done_callback", "threading.Thread(target=ask).start"]
)
def test_an_interpreter_ends_when_a_compilation_that_others_wait_for_has(tiny, ask):
    others = f"""
        def ask():
            answered(model.warmup())

        def answered(_):
            print("answered", flush=True)

        {ask}({"answered" * ask.startswith("model")})
    """
    done = run_python(_script("1", others, INTERRUPTED.format("model.predict(PAIRS)")), tiny)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[0] == "interrupted"
    assert done.stdout.splitlines()[-1] == "answered"


def test_what_nobody_abandoned_is_not_interrupted():
    """As what the device's thread still does when the last scores have been returned."""
    worker, begun, go = Worker(), threading.Event(), threading.Event()

    def job():
        with worker.interruptible():
            begun.set()
            go.wait(1)

    future = worker.on_device(job)
    assert begun.wait(SOON)
    worker.interrupt_the_unwanted()
    go.set()
    assert future.exception(SOON) is None
    worker.close()


def test_models_trace_one_after_the_other_although_the_thread_of_the_first_has_ended(tiny):
    """A PyTorch built for CUDA broke here where there is no GPU; a build for the CPU never did."""
    script = """
        def trace(function):
            torch.compile(function, backend="eager", fullgraph=True)(torch.ones(5))
        for function in (lambda x: x.sin(), lambda x: x.cos()):
            thread = threading.Thread(target=trace, args=(function,))
            thread.start()
            thread.join()
        model.close()
        print("traced")
    """
    done = run_python(script, tiny)
    assert done.stdout == "traced\n", (done.returncode, done.stderr[-2000:])


def test_the_callers_number_of_threads_reaches_the_device(tiny, monkeypatch):
    model, seen = on_cpu(tiny, "packed-eager"), []
    run, before = model.pipeline.forward, torch.get_num_threads()
    monkeypatch.setattr(
        model.pipeline, "forward", lambda batch: seen.append(torch.get_num_threads()) or run(batch)
    )
    try:
        for number in (1, 2, 1):
            torch.set_num_threads(number)
            for _ in range(4):
                model.predict(PAIRS)
            assert torch.get_num_threads() == number
            assert seen == [number] * 4
            seen.clear()
    finally:
        torch.set_num_threads(before)


def test_under_autocast_both_calls_answer_as_sentence_transformers(eager, plain):
    eager.predict(PAIRS)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        expected = plain.predict(PAIRS)
        assert_same(eager.predict(PAIRS), expected)
        assert_same(eager.submit(PAIRS).result(SOON), expected)
    assert np.abs(expected - plain.predict(PAIRS)).max() > 1e-5


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_callers_grad_mode_changes_nothing(warm, mode):
    expected = warm.predict(PAIRS, batch_size=4)
    with nothing_compiles(), mode():
        scores = warm.predict(PAIRS, batch_size=4, convert_to_tensor=True)
    assert not scores.requires_grad
    np.testing.assert_array_equal(scores.cpu().numpy(), expected)


def test_moving_a_model_leaves_it_fit_for_training(tiny):
    with on_cpu(tiny, "packed-eager") as model:
        expected = model.predict(PAIRS)
        model._worker.on_device(model.to, torch.float64).result(SOON)
        assert not any(parameter.is_inference() for parameter in model.parameters())
        model.float()
        assert_close(model.predict(PAIRS, device="cpu"), expected, 1e-5)


def test_changing_the_execution_while_others_ask_changes_no_score(tiny):
    expected = oracle.logits(tiny, PAIRS, max_length=64)
    stop = threading.Event()

    def ask() -> int:
        answers = 0
        while not stop.is_set():
            assert_close(logits(model, PAIRS, batch_size=4), expected)
            answers += 1
        return answers

    with on_cpu(tiny, "packed-eager") as model, ThreadPoolExecutor(4) as threads:
        asking = [threads.submit(ask) for _ in range(4)]
        for preset in ("sdpa-sorted", "eager-unsorted", "packed-eager", "eager-sorted") * 5:
            model.execution = preset
            threading.Event().wait(0.03)
        stop.set()
        assert all(asked.result(SOON) > 0 for asked in asking)
