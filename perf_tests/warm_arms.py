"""Both revisions' models, warmed up: all that a measuring process needs before it measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

from perf_tests.against import Paired, PairedConfiguration
from perf_tests.arms import Arm
from perf_tests.device_thread import on_device_thread
from perf_tests.ready_models import ReadyModel
from xenc.gate.machine import Machine
from xenc.gate.paired.revision import RevisionError


@dataclass(frozen=True, kw_only=True)
class Warm:
    """All that a process measures, warmed up.

    Attributes:
        configurations: in the order of the request.
        arms: of each configuration, by its name.
        shares_weights: whether all models have the same tensors.
        machine: observed since it was made.
    """

    configurations: Sequence[PairedConfiguration]
    arms: Mapping[str, Mapping[str, Arm]]
    shares_weights: bool
    machine: Machine

    def observed_anew(self) -> Warm:
        """The same on a machine that is observed from now on."""
        return replace(self, machine=Machine(next(iter(self.arms.values()))["head"].device))


def warm_up(request: Mapping[str, Any], paired: Paired, packages: Mapping[str, ModuleType]) -> Warm:
    """Warm up all configurations that the request names; the controls run on the first.

    Raises:
        RevisionError: the base revision cannot run one of them.
    """
    machine = Machine(request["device"])
    by_name = {each.name: each for each in paired.configurations}
    wanted = [_of_length(by_name[name], request.get("palindromes")) for name in request["configurations"]]
    models: dict[tuple[object, ...], ReadyModel] = {}
    arms = {each.name: arms_of(each, packages, request, models) for each in wanted}
    shared = all(model.shares_weights for model in list(models.values())[1:])
    return Warm(configurations=wanted, arms=arms, shares_weights=shared, machine=machine)


def _of_length(configuration: PairedConfiguration, palindromes: int | None) -> PairedConfiguration:
    """A configuration of at most so many palindromes; None for as many as it has."""
    most = configuration.palindromes if palindromes is None else palindromes
    return replace(configuration, palindromes=min(most, configuration.palindromes))


def arms_of(
    configuration: PairedConfiguration,
    packages: Mapping[str, ModuleType],
    request: Mapping[str, Any],
    models: dict[tuple[object, ...], ReadyModel],
) -> dict[str, Arm]:
    """The arms, warmed up. Configurations that differ only in their texts share a model.

    Base and head take turns in being made first: the later one is a little faster.

    Raises:
        RevisionError: the base revision cannot run this configuration.
    """
    arms = {}
    controls = configuration.name == request["configurations"][0]
    turns = ("base", "head") if request["number"] % 2 == 0 else ("head", "base")
    for name in (*turns, "same") if controls else turns:
        shapes = configuration.workload.max_length, configuration.workload.batch_size
        key = (name, configuration.preset, *configuration.changes.items(), *shapes)
        try:
            if key not in models:
                first = next(iter(models.values()), None)
                models[key] = ReadyModel(
                    packages[name], configuration, request["device"], named_kernels=request["explain"],
                    weights=None if first is None else first.model.model,
                )  # fmt: skip
            arms[name] = Arm(models[key], configuration)
            try_out(arms[name])
        except Exception as error:
            if name == "head":
                raise
            what = f"no preset {error}" if isinstance(error, KeyError) else f"{type(error).__name__}: {error}"
            raise RevisionError(f"the base revision cannot run {configuration.name}: {what}") from error
    return arms


def try_out(arm: Arm) -> None:
    """Do everything that measuring needs, once: an older revision that lacks something fails here."""
    with arm.watched():  # after the warm-up: nothing may compile
        arm.run(arm.configuration.workload.round(0))
    arm.facts()
    on_device_thread(arm.model)(lambda: None)
