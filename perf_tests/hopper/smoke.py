"""A first look at every path that a GPU takes: 64 pairs scored twice, and how far from the oracle.

Each path runs in a process of its own, all at once: one that fails costs no other, and what they compile is
in the compiler's cache when the table's rows are made ready. The suite's GPU tests run beside them.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import sentence_transformers
import torch

from perf_tests import causal_model, ettin_models, workloads
from perf_tests.hopper.children import Ended, compiling_environment, run_all
from perf_tests.hopper.results import sound
from perf_tests.hopper.setting import ON_GPU, REHEARSAL, Setting
from perf_tests.peers.peer import predicted
from perf_tests.scorers import judged, oracle_logits
from perf_tests.workloads import Pair
from xenc import PRESETS, CrossEncoder, Execution
from xenc.compiling.watch import watch_compiles
from xenc.gate.exact import compile_counts

PAIRS: Final = 64


@dataclass(frozen=True, kw_only=True)
class SmokePath:
    """One way to score.

    Attributes:
        execution: of xenc.
        checkpoint: makes the model; None for the table's.
    """

    execution: Execution
    checkpoint: Callable[[], Path] | None = None


def smallest_modernbert() -> Path:
    """The smallest of Ettin's rerankers, as one classifier."""
    return ettin_models.stored(ettin_models.GEOMETRIES[0]).classifier


PATHS: Final = {
    **{
        name: SmokePath(execution=PRESETS[name])
        for name in (
            "packed", "packed-eager", "packed-deterministic", "packed-float8", "bucketed",
        )
    },
    "packed, launched one by one": SmokePath(execution=Execution(compile_mode="default")),
    "packed, cuBLASLt": SmokePath(execution=Execution(products="cublaslt")),
    "modernbert, packed": SmokePath(execution=PRESETS["packed"], checkpoint=smallest_modernbert),
    "causal, packed": SmokePath(execution=PRESETS["packed"], checkpoint=causal_model.small_causal),
    "causal, shared prefix": SmokePath(
        execution=PRESETS["packed-shared-prefix"], checkpoint=causal_model.small_causal
    ),
}  # fmt: skip


TESTS: Final = {
    f"tests of {name}": ("-m", "pytest", f"correctness_tests/{name}", "-m", "gpu", "-q", "--no-header")
    for name in ("kernels", "models", "compiling", "layouts", "test_scores.py")
}
"""Arguments of Python, by name."""

WARMS_UP: Final = {"warm-up of single kernels": ("-m", "perf_tests.hopper.kernels")}
"""What runs beside the paths and the tests, and says nothing of them."""


def look_at_all(setting: Setting, seconds: float, say: Callable[[str], object]) -> list[dict[str, Any]]:
    """One entry per path and folder of tests: error and tolerance, or the problem. Stops after `seconds`."""
    names = [name for name in PATHS if name not in setting.left_out]
    for name in names:  # made once, before several ask for them
        (PATHS[name].checkpoint or setting.checkpoint)()
    flag = () if setting is ON_GPU else ("--rehearse",)
    commands = {name: ("-m", "perf_tests.hopper.smoke", name, *flag) for name in names}
    if setting.device == "cuda":
        commands |= TESTS | WARMS_UP
    entries: list[dict[str, Any]] = []

    def ended(name: str, how: Ended) -> None:
        if name in WARMS_UP:
            return
        entry = _entry(name, how)
        entries.append(entry)
        say(f"  {name}: {_in_words(entry)}")

    run_all(commands, seconds, compiling_environment(), ended)
    return entries


def _entry(name: str, how: Ended) -> dict[str, Any]:
    if how.problem is not None:
        return {"path": name, "problem": how.problem}
    if name in TESTS:
        return {"path": name, "problem": None, "tests": how.output.rstrip().splitlines()[-1]}
    lines = [line for line in how.output.splitlines() if line.startswith("{")]
    found: dict[str, Any] = json.loads(lines[-1])
    return {"path": name, "problem": None, "seconds": how.seconds, **found}


def _in_words(entry: dict[str, Any]) -> str:
    if entry["problem"] is not None:
        return f"FAILED: {entry['problem']}"
    if "tests" in entry:
        return str(entry["tests"])
    right = "right" if sound(entry) else "WRONG"
    return f"{right}, error {entry['error']:.2g} of {entry['tolerance']:.2g}, {entry['seconds']:.0f} s"


def look(path: SmokePath, setting: Setting) -> dict[str, Any]:
    """Score PAIRS pairs twice under one path, after warm-up, and compare them with the reference."""
    checkpoint = (path.checkpoint or setting.checkpoint)()
    pairs = workloads.seed(pairs=PAIRS, batch_size=PAIRS).round(0)
    began = time.monotonic()
    model = CrossEncoder(
        str(checkpoint), device=setting.device, max_length=512, model_kwargs={"dtype": setting.dtype},
        execution=path.execution,
    )  # fmt: skip
    warmup = model.warmup(16)
    ready_s = time.monotonic() - began
    with watch_compiles() as watch:
        logits, again = (predicted(model, pairs, 16) for _ in range(2))
    counts = {name: count for name, count in compile_counts(watch.report).items() if isinstance(count, int)}
    report = model.last_report
    plain = partial(_plain, path, checkpoint, setting.device, tuple(pairs))
    error, tolerance = judged(logits, plain, setting.dtype, path.execution.quantize)
    return {
        "error": error, "tolerance": tolerance, "changed": int((logits != again).sum()),
        "late": sum(counts.values()), "graphs": warmup.graphs, "ready_s": ready_s,
        "spread": float(logits.std()), "waste": None if report is None else report.waste,
        "memory_gib": torch.cuda.max_memory_allocated() / 2**30 if setting.device == "cuda" else None,
    }  # fmt: skip


def _plain(
    path: SmokePath, checkpoint: Path, device: str, pairs: tuple[Pair, ...], dtype: torch.dtype,
    quantize: str | None,
) -> np.ndarray:  # fmt: skip
    """[N] logits, each pair alone: the oracle's for the table's model, else sentence-transformers'."""
    if path.checkpoint is None:
        return oracle_logits(checkpoint, device, pairs, 512, dtype, quantize)
    plain = sentence_transformers.CrossEncoder(
        str(checkpoint), device=device, max_length=512,
        model_kwargs={"dtype": dtype, "attn_implementation": "eager"},
    )  # fmt: skip
    return predicted(plain, pairs, 1)


def main(name: str, *flags: str) -> None:
    """Look at one path and print what was found as one line of JSON."""
    print(json.dumps(look(PATHS[name], REHEARSAL if "--rehearse" in flags else ON_GPU)), flush=True)
    os._exit(0)  # threads and graphs need not be waited for


if __name__ == "__main__":
    main(*sys.argv[1:])
