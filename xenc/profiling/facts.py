"""What a profile measured, as numbers. Pure: no torch, no files."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from .kernel_names import INDUCTOR, Kernels


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What was profiled.

    Attributes:
        model: its name or folder.
        execution: the preset's name, or the record itself where it is none.
        layout: "padded", "bucketed" or "packed".
        compile_mode: torch.compile's, or None for an eager execution.
        device: torch's device type.
        device_name: what the device calls itself.
        dtype: what the model computes in.
        fastest_dtype: what this device would be fastest in; see `precision`.
        threads: CPU threads.
        torch: its version.
    """

    model: str
    execution: str
    layout: str
    compile_mode: str | None
    device: str
    device_name: str
    dtype: str
    fastest_dtype: str
    threads: int
    torch: str


@dataclass(frozen=True, kw_only=True)
class Work:
    """What one pass had to do.

    Attributes:
        pairs: pairs scored.
        truncated_pairs: pairs that lost tokens to max_length.
        max_length: tokens.
        tokens: true tokens, after truncation.
        all_tokens: tokens processed, padding and dummies included.
        batches: forward passes.
        shared_tokens: true tokens that were not computed, since another pair's are the same.
    """

    pairs: int
    truncated_pairs: int
    max_length: int
    tokens: int
    all_tokens: int
    batches: int
    shared_tokens: int = 0

    @property
    def waste(self) -> float:
        """Padded tokens / all tokens."""
        return 1 - (self.tokens - self.shared_tokens) / self.all_tokens


@dataclass(frozen=True, kw_only=True)
class Traced:
    """The pass that was traced.

    Attributes:
        wall_s: seconds from `predict` to its answer, the tracing's own cost included.
        busy_s: seconds in which at least one kernel ran.
        kernels: launches and seconds by name.
        batches: forward passes.
        region_calls: calls into code that torch.compile made.
        cudagraph_launches: CUDA graphs replayed.
    """

    wall_s: float
    busy_s: float
    kernels: Kernels
    batches: int
    region_calls: int
    cudagraph_launches: int

    @property
    def kernel_count(self) -> int:
        """Launches of all kernels."""
        return sum(count for count, _ in self.kernels.values())

    @property
    def regions(self) -> float:
        """Compiled regions per forward pass: 1 where the whole pass is one graph, 0 where none is."""
        return self.region_calls / self.batches


@dataclass(frozen=True, kw_only=True)
class Compilation:
    """What was compiled, before anything was measured.

    Attributes:
        graphs: graphs kept for this execution, one or more for each region.
        warmup_s: seconds of the warm-up in this profile.
        graph_breaks: the reason of each graph break seen in the warm-up.
        cudagraph_skips: regions that should have been a CUDA graph and were not.
        eager_fallbacks: functions that run eagerly in a compiled one's place; see `watch`.
    """

    graphs: int
    warmup_s: float
    graph_breaks: tuple[str, ...]
    cudagraph_skips: int
    eager_fallbacks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Limit:
    """What the hardware could do; see `flops`.

    Attributes:
        flops: of one pass, real tokens only.
        peak_flops_per_s: the device's, in this dtype.
        peak_source: where that number comes from.
        gemm_s: what the encoder's matrix products on the real tokens take alone, measured here.
    """

    flops: float
    peak_flops_per_s: float
    peak_source: str
    gemm_s: float


@dataclass(frozen=True, kw_only=True)
class Profile:
    """All that a profile measured. Nothing compiled in any of its passes.

    Attributes:
        seconds: of each timed pass, with nothing else in the way.
        stages: seconds by stage of one pass, the mean of as many; stages on different threads overlap.
    """

    subject: Subject
    work: Work
    seconds: tuple[float, ...]
    stages: Mapping[str, float]
    traced: Traced
    compilation: Compilation
    limit: Limit

    @property
    def median_s(self) -> float:
        """Seconds of the median timed pass."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Standard deviation / median of the timed passes; 0 for a single one."""
        return statistics.stdev(self.seconds) / self.median_s if len(self.seconds) > 1 else 0.0

    @property
    def mfu(self) -> float:
        """Model FLOPs utilisation: FLOPs of real tokens / (seconds x peak)."""
        return self.limit.flops / (self.median_s * self.limit.peak_flops_per_s)

    @property
    def gemm_share(self) -> float:
        """What the matrix products alone would take / what the pass took."""
        return self.limit.gemm_s / self.median_s

    @property
    def kernels_are_named(self) -> bool:
        """Whether compiled kernels show: a CPU's do only where the model was compiled to tell their names."""
        compiled = self.subject.compile_mode is not None and self.traced.region_calls > 0
        return self.subject.device != "cpu" or not compiled or any(map(INDUCTOR.match, self.traced.kernels))

    @property
    def busy_share(self) -> float | None:
        """Kernel time / wall time; None where kernels do not show.

        A GPU's kernels take no longer under the profiler, but the host does: there, the wall time is that of
        the timed passes. A CPU is its own host, and both are of the traced pass.
        """
        if not self.kernels_are_named:
            return None
        wall_s = self.traced.wall_s if self.subject.device == "cpu" else self.median_s
        return min(1.0, self.traced.busy_s / wall_s)

    @property
    def stage_shares(self) -> dict[str, float]:
        """Seconds of each stage / seconds of all stages."""
        whole = sum(self.stages.values())
        return {stage: seconds / whole for stage, seconds in self.stages.items()}
