"""The side-by-side run on a processor: answers of peers, how goals are judged, absent rows."""

from __future__ import annotations

import dataclasses
import json
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import xenc
from correctness_tests import oracle
from perf_tests import models, peers, workloads
from perf_tests.against import PAIRED
from perf_tests.configurations import Configuration
from perf_tests.cpu.__main__ import main
from perf_tests.cpu.case import case_table
from perf_tests.cpu.contestants import Candidates, best_batch_size, try_batch_sizes
from perf_tests.cpu.goals import GOALS
from perf_tests.cpu.report import markdown
from perf_tests.cpu.results import Found, Results
from perf_tests.cpu.rows import CASE, Row, case_row, table_rows
from perf_tests.cpu.run import Run, complete
from perf_tests.cpu.setting import MODELS, WORKLOADS, Setting
from perf_tests.peers.onnxruntime import onnxruntime
from perf_tests.peers.openvino import openvino
from perf_tests.ready_models import ReadyModel
from perf_tests.scorers import Scorers
from perf_tests.side_by_side.goal import Goal
from perf_tests.side_by_side.turns import Timed
from xenc import PRESETS
from xenc.gate.report import Record

WORDS = "a class body is run in a namespace of its own and names are looked up there first "
PAIRS = [("names", WORDS * count) for count in (2, 1, 3, 1, 5)]  # the last has more tokens than positions

with_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="no openvino")
with_nncf = pytest.mark.skipif(find_spec("nncf") is None, reason="no nncf")
with_onnxruntime = pytest.mark.skipif(find_spec("onnxruntime") is None, reason="no onnxruntime")


@pytest.fixture(scope="module")
def expected(tiny: Path) -> np.ndarray:
    return oracle.logits(tiny, PAIRS, max_length=64)


PEERS = [
    pytest.param(lambda tiny: peers.SentenceTransformers(tiny, "cpu", torch.float32, 2), id="st"),
    pytest.param(lambda tiny: openvino(tiny, torch.float32, 1, 2), marks=with_openvino, id="openvino"),
    pytest.param(lambda tiny: onnxruntime(tiny, 1, 2), marks=with_onnxruntime, id="onnxruntime"),
]
IN_INT8 = [
    pytest.param(
        lambda tiny: openvino(tiny, torch.float32, 1, 2, PAIRS),
        marks=[with_openvino, with_nncf],
        id="openvino",
    ),
    pytest.param(lambda tiny: onnxruntime(tiny, 1, 2, int8=True), marks=with_onnxruntime, id="onnxruntime"),
]


@pytest.mark.parametrize("batch_size", [2, 4])
@pytest.mark.parametrize("make", PEERS)
def test_a_peer_in_float32_answers_as_the_oracle_in_the_callers_order(make, batch_size, tiny, expected):
    logits = make(tiny).at(batch_size).logits(PAIRS)
    assert (logits.shape, logits.dtype) == ((len(PAIRS),), np.float32)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("make", IN_INT8)
def test_eight_bits_are_near_the_oracle_and_are_eight_bits(make, tiny, expected):
    assert 1e-4 < np.abs(make(tiny).logits(PAIRS) - expected).max() < 1


@with_openvino
def test_without_instructions_a_peer_is_absent(monkeypatch, tiny):
    import openvino as library

    monkeypatch.setattr(library.Core, "get_property", lambda *_: ["FP32"])
    with pytest.raises(peers.Absent, match="no instructions for BF16"):
        openvino(tiny, torch.bfloat16, 1, 2)


def timed(name: str, seconds: list[float], error: float = 0.1, **facts) -> Timed:
    """A row that stands."""
    group = next(row.group for row in table_rows() if row.name == name)
    facts = {"output_error": 0.1, "output_tolerance": 0.2, "largest_error": error, **facts}
    return Timed(group=group, name=name, batch_size=8, seconds=seconds, **facts)


def results(*rows: Timed, **others) -> Results:
    found = Found(name="seed", round_pairs=[2] * 3, round_tokens=[8] * 3, rows=list(rows), **others)
    return Results(workloads={"seed": found})


def goal(name: str) -> Goal[Results]:
    return next(goal for goal in GOALS if goal.name.startswith(name))


OURS = timed("xenc bfloat16", [1.0, 2.0, 4.0])
BF16 = "seed: speed over sentence-transformers bfloat16"


