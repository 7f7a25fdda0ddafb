"""The numbers of a profile, and the shares that follow from them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from ..execution import Execution
from ..serving.request import PredictReport
from .flops import Peak
from .kernel_names import INDUCTOR
from .kernels import PassProfile


@dataclass(frozen=True, kw_only=True)
class Profile:
    """All that a profile measured. Nothing compiled in any of its passes.

    Attributes:
        model: name or folder.
        execution, described: how it scored; that and the machine in a sentence.
        max_length: tokens that a pair may have.
        device: torch's device type.
        dtype, fastest_dtype: what the model computes in, and what the device would be fastest in.
        report: of one pass.
        seconds: of each timed pass.
        stages: mean seconds per pass by stage; stages on different threads overlap.
        traced: the pass under torch.profiler.
        warmup_s: seconds of the warm-up.
        graphs: graphs kept for this execution, one or more for each compiled region.
        cudagraph_skips: regions that the warm-up could not record as a CUDA graph.
        flops: of one pass, real tokens only.
        peak: of the device, in the dtype of the execution's products.
        gemm_s: seconds of the encoder's matrix products by themselves, on the real tokens.
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
    cudagraph_skips: int
    flops: float
    peak: Peak
    gemm_s: float

    @property
    def tokens(self) -> int:
        """Real tokens of one pass, after truncation."""
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
        """Seconds of the matrix products by themselves / seconds of a pass."""
        return self.gemm_s / self.median_s

    @property
    def regions(self) -> float:
        """Compiled regions per forward pass: 1, or 0 if it ran eagerly."""
        return self.traced.region_calls / self.report.batches

    @property
    def busy_share(self) -> float | None:
        """Time with a kernel running / wall time; None where a CPU's compiled kernels have no names.

        The profiler slows the host and not a GPU's kernels, so the wall time is that of the timed passes on a
        GPU, and that of the traced pass on a CPU.
        """
        if self.device != "cpu":
            return min(1.0, self.traced.busy_s / self.median_s)
        compiled = self.execution.compile_mode is not None and self.traced.region_calls > 0
        if compiled and not any(map(INDUCTOR.match, self.traced.kernels)):
            return None
        return min(1.0, self.traced.busy_s / self.traced.wall_s)
