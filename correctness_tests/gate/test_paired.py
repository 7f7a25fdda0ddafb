"""Interleaved blocks: their order, what is timed, and garbage collection."""

from __future__ import annotations

import gc
from collections import Counter
from contextlib import contextmanager

import pytest

from xenc.gate.measuring import blocks as paired
from xenc.gate.measuring.blocks import Block, order, run_blocks

ARMS = ("base", "head", "same")


class Clock:
    """Seconds that pass only in `spend`."""

    now = 0.0

    def spend(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    """The clock of `run_blocks`, which collects no garbage here: that takes a second."""
    clock = Clock()
    monkeypatch.setattr(paired, "synchronised_seconds", lambda: clock.now)
    monkeypatch.setattr(gc, "collect", lambda: 0)
    return clock


@pytest.mark.parametrize("arms", [ARMS[:2], ARMS])
def test_every_arm_runs_twice_in_a_palindrome_and_begins_equally_often(arms):
    palindromes = [order(arms, number) for number in range(4 * len(arms))]
    for ran in palindromes:
        assert Counter(ran) == dict.fromkeys(arms, 2)
        assert ran == ran[::-1]
    assert Counter(ran[0] for ran in palindromes) == dict.fromkeys(arms, 4)


def test_blocks_run_in_the_order_of_palindromes_and_hold_the_seconds_of_their_own_arm_and_input(clock):
    ran, factors, inputs = [], {"base": 1.0, "head": 3.0, "same": 5.0}, [1.0, 4.0, 2.0, 3.0]

    def arm(name):
        def run(seconds):
            ran.append((name, seconds))
            clock.spend(factors[name] * seconds)
            return 0.5 * seconds

        return run

    blocks = run_blocks({name: arm(name) for name in ARMS}, inputs)
    expected = [(name, number) for number in range(4) for name in order(ARMS, number)]
    assert ran == [(name, inputs[number]) for name, number in expected]
    assert [(block.arm, block.palindrome) for block in blocks] == expected
    for block in blocks:
        assert block.wall_s == factors[block.arm] * inputs[block.palindrome]
        assert block.device_s == 0.5 * inputs[block.palindrome]


def test_each_block_is_wrapped_and_asked_for_throttling_outside_its_time(clock):
    answers = [False, True, False, False, True, False, False, False]
    events = []

    @contextmanager
    def around(arm, palindrome):
        clock.spend(100)
        events.append(("enter", arm, palindrome))
        yield
        clock.spend(100)
        events.append(("exit", arm, palindrome))

    def throttled():
        clock.spend(100)
        return answers[events.count("run") - 1]

    def run(value):
        clock.spend(1)
        events.append("run")
        return 0.0

    blocks = run_blocks({"base": run, "head": run}, [0, 0], throttled=throttled, around=around)
    assert [block.wall_s for block in blocks] == [1.0] * 8
    assert [block.throttled for block in blocks] == answers
    ran = [(arm, number) for number in range(2) for arm in order(("base", "head"), number)]
    assert events == [event for at in ran for event in (("enter", *at), "run", ("exit", *at))]


def test_objects_are_frozen_while_blocks_run_and_thawed_even_after_an_error():
    frozen = []

    def run(value):
        frozen.append(gc.get_freeze_count())
        if value:
            raise RuntimeError("broken arm")
        return 0.0

    before = gc.get_freeze_count(), gc.isenabled()
    run_blocks({"base": run}, [0])
    assert (gc.get_freeze_count(), gc.isenabled()) == before
    with pytest.raises(RuntimeError, match="broken arm"):
        run_blocks({"base": run}, [1])
    assert (gc.get_freeze_count(), gc.isenabled()) == before
    assert min(frozen) > before[0]


def test_a_block_as_json_is_plain_values_with_five_digits():
    block = Block(arm="head", palindrome=3, wall_s=0.0123456789, device_s=12.3456789, throttled=True)
    assert block.as_json() == {
        "arm": "head", "palindrome": 3, "wall_s": 0.012346, "device_s": 12.346, "throttled": True,
    }  # fmt: skip
