"""Fixtures of the performance suite, what the gate does not judge, and what it measures in pairs."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from perf_tests import scored
from perf_tests.against import PairedConfiguration
from perf_tests.configurations import Configuration, missing_for
from perf_tests.faults import inject
from perf_tests.pictures import draw, draw_requests
from perf_tests.ready_models import ReadyModel
from perf_tests.scorers import Scorer, Scorers
from perf_tests.tables import SHOWN
from perf_tests.techniques import Technique
from perf_tests.workloads import Pair
from xenc import PRESETS
from xenc.gate.exact import FACTS
from xenc.gate.fixture import GATE, Gate
from xenc.gate.marks import leave_out
from xenc.gate.report import PICTURES, show_first
from xenc.profiling.measure import profile_model
from xenc.profiling.report import markdown

NOT_JUDGED = ("load", "technique", "side_by_side")
"""Latencies at a rate measured on the spot, rare choices, and tables with other systems. Techniques
in another precision have no such mark: they are judged for their error and ranking."""


def pytest_configure(config: pytest.Config) -> None:
    """Register what `--against` measures, and what is shown of a run."""
    FACTS.update(scored.FACTS)
    faults = getattr(config.pluginmanager.get_plugin(GATE), "faults", None)
    if faults is not None and config.getoption("--fault"):
        faults.append(config.getoption("--fault"))
    show_first(SHOWN)
    PICTURES.update({"report.png": draw, "requests.png": draw_requests})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A comparison and a baseline judge xenc's own seconds only."""
    gate = config.pluginmanager.get_plugin(GATE)
    if getattr(gate, "judges_or_stores", False):
        others = [item for item in items if any(map(item.get_closest_marker, NOT_JUDGED))]
        leave_out(config, items, [*others, *(item for item in items if item not in others and lacks(item))])


def lacks(item: pytest.Item) -> bool:
    """Whether a row's packages are not installed: it is not judged, unless the baseline has it."""
    for value in getattr(getattr(item, "callspec", None), "params", {}).values():
        if isinstance(value, Technique):
            return missing_for(value.execution) is not None
        if isinstance(value, Configuration) and value.name in PRESETS:
            return missing_for(PRESETS[value.name]) is not None
    return False


@pytest.fixture(scope="session")
def scorers(request: pytest.FixtureRequest) -> Scorers:
    option = request.config.getoption
    return Scorers(fault=option("--fault"), named_kernels=option("--profile-dir") is not None)


@pytest.fixture
def profile(request: pytest.FixtureRequest) -> Callable[[Scorer, Sequence[Pair]], None]:
    """Profiles a scorer of xenc after it was timed, if there is a --profile-dir.

    Leaves trace.json and profile.md in a folder named after the test.
    """
    folder: Path | None = request.config.getoption("--profile-dir")

    def profile(scorer: Scorer, pairs: Sequence[Pair]) -> None:
        if folder is None or scorer.model is None:
            return
        own = folder / re.sub(r"[^\w.-]+", "-", request.node.name).strip("-")
        trace = own / "trace.json"
        measured = profile_model(scorer.model, pairs, batch_size=scorer.batch_size, trace=trace)
        (own / "profile.md").write_text(markdown(measured), encoding="utf-8")

    return profile


@pytest.fixture(scope="session")
def ready_model(request: pytest.FixtureRequest) -> Callable[[Gate, PairedConfiguration], ReadyModel]:
    """Makes a configuration's model of the gate's revision, warmed up, or finds it if only the texts differ.

    All models share the weights of the first, if they are the same. The head's have the fault of `--fault`.
    """
    models: dict[tuple[object, ...], ReadyModel] = {}

    def ready(gate: Gate, configuration: PairedConfiguration) -> ReadyModel:
        shapes = configuration.workload.max_length, configuration.workload.batch_size
        key = (gate.package.__name__, configuration.preset, *configuration.changes.items(), *shapes)
        if key not in models:
            first = next(iter(models.values()), None)
            models[key] = ReadyModel(
                gate.package, configuration, gate.device, named_kernels=gate.explains,
                weights=None if first is None else first.model.model,
            )  # fmt: skip
            if gate.arm == "head":
                inject(request.config.getoption("--fault"), models[key].model)
            shared = all(model.shares_weights for model in list(models.values())[1:])
            gate.remarks["weights"] = "shared" if shared else "NOT shared: the revisions' differ"
        return models[key]

    return ready
