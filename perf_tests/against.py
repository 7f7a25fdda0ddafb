"""The configurations that `--against REF` measures on both revisions, in many fresh processes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from perf_tests import models, workloads
from perf_tests.workloads import Workload
from xenc.gate.marks import DEVICES, RULES
from xenc.gate.measuring.process import command_of
from xenc.gate.paired.session import PairedRequest

REPOSITORY: Final = Path(__file__).parent.parent


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


_brief = partial(
    PairedConfiguration,
    workload=workloads.sentence_pairs(pairs=1, batch_size=2),
    exact_on=workloads.sentence_pairs(pairs=32, batch_size=2),
)
"""On a CPU blocks last milliseconds, because a shared processor's speed varies by ten percent within some
hundredths of a second."""

_SMALL = MappingProxyType({"token_budgets": 128})
"""Fewer shapes to warm up in each of many processes."""

_FEW_QUERIES = partial(workloads.few_queries, batch_size=64)
"""Texts that occur several times, and batches of the largest token budget. 27 pairs are a batch of 2,048
tokens and a small one, about 0.13 seconds on one core; 128 pairs are eight batches."""

_SEED = workloads.seed(pairs=1024, batch_size=64)
_REQUEST = workloads.short_query(batch_size=64)
_CROSSED = workloads.crossed(queries=24, documents=24, batch_size=64)
_FEW_GRAPHS = MappingProxyType({"token_budgets": (8192, 32_768)})
"""Fewer to record in each of many processes."""

PAIRED: Final[Mapping[str, tuple[PairedConfiguration, ...]]] = MappingProxyType({
    "cpu": (
        _brief(preset="packed", palindromes=120, changes=_SMALL),
        _brief(preset="packed-eager", palindromes=200, changes=_SMALL),
        _brief(preset="bucketed", palindromes=200),
        _brief(preset="sdpa-sorted", palindromes=200),
        PairedConfiguration(
            preset="packed", palindromes=20, workload=_FEW_QUERIES(queries=3, documents=9),
            exact_on=_FEW_QUERIES(queries=4, documents=32),
        ),
    ),
    "cuda": (
        # first, with the controls: the host has least to do here, and its speed varies most
        PairedConfiguration(
            preset="packed", workload=_CROSSED, exact_on=_CROSSED, palindromes=12, changes=_FEW_GRAPHS
        ),
        PairedConfiguration(preset="packed", workload=_REQUEST, exact_on=_REQUEST, palindromes=42),
        PairedConfiguration(preset="packed", workload=_SEED, exact_on=_SEED, palindromes=8),
        PairedConfiguration(preset="bucketed", workload=_SEED, exact_on=_SEED, palindromes=8),
    ),
})  # fmt: skip
"""By torch's device type; the controls run on the first."""

NOT_RECORDED: Final = ("few-queries-packed",)
"""Configurations on a CPU that the recorded processes lack; see `perf_tests.replays`."""

CHECKPOINTS: Final[Mapping[str, Callable[[], Path]]] = MappingProxyType({
    "cpu": models.minilm_two_layers, "cuda": models.xlm_roberta_base,
})  # fmt: skip

MARKERS: Final = MappingProxyType({device: marker for marker, device in DEVICES.items()})


def node_of(device: str, name: str) -> str:
    """The node id of the test of a configuration."""
    return f"perf_tests/test_against.py::test_against[{MARKERS[device]}-{name}]"


def paired_request(device: str, slower: float = 0.0, names: tuple[str, ...] = ()) -> PairedRequest:
    """What a gate on this device ("cpu" or "cuda") measures: the configurations of these names, or all."""
    wanted = names or tuple(each.name for each in PAIRED[device])
    settings = ("-c", str(REPOSITORY / "pyproject.toml"), "-q")
    return PairedRequest(
        command=command_of((*settings, str(REPOSITORY / "perf_tests" / "test_against.py"))),
        device=device,
        package="xenc",
        rules={node_of(device, name): RULES[device] for name in wanted},
        timeout_s=420,
        slower=slower,
    )
