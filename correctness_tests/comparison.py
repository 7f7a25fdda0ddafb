"""Results of two libraries, compared down to their types."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch


def assert_same(ours: Any, theirs: Any) -> None:
    """Same type, shape and dtype all the way down; numbers within float noise."""
    assert type(ours) is type(theirs)
    if isinstance(theirs, (list, tuple)):
        assert len(ours) == len(theirs)
        for left, right in zip(ours, theirs, strict=True):
            assert_same(left, right)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs)
        assert_same(list(ours.values()), list(theirs.values()))
    elif isinstance(theirs, (torch.Tensor, np.ndarray, np.generic)):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        np.testing.assert_allclose(np.asarray(ours), np.asarray(theirs), rtol=0, atol=1e-5)
    else:
        assert ours == (pytest.approx(theirs, abs=1e-5) if isinstance(theirs, float) else theirs)
