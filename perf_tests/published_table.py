"""python -m perf_tests.published_table: how each published configuration runs on this machine's CPU.

Prints the table of docs/architectures.md, and with --write puts it there.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

import numpy as np
import sentence_transformers
import torch

import xenc
from perf_tests import workloads
from perf_tests.device_thread import on_device_thread
from perf_tests.published import MAX_LENGTH, PUBLISHED, Published, Size
from xenc.profiling.kernel_names import ATTENTION, class_of
from xenc.profiling.kernels import profile_pass

PAGE: Final = Path(__file__).parent.parent / "docs" / "architectures.md"
BEGIN, END = "<!-- measured by perf_tests.published_table -->", "<!-- end of what was measured -->"

SIZE: Final = Size(hidden=256, layers=6, heads=4, spread=0.06)
BATCH_SIZES: Final = (4, 8, 16, 32)
WORKLOAD: Final = workloads.skewed(pairs=48, batch_size=4)

COLUMNS: Final = (
    "rerankers", "class", "layout", "attention", "products", "error in float32", "error in bfloat16 (theirs)",
    "graphs", "speed over sentence-transformers",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Row:
    """How one family runs. Errors are the largest, in standard deviations of the exact scores."""

    published: Published
    kind: str
    layout: str
    attention: str
    products: str
    error: float
    error_bfloat16: float
    theirs_bfloat16: float
    graphs: int
    ratios: list[float]

    def cells(self) -> list[str]:
        least, most = min(self.ratios), max(self.ratios)
        return [
            self.published.name, f"`{self.kind}`", self.layout, self.attention, self.products,
            f"{self.error:.0e}", f"{self.error_bfloat16:.2g} ({self.theirs_bfloat16:.2g})", str(self.graphs),
            f"{median(self.ratios):.2f}x ({least:.2f} to {most:.2f})",
        ]  # fmt: skip


def measured(published: Published, rounds: int) -> Row:
    """Make a family's model, and run it by sentence-transformers and by xenc."""
    with tempfile.TemporaryDirectory() as name:
        published.save(Path(name), SIZE)
        folder = str(Path(name) / "chain" if published.head == "chain" else name)
        pairs = WORKLOAD.round(0)
        theirs = plain(folder, torch.float32)
        exact = logits(theirs, pairs, 1)
        ours = xenc.CrossEncoder(folder, device="cpu", max_length=MAX_LENGTH)
        report = ours.warmup()
        row = {
            "published": published,
            "kind": type(ours.model).__name__,
            "layout": ours.execution.layout,
            "attention": attention_of(ours, pairs),
            "products": ours.pipeline.products.split()[0],
            "error": off(logits(ours, pairs), exact),
            "graphs": report.graphs,
        }
        ratios = raced(ours, theirs, rounds)
        ours.close()
        torch._dynamo.reset()
        short = {"model_kwargs": {"dtype": torch.bfloat16}}
        with xenc.CrossEncoder(folder, device="cpu", max_length=MAX_LENGTH, **short) as bfloat16:
            row["error_bfloat16"] = off(logits(bfloat16, pairs), exact)
        row["theirs_bfloat16"] = off(logits(plain(folder, torch.bfloat16), pairs, 1), exact)
        torch._dynamo.reset()
    return Row(**row, ratios=ratios)


def plain(folder: str, dtype: torch.dtype) -> sentence_transformers.CrossEncoder:
    """sentence-transformers' own."""
    options: dict[str, Any] = {"max_length": MAX_LENGTH, "model_kwargs": {"dtype": dtype}}
    return sentence_transformers.CrossEncoder(folder, device="cpu", **options)


def logits(model: Any, pairs: Any, batch_size: int = 32) -> np.ndarray:
    """[N] or [N, C], in float32."""
    found = model.predict(
        pairs, batch_size=batch_size, activation_fn=torch.nn.Identity(), show_progress_bar=False
    )
    return np.asarray(found, dtype=np.float32)


def off(found: np.ndarray, exact: np.ndarray) -> float:
    """The largest error, in standard deviations of the exact scores."""
    return float(np.abs(found - exact).max() / exact.std())


def attention_of(model: xenc.CrossEncoder, pairs: Any) -> str:
    """The operator that attends, by the profiler."""
    profiled = profile_pass(lambda: logits(model, pairs), device="cpu", on_device=on_device_thread(model))
    attending = {name for name in profiled.kernels if class_of(name) == ATTENTION}
    return ", ".join(sorted(name.partition("::")[2] for name in attending)) or "written out"


def raced(ours: xenc.CrossEncoder, theirs: Any, rounds: int) -> list[float]:
    """Their seconds over ours in each round, each in the batch size that was fastest for it over all rounds.

    Packed batches have none.
    """
    packed = ours.execution.layout == "packed"
    own: dict[int, list[float]] = {size: [] for size in (BATCH_SIZES[-1:] if packed else BATCH_SIZES)}
    others: dict[int, list[float]] = {size: [] for size in BATCH_SIZES}
    for number in range(rounds):
        pairs = WORKLOAD.round(number)
        for model, found in ((ours, own), (theirs, others)):
            for size, times in found.items():
                times.append(seconds(lambda: logits(model, pairs, size)))  # noqa: B023
    fastest = (min(each.values(), key=median) for each in (others, own))
    return [their / our for their, our in zip(*fastest, strict=True)]


def seconds(job: Callable[[], object]) -> float:
    """Of one call."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def table(rows: list[Row]) -> str:
    """Markdown."""
    cells = [COLUMNS, ["---"] * len(COLUMNS), *(row.cells() for row in rows)]
    return "\n".join(f"| {' | '.join(each)} |" for each in cells)


def write(text: str) -> None:
    """Put the table into the page."""
    page = PAGE.read_text(encoding="utf-8")
    before, rest = page.split(BEGIN)
    _, after = rest.split(END)
    PAGE.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m perf_tests.published_table", description=__doc__)
    parser.add_argument("--only", default="", metavar="PART", help="families with this in their names")
    parser.add_argument("--rounds", type=int, default=5, help="each way is timed once in each")
    parser.add_argument("--write", action="store_true", help="put the table into docs/architectures.md")
    given = parser.parse_args(arguments)
    rows = []
    for published in PUBLISHED:
        if published.exists and given.only in published.name:
            rows.append(measured(published, given.rounds))
            print(" | ".join(rows[-1].cells()), file=sys.stderr, flush=True)
    if not rows:
        parser.error(f"--only {given.only}: no such family")
    print(table(rows))
    if given.write:
        write(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
