"""One revision of a subject: its seconds, what compiles in it, and work added to it on purpose."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from xenc.compiling.watch import CompileReport
from xenc.gate.measuring import extra_work
from xenc.gate.measuring.arms import Arm
from xenc.gate.measuring.extra_work import ExtraWork
from xenc.gate.measuring.subject import Subject


def report(graphs=0, **found):
    nothing = {"recompiles": (), "graph_breaks": (), "eager_fallbacks": ()}
    return CompileReport(graphs=graphs, cudagraph_recordings=0, cudagraph_skips=0, **nothing | found)


def arm(run=lambda value: None, warmup=None, inputs=(1,), **known):
    return Arm(Subject(run=run, inputs=inputs, **known), "cpu", warmup or report())


def spend(value):
    x = torch.ones(200, 200)
    for _ in range(value):
        x @ x


def test_the_seconds_are_the_subjects_own_or_the_processors():
    last = []
    asked = arm(run=last.append, device_seconds=lambda: 0.25 * last[-1])
    assert [asked.run(value) for value in (1, 2, 3)] == [0.25, 0.5, 0.75]
    assert arm(run=spend).run(10) > 0


@pytest.mark.parametrize("seconds", [0.0, -1.0, float("nan")])
def test_a_run_in_which_the_device_did_no_work_is_an_error(seconds):
    with pytest.raises(RuntimeError, match="the device did no work"):
        arm(device_seconds=lambda: seconds).run(1)


def test_what_compiles_in_the_warm_up_is_a_graph_and_only_trouble_counts_later_too():
    warm = arm(warmup=report(3, recompiles=("a size",), graph_breaks=("print",), eager_fallbacks=("f",)))
    assert warm.counts == {"graphs": 3, "graph_breaks": 1, "eager_fallbacks": 1, "cudagraph_skips": 0}
    assert "print" in warm.findings
    assert arm(warmup=report(3, recompiles=("a size",))).findings == ""


def test_what_compiles_in_a_watched_block_is_a_recompile_and_the_most_of_any_block_counts():
    compiled = torch.compile(lambda x: x + 1, backend="eager", dynamic=False)
    it = arm(run=lambda size: compiled(torch.ones(size)), device_seconds=lambda: 1.0)
    for sizes in ((3,), (4, 5), (3,)):
        with it.watched():
            for size in sizes:
                it.run(size)
    assert it.counts["recompiles"] == 2
    assert it.counts["graphs"] == 0
    assert it.counts["graph_breaks"] == it.counts["cudagraph_recordings"] == 0
    assert "recompile" in it.findings


@pytest.mark.parametrize("loads", [True, False], ids=["handed over", "run before"])
def test_every_run_does_the_extra_job_exactly_once(loads):
    done, waiting = [], []

    def run(value):
        done.append("begins")
        while waiting:
            waiting.pop()()
        done.append(value)

    it = arm(run=run, device_seconds=lambda: 1.0, load=waiting.append if loads else None)
    it.run(1)
    it.extra = lambda: done.append("extra")
    for value in (2, 3):
        it.run(value)
        assert not waiting
    begin = ("begins", "extra") if loads else ("extra", "begins")
    assert done == ["begins", 1, *begin, 2, *begin, 3]


@pytest.mark.parametrize("error", [None, ValueError])
def test_a_slowed_run_does_its_own_work_instead_and_afterwards_all_is_as_it_was(error):
    done = []

    def run(value):
        done.append(value)
        if error:
            raise error

    it = arm(run=run, device_seconds=lambda: 1.0)
    it.extra = before = lambda: done.append("before")
    with pytest.raises(error) if error else nullcontext():
        it.slowed(lambda: done.append("slowed"))(7)
    assert done == ["slowed", 7]
    assert it.extra is before


@pytest.fixture
def product_s(monkeypatch):
    """A clock that only matrix products move, by so many seconds each."""
    seconds, now = 0.00001, 0.0

    def mm(one, other):
        nonlocal now
        assert one is other
        now += seconds

    monkeypatch.setattr(torch, "mm", mm)
    monkeypatch.setattr(extra_work, "synchronised_seconds", lambda: now)
    return seconds


@pytest.mark.parametrize(("share", "block_s"), [(0.05, 0.1), (0.02, 0.004), (0.5, 1.0), (1e-6, 0.001)])
def test_extra_work_is_as_many_products_as_take_its_share(monkeypatch, product_s, share, block_s):
    work, ran = ExtraWork("cpu", share=share, block_s=block_s), []
    monkeypatch.setattr(torch, "mm", lambda *_: ran.append(1))
    work()
    assert len(ran) == work.products == max(1, round(share * block_s / product_s))


def test_the_share_is_of_the_median_of_five_runs_with_what_is_added_already(product_s):
    seconds = iter([1.0, 0.1, 0.11, 0.12, 0.09])
    it = arm(device_seconds=lambda: next(seconds))
    assert it.work(0.05, 1).products == round(0.05 * 0.11 / product_s)
    assert next(seconds, None) is None
