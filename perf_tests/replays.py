"""Recorded measuring processes, resampled: how often would the gate be right?

Every process was recorded with the same code on both sides, so each REGRESSED or IMPROVED is false. A slower
head is simulated by longer blocks. (The base was made first in all of them; in every second process base and
head have changed names since, as if they had taken turns. NOT_RECORDED were not measured then; the bounds of
a run are as wide as with them.)
"""

from __future__ import annotations

import gzip
import json
import math
import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any, get_args

from scipy import stats

from perf_tests.against import NOT_RECORDED, PAIRED, paired_request
from xenc.gate.paired.rule import Channel, Rule, change_in_process, judge_changes
from xenc.gate.paired.verdicts import CONTROLS, PairedVerdicts, Result, comparisons, judge_campaign
from xenc.gate.verdict import Verdict

Columns = Mapping[str, Any]

LETTERS = {"base": "b", "head": "h", "same": "s", "slowed": "x"}

CHANNELS = ("wall_s", "device_s")


def pack(result: Result) -> dict[str, Any]:
    """A measuring process in columns, with palindromes as words: "bhsshb hsbbsh ..."."""
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
    """Recorded processes, one a line, gzipped."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [unpack(json.loads(line)) for line in lines]


def slowed(result: Result, shares: Mapping[str, float], arms: Sequence[str] = ("head",)) -> dict[str, Any]:
    """The same process, had some arms been slower by a share in some configurations."""
    configurations = {
        name: {**found, "blocks": [_longer(block, shares.get(name, 0.0), arms) for block in found["blocks"]]}
        for name, found in result["configurations"].items()
    }
    return {**result, "configurations": configurations}


def replay(
    processes: Sequence[Result], rules: Mapping[str, Rule], draw: random.Random,
    judge: Callable[..., PairedVerdicts] = judge_campaign,
) -> PairedVerdicts:  # fmt: skip
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


def recorded_rules() -> dict[str, Rule]:
    """The rules of what was recorded, by node id: today's configurations on a CPU without NOT_RECORDED."""
    names = tuple(each.name for each in PAIRED["cpu"] if each.name not in NOT_RECORDED)
    return dict(paired_request("cpu", names=names).rules)


class Estimates:
    """Each process's changes by comparison, computed once: a longer head only adds a constant.

    Args:
        processes: recorded, of unchanged code.
        rules: by configuration; the controls ran on the first.
    """

    def __init__(self, processes: Sequence[Result], rules: Mapping[str, Rule]) -> None:
        self._rules, self._count = rules, len(processes)
        first = next(iter(rules))
        wanted = [(name, "head", "base") for name in rules]
        wanted += [(first, head, base) for _, head, base, _ in CONTROLS]
        self._changes = {
            (name, head, base, channel): [
                change_in_process(process["configurations"][name]["blocks"], channel, head=head, base=base)
                for process in processes
            ]
            for name, head, base in wanted
            for channel in get_args(Channel)
        }

    def regressed(self, draw: random.Random, name: str, share: float) -> bool:
        """Whether one more drawn run calls a configuration REGRESSED whose head is longer by a share."""
        rule = self._rules[name]
        rows = draw.sample(range(self._count), rule.looks[-1])
        for look in rule.looks:
            drawn = rows[:look]
            controls = [
                self._verdict(drawn, next(iter(self._rules)), head, base, 0.0) == [expected] * 2
                for _, head, base, expected in CONTROLS
            ]
            timed = self._verdict(drawn, name, "head", "base", math.log1p(share))
            if all(controls) and Verdict.INCONCLUSIVE not in timed:
                break
        return all(controls) and Verdict.REGRESSED in timed

    def _verdict(self, rows: Sequence[int], name: str, head: str, base: str, more: float) -> list[Verdict]:
        rule, number = self._rules[name], comparisons(len(PAIRED["cpu"]))
        return [
            judge_changes(
                [None if found[row] is None else found[row] + more for row in rows],
                rule,
                comparisons=number,
                what="",
            ).verdict
            for found in (self._changes[name, head, base, channel] for channel in get_args(Channel))
        ]
