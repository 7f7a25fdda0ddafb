"""The configurations that `--against REF` measures on both revisions, in many fresh processes."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
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
        workload: scored in a block; one round of it per palindrome.
        exact_on: scored once, for facts without statistics; like `workload`, with more pairs.
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
        configurations: the controls run on the first.
        checkpoint: makes the checkpoint.
        rule: the margins and error rates.
        one_core: keep a measuring process to one thread on one core.
        timeout_s: a measuring process that takes longer has hung.
    """

    configurations: tuple[PairedConfiguration, ...]
    checkpoint: Callable[[], Path]
    rule: Rule
    one_core: bool
    timeout_s: float


_brief = partial(
    PairedConfiguration,
    workload=workloads.sentence_pairs(pairs=1, batch_size=2),
    exact_on=workloads.sentence_pairs(pairs=32, batch_size=2),
)

_SMALL = MappingProxyType({"token_budgets": 128})
"""Fewer shapes to warm up in each of many processes."""

ON_CPU: Final = Paired(
    configurations=(
        _brief(preset="packed", palindromes=120, changes=_SMALL),
        _brief(preset="packed-eager", palindromes=200, changes=_SMALL),
        _brief(preset="bucketed", palindromes=200),
        _brief(preset="sdpa-sorted", palindromes=200),
    ),
    checkpoint=models.minilm_two_layers,
    rule=Rule(margin=0.01, must_see=0.05),
    one_core=True,
    timeout_s=300,
)
"""On one core two copies of the same code agree within half a percent, on several within several. Blocks last
milliseconds, because a shared processor's speed varies by ten percent within some hundredths of a second."""

_SEED = workloads.seed(pairs=1024, batch_size=64)
_REQUEST = workloads.short_query(batch_size=64)
_FEW_GRAPHS = MappingProxyType({"token_budgets": (8192, 32_768)})
"""Fewer to record in each of many processes."""

_CROSSED = workloads.crossed(queries=24, documents=24, batch_size=64)

ON_GPU: Final = Paired(
    configurations=(
        # first, with the controls: the host has least to do here, and its speed varies most
        PairedConfiguration(
            preset="packed", workload=_CROSSED, exact_on=_CROSSED, palindromes=12, changes=_FEW_GRAPHS
        ),
        PairedConfiguration(preset="packed", workload=_REQUEST, exact_on=_REQUEST, palindromes=42),
        PairedConfiguration(preset="packed", workload=_SEED, exact_on=_SEED, palindromes=8),
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
"""Starts a measuring process of this suite, in any working directory."""


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
