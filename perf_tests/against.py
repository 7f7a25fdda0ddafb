"""What `--against REF` measures on both revisions: few configurations, in many fresh processes."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from perf_tests import workloads
from perf_tests.workloads import Workload
from xenc.gate.paired_rule import Rule
from xenc.gate.paired_session import PairedRequest


@dataclass(frozen=True, kw_only=True)
class PairedConfiguration:
    """One execution on one workload.

    Attributes:
        preset: the preset's name.
        workload: what a block scores; one palindrome, one round of it.
        palindromes: rounds of the workload in one process, each run twice by each arm.
        changes: fields of `Execution` that differ from the preset's.
        control: whether the controls run on it.
    """

    preset: str
    workload: Workload
    palindromes: int
    changes: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    control: bool = False

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"{self.workload.name}-{self.preset}"


@dataclass(frozen=True, kw_only=True)
class Paired:
    """The configurations of one device, the one with the controls first, and how they are judged.

    Attributes:
        configurations: what is measured.
        rule: the margins and the errors.
        threads: CPU threads of a measuring process; None for the device's usual.
        timeout_s: after which a measuring process counts as hung.
    """

    configurations: tuple[PairedConfiguration, ...]
    rule: Rule
    threads: int | None
    timeout_s: float


_SMALL = MappingProxyType({"token_budgets": 1024})
"""Fewer shapes to warm up in each of many processes."""

ON_CPU: Final = Paired(
    configurations=(
        PairedConfiguration(
            preset="packed",
            workload=workloads.short_documents(pairs=6, batch_size=4, max_length=512),
            palindromes=12,
            changes=_SMALL,
            control=True,
        ),
        PairedConfiguration(
            preset="packed", workload=workloads.skewed(pairs=8, batch_size=4), palindromes=6, changes=_SMALL
        ),
        PairedConfiguration(
            preset="bucketed",
            workload=workloads.short_documents(pairs=4, batch_size=4, max_length=128),
            palindromes=14,
        ),
        PairedConfiguration(
            preset="sdpa-sorted", workload=workloads.seed(pairs=2, batch_size=4), palindromes=6
        ),
    ),
    rule=Rule(margin=0.02, must_see=0.05),
    threads=1,
    timeout_s=300,
)
"""One thread: two copies of the same code then agree within half a percent, on several within several."""

ON_GPU: Final = Paired(
    configurations=(
        PairedConfiguration(
            preset="packed", workload=workloads.seed(pairs=1024, batch_size=64), palindromes=8, control=True
        ),
        PairedConfiguration(
            preset="packed", workload=workloads.skewed(pairs=1024, batch_size=64), palindromes=8
        ),
        PairedConfiguration(
            preset="packed-cudagraphs", workload=workloads.short_query(batch_size=64), palindromes=20
        ),
        PairedConfiguration(
            preset="bucketed", workload=workloads.seed(pairs=1024, batch_size=64), palindromes=8
        ),
    ),
    rule=Rule(margin=0.005, must_see=0.02, usual_spread=0.002),
    threads=None,
    timeout_s=420,
)

PAIRED: Final = MappingProxyType({"cpu": ON_CPU, "cuda": ON_GPU})


def paired_request(device: str, fault: str | None) -> PairedRequest:
    """What a gate on this device ("cpu" or "cuda") measures."""
    paired = PAIRED[device]
    return PairedRequest(
        command=(sys.executable, "-m", "perf_tests.measuring"),
        device=device,
        rules={configuration.name: paired.rule for configuration in paired.configurations},
        seeded=paired.rule.must_see,
        timeout_s=paired.timeout_s,
        fault=fault,
    )
