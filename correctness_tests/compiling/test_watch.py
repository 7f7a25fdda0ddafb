"""`watch_compiles` reports each kind of compilation."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch._dynamo.callback import CallbackTrigger, callback_handler
from torch._dynamo.utils import counters

from correctness_tests.small_functions import broken, double, run_sizes, static
from xenc import watch_compiles


def test_a_graph_is_counted(fresh):
    with watch_compiles() as watch:
        static(fresh(double))(torch.ones(3))
    assert (watch.report.graphs, watch.report.recompiles) == (1, ())
    assert not watch.report.clean
    assert watch.report.describe() == "1 graph(s) compiled"


def test_a_clean_region_is_clean(fresh):
    compiled = static(fresh(double))
    compiled(torch.ones(3))
    with watch_compiles() as watch:
        compiled(torch.ones(3))
        double(torch.ones(9))
    assert watch.report.clean
    assert watch.report.describe() == "nothing compiled"
    assert not any(vars(watch.report).values())


def test_a_recompile_is_reported_with_its_reason(fresh):
    compiled = static(fresh(double))
    compiled(torch.ones(3))
    with watch_compiles() as watch:
        compiled(torch.ones(4))
    assert watch.report.graphs == 1
    (reason,) = watch.report.recompiles
    assert "size mismatch at index 0. expected 3, actual 4" in reason
    assert f"recompiled: {reason}" in watch.report.describe()


def test_a_graph_break_is_reported_with_its_reason(fresh):
    with watch_compiles() as watch:
        static(fresh(broken))(torch.ones(3))
    (reason,) = watch.report.graph_breaks
    assert "graph_break()" in reason
    assert not watch.report.clean


def test_each_recompile_is_counted_even_when_pytorch_has_forgotten_the_reason(fresh):
    compiled = static(fresh(double))
    with torch._dynamo.config.patch(recompile_limit=100), watch_compiles() as watch:
        run_sizes(compiled, 80)
    assert watch.report.graphs == 80
    assert len(watch.report.recompiles) == 79
    assert "PyTorch no longer has the reason" in watch.report.recompiles


def test_a_cuda_graph_recording_is_counted():
    with watch_compiles() as watch:
        for _ in range(2):
            with callback_handler.install_callbacks(CallbackTrigger.CUDAGRAPH_RECORDING, "0/0"):
                pass
    assert watch.report.cudagraph_recordings == 2
    assert (watch.report.graphs, watch.report.recompiles) == (0, ())
    assert not watch.report.clean
    assert watch.report.describe() == "2 CUDA graph(s) recorded"


@pytest.mark.gpu
def test_a_real_cuda_graph_recording_is_counted(fresh):
    compiled = torch.compile(fresh(double), mode="reduce-overhead", dynamic=False)
    x = torch.ones(8, device="cuda")
    with torch.inference_mode(), watch_compiles() as watch:
        for _ in range(3):
            torch.compiler.cudagraph_mark_step_begin()
            compiled(x)
    assert watch.report.cudagraph_recordings == 1


def test_a_skipped_cuda_graph_is_counted():
    with watch_compiles() as watch:
        counters["inductor"]["cudagraph_skips"] += 1
    counters["inductor"]["cudagraph_skips"] -= 1
    assert watch.report.cudagraph_skips == 1
    assert not watch.report.clean
    assert watch.report.describe() == "1 CUDA graph(s) skipped"


def test_watches_nest_and_each_sees_its_own_region_live_until_it_ends(fresh):
    compiled = static(fresh(double))
    with watch_compiles() as outer:
        assert outer.report.clean
        compiled(torch.ones(3))
        assert outer.report.graphs == 1
        with watch_compiles() as inner:
            compiled(torch.ones(4))
        compiled(torch.ones(5))
    compiled(torch.ones(6))
    assert (outer.report.graphs, inner.report.graphs) == (3, 1)
    assert (len(outer.report.recompiles), len(inner.report.recompiles)) == (2, 1)


def test_a_watch_ends_also_when_its_region_raises(fresh):
    callbacks = list(callback_handler.start_callbacks)
    compiled = static(fresh(double))
    with pytest.raises(TypeError), watch_compiles() as watch:
        compiled(torch.ones(3)) + compiled("no tensor")
    assert watch.report.graphs == 1
    assert callback_handler.start_callbacks == callbacks


RESET_INSIDE = """
import torch
from xenc import watch_compiles

with watch_compiles() as watch:
    torch.compile(lambda x: x * 2, backend="eager")(torch.ones(3))
    torch._dynamo.reset()
assert watch.report.graphs == 1, watch.report
with watch_compiles() as watch:
    pass
assert watch.report.clean, watch.report
"""


def test_a_reset_of_dynamo_inside_a_watch_does_no_harm():
    # in a process of its own: a reset drops the graphs of every other test
    subprocess.run([sys.executable, "-c", RESET_INSIDE], check=True)
