"""Made-up measuring processes with known changes, and what the gate says of them."""

from __future__ import annotations

import numpy as np

from xenc.gate.measuring.blocks import order
from xenc.gate.paired.rule import Rule
from xenc.gate.paired.verdicts import judge_campaign

RULE = Rule(margin=0.02, must_see=0.05)
CONFIGURATIONS = ("seed-packed", "skewed-packed", "short_documents-bucketed", "seed-sdpa-sorted")
RULES = dict.fromkeys(CONFIGURATIONS, RULE)
PALINDROMES = 8
FACTS = {
    "graphs": 1, "recompiles": 0, "graph_breaks": 0, "eager_fallbacks": 0, "kernels": 210,
    "padded_share": 0.017, "peak_bytes": 100_000_000, "output_error": 1e-6, "output_tolerance": 1e-4,
}  # fmt: skip


def blocks_of(rng, costs, shift, *, noise, first=0):
    """One process's blocks; `costs` and `shift` hold what each arm costs, as a fraction."""
    found = []
    for palindrome in range(first, first + PALINDROMES):
        for arm in order(tuple(costs), palindrome):
            device = 0.3 * np.exp(np.log1p(costs[arm]) + shift[arm] + rng.normal(0, noise))
            found.append({
                "arm": arm, "palindrome": palindrome, "throttled": False,
                "wall_s": float(1.05 * device * np.exp(rng.normal(0, noise))), "device_s": float(device),
            })  # fmt: skip
    return found


def made_configuration(rng, change, *, control, slowed, same, between, noise):
    """What one process found of one configuration; the seeded slowdown runs after the rest."""
    costs = {"base": 0.0, "head": change} | ({"same": same} if control else {})
    shift = {arm: rng.normal(0, between) for arm in (*costs, "slowed")}
    blocks = blocks_of(rng, costs, shift, noise=noise)
    if control:
        seeded = {"same": same, "slowed": (1 + same) * (1 + slowed) - 1}
        blocks += blocks_of(rng, seeded, shift, noise=noise, first=PALINDROMES)
    return {
        "blocks": blocks,
        "facts": {"base": dict(FACTS), "head": dict(FACTS)},
        "findings": {"base": "", "head": ""},
    }


def made_results(
    changes=None, *, between=None, slowed=0.1, same=0.0, noise=0.008, seed=0, names=CONFIGURATIONS,
    processes=5, control=True,
):  # fmt: skip
    """Processes. `changes` and `between` by configuration; the controls run on the first."""
    rng = np.random.default_rng(seed)
    changes, between = changes or {}, between or {}

    def one(name):
        return made_configuration(
            rng, changes.get(name, 0.0), control=control and name == names[0], slowed=slowed, same=same,
            between=between.get(name, 0.002), noise=noise,
        )  # fmt: skip

    return [{"machine": {}, "configurations": {name: one(name) for name in names}} for _ in range(processes)]


def set_facts(results, name, *, of=None, finding="", **facts):
    """Facts of the head in one process, or in all."""
    for result in results if of is None else [results[of]]:
        result["configurations"][name]["facts"]["head"].update(facts)
        result["configurations"][name]["findings"]["head"] = finding


def made_verdicts(results, rule=RULE, accepted=None):
    return judge_campaign(results, dict.fromkeys(results[0]["configurations"], rule), accepted)


RUNS = {
    "pass": {},
    "regressed": {"changes": {"seed-packed": 0.07}},
    "improved": {"changes": {"skewed-packed": -0.12}},
    "inconclusive": {"between": {"short_documents-bucketed": 0.03}},
    "failed": {"slowed": 0.0},
}
"""Runs by what is to be seen in them."""
