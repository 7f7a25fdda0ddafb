"""A measuring process on a package of which base and head differ: each arm runs its own revision."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from xenc.gate.measuring.process import command_of

REPOSITORY = Path(__file__).parents[2]

PACKAGE = """
COST = {cost}

class Document:
    def cost(self):
        return float(COST)

def cost():
    return float(COST)

{more}
"""

SUITE = """
import numpy as np
import pytest
import torch

seen = [0.0]

def measure(gate, run, inputs, **known):
    known |= {"rounds": 2, "device_seconds": lambda: seen[-1]}
    gate.measure(lambda value: seen.append(run(value)), inputs, **known)

def test_inputs_of_the_package(gate):
    measure(gate, lambda document: document.cost(), [gate.package.Document()])

def test_package_asked_for_late(gate):
    measure(gate, lambda _: gate.package.cost(), [1], facts=lambda: {"answers": np.int64(3)})

@pytest.fixture
def encoder(gate):
    return gate.package.Document()

def test_made_by_a_fixture(encoder, gate):
    measure(gate, lambda _: encoder.cost(), [1])

def test_within_a_block(gate):
    with torch.inference_mode():
        measure(gate, lambda _: gate.package.cost(), [1])

def test_never_measured(gate):
    gate.package.cost()

def test_measured_twice(gate):
    for _ in range(2):
        measure(gate, lambda _: gate.package.cost(), [1])

def test_nothing_runs(gate):
    async def run(value):
        return value
    gate.measure(run, [1])

def test_a_fact_that_is_no_number(gate):
    measure(gate, lambda _: gate.package.cost(), [1], facts=lambda: {"answers": "three"})

def test_imported_by_name(gate):
    import made
    measure(gate, lambda _: made.cost(), [1])
"""

SKIPPING = """
import pytest

def test_only_the_head_can(gate):
    if not hasattr(gate.package, "new"):
        pytest.skip("the base has no new()")
    gate.measure(lambda _: sum(range(1000)), [1])
"""

COUNTING = """
def test_only_the_head_can(gate):
    facts = lambda: {"arguments": gate.package.new.__code__.co_argcount}
    gate.measure(lambda _: sum(range(1000)), [1], facts=facts)
"""


@pytest.fixture
def process(tmp_path):
    """Runs a measuring process on tests of a file; its result, if there is one, and what it printed."""
    for side, cost, more in (("base", 1, ""), ("head", 2, "def new(): ...")):
        (tmp_path / side / "made").mkdir(parents=True)
        (tmp_path / side / "made" / "__init__.py").write_text(PACKAGE.format(cost=cost, more=more))
    (tmp_path / "conftest.py").write_text('pytest_plugins = ["xenc.gate"]\n')
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\ngate_package = made\npythonpath = base\nlog_level = INFO\n"
    )

    def run(text: str, *names: str) -> tuple[dict | None, str]:
        (tmp_path / "test_it.py").write_text(text)
        asked = {
            "device": "cpu", "package": "made", **{side: str(tmp_path / side) for side in ("base", "head")},
            "names": [f"test_it.py::{name}" for name in names], "only_warm_up": False, "slowed": 0.05,
            "head_slower": 0.0, "number": 1, "explain": False,
        }  # fmt: skip
        request, result = tmp_path / "request.json", tmp_path / "result.json"
        request.write_text(json.dumps(asked))
        command = [*command_of(["-q", "-c", str(tmp_path / "pytest.ini"), "-W", "error::UserWarning"])]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        done = subprocess.run(
            [*command, str(request), str(result)],
            cwd=tmp_path, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return json.loads(result.read_text()) if result.exists() else None, done.stdout + done.stderr

    return run


def test_every_arm_runs_the_inputs_and_the_code_of_its_own_revision(process):
    names = ("test_inputs_of_the_package", "test_package_asked_for_late")
    result, output = process(SUITE, *names)
    assert result is not None, output
    for name in names:
        found = result["configurations"][f"test_it.py::{name}"]
        costs = {block["arm"]: block["device_s"] for block in found["blocks"]}
        assert costs["base"] == 1.0
        assert costs["head"] == 2.0
    assert found["facts"]["head"]["answers"] == 3


REFUSED = {
    "test_made_by_a_fixture": "gate was used by a fixture",
    "test_within_a_block": "within a block such as torch.inference_mode()",
    "test_never_measured": "never called gate.measure",
    "test_measured_twice": "gate.measure was called twice",
    "test_nothing_runs": "run returned a coroutine, so nothing has run yet",
    "test_a_fact_that_is_no_number": "facts: answers='three' is no number",
    "test_imported_by_name": "made was imported by name",  # last: it stays imported
}


def test_what_would_measure_something_else_or_nothing_is_refused_and_the_base_not_blamed(process):
    result, output = process(SUITE, *REFUSED)
    assert result is None
    for name, said in REFUSED.items():
        assert f"FAILED test_it.py::{name}" in output or f"ERROR test_it.py::{name}" in output, name
        assert said in output, name
    assert "the base revision cannot run" not in output


def test_facts_that_the_base_lacks_cannot_be_paired(process):
    result, output = process(COUNTING, "test_only_the_head_can")
    assert result is not None, output
    assert "the base revision has no facts: AttributeError" in result["unmeasurable"]


def test_a_test_that_skips_itself_for_the_base_cannot_be_paired_and_the_reason_is_kept(process):
    result, _ = process(SKIPPING, "test_only_the_head_can")
    assert result is not None
    assert "the base has no new()" in result["unmeasurable"]
