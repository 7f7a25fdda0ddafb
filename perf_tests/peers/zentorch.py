"""zentorch: AMD's backend of torch.compile, for processors with AVX-512.

It leaves a pass in Inductor's settings, which is taken out again after each call, and it lays out the weights
of its model anew: the model answers nothing right any more by other ways.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForSequenceClassification

from perf_tests.peers.padded import Arrays, Padded
from perf_tests.peers.peer import Absent


def zentorch(checkpoint: Path, dtype: torch.dtype, batch_size: int) -> Padded:
    """The peer, compiled for any number of pairs and tokens.

    Raises:
        Absent: the package is missing, does not load, or has no instructions to use.
    """
    if find_spec("zentorch") is None:
        raise Absent("not installed: zentorch, of the same minor version as torch")
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        raise Absent("zentorch needs AVX-512")
    try:
        import zentorch as _  # noqa: F401  it registers the backend
    except (ImportError, OSError) as error:
        raise Absent(f"zentorch does not load: {error}") from error
    peer = Padded(checkpoint, _Compiled(checkpoint, dtype), batch_size)
    for count in (2, 3, 1):  # a single pair has a graph of its own
        peer.at(count).logits([("a query", "a document of some words")] * count)
    return peer


class _Compiled:
    def __init__(self, checkpoint: Path, dtype: torch.dtype) -> None:
        model: Any = AutoModelForSequenceClassification.from_pretrained(checkpoint, dtype=dtype)
        self._model = torch.compile(model.eval(), backend="zentorch", dynamic=True)

    def __call__(self, arrays: Arrays) -> np.ndarray:
        """Logits of a batch; see `Session`."""
        with torch.no_grad(), torch._inductor.config.patch(joint_custom_post_pass=None):
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
            logits: np.ndarray = self._model(**tensors).logits.float().numpy()
        return logits
