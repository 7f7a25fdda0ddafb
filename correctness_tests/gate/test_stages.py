"""The clock of stages, by a clock that the tests wind; and which stage and kernels are named as grown."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from types import SimpleNamespace

import pytest

from xenc.gate.paired.growth import grown_kernels, grown_stage
from xenc.profiling import stages
from xenc.profiling.stages import STAGES, StageClock, measured_stages


class Wound:
    """Stands in for the module `time`: it goes on only when told to."""

    now = 0.0

    def perf_counter(self):
        return self.now

    def wait(self, seconds):
        self.now += seconds


@pytest.fixture
def wound(monkeypatch):
    wound = Wound()
    monkeypatch.setattr(stages, "time", wound)
    return wound


def test_calls_of_a_stage_add_up_even_those_that_raise_and_answer_as_the_function(wound):
    clock = StageClock()

    def waited(seconds, *, answer):
        wound.wait(seconds)
        return answer[0]

    timed = clock.timed("forward", waited)
    assert [timed(1.0, answer="a"), timed(2.5, answer="b")] == ["a", "b"]
    for _ in range(2):
        with pytest.raises(IndexError):
            timed(1.0, answer="")
    assert clock.seconds == {"forward": 5.5}


def test_a_stage_within_another_or_within_itself_is_counted_once(wound):
    clock = StageClock()
    inner = clock.timed("collate", lambda: wound.wait(2.0))

    def outer():
        wound.wait(1.0)
        inner()
        inner()
        wound.wait(0.5)

    clock.timed("forward", outer)()
    clock.timed("forward", lambda: wound.wait(1.0))()
    clock.timed("plan", clock.timed("plan", lambda: wound.wait(2.0)))()
    assert clock.seconds == {"collate": 4.0, "forward": 2.5, "plan": 2.0}


def test_the_device_is_waited_for_before_and_within_the_time(wound):
    pending = [7.0]

    def synchronize():
        wound.wait(sum(pending))
        pending.clear()

    clock = StageClock(synchronize)
    clock.timed("forward", lambda: pending.append(3.0))()
    assert clock.seconds == {"forward": 3.0}


def test_a_stage_of_another_thread_is_not_taken_for_one_within(wound):
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


def test_a_stage_that_a_pipeline_lacks_is_left_out_and_the_others_are_restored(wound):
    def submit(pairs, tokenize=None):
        return tokenize(pairs) if tokenize else pairs

    pipeline = SimpleNamespace(collator=SimpleNamespace(collate=len), forward=wound.wait, submit=submit)
    before, clock = dict(vars(pipeline)), StageClock()
    with measured_stages(pipeline, clock.timed):
        pipeline.forward(2.0)
        assert pipeline.submit([3.0], tokenize=lambda pairs: wound.wait(*pairs)) is None
        assert pipeline.submit("as it is") == "as it is"
        assert pipeline.collator.collate("abc") == 3
    assert clock.seconds == {"forward": 2.0, "tokenize": 3.0, "collate": 0.0}
    assert vars(pipeline) == before


SAME = dict.fromkeys(STAGES, 0.5)


@pytest.mark.parametrize(
    ("head", "base", "line"),
    [
        (
            {"tokenize": 0.1, "plan": 0.01 + 0.0158 * 8 / 92, "forward": 0.326, "collect": 0.1},
            {"tokenize": 0.1, "plan": 0.01, "forward": 0.3102, "collect": 0.2},
            "forward: 310.2 ms -> 326.0 ms (+5.1%), 92% of the growth",
        ),
        (SAME, SAME, None),
        ({**SAME, "plan": 0.4}, SAME, None),
        (
            {"collate": 9.0, "plan": 0.2},
            {"plan": 0.1, "forward": 1.0},
            "plan: 100.0 ms -> 200.0 ms (+100.0%), 100% of the growth",
        ),
        ({"collate": 9.0}, {"forward": 1.0}, None),
    ],
    ids=["one grew most", "none grew", "one shrank", "others are on one side only", "none is on both sides"],
)
def test_the_stage_on_both_sides_that_grew_most_is_named_with_its_share(head, base, line):
    assert grown_stage(head, base) == line


def test_grown_kernels_are_named_new_ones_first_and_only_the_few_that_slowed_most():
    base = {"aten::mm": (12, 0.5), "aten::add": (3, 0.0031), "aten::gone": (9, 1.0), "aten::same": (1, 0.2)}
    head = {"aten::mm": (24, 0.4), "aten::add": (3, 0.0044), "aten::new": (2, 0.0013), "aten::same": (1, 0.2)}
    assert grown_kernels(head, base) == (
        "appeared: aten::new x2 (1.3 ms)",
        "more often: aten::mm 12 -> 24",
        "slower: aten::add 3.1 ms -> 4.4 ms",
    )
    slower = grown_kernels({f"k{n}": (1, 1.0 + n) for n in range(9)}, {f"k{n}": (1, 1.0) for n in range(9)})
    assert [line.split()[1] for line in slower] == ["k8", "k7", "k6"]


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("xenc_head::packed_attention", "xenc_base::packed_attention"),
        ("xenc_same::packed_attention", "xenc::packed_attention"),
        ("xenc_head_kernels::linear", "xenc_base_kernels::linear"),
        ("xenc_slowed_kernels::attention", "xenc_kernels::attention"),
        ("triton_poi_fused_add_3", "triton_poi_fused_add_12"),
        ("graph_4_cpp_fused_add_7", "cpp_fused_add_0"),
    ],
)
def test_two_revisions_names_of_one_kernel_match(ours, theirs):
    assert grown_kernels({ours: (1, 1.0)}, {theirs: (1, 1.0)}) == ()


def test_names_that_match_add_up_and_numbers_of_other_kernels_are_part_of_their_names():
    base = {"triton_add_0": (1, 1.0), "triton_add_1": (2, 1.0), "gemm_128": (1, 1.0)}
    assert grown_kernels({"triton_add_5": (4, 1.0), "gemm_64": (1, 1.0)}, base) == (
        "appeared: gemm_64 x1 (1000.0 ms)",
        "more often: triton_add 3 -> 4",
    )
