"""Timing, by a clock that only work moves; facts of the machine, by an NVML that can only be read."""

from __future__ import annotations

import os
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from xenc.gate.measuring import machine, rounds
from xenc.gate.measuring.machine import Machine
from xenc.gate.measuring.rounds import time_rounds
from xenc.gate.record import relative_spread

UUID = "5a1e"


class FakeNvml(ModuleType):
    """Answers with what the test says. It has no setter: an attempt to set anything is an error."""

    NVML_CLOCK_SM = 1
    NVMLError = ValueError

    def __init__(self):
        super().__init__("pynvml")
        self.mask, self.clock, self.pids = 0, 1980, [os.getpid()]
        self.milliwatts: int | None = 650_400

    def nvmlInit(self):
        pass

    def nvmlDeviceGetHandleByUUID(self, uuid):
        assert uuid == f"GPU-{UUID}"
        return "the handle"

    def nvmlDeviceGetClockInfo(self, handle, kind):
        assert (handle, kind) == ("the handle", self.NVML_CLOCK_SM)
        return self.clock

    def nvmlDeviceGetCurrentClocksThrottleReasons(self, handle):
        assert handle == "the handle"
        return self.mask

    def nvmlDeviceGetPowerUsage(self, handle):
        assert handle == "the handle"
        if self.milliwatts is None:
            raise self.NVMLError("not supported")
        return self.milliwatts

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        assert handle == "the handle"
        return [SimpleNamespace(pid=pid) for pid in self.pids]


@pytest.fixture
def gpu(monkeypatch):
    """torch's current device is one GPU."""
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid=UUID))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "A GPU")


@pytest.fixture
def nvml(gpu, monkeypatch):
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


def test_a_cpu_has_its_name_versions_and_load_and_is_never_throttled(nvml, monkeypatch):
    nvml.mask = 0xFF
    readings = iter([(10.0, 100.0, 1.0), (12.5, 107.5, 1.25)])
    monkeypatch.setattr(machine, "_busy_seconds", lambda: next(readings))
    watched = Machine("cpu")
    assert not watched.throttled()
    facts = watched.facts()
    assert f"{torch.get_num_threads()} threads" in facts["device"]
    assert facts["threads"] == torch.get_num_threads()
    assert facts["torch"] == torch.__version__
    assert {"transformers", "sentence-transformers", "python", "load_before"} <= facts.keys()
    assert facts["cpu_seconds"] == {"own": 2.5, "others": 5.0, "stolen": 0.25}
    assert "sm_clocks_mhz" not in facts


@pytest.mark.parametrize("missing", ["library", "driver"])
def test_without_nvml_a_gpu_is_not_throttled_and_its_clocks_are_unknown(nvml, monkeypatch, missing):
    def absent():
        raise OSError("no driver")

    monkeypatch.setattr(nvml, "nvmlInit", absent)
    monkeypatch.setitem(sys.modules, "pynvml", None if missing == "library" else nvml)
    watched = Machine("cuda")
    assert watched.throttled() is False
    facts = watched.facts()
    assert "unknown" in facts["clocks"]
    assert "nvidia-ml-py" in facts["clocks"]
    assert "math" in facts["sdpa_backends"]
    assert facts["device"] == "A GPU"


@pytest.mark.parametrize(
    ("mask", "reasons"),
    [
        (0x08, ["hardware slowdown"]), (0x20, ["software thermal slowdown"]), (0x80, ["power brake"]),
        (0x40, ["hardware thermal slowdown"]), (0x44, ["hardware thermal slowdown"]),
        *((mask, []) for mask in (0x00, 0x01, 0x02, 0x04, 0x10, 0x100)),
    ],
)  # fmt: skip
def test_heat_and_brakes_throttle_and_the_power_cap_idle_clocks_and_settings_do_not(nvml, mask, reasons):
    watched, nvml.mask = Machine("cuda"), mask
    assert watched.throttled() is bool(reasons)
    assert watched.facts()["throttled_by"] == reasons


def test_throttling_is_of_now_and_is_remembered_with_clocks_and_other_processes(nvml):
    watched, answers = Machine("cuda"), []
    for nvml.mask, nvml.clock in ((0, 1980), (0x20, 1200), (0, 1900)):
        answers.append(watched.throttled())
    nvml.pids = [os.getpid(), os.getpid() + 1, os.getpid() + 2]
    assert answers == [False, True, False]
    assert watched.facts()["throttled_by"] == ["software thermal slowdown"]
    assert watched.facts()["sm_clocks_mhz"] == [1200, 1980]
    assert watched.facts()["other_processes"] == 2
    assert watched.facts()["watts"] == [650, 650]
    assert watched.facts()["at_the_power_cap"] == "0 of 3 looks"


def test_looks_at_the_power_cap_are_counted_and_unmeasured_power_is_no_error(nvml):
    watched = Machine("cuda")
    for nvml.mask, nvml.milliwatts in ((0x04, 700_000), (0x00, None), (0x24, 690_000)):
        watched.throttled()
    assert watched.facts()["watts"] == [690, 700]
    assert watched.facts()["at_the_power_cap"] == "2 of 3 looks"


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
            self.stats = SimpleNamespace(stats=SimpleNamespace(data=seconds))


@pytest.mark.parametrize("with_reference", [False, True])
def test_rounds_are_timed_in_order_and_the_reference_just_before_each_outside_its_time(
    monkeypatch, with_reference
):
    clock, ran = Clock(), []
    monkeypatch.setattr(rounds, "synchronised_seconds", clock)

    def spends(name, factor):
        def run(cost: float) -> None:
            clock.now += factor * cost
            ran.append((name, cost))

        return run

    reference = spends("reference", 10) if with_reference else None
    timing = time_rounds(FakeBenchmark(clock), spends("work", 1), [1.0, 2.0, 4.0], reference=reference)
    assert timing.seconds == pytest.approx((1.0, 2.0, 4.0))
    assert timing.reference_seconds == pytest.approx((10.0, 20.0, 40.0) if with_reference else ())
    names = ["reference", "work"] if with_reference else ["work"]
    assert ran == [(name, cost) for cost in (1.0, 2.0, 4.0) for name in names]


def test_a_disabled_benchmark_has_no_seconds():
    assert time_rounds(FakeBenchmark(Clock(), disabled=True), lambda _: None, [1, 2]).seconds == ()


def test_what_compiles_in_the_timed_region_is_reported_and_what_compiled_before_is_not():
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
    monkeypatch.setattr(rounds.time, "perf_counter", lambda: float(len(waited)))
    assert rounds.synchronised_seconds() == 1.0


def test_spread_is_relative_to_the_median():
    assert [relative_spread(values) for values in ([1.0] * 3, [9.0, 10.0, 11.0], [5.0])] == [
        0, pytest.approx(0.1), 0,
    ]  # fmt: skip
