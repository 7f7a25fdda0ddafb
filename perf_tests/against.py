"""What `--against REF` measures on both revisions: few configurations, in many fresh processes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from perf_tests import models, workloads
from perf_tests.workloads import Workload
from xenc.gate.paired.rule import Rule
from xenc.gate.paired.session import PairedRequest


@dataclass(frozen=True, kw_only=True)
class PairedConfiguration:
    """One execution on one workload.

    Attributes:
        preset: the preset's name.
        workload: what a block scores; one palindrome, one round of it.
        exact_on: what is scored once for the facts that need no statistics; as `workload`, but more of it.
        palindromes: rounds of the workload in one process, each run twice by each arm.
        changes: fields of `Execution` that differ from the preset's.
    """

    preset: str
    workload: Workload
    exact_on: Workload
    palindromes: int
    changes: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def name(self) -> str:
        """What reports call it."""
        return f"{self.workload.name}-{self.preset}"


@dataclass(frozen=True, kw_only=True)
class Paired:
    """The configurations of one device, and how they are judged.

    Attributes:
        configurations: what is measured; the controls run on the first.
        checkpoint: makes the checkpoint that it is measured with.
        rule: the margins and the errors.
        one_core: whether a measuring process keeps to one thread on one core.
        timeout_s: after which a measuring process counts as hung.
    """

    configurations: tuple[PairedConfiguration, ...]
    checkpoint: Callable[[], Path]
    rule: Rule
    one_core: bool
    timeout_s: float


_BRIEF: Final = workloads.sentence_pairs(pairs=1, batch_size=2)

_MORE: Final = workloads.sentence_pairs(pairs=32, batch_size=2)

_SMALL = MappingProxyType({"token_budgets": 128})
"""Fewer shapes to warm up in each of many processes."""

ON_CPU: Final = Paired(
    configurations=(
        PairedConfiguration(
            preset="packed", workload=_BRIEF, exact_on=_MORE, palindromes=120, changes=_SMALL
        ),
        PairedConfiguration(
            preset="packed-eager", workload=_BRIEF, exact_on=_MORE, palindromes=200, changes=_SMALL
        ),
        PairedConfiguration(preset="bucketed", workload=_BRIEF, exact_on=_MORE, palindromes=200),
        PairedConfiguration(preset="sdpa-sorted", workload=_BRIEF, exact_on=_MORE, palindromes=200),
    ),
    checkpoint=models.minilm_two_layers,
    rule=Rule(margin=0.01, must_see=0.05),
    one_core=True,
    timeout_s=300,
)
"""One core: two copies of the same code then agree within half a percent, on several within several. And
blocks of some milliseconds: the speed of a shared processor wanders by ten percent, and is nearly what it was
for some hundredths of a second, so that only what is shorter compares at the same speed."""

_SEED: Final = workloads.seed(pairs=1024, batch_size=64)

_REQUEST: Final = workloads.short_query(batch_size=64)

ON_GPU: Final = Paired(
    configurations=(
        # first, with the controls: on long inputs reading texts may hide what the device does besides
        PairedConfiguration(preset="packed", workload=_REQUEST, exact_on=_REQUEST, palindromes=42),
        PairedConfiguration(preset="packed", workload=_SEED, exact_on=_SEED, palindromes=8),
        PairedConfiguration(preset="packed-cudagraphs", workload=_REQUEST, exact_on=_REQUEST, palindromes=40),
        PairedConfiguration(preset="bucketed", workload=_SEED, exact_on=_SEED, palindromes=8),
    ),
    checkpoint=models.xlm_roberta_base,
    rule=Rule(margin=0.005, must_see=0.02, usual_spread=0.002),
    one_core=False,
    timeout_s=420,
)

PAIRED: Final = MappingProxyType({"cpu": ON_CPU, "cuda": ON_GPU})


START: Final = (
    f"import sys; sys.path.insert(0, {str(Path(__file__).parent.parent)!r}); "
    "from perf_tests.measuring import main; main(*sys.argv[1:])"
)
"""Starts a measuring process of this very suite, whatever the working directory and what is installed."""


def paired_request(device: str, fault: str | None) -> PairedRequest:
    """What a gate on this device ("cpu" or "cuda") measures."""
    paired = PAIRED[device]
    return PairedRequest(
        command=(sys.executable, "-c", START),
        device=device,
        rules={configuration.name: paired.rule for configuration in paired.configurations},
        seeded=paired.rule.must_see,
        timeout_s=paired.timeout_s,
        fault=fault,
    )
