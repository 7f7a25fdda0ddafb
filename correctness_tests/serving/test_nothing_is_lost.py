"""Whatever breaks, is cancelled or closed, every accepted request is answered."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import nullcontext, suppress

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

import xenc
from correctness_tests.serving.conftest import FINE as PAIR
from correctness_tests.serving.conftest import POISON, assert_right, poisoned, refuse, submit
from correctness_tests.waiting import SOON, held, until
from xenc import NonFiniteScoreError, Overloaded


@pytest.fixture(scope="module")
def shared(tiny) -> Iterator[xenc.CrossEncoder]:
    with poisoned(tiny) as model:
        yield model


def broken(*_, **__):
    raise MemoryError("on purpose")


@pytest.mark.parametrize(
    "stage",
    ["read", "collator", "forward", "_attention", "add", "next_batch", "resume"],
)
@pytest.mark.parametrize("execution", ["packed-eager", "sdpa-sorted"])
def test_an_error_in_any_stage_reaches_every_waiting_request(tiny, monkeypatch, stage, execution):
    with xenc.CrossEncoder(str(tiny), device="cpu", execution=execution) as model:
        pipeline = model.pipeline
        owner = next(each for each in (pipeline.reader, pipeline.queue, pipeline) if hasattr(each, stage))
        with monkeypatch.context() as patch:
            patch.setattr(owner, stage, broken)
            asked = [model.submit([PAIR] * 3), model.submit([PAIR])]
            for future in asked:
                assert isinstance(future.exception(SOON), (MemoryError, AttributeError))
        assert until(lambda: model.waiting_pairs == 0)


actions = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["fine", "fine", "poison", "refuse", "slow"]), st.integers(1, 12)),
        st.tuples(st.just("cancel"), st.integers(0, 20)),
        st.tuples(st.just("limit"), st.one_of(st.none(), st.integers(1, 30))),
        st.tuples(st.just("execution"), st.sampled_from(["packed-eager", "sdpa-sorted"])),
        st.tuples(st.just("close"), st.none()),
    ),
    max_size=25,
)


@settings(max_examples=60)
@given(hold=st.booleans(), actions=actions)
@example(True, [("fine", 20), ("cancel", 0), ("fine", 8), ("execution", "sdpa-sorted"), ("fine", 13)])
@example(True, [("fine", 8), ("limit", 4), ("fine", 1), ("limit", None), ("fine", 100)])
def test_all_that_is_accepted_is_answered_and_no_more_than_the_limit_waits(shared, expected, hold, actions):
    asked: list[tuple[str, int, Future]] = []
    shared.max_waiting_pairs = 20
    kinds = {action for action, _ in actions}
    hold = hold and "close" not in kinds
    with held(shared) if hold else nullcontext():
        for action, number in actions:
            before = shared.waiting_pairs
            match action:
                case "limit":
                    shared.max_waiting_pairs = number
                case "execution":
                    shared.execution = number
                case "close":
                    shared.close()
                case "cancel" if asked:
                    asked[number % len(asked)][2].cancel()
                case "fine" | "poison" | "refuse" | "slow":
                    limit = shared.max_waiting_pairs
                    refused = None
                    try:
                        asked.append((action, number, begin(shared, action, number)))
                    except Overloaded as error:
                        refused = error
                    if refused is None:
                        assert limit is None or shared.waiting_pairs <= limit
                    else:
                        assert number > limit - refused.waiting
                        assert refused.waiting <= before
            unanswered = sum(pairs for _, pairs, future in asked if not future.done())
            waiting = shared.waiting_pairs
            assert waiting == unanswered if hold and "slow" not in kinds else waiting <= unanswered
    for action, _, future in asked:
        settled(action, future, expected)
    assert until(lambda: shared.waiting_pairs == 0)


def begin(model, action: str, number: int) -> Future:
    match action:
        case "poison":
            return submit(model, [PAIR] * (number - 1) + [POISON])
        case "refuse":
            return submit(model, [PAIR] * number, refuse)
        case "slow":
            return model.submit([PAIR] * number, apply_softmax=True, activation_fn=torch.nn.Identity())
    return submit(model, [PAIR] * number)


def settled(action: str, future: Future, expected: float) -> None:
    """A request got its scores, its own error, or was cancelled."""
    own_error = {"poison": NonFiniteScoreError, "refuse": LookupError}.get(action)
    with suppress(CancelledError):
        if own_error is not None:
            assert isinstance(future.exception(SOON), own_error)
        elif action == "fine":
            assert_right(future, expected)
        else:
            future.result(SOON)


def test_every_request_of_many_threads_is_answered_or_refused(shared, expected):
    shared.max_waiting_pairs = 10
    most, answered, refused = [], [], []

    def client(seed: int) -> None:
        draw = random.Random(seed)
        for _ in range(60):
            action = draw.choice(["fine", "fine", "fine", "poison", "refuse", "slow"])
            try:
                future = begin(shared, action, draw.randint(1, 5))
            except Overloaded:
                refused.append(action)
                continue
            most.append(shared.waiting_pairs)
            if not draw.randrange(5):
                future.cancel()
            settled(action, future, expected)
            answered.append(action)

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(client, range(12)))
    assert len(answered) + len(refused) == 12 * 60
    assert answered
    assert refused
    assert max(most) <= 10
    assert until(lambda: shared.waiting_pairs == 0)
