"""Which way multiplies: the rule, what the caller asked for, and what counts as a way at all."""

from __future__ import annotations

import itertools

import pytest
import torch

from correctness_tests.kernels.test_twin import made
from xenc import Execution, ExecutionError
from xenc.kernels import products
from xenc.kernels.library import DTYPES, Library
from xenc.kernels.products import Chosen, chosen, fastest, ways, why_not


@pytest.mark.parametrize(
    ("speeds", "way"),
    [
        ({"torch": 100}, "torch"),
        ({"torch": 100, "onednn": 100}, "onednn"),
        ({"torch": 100, "xenc": 100}, "xenc"),
        ({"torch": 100, "onednn": 100, "xenc": 100}, "xenc"),
        ({"torch": 100, "xenc": 95}, "xenc"),
        ({"torch": 100, "xenc": 85}, "torch"),
        ({"torch": 100, "onednn": 95, "xenc": 85}, "onednn"),
        ({"torch": 50, "onednn": 200, "xenc": 100}, "onednn"),
        ({"torch": 200, "onednn": 50, "xenc": 100}, "torch"),
        ({"torch": 1, "onednn": 2, "xenc": 300}, "xenc"),
    ],
)
def test_the_preferred_way_is_taken_unless_another_is_notably_faster(speeds, way):
    assert fastest([speeds]) == way


def test_what_is_taken_is_never_notably_slower_than_the_way_before_it_and_no_order_matters():
    for speeds in itertools.product([50, 91, 100, 109, 111, 200], repeat=3):
        measured = dict(zip(("torch", "onednn", "xenc"), speeds, strict=True))
        way = fastest([measured])
        assert measured[way] * 1.1 >= max(speeds)
        assert {fastest([dict(order)]) for order in itertools.permutations(measured.items())} == {way}


def test_one_look_that_a_neighbour_spoiled_changes_nothing():
    sound, spoiled = {"torch": 100, "xenc": 120}, {"torch": 100, "xenc": 60}
    assert fastest([spoiled, sound, spoiled]) == "xenc"
    assert fastest([spoiled, spoiled, spoiled]) == "torch"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_was_asked_for_is_taken_without_a_measurement(dtype, monkeypatch):
    monkeypatch.setattr(products, "_measured", None)
    for way in ("torch", "onednn", "xenc"):
        assert chosen(dtype, way) == Chosen(way=way, dtype=dtype, gflops_per_s={})


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_was_not_asked_for_is_measured_once(dtype, kernels):
    choice = chosen(dtype, None)
    assert choice is chosen(dtype, None)
    assert {"torch", "xenc"} <= choice.gflops_per_s.keys() <= {"torch", "onednn", "xenc"}
    assert all(speed > 0 for speed in choice.gflops_per_s.values())
    assert choice.way in choice.gflops_per_s


def test_a_choice_says_what_and_why():
    asked = Chosen(way="onednn", dtype=torch.float32, gflops_per_s={})
    assert str(asked) == "onednn for float32, as asked for"
    default = Chosen(way="cublaslt", dtype=torch.float16, gflops_per_s={}, asked=False)
    assert str(default) == "cublaslt for float16, by default"
    measured = Chosen(way="xenc", dtype=torch.bfloat16, gflops_per_s={"torch": 99.6, "xenc": 250.2})
    assert str(measured) == "xenc for bfloat16 (GFLOP/s: torch 100, xenc 250)"


def test_a_way_that_raises_is_no_candidate(monkeypatch):
    def refuses(*arguments):
        raise RuntimeError("not on this processor")

    monkeypatch.setattr(products, "by_onednn", refuses)
    monkeypatch.setattr(products, "by_kernel", refuses)
    assert ways(torch.float32, 8, 16, 16).keys() == {"torch"}
    assert ways(torch.int8, 8, 16, 16).keys() == set()


def test_without_the_library_there_is_no_way_of_our_own(monkeypatch):
    monkeypatch.setattr(products, "library", lambda: Library(missing="no compiler"))
    assert "xenc" not in ways(torch.float32, 8, 16, 16)
    assert ways(torch.int8, 8, 16, 16) == {}


@pytest.mark.parametrize("dtype", [*DTYPES, torch.int8], ids=str)
def test_every_way_there_is_runs(dtype, kernels):
    for run in ways(dtype, 8, 16, 24).values():
        assert run().shape == (8, 24)
    assert ("xenc" in ways(dtype, 8, 16, 24)) == (dtype != torch.int8 or kernels.has_int8)


@pytest.mark.parametrize("way", ["onednn", "xenc", "cublaslt"])
@pytest.mark.parametrize(
    ("settings", "because"),
    [
        ({"layout": "bucketed"}, "layout='packed'"),
        ({"layout": "padded", "compile_mode": None}, "layout='packed'"),
        ({"quantize": "float8"}, "quantize='float8'"),
    ],
)
def test_a_way_and_what_contradicts_it_are_refused(way, settings, because):
    with pytest.raises(ExecutionError, match=because):
        Execution(products=way, **settings)


@pytest.mark.parametrize("way", ["onednn", "cublaslt"])
def test_other_libraries_have_no_eight_bits_here(way):
    with pytest.raises(ExecutionError, match=f"products='{way}' with quantize='int8'"):
        Execution(products=way, quantize="int8")


def test_another_way_is_another_graph():
    ways = (None, "torch", "onednn", "xenc", "cublaslt")
    assert len({Execution(products=way).graph_settings for way in ways}) == 5


def test_a_way_that_the_processor_does_not_have_is_refused_with_the_remedy(one_layer, monkeypatch):
    """As oneDNN's float16 on a processor without AVX512-FP16."""
    why_not.cache_clear()
    monkeypatch.setattr("xenc.kernels.products.ways", lambda *_: {"torch": None, "xenc": None})
    with pytest.raises(
        ExecutionError, match=r"products='onednn': onednn multiplies no float16 on this processor\. Use"
    ):
        made(one_layer, "onednn", torch.float16)
    why_not.cache_clear()
