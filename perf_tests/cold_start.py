"""From the start of a process to its first score."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import torch

ROOT: Final = Path(__file__).parent.parent

SCRIPT: Final = """
import sys
import torch
import xenc

checkpoint, device, dtype, cache_dir = sys.argv[1:]
model = xenc.CrossEncoder(checkpoint, device=device, model_kwargs={"dtype": getattr(torch, dtype)})
model.warmup(cache_dir=cache_dir)
print(model.predict(("a question", "a document")))
"""


def first_score(
    model: Path, device: str, dtype: torch.dtype, cache_dir: Path, compiler_cache: Path, seconds: float = 600
) -> None:
    """Run one process from its start to its first score.

    Args:
        model, device, dtype: the checkpoint, torch's device type, and what to compute in.
        cache_dir: of `warmup`.
        compiler_cache: the compiler's own folder, empty if only `cache_dir` may help.
        seconds: the time limit.

    Raises:
        RuntimeError: the process failed; the message ends with its stderr.
        TimeoutExpired: it took longer than the limit.
    """
    name = str(dtype).removeprefix("torch.")
    found = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(model), device, name, str(cache_dir)],
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(compiler_cache), "PYTHONPATH": found},
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    if ended.returncode:
        raise RuntimeError(f"no score, exit status {ended.returncode}: {ended.stderr[-2000:]}")
