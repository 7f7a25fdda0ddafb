"""A gate whose processes warm up at once and measure in turns; the processes are played by small scripts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from textwrap import dedent

import pytest

from correctness_tests.gate.conftest import commit_all, git
from correctness_tests.gate.paired_runs import RULE, made_results
from correctness_tests.gate.test_campaign import PATIENCE_S, WITHOUT_TORCH, alive, all_end, eventually
from perf_tests.gate_check import told
from perf_tests.hopper.gate_at_once import FOLDER, GateAtOnce
from xenc.gate.errors import CampaignError, UnpairableError
from xenc.gate.paired.campaign import Campaign
from xenc.gate.paired.session import PairedRequest
from xenc.gate.paired.verdicts import judge_campaign

NAME = "seed-packed"
PROCESSES = RULE.looks[0]
SLOW = RULE.must_see

START = f"""
sys.path.insert(0, {str(Path(__file__).parents[2])!r})
from xenc.gate.measuring.turns import Turns
turns = Turns()
request, result = json.loads(Path(sys.argv[1]).read_text()), Path(sys.argv[2])
number = request["number"]

def note(what):
    with Path("JOURNAL").open("a") as file:
        file.write(json.dumps([what, number, os.getpid()]) + "\\n")

note("started")
"""

MEASURE = """
def measure(turn):
    note(f"begins {turn['head_slower']}")
    time.sleep(0.03)
    note(f"ends {turn['head_slower']}")
    return json.loads(Path("RESULTS").read_text())[str(turn["head_slower"])][number]

