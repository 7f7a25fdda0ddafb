"""Draws operating-curve.png: how often the gate sees a slowdown, by recorded processes drawn again and again.

python docs/draw_operating_curve.py
"""

from __future__ import annotations

import random
import sys
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent))

from matplotlib.figure import Figure  # noqa: E402

from perf_tests.replays import (  # noqa: E402
    Estimates,
    compare_medians,
    read,
    recorded_rules,
    slowed,
    upper_bound,
)

RECORDED = HERE.parent / "correctness_tests" / "gate" / "recorded-cpu.jsonl.gz"
SHARES = (0, 0.005, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.05, 0.06, 0.08, 0.1)
DRAWS = 300


def main() -> None:
    """Draw the picture and print its numbers."""
    processes = read(RECORDED)
    rules = recorded_rules()
    names = list(rules)
    estimates = Estimates(processes, rules)
    draw = random.Random("operating curve")
    seen, flagged = [], []
    for share in SHARES:
        slower = {name: [slowed(process, {name: share}) for process in processes] for name in names}
        runs = [draw.choice(names) for _ in range(DRAWS)]
        seen.append(sum(estimates.regressed(draw, name, share) for name in runs) / DRAWS)
        flagged.append(sum(_by_medians(draw, processes, slower[name], name) for name in runs) / DRAWS)
    others = sum(_any_by_medians(draw, processes) for _ in range(DRAWS)) / DRAWS
    _draw(seen, flagged, len(processes))
    for share, ours, theirs in zip(SHARES, seen, flagged, strict=True):
        print(f"{share:6.1%} slower: gate {ours:6.1%}, median:5% {theirs:6.1%}")
    print(f"at 0%, any of {len(names)} configurations: median:5% {others:.1%}; n = {DRAWS} draws each")
    print(f"0 of {DRAWS} means below {upper_bound(0, DRAWS):.1%} at 95%")


def _by_medians(draw: random.Random, base: Sequence[dict], head: Sequence[dict], name: str) -> bool:
    before, after = draw.sample(range(len(base)), 2)
    return name in compare_medians(base[before], head[after], 0.05)


def _any_by_medians(draw: random.Random, processes: Sequence[dict]) -> bool:
    return bool(compare_medians(*draw.sample(list(processes), 2), 0.05))


def _draw(seen: Sequence[float], flagged: Sequence[float], processes: int) -> None:
    figure = Figure(figsize=(7.5, 4.2), layout="constrained")
    axes = figure.subplots()
    percent = [100 * share for share in SHARES]
    axes.plot(percent, [100 * rate for rate in seen], "o-", color="#1f6feb", label="xenc, --against REF")
    axes.plot(percent, [100 * rate for rate in flagged], "s--", color="#9aa4af",
              label="pytest-benchmark, --benchmark-compare-fail=median:5%")  # fmt: skip
    rule = next(iter(recorded_rules().values()))
    axes.axvspan(0, 100 * rule.margin, color="#1a7f37", alpha=0.08, lw=0)
    axes.axvline(100 * rule.must_see, color="#cf222e", lw=1, ls=":")
    axes.annotate("tolerated", (50 * rule.margin, 50), rotation=90, ha="center", fontsize=8)
    axes.annotate("must be seen", (100 * rule.must_see, 68), rotation=90, ha="right", fontsize=8)
    axes.set_xlabel("slowdown of one configuration's head, %")
    axes.set_ylabel("runs that call it slower, %")
    axes.set_ylim(-3, 103)
    axes.legend(frameon=False, loc="lower right", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(
        f"{DRAWS} runs each, drawn from {processes} recorded processes of unchanged code", fontsize=9
    )
    figure.savefig(HERE / "operating-curve.png", dpi=150)


if __name__ == "__main__":
    main()
