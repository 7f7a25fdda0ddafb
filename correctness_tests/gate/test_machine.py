"""What is noted of the machine; that NVML is only ever asked."""

from __future__ import annotations

import os
import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from xenc.gate import machine
from xenc.gate.machine import Machine

UUID = "5a1e"


class FakeNvml(ModuleType):
    """Answers with what the test says; whatever else is asked of it, or set, does not exist."""

    NVML_CLOCK_SM = 1

    def __init__(self):
        super().__init__("pynvml")
        self.mask, self.clock, self.pids = 0, 1980, [os.getpid()]

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


def test_a_cpu_has_its_name_versions_and_load():
    facts = Machine("cpu").facts()
    assert f"{torch.get_num_threads()} threads" in facts["device"]
    assert facts["threads"] == torch.get_num_threads()
    assert facts["torch"] == torch.__version__
    assert {"transformers", "sentence-transformers", "python", "load_before"} <= facts.keys()
    assert set(facts["cpu_seconds"]) == {"own", "others", "stolen"}
    assert "sm_clocks_mhz" not in facts


def test_cpu_seconds_are_those_since_the_machine_is_watched(monkeypatch):
    readings = iter([(10.0, 100.0, 1.0), (12.5, 107.5, 1.25)])
    monkeypatch.setattr(machine, "_busy_seconds", lambda: next(readings))
    assert Machine("cpu").facts()["cpu_seconds"] == {"own": 2.5, "others": 5.0, "stolen": 0.25}


def test_a_cpu_is_never_throttled_and_never_asks_nvml(nvml):
    nvml.mask = 0xFF
    assert not Machine("cpu").throttled()


def test_without_nvml_a_gpu_is_not_throttled_and_its_clocks_are_unknown(gpu, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    watched = Machine("cuda")
    assert watched.throttled() is False
    assert "unknown" in watched.facts()["clocks"]
    assert "nvidia-ml-py" in watched.facts()["clocks"]
    assert "math" in watched.facts()["sdpa_backends"]
    assert watched.facts()["device"] == "A GPU"


def test_without_a_driver_a_gpu_is_not_throttled(nvml, monkeypatch):
    def absent():
        raise OSError("no driver")

    monkeypatch.setattr(nvml, "nvmlInit", absent)
    assert Machine("cuda").throttled() is False


@pytest.mark.parametrize(
    ("mask", "name"),
    [
        (0x08, "hardware slowdown"), (0x20, "software thermal slowdown"),
        (0x40, "hardware thermal slowdown"), (0x80, "power brake"), (0x44, "hardware thermal slowdown"),
    ],
)  # fmt: skip
def test_heat_and_brakes_throttle_and_are_named(nvml, mask, name):
    watched, nvml.mask = Machine("cuda"), mask
    assert watched.throttled() is True
    assert watched.facts()["throttled_by"] == [name]


@pytest.mark.parametrize("mask", [0x00, 0x01, 0x02, 0x04, 0x10, 0x100])
def test_the_power_cap_an_idle_clock_and_settings_do_not_throttle(nvml, mask):
    watched, nvml.mask = Machine("cuda"), mask
    assert watched.throttled() is False
    assert watched.facts()["throttled_by"] == []


def test_throttling_is_of_now_and_is_remembered(nvml):
    watched, answers = Machine("cuda"), []
    for nvml.mask, nvml.clock in ((0, 1980), (0x20, 1200), (0, 1900)):
        answers.append(watched.throttled())
    assert answers == [False, True, False]
    assert watched.facts()["throttled_by"] == ["software thermal slowdown"]
    assert watched.facts()["sm_clocks_mhz"] == [1200, 1980]


def test_other_processes_on_the_device_are_counted_without_this_one(nvml):
    nvml.pids = [os.getpid(), os.getpid() + 1, os.getpid() + 2]
    assert Machine("cuda").facts()["other_processes"] == 2


def test_nothing_of_the_device_is_ever_set(nvml, monkeypatch):
    """The fake has no setter, and an error that was swallowed would leave nothing asked."""
    asked = []

    def get(self, name):
        asked.append(name)
        return object.__getattribute__(self, name)

    monkeypatch.setattr(FakeNvml, "__getattribute__", get)
    watched = Machine("cuda")
    watched.throttled()
    watched.facts()
    called = {name for name in asked if name.startswith("nvml")}
    assert {"nvmlInit", "nvmlDeviceGetClockInfo"} < called
    assert not {name for name in called if not name.startswith(("nvmlInit", "nvmlDeviceGet"))}
