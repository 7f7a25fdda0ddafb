"""From the start of a process to its first score."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import torch

ROOT: Final = Path(__file__).parent.parent

SCRIPT: Final = """
import json, os, sys, time
seen = [("begin", time.monotonic())]
import torch
import xenc
seen.append(("import", time.monotonic()))
checkpoint, device, dtype, cache_dir = sys.argv[1:]
model = xenc.CrossEncoder(checkpoint, device=device, model_kwargs={"dtype": getattr(torch, dtype)})
seen.append(("load", time.monotonic()))
model.warmup(cache_dir=cache_dir)
seen.append(("warm up", time.monotonic()))
model.predict(("a question", "a document"))
seen.append(("score", time.monotonic()))
steps = {name: at - before for (_, before), (name, at) in zip(seen, seen[1:])}
from torch._dynamo.utils import counters
print(json.dumps(steps | {key: count for key, count in counters["aot_autograd"].items()}), flush=True)
os._exit(0)  # the end of threads is no part of it
"""


def first_score(
    model: Path, device: str, dtype: torch.dtype, cache_dir: Path, compiler_cache: Path, seconds: float = 600
) -> dict[str, float]:
    """Run one process from its start to its first score.

    Args:
        model, device, dtype: the checkpoint, torch's device type, and what to compute in.
        cache_dir: of `warmup`.
        compiler_cache: the compiler's own folder, empty if only `cache_dir` may help. Triton's own is beside
            it, and stays, as it does for a user.
        seconds: the time limit.

    Returns:
        Seconds of its steps, and whether compiled graphs were found in the cache.

    Raises:
        RuntimeError: the process failed; the message ends with its stderr.
        TimeoutExpired: it took longer than the limit.
    """
    name = str(dtype).removeprefix("torch.")
    found = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(model), device, name, str(cache_dir)],
        env={
            **os.environ,
            "TORCHINDUCTOR_CACHE_DIR": str(compiler_cache),
            "PYTHONPATH": found,
            "TRITON_CACHE_DIR": str(compiler_cache.parent / "triton"),
        },
        capture_output=True,
        text=True,
        timeout=seconds,
    )
    if ended.returncode:
        raise RuntimeError(f"no score, exit status {ended.returncode}: {ended.stderr[-2000:]}")
    found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return found
