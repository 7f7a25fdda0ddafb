"""What a test hands over: what is refused, which inputs are run, and how far an answer is off."""

from __future__ import annotations

import math
from collections import OrderedDict

import numpy as np
import pytest
import torch

from xenc.gate.errors import SubjectError
from xenc.gate.measuring.subject import Subject, output_error

NAN, INF = math.nan, math.inf
ONES = torch.ones(2, 3)


def same(value):
    return value


@pytest.mark.parametrize(
    ("output", "expected", "error"),
    [
        (1, 1, 0.0), (1.5, 1, 0.5), (1e-9, np.float64(2e-9), 1e-9), (True, False, 1.0), (1 + 2j, 1 - 2j, 4.0),
        (ONES, ONES + 0.25, 0.25), (ONES, np.full((2, 3), 0.5), 0.5), (np.float32(3), 1, 2.0),
        (torch.tensor([1, 2]), torch.tensor([1.0, 4.0]), 2.0),
        (torch.tensor([1j]), torch.tensor([1.0 + 0j]), math.sqrt(2)),
        (torch.ones(2, dtype=torch.bfloat16), torch.ones(2), 0.0),
        (torch.tensor([1.0], requires_grad=True), [1.0], INF),
        ([], (), 0.0), ({}, {}, 0.0), (torch.ones(0, 3), np.ones((0, 3)), 0.0),
    ],
)  # fmt: skip
def test_the_error_is_the_largest_difference_of_numbers_arrays_and_tensors(output, expected, error):
    assert output_error(output, expected) == pytest.approx(error)
    assert output_error(expected, output) == pytest.approx(error)


@pytest.mark.parametrize(
    ("output", "expected", "error"),
    [
        ({"a": [1.0, (2.0, ONES)]}, {"a": [1.0, (2.5, ONES + 3)]}, 3.0),
        ({"a": 1.0, "b": 9.0}, OrderedDict(b=9.0, a=1.5), 0.5),
        ([1.0, 2.0], (1.0, 2.5), 0.5),
        ({"is": "cat", "p": [1.0], "why": None}, {"is": "cat", "p": [1.25], "why": None}, 0.25),
    ],
    ids=["deep", "keys in another order", "a list for a tuple", "beside words"],
)  # fmt: skip
def test_nests_are_compared_value_by_value(output, expected, error):
    assert output_error(output, expected) == error


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (ONES, torch.ones(3, 2)), (ONES, torch.ones(3)), (ONES, 1.0), ([1.0], 1.0), ([1.0], [1.0, 1.0]),
        (np.ones(2), [1.0, 1.0]), (np.ones(1), [1.0]),
        ({"a": 1.0}, {"b": 1.0}), ({"a": 1.0}, {"a": 1.0, "b": 1.0}), ({"a": [1.0]}, {"a": [[1.0]]}),
        ("cat", "dog"), (None, 0.0), ("1", 1),
    ],
)  # fmt: skip
def test_what_is_built_in_another_way_is_infinitely_off(output, expected):
    assert output_error(output, expected) == INF
    assert output_error(expected, output) == INF


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_nan_that_the_other_lacks_is_not_lost_among_numbers_wherever_it_stands(place):
    numbers = [1.0, 2.0, 3.0]
    holed = [NAN if at == place else number for at, number in enumerate(numbers)]
    for other in (numbers, [5.0, 7.0, 9.0], [INF, INF, INF]):
        for one, two in ((holed, other), (other, holed)):
            assert math.isnan(output_error(one, two))
            assert math.isnan(output_error(torch.tensor(one), torch.tensor(two)))
            assert math.isnan(output_error({"a": one, "b": [1.0]}, {"a": two, "b": [9.0]}))
    assert output_error(holed, holed) == 0.0


def test_equal_infinities_differ_by_nothing_and_others_infinitely():
    both = torch.tensor([INF, -INF, NAN, 1.0])
    assert output_error(both, both + torch.tensor([0.0, 0.0, 0.0, 0.5])) == 0.5
    assert output_error(INF, -INF) == INF
    assert output_error(INF, 1e300) == output_error([1e300], [INF]) == INF


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"inputs": []}, "inputs is empty: give at least one"),
        ({"inputs": np.ones((0, 3))}, "inputs is empty"),
        *(
            ({"inputs": inputs}, f"inputs is a {type(inputs).__name__}: give a list")
            for inputs in ("text", b"bytes", {"a": 1}, {1}, iter([1]))
        ),
        *(({"rounds": rounds}, f"rounds={rounds}: give an integer") for rounds in (0, -1, 2.5, True)),
        *(
            ({"oracle": same, "tolerance": tolerance}, f"tolerance={tolerance!r}: give a number")
            for tolerance in ("0.1", NAN, -0.1)
        ),
        ({"oracle": same}, "oracle and tolerance belong together"),
        ({"tolerance": 0.1}, "oracle and tolerance belong together"),
    ],
)
def test_a_subject_that_cannot_be_measured_is_refused_with_a_remedy(given, why):
    Subject(run=same, inputs=[1])
    with pytest.raises(SubjectError, match=why):
        Subject(**{"run": same, "inputs": [1], **given})


@pytest.mark.parametrize(
    ("rounds", "most", "timed"),
    [
        (None, None, "abc"), (None, 2, "ab"), (None, 9, "abc"), (7, None, "abcabca"), (7, 4, "abca"),
        (2, None, "ab"), (2, 9, "ab"),
    ],
)  # fmt: skip
def test_rounds_take_the_inputs_in_turn_and_begin_again(rounds, most, timed):
    assert Subject(run=same, inputs=list("abc"), rounds=rounds).timed(most) == list(timed)


def test_facts_are_counted_on_inputs_of_their_own_or_on_all_once():
    ran = []
    Subject(run=ran.append, inputs=[1, 2], rounds=9).run_counted()
    Subject(run=ran.append, inputs=[1, 2], exact_on=[7]).run_counted()
    assert ran == [1, 2, 7]
    arrays = Subject(run=same, inputs=np.ones((2, 3)), exact_on=np.zeros((2, 3)))
    assert arrays.counted is arrays.exact_on


def test_a_warm_up_runs_each_input_twice_or_does_what_it_is_told_once():
    ran = []
    Subject(run=ran.append, inputs=[1, 2], rounds=9).warm_up()
    assert ran == [1, 2, 1, 2]
    Subject(run=ran.append, inputs=[1, 2], warmup=lambda: ran.append("warm")).warm_up()
    assert ran[4:] == ["warm"]


def test_a_subjects_facts_are_its_own_and_the_worst_error_of_those_inputs():
    assert Subject(run=same, inputs=[1]).own_facts() == {}
    known = {"oracle": lambda value: 1.0, "tolerance": 0.5, "facts": lambda: {"misses": 3}}
    found = Subject(run=same, inputs=[9.0], exact_on=[1.0, 1.25, 1.0], **known).own_facts()
    assert found == {"misses": 3, "output_error": 0.25, "output_tolerance": 0.5}
    holed = Subject(run=same, inputs=[1.25, NAN, 1.0], **known).own_facts()
    assert math.isnan(holed["output_error"])
