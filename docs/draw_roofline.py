"""Draw docs/roofline.png: the operations of an encoder layer under the roof of a GPU. Computed, not measured.

    python docs/draw_roofline.py

An operation takes at least max(FLOPs / peak, bytes / bandwidth) (Williams, Waterman and Patterson 2009,
"Roofline: an insightful visual performance model"), each input read once and each output written once.
Weights are read once for thousands of tokens and are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from xenc.profiling.flops import DENSE_PEAKS

HIDDEN: Final = 768
INNER: Final = 3072
ATTENDED: Final = 418
"""Tokens that a token of the seed workload attends to: the sum of squared counts over their sum."""

BYTES: Final = 2
"""Of a bfloat16."""

PEAK: Final = DENSE_PEAKS["H200"]
"""FLOP/s of dense bfloat16 products, datasheet of the H200 and of the H100 (SXM)."""

BANDWIDTH: Final = {"H200": 4.8e12, "H100": 3.35e12}
"""Bytes/s, datasheets."""


@dataclass(frozen=True)
class Operation:
    """One operation of a layer, per token.

    Attributes:
        name: what it is.
        flops: of matrix products; others are counted by their bytes.
        numbers: bfloat16 numbers read and written.
        fused: whether it need not be an operation of its own.
    """

    name: str
    flops: float
    numbers: float
    fused: bool = False

    @property
    def intensity(self) -> float:
        """FLOPs per byte."""
        return self.flops / (BYTES * self.numbers)

    def seconds(self, bandwidth: float) -> float:
        """The least it takes per token."""
        return max(self.flops / PEAK, BYTES * self.numbers / bandwidth)


OPERATIONS: Final = (
    Operation("Q, K, V", 6 * HIDDEN**2, 6 * HIDDEN),
    Operation("attention", 4 * ATTENDED * HIDDEN, 4 * HIDDEN),
    Operation("output", 2 * HIDDEN**2, 2 * HIDDEN),
    Operation("add, normalise (1)", 0, 3 * HIDDEN),
    Operation("up", 2 * HIDDEN * INNER, HIDDEN + INNER),
    Operation("GELU", 0, 2 * INNER, fused=True),
    Operation("down", 2 * HIDDEN * INNER, HIDDEN + INNER),
    Operation("add, normalise (2)", 0, 3 * HIDDEN),
)


def most_mfu(bandwidth: float, *, fused: bool) -> float:
    """The share of the peak that no execution of these operations can exceed."""
    operations = [each for each in OPERATIONS if not (fused and each.fused)]
    flops = sum(each.flops for each in operations)
    return flops / (PEAK * sum(each.seconds(bandwidth) for each in operations))


def draw(path: Path) -> None:
    """Two panels: the roof with the operations under it, and the least time of each."""
    import matplotlib.pyplot as plt

    figure, (roof, bars) = plt.subplots(1, 2, figsize=(11, 4.2))
    intensities = [2 ** (power / 8) for power in range(6 * 8, 11 * 8)]
    for name, bandwidth in BANDWIDTH.items():
        roof.semilogx(
            intensities,
            [min(PEAK, each * bandwidth) / 1e12 for each in intensities],
            label=f"{name}, {bandwidth / 1e12:.2f} TB/s",
        )
    for intensity in sorted({each.intensity for each in OPERATIONS if each.flops}):
        names = [each.name for each in OPERATIONS if each.intensity == intensity]
        height = min(PEAK, intensity * BANDWIDTH["H200"]) / 1e12
        roof.plot(intensity, height, "ko", markersize=4)
        roof.annotate(
            "\n".join(names), (intensity, height), xytext=(0, -8), textcoords="offset points",
            fontsize=8, ha="center", va="top",
        )  # fmt: skip
    roof.set_xticks([64, 128, 256, 512, 1024], labels=["64", "128", "256", "512", "1,024"])
    roof.set_xlabel("FLOPs per byte")
    roof.set_ylabel("TFLOP/s at most, bfloat16")
    roof.legend(fontsize=8, loc="lower right")
    roof.grid(alpha=0.3, which="both")

    names = [each.name for each in OPERATIONS]
    least = [1e9 * each.seconds(BANDWIDTH["H200"]) for each in OPERATIONS]
    bars.barh(names, least, color=["C0" if each.flops else "C1" for each in OPERATIONS])
    bars.invert_yaxis()
    bars.set_xlabel("least ns per token and layer on an H200")
    bars.set_title(
        f"at most {most_mfu(BANDWIDTH['H200'], fused=False):.0%} of the peak, "
        f"{most_mfu(BANDWIDTH['H200'], fused=True):.0%} with GELU inside a product",
        fontsize=9,
    )
    bars.grid(alpha=0.3, axis="x")
    figure.suptitle("A layer of XLM-RoBERTa-base on packed batches: computed, not measured", fontsize=10)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    draw(Path(__file__).parent / "roofline.png")
    for name, bandwidth in BANDWIDTH.items():
        print(f"{name}: {most_mfu(bandwidth, fused=False):.1%}, fused {most_mfu(bandwidth, fused=True):.1%}")
    for each in OPERATIONS:
        print(f"{each.name:20} {1e9 * each.seconds(BANDWIDTH['H200']):5.2f} ns, {each.intensity:6.0f} FLOP/B")
