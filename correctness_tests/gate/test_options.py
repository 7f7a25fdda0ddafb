"""Options, settings and markers that contradict each other are refused before anything is measured."""

from __future__ import annotations

import pytest

from correctness_tests.gate.paired_suite import PAIRED

AGAINST = ("--against", "base", "--benchmark-compare")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--gate-record", "--benchmark-compare"), "either judged or stored"),
        (("--benchmark-compare", "nothing.json"), "nothing.json: no such baseline"),
        *(
            (("--benchmark-compare", swallowed), f"--benchmark-compare took {swallowed} as its value")
            for swallowed in ("test_timed.py", "test_timed.py::test_sum[first]", ".")
        ),
    ],
)
def test_options_that_make_no_sense_are_refused(recorded, run_gate, arguments, said):
    status, output, _ = run_gate(*arguments)
    assert status == pytest.ExitCode.USAGE_ERROR
    assert said in output


SIDE_BY_SIDE = """
pytest_plugins = ("xenc.gate",)

def pytest_addoption(parser):
    parser.addoption("--numprocesses", type=int)
"""
"""pytest-xdist's option."""


@pytest.mark.parametrize("arguments", [["--gate-record"], ["--benchmark-compare"]])
def test_tests_that_run_side_by_side_are_neither_judged_nor_stored(recorded, run_gate, pytester, arguments):
    before = recorded.read_text()
    pytester.makeconftest(SIDE_BY_SIDE)
    two = ("-p", "no:xdist", "--numprocesses=2")
    status, output, _ = run_gate(*two, *arguments)
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "-n runs tests side by side, which cannot be timed" in output
    assert recorded.read_text() == before
    assert run_gate(*two)[0] == 0


@pytest.mark.parametrize("named", ["number", "file"])
def test_a_run_of_pytest_benchmarks_is_compared_by_pytest_benchmark(recorded, run_gate, suite, named):
    assert run_gate("--benchmark-save=mine")[0] == 0
    (saved,) = recorded.parent.glob("*/0001_mine.json")
    run = f"--benchmark-compare={'0001' if named == 'number' else saved}"
    suite(work=8)
    for allowed, slower in (("150%", False), ("50%", True)):
        status, output, _ = run_gate(run, f"--benchmark-compare-fail=median:{allowed}")
        assert (status != 0) == slower
        assert ("Performance has regressed" in output) == slower
        assert "test_sum[first] (0001_mine)" in output
        assert "test_timed.py .." in output
        assert "REGRESSED" not in output
        assert "gate NOT GREEN" not in output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--against", "base"), "needs --benchmark-compare"),
        (("--against", "base", "--gate-record"), "needs --benchmark-compare"),
        (("--accept-unpaired", "why", "--benchmark-compare"), "needs --against REF"),
        (("--accept-unpaired", " ", *AGAINST), "needs a reason"),
        (("--gate-slower", "0.2", "--benchmark-compare"), "--gate-slower needs --against REF"),
        *((("--gate-slower", share, *AGAINST), "give a fraction") for share in ("-0.1", "10", "nan")),
        (("--gate-slower", "five percent", *AGAINST), "invalid float value"),
    ],
)
def test_options_of_a_comparison_of_revisions_that_make_no_sense_are_refused(
    against, run_gate, arguments, said
):
    status, output, _ = run_gate(*arguments)
    assert status == pytest.ExitCode.USAGE_ERROR
    assert said in output
    assert against.pids == []


@pytest.mark.parametrize(
    "arguments",
    [
        "0.01, 0.05", "margin=0.01, most=0.05", "margin=0.05", "margin=0.2, must_see=0.1", "margin=0",
        "must_see=1.0", "margin='1%'", "margin=None",
    ],
)  # fmt: skip
def test_a_marker_that_makes_no_rule_is_refused(against, run_gate, arguments):
    against.pairs(f"{PAIRED}\n@pytest.mark.gate({arguments})")
    status, output, _ = run_gate(*AGAINST)
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "test_pairs.py::test_pair[first]: the marker gate takes margin=... and must_see=..." in output
    assert "Traceback" not in output
    assert against.pids == []


@pytest.mark.parametrize("seconds", ["a minute", "nan", "inf", 0])
def test_a_timeout_that_is_no_time_is_refused(against, run_gate, seconds):
    against.settings(timeout_s=seconds)
    status, output, _ = run_gate(*AGAINST)
    assert status == pytest.ExitCode.USAGE_ERROR
    assert f"gate_timeout = {seconds}: give a number of seconds" in output
    assert against.pids == []
