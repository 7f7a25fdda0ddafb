"""Markers, options and Hypothesis profiles of both suites; the gate's hooks come from xenc.gate."""

import os
import signal
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # every model is made here or comes in a package

pytest_plugins = ("xenc.gate", "pytester")

_SLOW_MODELS = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("default", deadline=None, suppress_health_check=_SLOW_MODELS, print_blob=True)
settings.register_profile("thorough", settings.get_profile("default"), max_examples=1000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_configure() -> None:
    """A shell's background jobs ignore Ctrl-C, and so would whatever a test starts to interrupt it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Seams: to watch the gate go red, to look inside a run."""
    parser.addoption(
        "--fault",
        default=None,
        help="break the code under measurement on purpose: slow:0.3, recompile, eager, kernel, "
        "memory:5000000 (see perf_tests/faults.py)",
    )
    parser.addoption(
        "--profile-dir",
        type=Path,
        default=None,
        help="leave profiles there: of each configuration of xenc a Chrome trace and the tables of "
        "`xenc profile`, after its timed rounds (on a CPU compiled kernels then tell their names, for "
        "nanoseconds each); of each run of perf_tests/test_load.py a Chrome trace, which makes it slower",
    )


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Without a GPU its tests are skipped, which the gate does not take for a pass."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
