"""What the working tree counts beside a revision, in minutes: one process, without times.

    python -m perf_tests.counts [CONFIGURATION ...] [--against REF]

The gate's exact facts (graphs, kernels, texts tokenized, peak memory, errors of scores), of what `--against`
measures on a CPU. Exits 1 if a configuration is REGRESSED or could not be counted. A slowdown that shows in
seconds alone needs the gate itself. Each version chooses by timing what multiplies (`Execution.products`):
where a crowded machine makes them choose differently, kernels of products appear or go; then run it again.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from perf_tests.against import PAIRED, REPOSITORY, paired_request
from xenc.gate.errors import CampaignError, GateError
from xenc.gate.exact import changed_facts
from xenc.gate.paired.campaign import LOCK, Campaign
from xenc.gate.paired.revision import two_revisions
from xenc.gate.paired.rule import Rule
from xenc.gate.paired.session import check_result, process_request
from xenc.gate.paired.verdicts import PairedVerdicts, Result, judge_campaign
from xenc.gate.verdict import Verdict

NAMES = tuple(each.name for each in PAIRED["cpu"])


def counted(checkout: Path, ref: str, names: Sequence[str] = ()) -> PairedVerdicts:
    """The gate's verdicts on a checkout's working tree, by what one short process counts.

    Args:
        checkout: its working tree is the head.
        ref: the base revision.
        names: of configurations; none means all.

    Raises:
        GateError: there is no such revision, it cannot run beside the head, or the process failed.
    """
    asked = paired_request("cpu", names=tuple(names))
    campaign = Campaign(asked.command, timeout_s=3 * asked.timeout_s, lock=LOCK)  # nothing is timed
    with two_revisions(ref, checkout, asked.package) as copied, campaign:
        process = process_request(asked, copied.base, copied.head, number=0)
        result = campaign.run_process({**process, "palindromes": 2})
    return verdicts_on(result, asked.rules)


def verdicts_on(result: Result, rules: Mapping[str, Rule]) -> PairedVerdicts:
    """The gate's verdicts on what one process counted.

    Raises:
        GateError: the process left a configuration out, or the head a fact that the base has.
    """
    check_result(result, rules)
    for node in rules:
        facts = result["configurations"][node]["facts"]
        if lacking := changed_facts(facts["head"], facts["base"]).unmeasured:
            raise CampaignError(f"{node}: measured on the base, but not on the head: {', '.join(lacking)}")
    return judge_campaign([result], rules)


def lines_of(verdicts: PairedVerdicts, *, exact: bool) -> list[str]:
    """A line for each configuration: the verdict, and what was counted (if `exact`) or timed."""
    lines = []
    for node, each in verdicts.configurations.items():
        causes = [cause for cause in each.causes if not (exact and " ms -> " in cause)]  # of too few blocks
        words = (*(each.exact if exact else (each.reason,)), *causes[:2])
        said = f"{each.verdict}. {'; '.join(words)}" if words else "no more is counted than on the base"
        lines.append(f"{node.partition('[cpu-')[2].rstrip(']')}: {said}")
    return lines


def regressed(verdicts: PairedVerdicts) -> bool:
    """Whether a configuration is REGRESSED."""
    return any(each.verdict is Verdict.REGRESSED for each in verdicts.configurations.values())


def main(arguments: Sequence[str]) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m perf_tests.counts")
    parser.add_argument("names", nargs="*", metavar="CONFIGURATION", help=", ".join(NAMES))
    parser.add_argument("--against", default="HEAD", metavar="REF", help="the base (default: HEAD)")
    chosen = parser.parse_args(arguments)
    if unknown := set(chosen.names) - set(NAMES):
        parser.error(f"no configuration is called {', '.join(sorted(unknown))}")
    try:
        verdicts = counted(REPOSITORY, chosen.against, chosen.names)
    except GateError as error:
        print(f"NOT MEASURED. {error}")
        return 1
    print("\n".join(lines_of(verdicts, exact=True)))
    return int(regressed(verdicts))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
