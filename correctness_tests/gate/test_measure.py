"""Timing: what is inside the timed region and what is not, shown with a clock that only work moves."""

from __future__ import annotations

import pytest
import torch

from xenc.gate import measure
from xenc.gate.measure import relative_spread, time_rounds


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


class FakeBenchmark:
    """pytest-benchmark's fixture as `time_rounds` uses it: setup outside the clock, the call inside."""

    def __init__(self, clock: Clock, disabled: bool = False) -> None:
        self.clock, self.disabled, self.stats = clock, disabled, None

    def pedantic(self, function, *, setup, rounds, iterations):
        seconds = []
        for _ in range(1 if self.disabled else rounds):
            arguments, keywords = setup()
            start = self.clock()
            function(*arguments, **keywords)
            seconds.append(self.clock() - start)
        if not self.disabled:
            self.stats = type("", (), {"stats": type("", (), {"data": seconds})})


def test_each_round_is_timed_once_in_order():
    clock, ran = Clock(), []

    def work(cost: float) -> None:
        clock.now += cost
        ran.append(cost)

    timing = time_rounds(FakeBenchmark(clock), work, [1.0, 2.0, 4.0])
    assert timing.seconds == pytest.approx((1.0, 2.0, 4.0))
    assert timing.reference_seconds == ()
    assert ran == [1.0, 2.0, 4.0]


def test_the_reference_runs_before_each_round_on_the_same_input_and_outside_its_time(monkeypatch):
    clock, ran = Clock(), []
    monkeypatch.setattr(measure, "synchronised_seconds", clock)

    def work(cost: float) -> None:
        clock.now += cost
        ran.append(("work", cost))

    def reference(cost: float) -> None:
        clock.now += 10 * cost
        ran.append(("reference", cost))

    timing = time_rounds(FakeBenchmark(clock), work, [1.0, 2.0], reference=reference)
    assert timing.seconds == pytest.approx((1.0, 2.0))
    assert timing.reference_seconds == pytest.approx((10.0, 20.0))
    assert ran == [("reference", 1.0), ("work", 1.0), ("reference", 2.0), ("work", 2.0)]


def test_a_disabled_benchmark_has_no_seconds():
    assert time_rounds(FakeBenchmark(Clock(), disabled=True), lambda _: None, [1, 2]).seconds == ()


def test_what_compiles_before_the_timed_region_is_not_reported_and_inside_it_is():
    compiled = torch.compile(lambda x: x + 1, backend="eager", dynamic=False)
    compiled(torch.ones(3))
    warm = time_rounds(FakeBenchmark(Clock()), lambda size: compiled(torch.ones(size)), [3, 3])
    late = time_rounds(FakeBenchmark(Clock()), lambda size: compiled(torch.ones(size)), [3, 4])
    assert warm.compiles.clean, warm.compiles.describe()
    assert late.compiles.graphs == 1
    assert len(late.compiles.recompiles) == 1


def test_the_timer_waits_for_the_device(monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: waited.append("synchronised"))
    monkeypatch.setattr(measure.time, "perf_counter", lambda: float(len(waited)))
    assert measure.synchronised_seconds() == 1.0


def test_spread_is_relative_to_the_median():
    assert relative_spread([1.0, 1.0, 1.0]) == 0
    assert relative_spread([9.0, 10.0, 11.0]) == pytest.approx(0.1)
    assert relative_spread([5.0]) == 0
