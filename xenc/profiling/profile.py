"""What a profile measured, and the shares that follow from it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from ..compiling.watch import CompileReport
from ..execution import Execution
from ..serving.request import PredictReport
from .flops import Peak
from .kernel_names import INDUCTOR, Kernels


@dataclass(frozen=True, kw_only=True)
class PassProfile:
    """What one pass ran, by torch.profiler; see `kernels.profile_pass`.

    Attributes:
        wall_s: seconds that the pass took, the profiler's own cost included.
        busy_s: seconds in which at least one kernel ran.
        kernels: launches and seconds by name.
        peak_bytes: the most bytes held at once of what the pass itself allocated. On CUDA: above what was
            held when it began, in the allocator's rounding; what a CUDA graph replays in was held before.
        region_calls: how often code that torch.compile made was called, from Python; seen on the thread that
            the profiler was started on.
        cudagraph_launches: CUDA graphs replayed.
    """

    wall_s: float
    busy_s: float
    kernels: Kernels
    peak_bytes: int
    region_calls: int
    cudagraph_launches: int

    @property
    def kernel_count(self) -> int:
        """Launches of all kernels."""
        return sum(count for count, _ in self.kernels.values())


@dataclass(frozen=True, kw_only=True)
class Profile:
    """All that a profile measured. Nothing compiled in any of its passes.

    Attributes:
        model: its name or folder.
        execution: how it scored.
        described: the execution and the machine, in a sentence.
        max_length: tokens that a pair may have.
        device: torch's device type.
        dtype: what the model computes in.
        fastest_dtype: what this device would be fastest in; see `precision`.
        report: what one pass cost.
        seconds: of each timed pass, undisturbed.
        stages: seconds by stage, the mean of as many passes; stages on different threads overlap.
        traced: the pass that the profiler saw.
        warmup_s: seconds of the warm-up before them.
        graphs: graphs kept for this execution, one or more for each compiled region.
        compiled: what the warm-up compiled; its `eager_fallbacks` are those of the measured passes.
        flops: of one pass, real tokens only.
        peak: the device's, in what the execution multiplies.
        gemm_s: what the encoder's matrix products on the real tokens take alone, measured here.
    """

    model: str
    execution: Execution
    described: str
    max_length: int
    device: str
    dtype: str
    fastest_dtype: str
    report: PredictReport
    seconds: tuple[float, ...]
    stages: Mapping[str, float]
    traced: PassProfile
    warmup_s: float
    graphs: int
    compiled: CompileReport
    flops: float
    peak: Peak
    gemm_s: float

    @property
    def tokens(self) -> int:
        """True tokens of one pass, after truncation."""
        return sum(self.report.token_counts)

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
        return self.flops / (self.median_s * self.peak.flops_per_s)

    @property
    def gemm_share(self) -> float:
        """What the matrix products alone would take / what the pass took."""
        return self.gemm_s / self.median_s

    @property
    def regions(self) -> float:
        """Compiled regions per forward pass: 1 where the whole pass is one graph, 0 where none is."""
        return self.traced.region_calls / self.report.batches

    @property
    def busy_share(self) -> float | None:
        """Time with a kernel running / wall time; None where a CPU's compiled kernels have no names.

        A GPU's kernels take no longer under the profiler, but the host does: there, the wall time is that of
        the timed passes. A CPU is its own host, and both are of the traced pass.
        """
        if self.device != "cpu":
            return min(1.0, self.traced.busy_s / self.median_s)
        compiled = self.execution.compile_mode is not None and self.traced.region_calls > 0
        if compiled and not any(map(INDUCTOR.match, self.traced.kernels)):
            return None
        return min(1.0, self.traced.busy_s / self.traced.wall_s)
