"""Profiling a model: what is measured is what predict runs, warmed up, and the trace holds it."""

from __future__ import annotations

import json
import runpy
import sys
import tomllib
from pathlib import Path

import pytest
import torch

import xenc
from correctness_tests.small_functions import broken, double, static
from perf_tests.device_thread import on_device_thread
from xenc import CompileError, CrossEncoder, ModelError, PairError
from xenc.cli import main
from xenc.profiling.findings import findings
from xenc.profiling.kernels import _covered, _Launch, profile_pass
from xenc.profiling.measure import profile_model
from xenc.profiling.stages import STAGES
from xenc.profiling.texts import prose_pairs, read_pairs

PAIRS = [("a", "b " * words) for words in (1, 60, 5, 40, 20, 70, 2, 9)]
ROOT = Path(xenc.__file__).parent.parent


@pytest.fixture(scope="module", params=["sdpa-sorted", "packed-eager"])
def profiled(tiny, tmp_path_factory, request):
    """A model, its profile and the trace."""
    trace = tmp_path_factory.mktemp("profile") / "deeper" / "trace.json"
    with CrossEncoder(str(tiny), device="cpu", execution=request.param) as model:
        yield model, profile_model(model, PAIRS, batch_size=4, repeats=2, trace=trace), trace


@pytest.fixture
def eager_model(tiny):
    with CrossEncoder(str(tiny), device="cpu", execution="sdpa-sorted") as model:
        yield model


def named(events, name):
    return [event for event in events if event.get("name") == name and event.get("ph") == "X"]


def test_what_is_profiled_is_what_predict_runs(profiled):
    model, profile, _ = profiled
    model.predict(PAIRS, batch_size=4)
    report = model.last_report
    work = profile.work
    assert (work.pairs, work.tokens, work.all_tokens) == (8, sum(report.token_counts), report.all_tokens)
    assert (work.truncated_pairs, work.batches) == (report.truncated_pairs, report.batches)
    assert work.truncated_pairs == 1
    passed = profile_pass(
        lambda: model.predict(PAIRS, batch_size=4), device="cpu", on_device=on_device_thread(model)
    )
    assert {name: count for name, (count, _) in passed.kernels.items()} == {
        name: count for name, (count, _) in profile.traced.kernels.items()
    }


def test_the_trace_is_json_with_every_operator_and_every_stage_and_no_compilation(profiled):
    _, profile, trace = profiled
    events = json.loads(trace.read_text())["traceEvents"]
    assert len(named(events, "aten::addmm")) == profile.traced.kernels["aten::addmm"][0]
    assert {stage for stage in STAGES if named(events, stage)} == set(STAGES)
    assert len(named(events, "forward")) == profile.work.batches
    names = {str(event.get("name")) for event in events}
    assert not [name for name in names if "dynamo_timed" in name or "compile_inner" in name]


def test_the_operators_of_the_trace_lie_within_its_forward_spans(profiled):
    _, _, trace = profiled
    events = json.loads(trace.read_text())["traceEvents"]
    spans = [(event["ts"], event["ts"] + event["dur"]) for event in named(events, "forward")]
    products = [event["ts"] for event in named(events, "aten::addmm")]
    assert all(any(start <= at <= end for start, end in spans) for at in products)


def test_shares_of_the_stages_sum_to_one(profiled):
    _, profile, _ = profiled
    assert set(profile.stages) == set(STAGES)
    assert sum(profile.stage_shares.values()) == pytest.approx(1)
    assert all(share > 0 for share in profile.stage_shares.values())


def test_kernels_run_within_the_traced_pass_and_shares_are_shares(profiled):
    _, profile, _ = profiled
    assert 0 < profile.traced.busy_s <= sum(seconds for _, seconds in profile.traced.kernels.values()) + 1e-9
    assert profile.traced.busy_s < profile.traced.wall_s
    assert 0 < profile.busy_share < 1
    assert len(profile.seconds) == 2
    assert profile.mfu > 0 < profile.gemm_share


def test_a_profiled_model_scores_as_before_with_its_own_stages(eager_model):
    expected = eager_model.predict(PAIRS)
    before = dict(vars(eager_model.pipeline))
    profile_model(eager_model, PAIRS, repeats=1)
    assert vars(eager_model.pipeline) == before
    assert (eager_model.predict(PAIRS) == expected).all()


def test_a_compiled_model_is_one_region_for_each_batch(warm):
    profile = profile_model(warm, PAIRS, batch_size=4, repeats=1)
    assert profile.traced.regions == 1
    assert profile.compilation.graphs == 1
    assert findings(profile)[0].says.startswith("1 compiled region: the whole forward pass is one graph")


def test_a_graph_break_shows_as_another_region_with_its_reason(eager_model, fresh):
    sound, compiled = eager_model.pipeline.forward, static(fresh(broken))
    eager_model.pipeline.forward = lambda batch: (compiled(sound(batch)) - 1) / 2
    profile = profile_model(eager_model, PAIRS, batch_size=4, repeats=1)
    assert profile.traced.regions == 2
    first = findings(profile)[0]
    assert first.says.startswith("2 compiled regions: Python ran between them")
    assert "graph_break()" in first.says


def test_what_compiles_while_it_is_measured_is_an_error(eager_model, fresh):
    sound = eager_model.pipeline.forward
    eager_model.pipeline.forward = lambda batch: static(fresh(double))(sound(batch)) / 2
    with pytest.raises(CompileError, match=r"compiled while it was profiled.* graph\(s\) compiled"):
        profile_model(eager_model, PAIRS, repeats=1)


