"""Recorded measuring processes, drawn again and again: how often would the gate be right?

Every process was recorded with the same code on both sides, so whatever is called is called falsely. What a
slower head would have looked like is its blocks, longer by that share.
"""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from scipy import stats

from xenc.gate.paired_rule import Rule
from xenc.gate.paired_verdict import PairedVerdicts, Result, judge_campaign

Columns = Mapping[str, Any]

LETTERS = {"base": "b", "head": "h", "same": "s", "slowed": "x"}

CHANNELS = ("wall_s", "device_s")


def pack(result: Result) -> dict[str, Any]:
    """A measuring process in columns, its palindromes as words: "bhsshb hsbbsh ..."."""
    return {
        "machine": result["machine"],
        "configurations": {
            name: {
                "order": " ".join(
                    "".join(LETTERS[block["arm"]] for block in blocks)
                    for _, blocks in groupby(found["blocks"], key=itemgetter("palindrome"))
                ),
                **{channel: [block[channel] for block in found["blocks"]] for channel in CHANNELS},
            }
            for name, found in result["configurations"].items()
        },
    }


def unpack(packed: Columns) -> dict[str, Any]:
    """The process as it was measured, with facts that say nothing changed."""
    return {
        "machine": packed["machine"],
        "configurations": {
            name: {
                "blocks": _blocks(columns),
                "facts": {"base": {"graphs": 1, "recompiles": 0}, "head": {"graphs": 1, "recompiles": 0}},
                "findings": {"base": "", "head": ""},
            }
            for name, columns in packed["configurations"].items()
        },
    }


def read(path: Path) -> list[dict[str, Any]]:
    """Recorded processes, one a line."""
    return [unpack(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def slowed(result: Result, shares: Mapping[str, float], arms: Sequence[str] = ("head",)) -> dict[str, Any]:
    """The same process, had some arms been slower by a share in some configurations."""
    configurations = {
        name: {**found, "blocks": [_longer(block, shares.get(name, 0.0), arms) for block in found["blocks"]]}
        for name, found in result["configurations"].items()
    }
    return {**result, "configurations": configurations}


def replay(
    processes: Sequence[Result],
    rules: Mapping[str, Rule],
    draw: random.Random,
    judge: Callable[..., PairedVerdicts] = judge_campaign,
) -> PairedVerdicts:
    """One whole run: processes drawn without replacement, as many as it takes."""
    looks = next(iter(rules.values())).looks
    drawn = draw.sample(list(processes), looks[-1])
    for look in looks:
        verdicts = judge(drawn[:look], rules)
        if verdicts.decided:
            break
    return verdicts


def compare_medians(base: Result, head: Result, threshold: float) -> list[str]:
    """What a comparison of two runs' medians flags: one process stored, another compared with it."""
    return [
        name
        for name in base["configurations"]
        if _median(head, name, "head") > (1 + threshold) * _median(base, name, "base")
    ]


def upper_bound(events: int, trials: int, confidence: float = 0.95) -> float:
    """Clopper and Pearson's upper bound of a rate."""
    return 1.0 if events >= trials else float(stats.beta.ppf(confidence, events + 1, trials - events))


def _median(result: Result, name: str, arm: str) -> float:
    blocks = result["configurations"][name]["blocks"]
    return statistics.median(block["wall_s"] for block in blocks if block["arm"] == arm)


def _longer(block: Mapping[str, Any], share: float, arms: Sequence[str]) -> Mapping[str, Any]:
    if block["arm"] not in arms or not share:
        return block
    return {**block, **{channel: (1 + share) * block[channel] for channel in CHANNELS}}


def _blocks(columns: Columns) -> list[dict[str, Any]]:
    arms = {letter: arm for arm, letter in LETTERS.items()}
    ran = [(number, arms[letter]) for number, word in enumerate(columns["order"].split()) for letter in word]
    seconds = zip(*(columns[channel] for channel in CHANNELS), strict=True)
    return [
        {"arm": arm, "palindrome": number, "wall_s": wall_s, "device_s": device_s, "throttled": False}
        for (number, arm), (wall_s, device_s) in zip(ran, seconds, strict=True)
    ]
