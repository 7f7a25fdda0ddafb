"""`xenc bench`: what it times, in which order, what it says of it, and what a failed row costs."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau

import xenc
from xenc import PRESETS
from xenc.commands import main, options
from xenc.profiling import advice
from xenc.profiling.agreement import Agreement, agreement
from xenc.profiling.contestant import BATCH_SIZES, PRIMED_ON, Timed
from xenc.profiling.rows import SENTENCE_TRANSFORMERS, Row, presets_for, rows_of
from xenc.profiling.side_by_side import Rounds, SideBySide, time_rows

F32, BF16 = torch.float32, torch.bfloat16
PAIRS = [(f"query {number}", "a document " * (number % 7 + 1)) for number in range(40)]
QUICK = "packed-eager,sdpa-sorted"


class Scorer:
    """Stands for a model: logs when it is made, scores all pairs, is closed; may compile or fail then."""

    execution = PRESETS["packed-eager"]

    def __init__(self, log, name, fails_after=None, compiles=False):
        self.pipeline, self._log, self._name = None, log, name
        self._fails_after, self._compiles, self._passes = fails_after, compiles, 0
        log.append(f"{name} made")

    def predict(self, pairs, **_):
        if len(pairs) == len(PAIRS):
            self._log.append(self._name)
            self._passes += 1
            if self._fails_after is not None and self._passes > self._fails_after:
                raise MemoryError("no memory for 9 pairs\nand a second line")
        if self._compiles and self._passes > 1:
            torch.compile(lambda number: number + 1, backend="eager")(torch.ones(2))
        return np.arange(len(pairs), dtype=np.float32)

    def warmup(self, batch_size):
        self._log.append(f"{self._name} warm")

    def close(self):
        self._log.append(f"{self._name} closed")


def timed_with(settings, rounds=3, in_turns=True):
    """Scorers of presets by these settings, timed; and the log."""
    log: list[str] = []
    rows = [Row(name, F32) for name in settings]
    found = time_rows(
        rows, lambda row: Scorer(log, row.system, **settings[row.system]), PAIRS,
        np.arange(len(PAIRS), dtype=np.float32), Rounds(rounds), in_turns=in_turns,
    )  # fmt: skip
    return found.rows, log


def run(tiny, out, *more):
    pairs = out.parent / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    words = f"--pairs {pairs} --rounds 3 --device cpu --presets {QUICK} --out {out}".split()
    return main(["bench", str(tiny), *words, *more])


def measured_already(monkeypatch, rows):
    """`xenc bench` has these rows instead of timing any."""

    def time_rows(*_, in_turns, **__):
        return SideBySide(rows=rows, in_turns=in_turns)

    monkeypatch.setattr("xenc.commands.bench.time_rows", time_rows)


def a_row(system, dtype, seconds, error=0.0, **others):
    return Timed(
        row=Row(system, dtype), seconds=list(seconds), agreement=Agreement(largest_error=error), **others
    )


PLAIN = a_row(SENTENCE_TRANSFORMERS, F32, [2.0, 2.2, 2.1], batch_size=16)
FAST = a_row("packed", F32, [1.0, 1.1, 1.05], error=1e-6)


def test_every_row_is_timed_beside_sentence_transformers_and_the_folder_holds_what_is_printed(
    tiny, tmp_path, capsys
):
    assert run(tiny, tmp_path / "out", "--dtype", "float32") == 0
    printed, said = capsys.readouterr().out, json.loads((tmp_path / "out" / "bench.json").read_text())
    assert [row["system"] for row in said["rows"]] == [SENTENCE_TRANSFORMERS, *QUICK.split(",")]
    assert [(row["problem"], row["compiled"], len(row["seconds"])) for row in said["rows"]] == [
        (None, "", 3)
    ] * 3
    plain, *ours = said["rows"]
    assert plain["batch_size"] in BATCH_SIZES
    assert plain["times_as_fast"]["median"] == 1
    assert all(row["agreement"]["largest_error"] < 1e-4 for row in said["rows"])
    assert all(row["agreement"]["kendall_tau"] > 0.99 for row in said["rows"])
    middle = sorted(ours[0]["seconds"])[1]
    assert ours[0]["pairs_per_second"] == pytest.approx(len(PAIRS) / middle)
    report = (tmp_path / "out" / "bench.md").read_text()
    for row in said["rows"]:
        assert row["system"] in printed
        assert f"{row['pairs_per_second']:,.1f}" in printed
        assert f"{row['pairs_per_second']:,.1f}" in report
    assert " ".join(said["advice"].split()) in " ".join(printed.split())
    assert said["advice"] in report
    assert said["code"] in printed
    assert (tmp_path / "out" / "bench.png").stat().st_size > 1000


def test_the_lines_of_python_score_as_the_row_does(tiny):
    for row in (
        a_row("packed-eager", F32, [1]),
        a_row(SENTENCE_TRANSFORMERS, BF16, [1], batch_size=8),
        a_row("bucketed", BF16, [1], batch_size=32, warmup_s=1.0),
    ):
        code = advice.in_python(row, str(tiny), {"device": "cpu", "max_length": 64}, "float32")
        assert len(code.splitlines()) == 3
        scope = {"pairs": PAIRS[:2]}
        if row.row.system != "bucketed":  # which would compile
            exec(code, scope)
            assert len(scope["scores"]) == 2
            model = scope["model"]
            assert isinstance(model, xenc.CrossEncoder) == row.row.is_xenc
            assert next(model.parameters()).dtype == row.row.dtype
            assert model.max_seq_length == 64
        else:
            assert "execution='bucketed'" in code
            assert "model.warmup(32)" in code


def test_a_row_that_cannot_be_loaded_is_a_line_with_its_error_and_costs_no_other(
    tiny, tmp_path, capsys, monkeypatch
):
    load = options.load

    def loads(asked, execution, dtype=None):
        if execution == "sdpa-sorted":
            raise MemoryError("cannot allocate 9 TiB\nmore")
        return load(asked, execution, dtype)

    monkeypatch.setattr(options, "load", loads)
    assert run(tiny, tmp_path / "out", "--dtype", "float32") == 0
    rows = json.loads((tmp_path / "out" / "bench.json").read_text())["rows"]
    assert [row["problem"] for row in rows] == [None, None, "MemoryError: cannot allocate 9 TiB"]
    assert [len(row["seconds"]) for row in rows] == [3, 3, 0]
    assert "failed" in capsys.readouterr().out
    assert "MemoryError: cannot allocate 9 TiB" in (tmp_path / "out" / "bench.md").read_text()


def test_a_model_that_sentence_transformers_cannot_score_is_timed_without_errors(
    tiny, tmp_path, capsys, monkeypatch
):
    def fails(asked, dtype=None):
        raise ValueError("no such head")

    monkeypatch.setattr(options, "load_plain", fails)
    assert run(tiny, tmp_path / "out", "--dtype", "float32") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "sentence-transformers in float32 failed (ValueError: no such head)" in printed
    assert "there is nothing to compare it with" in printed
    rows = json.loads((tmp_path / "out" / "bench.json").read_text())["rows"]
    assert [(row["problem"], row["agreement"]) for row in rows[1:]] == [(None, None)] * 2
    assert [row["times_as_fast"] for row in rows] == [None] * 3


def test_if_every_row_fails_the_exit_status_says_so(tiny, tmp_path, capsys, monkeypatch):
    def fails(load, timed, *_):
        timed.problem = "MemoryError: none"

    monkeypatch.setattr("xenc.profiling.side_by_side.made_ready", fails)
    assert run(tiny, tmp_path / "out") == 2
    captured = capsys.readouterr()
    assert "no row could be timed. sentence-transformers in float32: MemoryError: none" in captured.err
    assert "nothing can be said" in captured.out


def test_rows_take_turns_after_all_are_warm_and_each_round_begins_with_another():
    rows, log = timed_with({"packed": {}, "bucketed": {}, "packed-int8": {}})
    a, b, c = "packed", "bucketed", "packed-int8"
    ready = [f"{name}{step}" for name in (a, b, c) for step in (" made", " warm", "")]
    assert log == [*ready, a, b, c, b, c, a, c, a, b, *(f"{name} closed" for name in (a, b, c))]
    assert [len(row.seconds) for row in rows] == [3, 3, 3]
    assert len(PAIRS) > PRIMED_ON


def test_by_themselves_a_row_is_closed_before_the_next_one_is_loaded():
    rows, log = timed_with({"packed": {}, "bucketed": {}}, rounds=2, in_turns=False)
    each = [
        (f"{name} made", f"{name} warm", name, name, name, f"{name} closed")
        for name in ("packed", "bucketed")
    ]
    assert log == [*each[0], *each[1]]
    assert [len(row.seconds) for row in rows] == [2, 2]


def test_models_that_would_take_more_than_half_of_the_memory_are_timed_one_by_one(
    tiny, tmp_path, capsys, monkeypatch
):
    measured_already(monkeypatch, [PLAIN, FAST])
    numbers = sum(weight.numel() for weight in xenc.CrossEncoder(str(tiny), device="cpu").parameters())
    for memory, in_turns in ((3 * 4 * numbers * 2, True), (3 * 4 * numbers * 2 - 1, False)):
        monkeypatch.setattr("xenc.commands.bench.memory_bytes", lambda device, memory=memory: memory)
        assert run(tiny, tmp_path / "out", "--dtype", "float32") == 0
        assert ("by itself" in capsys.readouterr().out) != in_turns


def test_a_row_that_fails_while_it_is_timed_goes_no_further_and_the_others_do():
    (fails, other), log = timed_with({"packed": {"fails_after": 2}, "bucketed": {}})
    assert log.count("packed") == 3  # once to compare, in the first round, and where it failed
    assert fails.problem == "MemoryError: no memory for 9 pairs"
    assert not fails.counts
    assert other.counts
    assert len(other.seconds) == 3


def test_what_compiles_while_it_is_timed_is_marked_and_not_advised(capsys):
    (compiles, other), _ = timed_with({"packed": {"compiles": True}, "bucketed": {}})
    assert compiles.compiled.startswith("1 graph(s) compiled")
    assert other.compiled == ""
    assert not compiles.counts
    compiles.seconds = [1e-6] * 3
    assert advice.chosen([compiles, other]) is other


def test_scores_that_are_not_finite_are_a_failure(monkeypatch):
    monkeypatch.setattr(Scorer, "predict", lambda self, pairs, **_: np.full(len(pairs), np.nan))
    (row,), _ = timed_with({"packed": {}})
    assert row.problem == "ArithmeticError: some of its scores are not finite"


def test_the_fastest_batch_size_is_taken_and_one_that_fails_is_left_out(monkeypatch):
    seconds = {8: 3.0, 16: 2.0, 32: 1.0}

    def spent(self, pairs, batch_size=None):
        if batch_size == 64:
            raise MemoryError
        return seconds.get(batch_size, 1.0)

    monkeypatch.setattr("xenc.profiling.contestant.Contestant.seconds", spent)
    (row,), _ = timed_with({SENTENCE_TRANSFORMERS: {}})
    assert row.batch_size == 32
    assert row.problem is None


@pytest.mark.parametrize("has_them", [True, False])
def test_a_machine_without_vnni_has_no_row_of_int8_and_says_why(eager, monkeypatch, has_them):
    monkeypatch.setattr("xenc.profiling.rows.has_int8_instructions", lambda device: has_them)
    chosen, left_out = presets_for(eager)
    assert ("packed-int8" in chosen) == has_them
    assert ("no int8 instructions" in left_out.get("packed-int8", "")) == (not has_them)
    assert "attends both ways" in left_out["packed-shared-prefix"]
    assert "packed-float8" not in {*chosen, *left_out}  # which is CUDA's
    assert {*chosen} | {*left_out} <= {*PRESETS}


@pytest.mark.parametrize(("capability", "said"), [((8, 9), None), ((8, 0), "needs compute capability 8.9")])
def test_on_cuda_eight_bits_are_float8_where_the_device_has_them(monkeypatch, capability, said):
    def on_cuda():
        raise xenc.ModelError("no pipeline")

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr("xenc.profiling.rows.missing_torchao", lambda: None)
    kind = type("OnCuda", (), {"device": torch.device("cuda"), "pipeline": property(lambda self: on_cuda())})
    chosen, left_out = presets_for(kind())
    assert ("packed-float8" in chosen) == (said is None)
    assert left_out.get("packed-float8") == said
    assert left_out["packed-int8"] == "is for CPUs, and the model is on cuda"
    assert left_out["packed-shared-prefix"] == "no pipeline"


def test_why_a_row_is_missing_stands_below_the_table(tiny, tmp_path, capsys, monkeypatch):
    measured_already(monkeypatch, [replace(row, seconds=row.seconds[:1]) for row in (PLAIN, FAST)])
    monkeypatch.setattr("xenc.commands.bench.presets_for", lambda model: (["packed-eager"], {"x": "no VNNI"}))
    monkeypatch.setattr("xenc.profiling.rows.find_spec", lambda name: name)
    assert main(["bench", str(tiny), "--device", "cpu", "--limit", "20", "--out", str(tmp_path / "out")]) == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "x is left out: no VNNI." in printed
    assert "OpenVINO is left out: sentence-transformers runs it only by way of Optimum" in printed
    assert "make bench" in printed
    assert "20 pairs in each pass (the first of 256)" in printed
    assert "too few rounds" in printed


def test_each_dtype_has_sentence_transformers_and_every_preset():
    rows = rows_of(["packed", "packed-float8"], [F32, BF16])
    assert [str(row) for row in rows] == [
        "sentence-transformers in float32", "packed in float32",
        "sentence-transformers in bfloat16", "packed in bfloat16", "packed-float8 in bfloat16",
    ]  # fmt: skip


def test_without_matplotlib_a_line_names_it(tiny, tmp_path, capsys, monkeypatch):
    measured_already(monkeypatch, [PLAIN, FAST])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert run(tiny, tmp_path / "out", "--dtype", "float32") == 0
    assert "no picture: pip install matplotlib" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"bench.md", "bench.json"}


def test_a_model_that_cannot_run_a_preset_as_it_is_says_what_ran(monkeypatch):
    monkeypatch.setattr(Scorer, "execution", replace(PRESETS["packed"], layout="bucketed"))
    (row,), _ = timed_with({"packed": {}})
    assert row.ran_as == "layout='bucketed'"
    assert row.batch_size == 32


def test_rounds_end_by_their_number_or_by_the_time():
    assert [Rounds(2).more(done, 1e9) for done in (0, 1, 2)] == [True, True, False]
    timed = Rounds(2, seconds=10)
    assert timed.more(0, 99)
    assert timed.more(7, 9.9)
    assert not timed.more(7, 10)
    assert not timed.more(1, 5, share=0.5)


def test_the_agreement_is_kendalls_tau_b_and_counts_what_changed_places():
    draw = np.random.default_rng(0)
    exact = draw.integers(0, 40, 1100).astype(np.float32)
    scores = exact + draw.integers(-9, 9, 1100)
    found = agreement(scores, exact)
    assert found.kendall_tau == pytest.approx(kendalltau(scores, exact).statistic, abs=1e-12)
    assert found.largest_error == 9
    few = agreement(np.array([1.0, 3.0, 2.0, 4.0]), np.array([1.0, 2.0, 3.0, 4.0]))
    assert few.swapped == 1
    assert agreement(np.ones(3), np.arange(3)).kendall_tau is None
    assert agreement(np.ones((3, 2)), np.zeros((3, 2))) == Agreement(largest_error=1)


def test_the_advice_names_the_fastest_row_and_how_much_faster_it_is():
    said = advice.sentence([PLAIN, FAST], in_turns=True)
    assert said == (
        "Use packed in float32: it is 2.00 times as fast (2.00 to 2.00 in 3 round(s)) as "
        "sentence-transformers' best (float32, batches of 16); its logits are within 1e-06 of float32's."
    )


def test_a_difference_that_not_every_round_shows_is_noise():
    near = a_row("packed", F32, [2.1, 2.1, 2.1])
    assert "is within the noise of sentence-transformers' best" in advice.sentence(
        [PLAIN, near], in_turns=True
    )
    apart = a_row("packed", F32, [1.9, 2.1, 2.0])  # faster in each round, yet the extremes overlap
    assert advice.sentence([PLAIN, apart], in_turns=True).startswith("Use packed")
    assert "within the noise" in advice.sentence([PLAIN, apart], in_turns=False)
    two = [replace(row, seconds=row.seconds[:2]) for row in (PLAIN, FAST)]
    assert "too few rounds" in advice.sentence(two, in_turns=True)


def test_where_sentence_transformers_is_faster_the_advice_is_to_stay():
    slow = a_row("packed", F32, [4.0, 4.4, 4.2])
    assert advice.sentence([PLAIN, slow], in_turns=True).startswith("Stay with sentence-transformers' best")
    assert advice.to_use([PLAIN, slow], in_turns=True) is PLAIN


def test_eight_bits_are_named_beside_the_advice_with_their_error_and_never_as_it():
    coarse = a_row("packed-int8", F32, [0.5, 0.5, 0.5], error=0.3)
    said = advice.sentence([PLAIN, FAST, coarse], in_turns=True)
    assert said.startswith("Use packed in float32")
    assert said.endswith(
        "If errors of 0.3 do no harm, packed-int8 in float32 is 2.10 times as fast (2.00 to 2.20 in 3 "
        "round(s)) as packed in float32."
    )
    as_fast = a_row("packed-int8", F32, FAST.seconds, error=0.3)
    assert "do no harm" not in advice.sentence([PLAIN, FAST, as_fast], in_turns=True)


def test_a_row_with_other_scores_is_never_the_advice():
    wrong = a_row("bucketed", F32, [0.1, 0.1, 0.1], error=0.5)
    assert advice.is_further(wrong, [PLAIN, wrong])
    assert advice.chosen([PLAIN, FAST, wrong]) is FAST
    rough = a_row(SENTENCE_TRANSFORMERS, BF16, [1.0], error=0.2)
    assert not advice.is_further(replace(wrong, row=Row("bucketed", BF16)), [rough])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("absent", "cannot load 'absent' as a cross-encoder"),
        ("--presets packed,fastest", "--presets fastest: is none of eager-unsorted, "),
        ("--pairs absent.tsv", "absent.tsv: cannot be read"),
        ("--out bad.txt", "--out bad.txt: is a file. Name a folder"),
        ("--rounds 0", "--rounds: '0' is not a positive whole number"),
        ("--rounds 2 --seconds 3", "--seconds: not allowed with argument --rounds"),
    ],
)
def test_bad_input_is_one_line_that_names_it_and_leaves_no_folder(
    tmp_path, monkeypatch, capsys, arguments, said
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.txt").write_text("")
    try:
        status = main(["bench", *arguments.split()])
    except SystemExit as ended:
        status = ended.code
    captured = capsys.readouterr()
    assert (status, captured.out) == (2, "")
    assert said in captured.err
    assert [path.name for path in tmp_path.iterdir()] == ["bad.txt"]
