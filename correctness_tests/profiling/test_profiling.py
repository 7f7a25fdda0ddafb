"""Profiling a model: it measures what predict runs, warmed up, and the trace shows it."""

from __future__ import annotations

import json
from contextlib import nullcontext, suppress
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch

from correctness_tests.small_functions import broken, double, static
from perf_tests.device_thread import on_device_thread
from xenc import CompileError, CrossEncoder, Execution, ModelError
from xenc.profiling import stages
from xenc.profiling.kernels import _covered_ns, profile_pass
from xenc.profiling.measure import profile_model
from xenc.profiling.stages import recorded_stages, stage_seconds
from xenc.serving.spans import STAGES

PAIRS = [("a", "b " * words) for words in (1, 60, 5, 40, 20, 70, 2, 9)]
PADDED = Execution(layout="padded", compile_mode=None)


@pytest.fixture(scope="module", params=[PADDED, Execution(compile_mode=None)], ids=["padded", "packed"])
def profiled(tiny, tmp_path_factory, request):
    """A model, its profile and the events of the trace."""
    trace = tmp_path_factory.mktemp("profile") / "deeper" / "trace.json"
    with CrossEncoder(str(tiny), device="cpu", execution=request.param) as model:
        profile = profile_model(model, PAIRS, batch_size=4, repeats=2, trace=trace)
        yield model, profile, json.loads(trace.read_text())["traceEvents"]


@pytest.fixture
def eager_model(tiny):
    with CrossEncoder(str(tiny), device="cpu", execution=PADDED) as model:
        yield model


def named(events, name):
    return [event for event in events if event.get("name") == name and event.get("ph") == "X"]


def test_what_is_profiled_is_what_predict_runs(profiled):
    model, profile, _ = profiled
    model.predict(PAIRS, batch_size=4)
    assert profile.report == model.last_report
    assert (profile.report.truncated_pairs, profile.tokens) == (1, sum(profile.report.token_counts))
    thread = on_device_thread(model)
    passed = profile_pass(lambda: model.predict(PAIRS, batch_size=4), device="cpu", on_device=thread)
    counts = [{name: count for name, (count, _) in each.kernels.items()} for each in (passed, profile.traced)]
    assert counts[0] == counts[1]


def test_the_trace_has_every_operator_within_its_forward_pass_and_every_stage(profiled):
    _, profile, events = profiled
    products = [event["ts"] for event in named(events, "aten::addmm")]
    assert len(products) == profile.traced.kernels["aten::addmm"][0]
    assert all(named(events, stage) for stage in STAGES)
    spans = [(event["ts"], event["ts"] + event["dur"]) for event in named(events, "forward")]
    assert len(spans) == profile.report.batches
    assert all(any(start <= at <= end for start, end in spans) for at in products)
    names = {str(event.get("name")) for event in events}
    assert not [name for name in names if "dynamo_timed" in name or "compile_inner" in name]


def test_every_stage_takes_time_and_kernels_run_within_the_traced_pass(profiled):
    _, profile, _ = profiled
    assert profile.stages.keys() == set(STAGES)
    assert all(seconds > 0 for seconds in profile.stages.values())
    traced = profile.traced
    assert 0 < traced.busy_s <= sum(seconds for _, seconds in traced.kernels.values()) + 1e-9
    assert traced.busy_s < traced.wall_s
    assert 0 < profile.busy_share < 1
    assert len(profile.seconds) == 2
    assert profile.mfu > 0 < profile.gemm_share


def test_stages_of_a_thread_do_not_overlap_and_scores_come_after_them_all(eager_model):
    with recorded_stages(eager_model.pipeline) as spans:
        for passes in range(1, 9):
            eager_model.predict(PAIRS, batch_size=2)
            assert sum(span.stage == "collect" for span in spans) == passes
    by_thread = {}
    for span in sorted(spans, key=lambda span: span.start_ns):
        by_thread.setdefault(span.thread, []).append(span)
    assert len(by_thread) > 2
    for one_thread in by_thread.values():
        assert all(before.end_ns <= after.start_ns for before, after in pairwise(one_thread))


def test_seconds_of_a_stage_add_up_with_the_device_waited_for_and_errors_counted(monkeypatch):
    now_ns, pending = [0], [7]
    clock = SimpleNamespace(time_ns=lambda: 10**9, perf_counter_ns=lambda: now_ns[0])
    monkeypatch.setattr(stages, "time", clock)

    def wait(nanoseconds):
        now_ns[0] += nanoseconds

    def synchronize():
        wait(sum(pending))
        pending.clear()

    pipeline = SimpleNamespace(span=nullcontext)
    with recorded_stages(pipeline, synchronize) as spans:
        with pipeline.span("forward"):
            pending.append(3)
        with suppress(KeyError), pipeline.span("forward"):
            wait(2)
            raise KeyError
        with pipeline.span("collate"):
            wait(4)
    assert pipeline.span is nullcontext
    assert stage_seconds(spans, passes=2) == {"forward": 2.5e-9, "collate": 2e-9}
    assert (spans[0].start_ns, spans[0].end_ns) == (10**9 + 7, 10**9 + 10)


def test_a_profiled_model_scores_as_before_with_its_own_stages(eager_model):
    expected = eager_model.predict(PAIRS)
    before = dict(vars(eager_model.pipeline))
    profile_model(eager_model, PAIRS, repeats=1)
    assert vars(eager_model.pipeline) == before
    assert (eager_model.predict(PAIRS) == expected).all()


def test_a_compiled_model_is_one_region_for_each_batch(warm):
    profile = profile_model(warm, PAIRS, batch_size=4, repeats=1)
    assert (profile.regions, profile.graphs) == (1, 1)


def test_what_compiles_while_it_is_measured_is_an_error(eager_model, fresh):
    sound = eager_model.pipeline.forward
    eager_model.pipeline.forward = lambda batch: static(fresh(double))(sound(batch)) / 2
    with pytest.raises(CompileError, match=r"compiled while it was profiled.* graph\(s\) compiled"):
        profile_model(eager_model, PAIRS, repeats=1)


def test_a_model_that_does_not_compile_as_one_graph_is_told_why(eager_model, fresh):
    eager_model.warmup = lambda batch_size: static(fresh(broken), fullgraph=True)(torch.ones(3))
    with pytest.raises(CompileError, match=r"not compile as one graph: .*graph_break.*packed-eager"):
        profile_model(eager_model, PAIRS, repeats=1)


def test_a_model_that_sentence_transformers_scores_is_refused_with_the_reason(tiny):
    with CrossEncoder(str(tiny), device="cpu") as model:
        model[0].forward = model[0].forward
        with pytest.raises(ModelError, match="a forward pass or preprocessing of its own"):
            profile_model(model, PAIRS)


def test_kernels_that_overlap_count_once():
    launches = [("a", 0, 10), ("b", 5, 3), ("c", 8, 4), ("d", 20, 1)]
    assert _covered_ns(launches) == 13


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
            with CrossEncoder({str(tiny)!r}, device="cpu", execution="packed-eager") as model:
                profile(Scorer(model=model, batch_size=2), [("a", "b"), ("c", "d " * 20)])
            profile(Scorer(batch_size=2), [("a", "b")])
    """)
    pytester.runpytest_inprocess().assert_outcomes(passed=1)
    assert not list(pytester.path.glob("**/trace.json"))
    pytester.runpytest_inprocess("--profile-dir", "profiles").assert_outcomes(passed=1)
    left = sorted(path.name for path in (pytester.path / "profiles" / "test_it").iterdir())
    assert left == ["profile.md", "trace.json"]