def test_a_model_that_does_not_compile_as_one_graph_is_told_why(eager_model, fresh):
    def warmup(batch_size):
        static(fresh(broken), fullgraph=True)(torch.ones(3))

    eager_model.warmup = warmup
    with pytest.raises(CompileError, match=r"not compile as one graph: .*graph_break.*packed-eager"):
        profile_model(eager_model, PAIRS, repeats=1)


def test_a_model_that_sentence_transformers_scores_is_refused_with_the_reason(tiny):
    with CrossEncoder(str(tiny), device="cpu") as model:
        model[0].forward = model[0].forward
        with pytest.raises(ModelError, match="a forward pass or preprocessing of its own"):
            profile_model(model, PAIRS)


def test_kernels_that_overlap_count_once():
    launches = [_Launch("a", 0, 10), _Launch("b", 5, 3), _Launch("c", 8, 4), _Launch("d", 20, 1)]
    assert _covered(launches) == 13


def test_the_command_prints_every_section_and_leaves_them_with_a_trace(tiny, tmp_path, capsys):
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('["a query", "a document"]\n\n{"query": "another", "document": "text"}\n')
    status = main(
        ["profile", str(tiny), "--execution", "packed-eager", "--device", "cpu", "--repeats", "2",
         "--pairs", str(pairs), "--dtype", "float32", "--out", str(tmp_path / "out")]
    )  # fmt: skip
    printed = capsys.readouterr().out
    assert status == 0
    for section in (
        "Speed",
        "What it says",
        "by stage",
        "by kernel",
        "hardware's limit",
        "How it was measured",
    ):
        assert section in printed
    assert "Execution packed-eager (packed batches, not compiled) in float32 on cpu" in printed
    assert "| pairs per pass                       |        2 |" in printed
    assert (tmp_path / "out" / "profile.md").read_text() in printed
    assert json.loads((tmp_path / "out" / "trace.json").read_text())["traceEvents"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--execution", "fastest"], "'fastest' is no Execution and no preset. Presets: eager-unsorted"),
        (["--pairs", "absent.tsv"], "absent.tsv: cannot be read"),
        (["--pairs", "pairs.txt"], "'.txt' is neither"),
        (["--pairs", "bad.jsonl"], "bad.jsonl, line 2: '[1, 2]' is no pair"),
        (["--out", "bad.jsonl"], "bad.jsonl"),
    ],
)
def test_bad_input_is_one_line_that_names_it_and_exit_status_two(
    tiny, tmp_path, monkeypatch, capsys, arguments, said
):
    monkeypatch.chdir(tmp_path)
    Path("bad.jsonl").write_text('["a", "b"]\n[1, 2]\n')
    assert main(["profile", str(tiny), *arguments]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""


def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path, capsys):
    assert main(["profile", str(tmp_path / "absent"), "--device", "cpu", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err.strip().split("\n")[-1]
    assert said.startswith(f"xenc profile: cannot load '{tmp_path / 'absent'}' as a cross-encoder: give")


def test_the_package_runs_as_the_same_command(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["xenc", "profile", "a-model", "--execution", "fastest"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("xenc", run_name="__main__")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("xenc profile: execution='fastest'")


def test_the_console_script_is_the_same_command():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert scripts == {"xenc": f"{main.__module__}:{main.__name__}"}


@pytest.mark.parametrize(
    "arguments", [[], ["profile", "m", "n"], ["profile", "m", "--repeats", "0"], ["unknown"]]
)
def test_what_the_parser_refuses_has_the_same_exit_status(arguments, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_pairs_are_read_as_they_are(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_bytes("\ufeffa query\ta \u2028 document\r\n\r\n\tempty is a text too\n".encode())
    assert read_pairs(path) == [("a query", "a \u2028 document"), ("", "empty is a text too")]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.tsv", "a\tb\nonly one\n", "line 2: 'only one'"),
        ("x.tsv", "a\tb\tc\n", "line 1"),
        ("x.jsonl", '["a", "b"]\nnot json\n', "line 2: 'not json'"),
        ("x.jsonl", '{"query": "a"}\n', "line 1"),
        ("x.jsonl", "\n\n", "holds no pairs"),
    ],
)
def test_a_line_that_is_no_pair_is_named(tmp_path, name, text, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(PairError, match=said):
        read_pairs(tmp_path / name)


def test_the_built_in_pairs_are_the_same_each_time_and_of_many_lengths():
    assert prose_pairs() == prose_pairs()
    assert len({len(document) for _, document in prose_pairs()}) > 48


def test_a_benchmark_leaves_a_profile_only_where_it_is_asked_to(tiny, pytester):
    pytester.makeconftest(
        "from pathlib import Path\n"
        "from perf_tests.conftest import profile\n"
        "def pytest_addoption(parser):\n"
        "    parser.addoption('--profile-dir', type=Path, default=None)\n"
    )
    pytester.makepyfile(f"""
        from perf_tests.scorers import Scorer
        from xenc import CrossEncoder

        def test_it(profile):
            with CrossEncoder({str(tiny)!r}, device="cpu", execution="sdpa-sorted") as model:
                profile(Scorer(model=model, batch_size=2), [("a", "b"), ("c", "d " * 20)])
            profile(Scorer(batch_size=2), [("a", "b")])
    """)
    pytester.runpytest_inprocess().assert_outcomes(passed=1)
    assert not list(pytester.path.glob("**/trace.json"))
    pytester.runpytest_inprocess("--profile-dir", "profiles").assert_outcomes(passed=1)
    left = sorted(path.name for path in (pytester.path / "profiles" / "test_it").iterdir())
    assert left == ["profile.md", "trace.json"]
