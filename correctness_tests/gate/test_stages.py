"""The clock of stages, by a clock that the tests wind; and which stage is named."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from xenc.gate.paired.growth import grown_stage
from xenc.profiling import stages
from xenc.profiling.stages import STAGES, StageClock


class Wound:
    """Stands in for the module `time`: it goes on only when told to."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds


@pytest.fixture
def wound(monkeypatch):
    wound = Wound()
    monkeypatch.setattr(stages, "time", wound)
    return wound


def test_calls_of_a_stage_add_up_and_answer_what_the_function_answers(wound):
    clock = StageClock()

    def waited(seconds, *, answer):
        wound.wait(seconds)
        return answer

    timed = clock.timed("forward", waited)
    assert [timed(1.0, answer="a"), timed(2.5, answer="b")] == ["a", "b"]
    assert clock.seconds == {"forward": 3.5}


def test_what_a_stage_within_takes_is_counted_once(wound):
    clock = StageClock()
    inner = clock.timed("collate", lambda: wound.wait(2.0))

    def outer():
        wound.wait(1.0)
        inner()
        inner()
        wound.wait(0.5)

    clock.timed("forward", outer)()
    clock.timed("forward", lambda: wound.wait(1.0))()
    assert clock.seconds == {"collate": 4.0, "forward": 2.5}


def test_a_stage_within_itself_is_counted_once(wound):
    clock = StageClock()
    inner = clock.timed("plan", lambda: wound.wait(2.0))
    clock.timed("plan", inner)()
    assert clock.seconds == {"plan": 2.0}


def test_a_stage_that_raises_is_counted(wound):
    clock = StageClock()

    def fails():
        wound.wait(1.0)
        raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            clock.timed("tokenize", fails)()
    assert clock.seconds == {"tokenize": 2.0}


def test_the_device_is_waited_for_before_and_within_the_time(wound):
    pending = [7.0]

    def synchronize():
        wound.wait(sum(pending))
        pending.clear()

    clock = StageClock(synchronize)
    clock.timed("forward", lambda: pending.append(3.0))()
    assert clock.seconds == {"forward": 3.0}


def test_threads_do_not_take_each_others_stages_for_their_own(wound):
    clock, both_in, both_out = StageClock(), Barrier(2), Barrier(2)

    def slow():
        both_in.wait(10)
        both_out.wait(10)

    def fast():
        both_in.wait(10)
        clock.timed("collate", lambda: wound.wait(4.0))()
        both_out.wait(10)

    with ThreadPoolExecutor(2) as pool:
        for job in [pool.submit(clock.timed("tokenize", slow)), pool.submit(clock.timed("forward", fast))]:
            job.result(20)
    assert clock.seconds == {"collate": 4.0, "tokenize": 4.0, "forward": 0.0}


def test_a_stage_must_be_known():
    with pytest.raises(ValueError, match="the stages are tokenize, plan"):
        StageClock().timed("tokenise", print)


def test_the_stage_that_grew_most_is_named_with_its_share():
    base = {"tokenize": 0.1, "plan": 0.01, "forward": 0.3102, "collect": 0.2}
    head = {"tokenize": 0.1, "plan": 0.01 + 0.0158 * 8 / 92, "forward": 0.326, "collect": 0.1}
    assert grown_stage(head, base) == "forward: 310.2 ms -> 326.0 ms (+5.1%), 92% of the growth"


def test_no_stage_is_named_where_none_grew():
    same = dict.fromkeys(STAGES, 0.5)
    assert grown_stage(same, same) is None
    assert grown_stage({**same, "plan": 0.4}, same) is None


def test_a_stage_that_one_side_lacks_is_not_compared():
    assert grown_stage({"collate": 9.0, "plan": 0.2}, {"plan": 0.1, "forward": 1.0}) == (
        "plan: 100.0 ms -> 200.0 ms (+100.0%), 100% of the growth"
    )
    assert grown_stage({"collate": 9.0}, {"forward": 1.0}) is None
