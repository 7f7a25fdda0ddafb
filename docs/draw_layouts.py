"""Draws docs/layouts.png: the same 16 pairs padded, bucketed and packed. Run it from the root."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from transformers import AutoTokenizer

from perf_tests import models, workloads
from xenc.batching.packed_plan import plan_packed, token_budgets
from xenc.batching.padded_plan import bucket_lengths, plan_batches
from xenc.batching.plan import Plan
from xenc.text.tokens import tokenize

REAL, PADDING = "#1f6feb", "#f2b8b5"
WORKLOAD = workloads.skewed(pairs=16, batch_size=4)


def draw_padded(axes: Axes, plan: Plan, counts: list[int]) -> None:
    """One row per pair, a gap between batches: real tokens, and the padding behind them."""
    top = 0.0
    for batch in plan.batches:
        for row in batch.rows:
            axes.barh(top, counts[row], height=0.8, color=REAL)
            axes.barh(top, batch.length - counts[row], left=counts[row], height=0.8, color=PADDING)
            top += 1
        top += 0.8


def draw_packed(axes: Axes, plan: Plan, counts: list[int]) -> None:
    """One row per batch: pairs end to end, and what is left over."""
    for top, batch in enumerate(plan.batches):
        left = 0
        for row in batch.rows:
            axes.barh(top, counts[row], left=left, height=0.8, color=REAL, edgecolor="white")
            left += counts[row]
        axes.barh(top, batch.tokens - left, left=left, height=0.8, color=PADDING)


def main() -> None:
    """Write the picture."""
    tokenizer = AutoTokenizer.from_pretrained(models.minilm())
    counts = tokenize(tokenizer, WORKLOAD.round(0), max_length=512).counts
    buckets = bucket_lengths(16, 512)
    padded = {
        "padded, in the order they came": plan_batches(counts, batch_size=4, sort=False, buckets=None),
        "bucketed and sorted": plan_batches(counts, batch_size=4, sort=True, buckets=buckets),
    }
    packed = plan_packed(counts, token_budgets(None, 512, usual=2048))
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    rows = [19] * len(padded) + [len(packed.batches) + 1]
    panels = figure.subplots(len(padded) + 1, 1, height_ratios=rows)
    for axes, (name, plan) in zip(panels, padded.items(), strict=False):
        draw_padded(axes, plan, counts)
        shapes = len({(batch.batch_size, batch.length) for batch in plan.batches})
        axes.set_title(f"{name}: {plan.waste:.0%} waste, {shapes} shapes", loc="left", fontsize=10)
    draw_packed(panels[-1], packed, counts)
    title = f"packed: {packed.waste:.0%} waste, {len({batch.tokens for batch in packed.batches})} shape"
    panels[-1].set_title(title, loc="left", fontsize=10)
    panels[-1].set_xlabel("tokens (blue: real, red: padding)", fontsize=9)
    for axes in panels:
        axes.invert_yaxis()
        axes.set_yticks([])
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right", "left"]].set_visible(False)
    figure.savefig(Path(__file__).parent / "layouts.png", dpi=130)


if __name__ == "__main__":
    main()
