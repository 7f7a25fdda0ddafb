"""Whatever breaks, is cancelled or closed: what was accepted is answered, and no more waits than may."""

from __future__ import annotations

import random
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import xenc
from correctness_tests import oracle
from correctness_tests.waiting import SOON, held, until
from xenc import NonFiniteScoreError, Overloaded

PAIR = ("a question", "a document")
POISON = ("q", "")


def submit(model, pairs, activation_fn=None) -> Future:
    return model.submit(pairs, activation_fn=activation_fn or torch.nn.Identity())


def refuse(_):
    raise LookupError("this activation only")


@pytest.fixture(scope="module")
def expected(tiny) -> float:
    return float(oracle.logits(tiny, [PAIR], max_length=64)[0])


@pytest.fixture(scope="module")
def shared(tiny) -> Iterator[xenc.CrossEncoder]:
    with xenc.CrossEncoder(str(tiny), device="cpu", execution="packed-eager") as model:
        poisoned = model.tokenizer.convert_tokens_to_ids("q")
        with torch.no_grad():
            model.transformers_model.get_input_embeddings().weight[poisoned] = float("nan")
        yield model


def broken(*_, **__):
    raise MemoryError("on purpose")


@pytest.mark.parametrize(
    "stage",
    ["_tokenize", "collator", "forward", "_use_attention", "add", "next_batch", "resume"],
)
@pytest.mark.parametrize("execution", ["packed-eager", "sdpa-sorted"])
def test_whichever_stage_breaks_all_that_waits_is_told(tiny, monkeypatch, stage, execution):
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
                    try:
                        asked.append((action, number, begin(shared, action, number)))
                    except Overloaded as error:
                        refused = error
                    else:
                        refused = None
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
    try:
        scores = future.result(SOON)
    except CancelledError:
        return
    except NonFiniteScoreError:
        assert action == "poison"
        return
    except LookupError:
        assert action == "refuse"
        return
    assert action in ("fine", "slow")
    if action == "fine":
        np.testing.assert_allclose(scores, expected, rtol=0, atol=1e-4)


def test_many_threads_meet_the_limit_and_nobody_is_lost(shared, expected):
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
