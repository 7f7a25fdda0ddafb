"""Made-up paired runs with known changes, and what the rule says of them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from xenc.gate.paired import order
from xenc.gate.paired_rule import Rule, change_in_process, judge_changes
from xenc.gate.verdict import Judgement, Verdict

CHANNELS = ("wall_s", "device_s")
NAMES = {"wall_s": "wall time", "device_s": "device time"}
RULE = Rule(margin=0.02, must_see=0.05)
CONFIGURATIONS = ("seed-packed", "skewed-packed", "short_documents-bucketed", "seed-sdpa-sorted")


@dataclass(frozen=True, kw_only=True)
class MadeControl:
    name: str
    expected: tuple[Verdict, ...]
    judgement: Judgement

    @property
    def held(self):
        return self.judgement.verdict in self.expected


@dataclass(frozen=True, kw_only=True)
class MadeVerdicts:
    configurations: dict
    controls: tuple = ()
    timed: dict = field(default_factory=dict)
    processes: int = 5


def blocks_of(rng, arms, *, between, noise):
    """Blocks of one process; `arms` holds what each arm costs, as a fraction."""
    shift = {arm: rng.normal(0, between) for arm in arms}
    found = []
    for palindrome in range(8):
        for arm in order(tuple(arms), palindrome):
            device = 0.3 * np.exp(arms[arm] + shift[arm] + rng.normal(0, noise))
            found.append({
                "arm": arm, "palindrome": palindrome, "throttled": False,
                "wall_s": float(0.02 + device * np.exp(rng.normal(0, noise))), "device_s": float(device),
            })  # fmt: skip
    return found


def made_results(changes=None, *, between=None, slowed=0.1, noise=0.008, seed=0):
    """Five processes. `changes` and `between` by configuration; the controls run on the first."""
    rng = np.random.default_rng(seed)
    changes, between = changes or {}, between or {}

    def one(name):
        arms = {"base": 0.0, "head": changes.get(name, 0.0)}
        if name == CONFIGURATIONS[0]:
            arms |= {"same": 0.0, "slowed": slowed}
        return {"blocks": blocks_of(rng, arms, between=between.get(name, 0.002), noise=noise)}

    return [{"machine": {}, "configurations": {name: one(name) for name in CONFIGURATIONS}} for _ in range(5)]


def judged(results, name, channel, head="head", base="base"):
    blocks = [result["configurations"][name]["blocks"] for result in results]
    changes = [change_in_process(each, channel, head=head, base=base) for each in blocks]
    return judge_changes(changes, RULE, comparisons=10, what=NAMES[channel])


def made_verdicts(results, *, notes=None, exact=None):
    """As the gate combines them: exact facts, then controls, then times."""
    notes, exact, controls = notes or {}, exact or {}, []
    timed = {
        (name, channel): judged(results, name, channel) for name in CONFIGURATIONS for channel in CHANNELS
    }
    for channel in CHANNELS:
        same = judged(results, CONFIGURATIONS[0], channel, "same", "base")
        slow = judged(results, CONFIGURATIONS[0], channel, "slowed", "same")
        controls += [
            MadeControl(name="the base against itself", expected=(Verdict.PASS,), judgement=same),
            MadeControl(name="a slowdown made on purpose", expected=(Verdict.REGRESSED,), judgement=slow),
        ]
    held = all(control.held for control in controls)
    configurations = {}
    for name in CONFIGURATIONS:
        mine = [timed[name, channel] for channel in CHANNELS]
        found = [each.verdict for each in mine]
        ranked = (Verdict.REGRESSED, Verdict.INCONCLUSIVE, Verdict.IMPROVED, Verdict.PASS)
        verdict = next(each for each in ranked if each in found)
        reason = "; ".join(each.reason for each in mine)
        if not held:
            verdict, reason = Verdict.NOT_MEASURED, "the controls failed: told elsewhere"
        if name in exact:
            worse = [exact[name], *(each.reason for each in mine)]
            verdict, reason = Verdict.REGRESSED, "; ".join(worse)
        configurations[name] = Judgement(verdict=verdict, reason=reason, notes=tuple(notes.get(name, ())))
    return MadeVerdicts(configurations=configurations, controls=tuple(controls), timed=timed)


RUNS = {
    "pass": {},
    "regressed": {"changes": {"seed-packed": 0.06}},
    "improved": {"changes": {"skewed-packed": -0.12}},
    "inconclusive": {"between": {"short_documents-bucketed": 0.03}},
    "failed": {"slowed": 0.0},
}
"""Runs by what is to be seen in them."""