@pytest.mark.parametrize(
    ("seconds", "value", "verdict"),
    [
        ([2.1, 4.2, 8.4], 2.1, "reached, the stretch too"),
        ([2.0, 9.9, 8.0], 2.0, "reached"),  # the median of ratios, and not the ratio of medians
        ([1.5, 3.0, 6.0], 1.5, "MISSED by 21%"),
    ],
)
def test_a_speed_is_the_median_of_each_rounds_own(seconds, value, verdict):
    found = results(OURS, timed("sentence-transformers bfloat16", seconds))
    assert goal(BF16).measured(found)[0] == pytest.approx(value)
    assert goal(BF16).verdict(found) == verdict


def test_a_goal_over_an_absent_row_is_not_measured():
    absent = timed("sentence-transformers bfloat16", [])
    found = results(OURS, absent, absent={absent.name: "no instructions"})
    assert goal(BF16).verdict(found) == "NOT MEASURED"
    assert "absent: no instructions" in markdown(found)
    assert complete(found)


@pytest.mark.parametrize("fault", [{"output_error": 0.3}, {"counts": {"recompiles": 1}}], ids=str)
def test_a_row_of_ours_that_does_not_stand_does_not_count(fault):
    found = results(dataclasses.replace(OURS, **fault), timed("sentence-transformers bfloat16", [9.0] * 3))
    assert goal(BF16).verdict(found) == "NOT MEASURED"
    assert not complete(found)


@pytest.mark.parametrize(("error", "said"), [(0.5, "at no more error"), (0.05, "at MORE error")])
def test_the_faster_int8_of_the_others_is_compared_and_its_error_told(error, said):
    found = results(
        timed("xenc int8 + bfloat16", [1.0] * 3), timed("ONNX Runtime int8 + float32", [3.0] * 3),
        timed("OpenVINO int8 + bfloat16", [1.1] * 3, error),
    )  # fmt: skip
    value, of = goal("seed: speed over the faster int8").measured(found)
    assert value == pytest.approx(1.1)
    assert "OpenVINO" in of
    assert said in of


def test_shares_are_of_the_row_in_bfloat16_and_of_one_that_stands():
    shares = {"attention_share": {"xenc bfloat16": 0.25}, "products_share": {"xenc bfloat16": 0.5}}
    assert goal("seed: attention").verdict(results(OURS, **shares)) == "reached"
    assert goal("seed: the matrix products").verdict(results(OURS, **shares)) == "MISSED by 17%"
    assert goal("seed: attention").verdict(results(**shares)) == "NOT MEASURED"


def test_there_is_a_goal_for_each_peer_on_each_workload_and_an_empty_run_reaches_none():
    assert len({goal.name for goal in GOALS}) == len(GOALS) == 5 * 3 + 2
    assert {each.verdict(Results()) for each in GOALS} == {"NOT MEASURED"}


def test_goals_are_judged_on_their_own_model_alone():
    assert {name for name, model in MODELS.items() if Setting(**model).has_goals} == {"minilm"}


def test_calibration_has_other_texts_of_the_same_kind():
    setting = Setting(checkpoint=models.tiny_bert)
    for workload in WORKLOADS.values():
        known = {document for pairs in setting.rounds_of(workload) for _, document in pairs}
        calibration = setting.calibration_of(workload)
        assert len(calibration) == 100
        assert not known & {document for _, document in calibration if len(document) > 200}


def test_the_fastest_trial_chooses_the_batch_size_and_one_that_breaks_is_left_out():
    def broken(pairs):
        raise ValueError("too large")

    sound, large = SimpleNamespace(logits=len), SimpleNamespace(logits=broken)
    row = Row(group="x", precision="float32", dtype=torch.float32)
    candidates = Candidates(row=row, by_batch_size={4: sound, 8: large})
    trials = try_batch_sizes([candidates], PAIRS, trials=2, primed_on=1)[row.name]
    assert set(trials) == {4}
    assert len(trials[4]) == 2
    assert best_batch_size(candidates, {4: [3.0, 2.0], 8: [1.5, 9.0]}) == 8
    assert best_batch_size(candidates, None) == 4


def rehearsed_rows() -> list[Row]:
    """In float32, which is quick to make, and xenc without compiling."""
    rows = [row for row in table_rows() if row.precision == "float32" and row.group != "zentorch"]
    return [
        row if row.execution is None else dataclasses.replace(row, execution=PRESETS["packed-eager"])
        for row in rows
    ]


