"""What the laws of the C++ kernels share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch

import xenc
from correctness_tests import checkpoints
from xenc import Execution
from xenc.kernels.library import Library, library
from xenc.kernels.products import chosen
from xenc.models.kernel_twin import KernelTwin


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


@pytest.fixture
def checkpoint(tmp_path):
    """Whose weights have more cache lines than there are shares of them to look at."""
    return checkpoints.make(tmp_path, "bert", hidden_size=128, intermediate_size=256)


@pytest.fixture
def preferred(monkeypatch):
    """Makes a model that nobody told what multiplies, on a machine where our own is the fastest."""

    def choose(dtype, asked, device):
        return chosen(dtype, asked or "xenc", device)

    monkeypatch.setattr("xenc.models.kernel_twin.chosen", choose)

    def make(checkpoint) -> xenc.CrossEncoder:
        model = xenc.CrossEncoder(str(checkpoint), device="cpu", execution=Execution(compile_mode=None))
        assert isinstance(model.pipeline._twin, KernelTwin)
        return model

    return make
