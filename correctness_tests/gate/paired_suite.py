"""What a checkout needs for a paired gate whose revisions cost what their own package says."""

from __future__ import annotations

PACKAGE = """
COSTS = {"first": 1.0, "second": 1.0, "third": 1.0}
KERNELS = 100
RECOMPILES = 0
FINDINGS = ""
BETWEEN = 0.0   # what one process more and the next less takes, as a fraction
SEEDED = None   # what the control takes that is slowed on purpose; None for what is asked for
"""

MEASURING = """
import json, os, random, runpy, sys
from pathlib import Path

asked, answered = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
PIDS = Path(__file__).with_name("pids")
with PIDS.open("a") as file:
    file.write(f"{os.getpid()}\\n")
number = len(PIDS.read_text().splitlines())
noise = random.Random(number)


def answer(content):
    answered.write_text(json.dumps(content))
    sys.exit(0)


def revision(arm):
    return runpy.run_path(str(Path(asked[arm], "made", "__init__.py")))


if asked["device"] == "cuda":
    sys.exit("no CUDA device")
try:
    base = revision("base")
except Exception as error:
    answer({"unmeasurable": f"the base revision cannot be imported ({error})"})
head = revision("head")


def blocks(name, costs, start):
    for palindrome in range(start, start + 8):
        for arm in [*costs, *reversed(costs)]:
            seconds = 0.01 * costs[arm] * (1 + noise.gauss(0, 0.001))
            yield {"arm": arm, "palindrome": palindrome, "throttled": False,
                   "wall_s": 1.1 * seconds, "device_s": seconds}


def facts(of):
    return {"kernels": of["KERNELS"], "recompiles": of["RECOMPILES"]}


def configuration(name):
    shift = (1 + head["BETWEEN"] * (-1) ** number) * (1 + asked["head_slower"])
    costs = {"base": base["COSTS"][name], "head": head["COSTS"][name] * shift}
    found = []
    if name == "first":
        costs["same"] = costs["base"]
        share = asked["slowed"] if head["SEEDED"] is None else head["SEEDED"]
        found += blocks(name, {"same": costs["same"], "slowed": costs["same"] * (1 + share)}, 8)
    found += blocks(name, costs, 0)
    return {"blocks": found, "facts": {"base": facts(base), "head": facts(head)},
            "findings": {"base": base["FINDINGS"], "head": head["FINDINGS"]}}


names = [] if asked["only_warm_up"] else asked["names"]
found = {node_id: configuration(node_id.partition("[")[2].removesuffix("]")) for node_id in names}
answer({"machine": {"device": "a made-up machine"}, "configurations": found})
"""
"""A measuring process that computes what it would have measured."""

CONFTEST = """
import sys
from pathlib import Path

import pytest
import torch
from xenc.gate.plugin import COMMAND

pytest_plugins = ("xenc.gate",)


def pytest_configure(config):
    config.stash[COMMAND] = (sys.executable, str(Path(__file__).with_name("measuring.py")))


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
"""

PAIRS = """
import pytest

ONE_EACH = [
    pytest.param("first", marks=pytest.mark.cpu),
    pytest.param("second", marks=pytest.mark.cpu),
    pytest.param("third", marks=pytest.mark.gpu),
]


{marks}
@pytest.mark.parametrize("name", ONE_EACH)
def test_pair(gate, name):
    {body}
"""

NEVER = 'raise AssertionError("this pytest measures nothing itself")'
"""The body of the pairs."""

PAIRED = "@pytest.mark.paired"
"""The marks of the pairs."""

ORDINARY = """
import pytest

now = 0.0

def work():
    global now
    now += 1.0

@pytest.mark.cpu
@pytest.mark.benchmark(timer=lambda: now)
def test_ordinary(benchmark):
    benchmark.pedantic(work, rounds=5)
"""

INI = """
[pytest]
addopts = --import-mode=importlib --strict-markers --strict-config
pythonpath = .
gate_package = {package}
gate_timeout = {timeout_s}
"""

FILES = {
    "conftest.py": CONFTEST, "measuring.py": MEASURING, "test_ordinary.py": ORDINARY,
    ".gitignore": "__pycache__/\npids\njunit.xml\nreport/\nsummary.md\nstored.json\n.benchmarks/\n",
}  # fmt: skip