note("warm")
turns.take(request, result, measure)
"""

WITH_A_CHILD = """
started = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Path("JOURNAL").with_name(f"child-{number}").write_text(str(started.pid))
"""

RESULTS = {
    0.0: made_results(names=(NAME,)),
    SLOW: made_results({NAME: 0.07}, names=(NAME,), seed=1),
}


class Played(GateAtOnce):
    """A gate with a journal of what its processes did: [what, number, pid]."""

    folder: Path

    @property
    def journal(self) -> list[tuple[str, int, int]]:
        file = self.folder / "JOURNAL"
        return [tuple(json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []

    @property
    def pids(self) -> list[int]:
        return [pid for what, _, pid in self.journal if what == "started"]


@pytest.fixture
def script(tmp_path):
    """Makes a measuring program; `warm_up` is what it does before it is warm."""

    def made(warm_up: str = "", measure: str = MEASURE) -> tuple[str, ...]:
        (tmp_path / "RESULTS").write_text(json.dumps(RESULTS))
        text = WITHOUT_TORCH + START + dedent(warm_up) + dedent(measure)
        for name in ("JOURNAL", "RESULTS"):
            text = text.replace(f'Path("{name}")', f"Path({str(tmp_path / name)!r})")
        (tmp_path / "script.py").write_text(text)
        return sys.executable, str(tmp_path / "script.py")

    return made


@pytest.fixture
def gate(script, tmp_path):
    """Starts a gate; afterwards no process and no folder of it may be left."""
    repository, made = tmp_path / "repository", []
    (repository / "xenc").mkdir(parents=True)
    (repository / "xenc" / "__init__.py").touch()
    git(repository, "init", "-q")
    commit_all(repository)

    def start(warm_up: str = "", measure: str = MEASURE) -> Played:
        request = PairedRequest(
            command=script(warm_up, measure), device="cpu", package="xenc", rules={NAME: RULE},
            timeout_s=PATIENCE_S,
        )  # fmt: skip
        played = Played(request, repository, os.environ, lock=tmp_path / "lock")
        played.folder = tmp_path
        made.append(played)
        played.start()
        return played

    before = folders()
    yield start
    for each in made:
        each.close()
        assert not any(map(alive, each.pids))
    assert folders() <= before


def folders() -> set[Path]:
    return set(Path(tempfile.gettempdir()).glob(f"{FOLDER}*"))


def test_all_warm_up_before_any_measures_and_they_measure_one_at_a_time(gate):
    played = gate("time.sleep(0.1 * number)")
    played.wait_ready(PATIENCE_S)
    played.measure(lambda line: None)
    done = [(what, number) for what, number, _ in played.journal]
    assert {what for what, _ in done[: 2 * PROCESSES]} == {"started", "warm"}
    assert done[2 * PROCESSES :] == [
        (f"{what} {slower}", number)
        for slower in RESULTS for number in range(PROCESSES) for what in ("begins", "ends")
    ]  # fmt: skip
    assert len(set(played.pids)) == PROCESSES


def test_processes_start_at_once_and_the_caller_goes_on(gate):
    body = f"""
        while Path("JOURNAL").read_text().count("started") < {PROCESSES}:
            time.sleep(0.01)
    """
    played = gate(body)  # each waits for all others, so none could become warm alone
    assert not played.ready
    played.wait_ready(PATIENCE_S)
    assert played.ready


def test_both_passes_are_judged_as_in_a_normal_run(gate):
    played, said = gate(), []
    played.wait_ready(PATIENCE_S)
    found = played.measure(said.append)
    expected = {
        slower: told(slower, judge_campaign(results, {NAME: RULE}), 0.0)
        for slower, results in RESULTS.items()
    }
    slowed = found.pop("slowed")
    assert found | {"seconds": 0} == expected[0.0]
    assert slowed | {"seconds": 0} == expected[SLOW]
    assert [each["verdicts"][NAME][0] for each in (found, slowed)] == ["PASS", "REGRESSED"]
    assert list(played.results.values()) == list(RESULTS.values())
    for each in (found, slowed):
        assert any(each["verdicts"][NAME][1] in line for line in said)
        assert all(any(reason in line for line in said) for _, _, reason in each["controls"])


def test_a_process_that_waits_uses_no_processor(gate):
    def ticks(pid: int) -> list[str]:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]

    played = gate()
    played.wait_ready(PATIENCE_S)
    time.sleep(0.1)  # from the file to the wait
    before = [ticks(pid) for pid in played.pids]
    time.sleep(0.5)
    assert [ticks(pid) for pid in played.pids] == before


@pytest.mark.parametrize(
    ("body", "error", "message"),
    [
        (
            "print('a hint', flush=True)\nsys.exit(3)",
            CampaignError,
            "process 2 ended with exit status 3; its last lines:\n  a hint",
        ),
        ("os.abort()", CampaignError, "process 2 was killed by SIGABRT"),
        ("os._exit(0)", CampaignError, "process 2 ended without a result; it printed nothing"),
        ("write_result(result, {'unmeasurable': 'no preset'})\nos._exit(0)", UnpairableError, "^no preset$"),
        ("print('slow', flush=True)\ntime.sleep(600)", CampaignError, "2 was not warm after 2 s; .*\n  slow"),
    ],
    ids=["exit", "signal", "nothing", "unpairable", "never warm"],
)
def test_a_process_that_fails_to_warm_up_is_named_and_the_others_are_killed(gate, body, error, message):
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    played = gate(f"if number == 2:\n{lines}\n")
    with pytest.raises(error, match=f"(?s){message}"):
        played.wait_ready(2.0 if "slow" in body else PATIENCE_S)
    assert not any(map(alive, played.pids))


@pytest.mark.parametrize(
    ("slower", "found"), [(0.0, ["unchanged code"]), (SLOW, ["unchanged code", "slowed code"])]
)
def test_a_process_that_dies_in_its_turn_costs_that_pass_alone(gate, slower, found):
    dies = MEASURE.replace(
        "    time.sleep",
        f"    if (turn['head_slower'], number) == ({slower}, 1): os.abort()\n    time.sleep",
    )
    played = gate(measure=dies)
    played.wait_ready(PATIENCE_S)
    result = played.measure(lambda line: None)
    broken = result if not slower else result["slowed"]
    assert "measuring process 1 was killed by SIGABRT" in broken["error"]
    assert broken["verdicts"] == {}
    assert list(played.results) == found
    assert not slower or result["verdicts"][NAME][0] == "PASS"
    assert not any(map(alive, played.pids))


def test_a_process_that_dies_while_it_waits_is_named_before_the_next_turn(gate):
    played = gate()
    played.wait_ready(PATIENCE_S)
    os.kill(next(pid for what, number, pid in played.journal if number == 3), 9)
    found = played.measure(lambda line: None)
    assert "measuring process 3 was killed by SIGKILL" in found["error"]
    assert len(played.results["unchanged code"]) < PROCESSES


def test_without_time_nothing_is_measured_and_a_turn_that_hangs_is_ended(gate):
    played = gate(measure=MEASURE.replace("time.sleep(0.03)", "time.sleep(600)"))
    played.wait_ready(PATIENCE_S)
    found = played.measure(lambda line: None, seconds=1.0)
    assert "measuring process 0 did not end its turn within 1 s" in found["error"]
    late = gate()
    late.wait_ready(PATIENCE_S)
    assert "no time was left for measuring process 0" in late.measure(lambda line: None, 0.0)["error"]


def test_a_process_that_is_not_warm_does_not_measure(gate):
    with pytest.raises(RuntimeError, match="not warm"):
        gate("time.sleep(600)").measure(lambda line: None)


def test_nothing_survives_close_and_until_then_no_other_gate_measures(gate, tmp_path):
    played = gate(WITH_A_CHILD)
    other = Campaign((), timeout_s=1, lock=tmp_path / "lock")
    with pytest.raises(CampaignError, match="another gate"):
        other.__enter__()
    played.wait_ready(PATIENCE_S)
    children = [int((tmp_path / f"child-{number}").read_text()) for number in range(PROCESSES)]
    assert all(map(alive, [*played.pids, *children]))
    played.close()
    all_end([*played.pids, *children])
    with other:
        pass


def test_a_process_that_waits_ends_with_its_parent(script, tmp_path):
    asked, pids = tmp_path / "REQUEST.json", tmp_path / "child-0"
    asked.write_text(json.dumps({"number": 0, "turns": [{"head_slower": 0.0}]}))
    command = [*script(WITH_A_CHILD), str(asked), str(tmp_path / "RESULT.json")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
    eventually((tmp_path / "READY").exists)
    process.stdin.close()
    process.wait(PATIENCE_S)
    all_end([int(pids.read_text())])
