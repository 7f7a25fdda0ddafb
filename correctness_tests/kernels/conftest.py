"""What the laws of the C++ kernels share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

from xenc.kernels.library import Library, library


@pytest.fixture(scope="session")
def kernels() -> Library:
    """The library; without it there is nothing to hold a law to."""
    found = library()
    if found.missing is not None:
        pytest.skip(f"no C++ kernels: {found.missing}")
    return found


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    """Sets the number of threads, which is as before after the test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)