@with_openvino
@with_onnxruntime
def test_a_rehearsal_from_texts_to_report(tmp_path, capsys):
    def nothing(setting, workload):
        raise peers.Absent("not installed: a package")

    def broken(setting, workload):
        raise RuntimeError("no memory")

    failing = (("absent", nothing), ("broken", broken))
    others = [Row(group="x", precision=name, dtype=torch.float32, peer=peer) for name, peer in failing]
    workload = dataclasses.replace(workloads.sentence_pairs(pairs=5, batch_size=2), name="seed")
    setting = Setting(
        checkpoint=models.tiny_bert, workloads=(workload,), rounds=3, trials=1, batch_sizes=(2, 4), threads=1,
        primed_on=1, rehearsal=True,
    )  # fmt: skip
    run = Run(setting, [*rehearsed_rows(), *others], tmp_path)
    run.workload(workload)
    found = run.results.workloads["seed"]
    for row in found.rows[:-2]:
        assert (len(row.seconds), row.problem) == (3, None)
        assert row.stands, row
        assert row.largest_error < 1e-4
        assert row.kendall_tau == pytest.approx(1)
    assert found.absent == {"x absent": "not installed: a package"}
    kept = json.loads((tmp_path / "results.json").read_text())
    assert kept["problems"] == {"seed: x broken": "RuntimeError: no memory"}
    assert list(kept["workloads"]) == ["seed"]
    assert 0 < found.attention_share["xenc float32"] < 1
    assert found.products_share["xenc float32"] > 0
    report = (tmp_path / "report.md").read_text()
    assert "REHEARSAL" in report
    assert "RuntimeError: no memory" in report


def record(system: str, precision: str, workload: str, seconds: list[float]) -> Record:
    info = {
        "system": system, "precision": precision, "workload": workload, "model": "tiny", "pairs_per_s": 2.0,
        "batch_size": 8, "tau": 0.75 if workload == "seed" else 0.5,
    }  # fmt: skip
    return Record(name="test", device="cpu", seconds=tuple(seconds), info=info)


def test_the_table_of_the_bench_compares_like_with_like():
    records = [
        record("OpenVINO", "bfloat16", "seed", [2.0, 9.0, 6.0]),
        record("OpenVINO", "bfloat16", "skewed", [4.0, 4.0]),
        record("ONNX Runtime", "float32", "seed", [8.0, 8.0, 8.0]),
        record("xenc packed", "bfloat16", "seed", [1.0, 2.0, 4.0]),
        record("xenc packed", "bfloat16", "skewed", []),
    ]
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in case_table(records).splitlines()
        if line.startswith("|")
    ]
    seed, skewed = 3, 5
    openvino, onnxruntime, ours = lines[2:]
    assert openvino[:2] == ["OpenVINO", "bfloat16"]
    assert openvino[seed].startswith("2.00x")  # of 2, 4.5 and 1.5 the median
    assert openvino[skewed] == ours[seed] == onnxruntime[seed] == ours[skewed - 1] == ""
    assert (openvino[-1], ours[-1]) == ("0.500", "0.750")
    assert case_table([]) == ""


@pytest.mark.parametrize("fastest", [torch.float32, torch.bfloat16])
def test_the_bench_has_a_row_of_each_name_in_the_fastest_dtype_but_of_onnxruntime(fastest):
    rows = [case_row(name, fastest) for name in CASE]
    assert len({row.name for row in rows}) == len(rows)
    for name, row in zip(CASE, rows, strict=True):
        assert row.dtype == (torch.float32 if name == "ONNX Runtime" else fastest)
        assert row.execution == PRESETS.get(name)


def test_unknown_rows_are_refused(capsys):
    with pytest.raises(SystemExit):
        main(["--rows", "nobody"])
    assert "no such row" in capsys.readouterr().err


def in_the_bench() -> None:
    workload = workloads.seed(pairs=8, batch_size=8)
    Scorers().ready(Configuration(name="packed", device="cpu", workload=workload))


def in_the_gate() -> None:
    packed = next(each for each in PAIRED["cpu"] if each.preset == "packed")
    ReadyModel(xenc, packed, "cpu")


@pytest.mark.parametrize("make_ready", [in_the_bench, in_the_gate])
def test_packed_that_runs_eagerly_for_want_of_a_compiler_is_not_timed_as_packed(make_ready, monkeypatch):
    monkeypatch.setattr("xenc.layouts.choice.missing_compiler", lambda: "no compiler")
    with pytest.raises(RuntimeError, match=r"packed runs as .*compile_mode=None.* under a wrong name"):
        make_ready()
