"""The ring of pinned buffers, on a fake device that copies as late as possible."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from xenc.batching.packed_collate import STAGES, PinnedRing

GARBAGE = -1


class LazyDevice:
    """A stream that runs work only when it is waited for, and no more than needed."""

    def __init__(self) -> None:
        self.left: deque[Callable[[], object]] = deque()
        self.done = 0
        self.waited = 0

    def enqueue(self, work: Callable[[], object]) -> int:
        """The amount of work done after this."""
        self.left.append(work)
        return self.done + len(self.left)

    def catch_up(self, until: int | None = None) -> None:
        while self.left and (until is None or self.done < until):
            self.left.popleft()()
            self.done += 1


class Pinned(Tensor):
    """Memory with delayed copies to the device."""

    device_of_all: LazyDevice

    def to(self, device: object, *, non_blocking: bool = False) -> Tensor:  # type: ignore[override]
        assert non_blocking
        source = self.as_subclass(Tensor)
        there = torch.full_like(source, GARBAGE)
        self.device_of_all.enqueue(lambda: there.copy_(source))
        return there


class Event:
    """A place in the stream."""

    def record(self, stream: LazyDevice) -> None:
        self.place, self.stream = stream.enqueue(lambda: None), stream

    def synchronize(self) -> None:
        self.stream.waited += self.stream.done < self.place
        self.stream.catch_up(self.place)


@pytest.fixture(scope="module")
def device() -> LazyDevice:
    made = LazyDevice()
    empty = torch.empty

    def pinned(*sizes: int, pin_memory: bool = False, **others: object) -> Tensor:
        return empty(*sizes, **others).as_subclass(Pinned) if pin_memory else empty(*sizes, **others)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(torch, "empty", pinned)
        patched.setattr(torch.cuda, "Event", Event)
        patched.setattr(torch.cuda, "current_stream", lambda _: made)
        patched.setattr(Pinned, "device_of_all", made, raising=False)
        yield made


@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 8)), max_size=20))
def test_what_arrives_is_what_was_sent_however_far_the_device_lags(device, sizes_and_lags):
    ring, sent, arrived = PinnedRing(), [], []
    for number, (size, lag) in enumerate(sizes_and_lags):
        values = torch.arange(size) + 100 * number
        sent.append(values.clone())
        arrived.append(ring.copy(values, torch.device("cuda:0")))
        values.fill_(GARBAGE)  # the caller may reuse its tensor
        device.catch_up(device.done + lag)
    device.catch_up()
    assert [there.tolist() for there in arrived] == [values.tolist() for values in sent]


def test_the_host_may_be_as_many_batches_ahead_as_there_are_stages_and_no_more(device):
    ring = PinnedRing()
    device.catch_up()
    device.waited = 0
    for _ in range(STAGES):
        ring.copy(torch.arange(3), torch.device("cuda:0"))
    assert device.waited == 0
    ring.copy(torch.arange(3), torch.device("cuda:0"))
    assert device.waited == 1
    device.catch_up()
