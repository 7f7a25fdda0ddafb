"""A function past its recompile limit runs eagerly without a warning; the watch reports it."""

from __future__ import annotations

import inspect

import pytest
import torch
from torch._dynamo import convert_frame
from torch._dynamo.callback import callback_handler
from torch._dynamo.utils import counters

from correctness_tests.small_functions import double, run_sizes, static
from xenc import watch_compiles
from xenc.compiling.watch import cached_graphs

LIMIT = torch._dynamo.config.recompile_limit


def snapshot() -> dict[str, dict[str, int]]:
    return {group: dict(counts) for group, counts in counters.items()}


def needs_option(name: str) -> pytest.MarkDecorator:
    return pytest.mark.skipif(
        name not in inspect.signature(torch.compile).parameters, reason=f"this torch.compile has no {name}"
    )


def test_a_function_that_reaches_its_limit_is_reported(fresh):
    function = fresh(double)
    with watch_compiles() as watch:
        run_sizes(static(function), LIMIT + 3)
    assert watch.report.graphs == LIMIT
    (fallen,) = watch.report.eager_fallbacks
    assert fallen.startswith(f"{function.__name__} ({double.__code__.co_filename}:")


def test_a_function_at_its_limit_before_the_watch_is_reported_though_without_one_no_counter_moves(fresh):
    function = fresh(double)
    compiled = static(function)
    run_sizes(compiled, LIMIT + 3)
    before, called = snapshot(), []
    callback_handler.register_start_callback(called.append)
    compiled(torch.ones(50))
    callback_handler.remove_start_callback(called.append)
    # the trap: Dynamo itself shows nothing
    assert snapshot() == before
    assert called == []
    assert cached_graphs(function.__code__) == LIMIT
    for _ in range(2):
        with watch_compiles() as watch:
            compiled(torch.ones(50))
            compiled(torch.ones(51))
        (fallen,) = watch.report.eager_fallbacks
        assert function.__name__ in fallen
        assert "runs eagerly" in fallen
        assert watch.report.graphs == 0
        assert not watch.report.clean
        assert "silently eager" in watch.report.describe()


def test_a_function_at_its_limit_that_does_not_run_or_runs_what_is_compiled_is_not_reported(fresh):
    compiled = static(fresh(double))
    run_sizes(compiled, LIMIT + 3)
    other = static(fresh(double))
    other(torch.ones(5))
    with watch_compiles() as watch:
        other(torch.ones(5))
        run_sizes(compiled, LIMIT)
    assert watch.report.clean, watch.report.describe()


def test_a_fall_is_reported_though_pytorch_logs_nothing(fresh, monkeypatch):
    monkeypatch.setattr(convert_frame.log, "disabled", True)
    with watch_compiles() as watch:
        run_sizes(static(fresh(double)), LIMIT + 2)
    assert watch.report.eager_fallbacks == ("a recompile limit was exceeded 1 time(s)",)


@needs_option("recompile_limit")
@pytest.mark.parametrize("before", [False, True])
def test_a_functions_own_limit_is_known(fresh, before):
    compiled = static(fresh(double), recompile_limit=2)
    if before:
        run_sizes(compiled, 4)
    with watch_compiles() as watch:
        run_sizes(compiled, 5)
    assert len(watch.report.eager_fallbacks) == 1


@needs_option("isolate_recompiles")
def test_graphs_of_isolated_compiles_are_not_added_up(fresh):
    function = fresh(double)
    for _ in range(2):
        run_sizes(static(function, isolate_recompiles=True), LIMIT - 2)
    with watch_compiles() as watch:
        pass
    assert watch.report.eager_fallbacks == ()


def test_a_frame_that_dynamo_gives_up_on_is_reported(fresh):
    def failing_backend(graph: object, inputs: object) -> None:
        raise RuntimeError("cannot compile this")

    compiled = torch.compile(fresh(double), backend=failing_backend)
    with torch._dynamo.config.patch(suppress_errors=True), watch_compiles() as watch:
        compiled(torch.ones(3))
    assert watch.report.eager_fallbacks == ("Dynamo gave up on 1 frame(s)",)


def test_a_fullgraph_function_with_more_graphs_than_the_limit_is_not_reported(fresh):
    function = fresh(double)
    compiled = torch.compile(function, backend="eager", dynamic=False, fullgraph=True)
    with torch._dynamo.config.patch(recompile_limit=100):
        run_sizes(compiled, LIMIT + 3)
    with watch_compiles() as watch:
        run_sizes(compiled, LIMIT + 3)
    assert cached_graphs(function.__code__) == LIMIT + 3
    assert watch.report.clean, watch.report.describe()
