"""All that one run measured."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from perf_tests.hopper.rows import PEER, XENC
from perf_tests.side_by_side.steps import Kept
from perf_tests.side_by_side.turns import Timed


@dataclass(kw_only=True)
class Results(Kept):
    """One run.

    Attributes:
        workload: the table's workload, its fingerprint and the model.
        peak_flops_per_s, peak_source: the device's dense peak in the table's dtype.
        round_pairs, round_tokens, round_flops: of each round of the table, real tokens only.
        rows: the table.
        smoke: one entry per path; see `smoke.look_at_all`.
        kernels: one entry per kernel, size and way; see `kernels.all_kernels`.
        equal_requests, landmark: one entry per execution.
        modular: one entry per geometry; see `modular.modular_rows`.
        gate: what the gate said; see `gate_check.live`.
        random_requests, differing_scores, first_score_s, profiles, compile_seconds: by name.
        first_score_steps: one entry per process; see `cold_start.first_score`.
    """

    workload: dict[str, str] = field(default_factory=dict)
    peak_flops_per_s: float = 0.0
    peak_source: str = ""
    round_pairs: list[int] = field(default_factory=list)
    round_tokens: list[int] = field(default_factory=list)
    round_flops: list[float] = field(default_factory=list)
    rows: list[Timed] = field(default_factory=list)
    smoke: list[dict[str, Any]] = field(default_factory=list)
    kernels: list[dict[str, Any]] = field(default_factory=list)
    modular: list[dict[str, Any]] = field(default_factory=list)
    gate: dict[str, Any] = field(default_factory=dict)
    equal_requests: list[dict[str, Any]] = field(default_factory=list)
    random_requests: dict[str, Any] = field(default_factory=dict)
    differing_scores: dict[str, int] = field(default_factory=dict)
    landmark: list[dict[str, Any]] = field(default_factory=list)
    first_score_s: dict[str, list[float]] = field(default_factory=dict)
    first_score_steps: list[dict[str, Any]] = field(default_factory=list)
    compile_seconds: dict[str, dict[str, float]] = field(default_factory=dict)
    profiles: dict[str, dict[str, float]] = field(default_factory=dict)

    def row(self, name: str) -> Timed | None:
        """The row of a name, if it stands."""
        return next((row for row in self.rows if row.name == name and row.stands), None)

    def best_peer(self) -> Timed | None:
        """The fastest of sentence-transformers' rows."""
        return _fastest([row for row in self.rows if row.group == PEER])

    def best_packed(self) -> Timed | None:
        """The fastest packed row in the table's own precision."""
        ours = [row for row in self.rows if row.group == XENC and row.name.startswith("packed")]
        return _fastest([row for row in ours if "float8" not in row.name])

    def end_to_end_mfu(self, row: Timed) -> float:
        """Model FLOPs of real tokens / (seconds x peak), texts included: a median over rounds."""
        return self._mfu(row.seconds)

    def device_mfu(self, row: Timed) -> float | None:
        """The same over the seconds that forward passes took on the device; None for a peer."""
        return self._mfu(row.device_seconds) if row.device_seconds else None

    def _mfu(self, seconds: Sequence[float]) -> float:
        return statistics.median(
            flops / (second * self.peak_flops_per_s)
            for flops, second in zip(self.round_flops, seconds, strict=False)
        )

    @property
    def complete(self) -> bool:
        """Whether nothing failed or was left out, and every row stands."""
        return not self.problems and all(row.stands for row in self.rows)


def sound(entry: dict[str, Any]) -> bool:
    """Whether a path ran, answered within its tolerance, the same twice, and compiled nothing when asked."""
    if entry["problem"] is not None:
        return False
    if "tests" in entry:
        return True
    if entry["changed"] or entry["late"]:
        return False
    return bool(entry["error"] <= entry["tolerance"])


def _fastest(rows: Sequence[Timed]) -> Timed | None:
    standing = [row for row in rows if row.stands]
    return min(standing, key=lambda row: statistics.median(row.seconds), default=None)
