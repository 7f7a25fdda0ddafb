"""The small ways in which `mutants` breaks the judging by pairs, and the laws that should notice each."""

from __future__ import annotations

from correctness_tests.mutations import mutant

RULE, RULES = "gate/paired/rule.py", "gate/test_paired_rule.py"
VERDICTS, JUDGED = "gate/paired/verdicts.py", "gate/test_paired_verdict.py"
BLOCKS, INTERLEAVED = "gate/paired/blocks.py", "gate/test_paired.py"
EXACT, FACTS = "gate/exact.py", "gate/test_exact.py"

GATE_MUTANTS = (
    mutant("looks are not paid", RULE, "(comparisons * len(self.looks))", "comparisons", RULES),
    mutant("comparisons are not paid", RULE, "(comparisons * len(self.looks))", "len(self.looks)", RULES),
    mutant("one degree of freedom too many", RULE, "1 - share, processes - 1", "1 - share, processes", RULES),
    mutant("a mean instead of a median", RULE, "statistics.median(kept)", "statistics.fmean(kept)", RULES),
    mutant(
        "the wrong bound",
        RULE,
        "mean - half > math.log1p(rule.margin)",
        "mean > math.log1p(rule.margin)",
        RULES,
    ),
    mutant(
        "passing on the mean",
        RULE,
        "mean + half < math.log1p(rule.must_see)",
        "mean < math.log1p(rule.must_see)",
        RULES,
    ),
    mutant(
        "the head's throttling excused",
        RULE,
        'block["arm"] == base and block["throttled"]',
        'block["throttled"]',
        RULES,
    ),
    mutant("any remainder will do", RULE, "2 * len(kept) < len(usable)", "not kept", RULES),
    mutant("controls do not count", VERDICTS, "if not control.held\n", "if False\n", JUDGED),
    mutant("no control is no failure", VERDICTS, 'failed = ["no control ran"]', "failed = []", JUDGED),
    mutant(
        "facts of the last process",
        VERDICTS,
        "max(worst.get(name), value, key=partial(badness, name))",
        "value",
        JUDGED,
    ),
    mutant(
        "NaN is nothing",
        EXACT,
        "if math.isnan(value):\n        return math",
        "if False:\n        return math",
        JUDGED,
    ),
    mutant("the best ranking counts", EXACT, "return -value if name", "return value if name", JUDGED),
    mutant("a floor is a ceiling", EXACT, "value >= bound", "value <= bound", FACTS),
    mutant(
        "what has no bound is fine",
        EXACT,
        "        if why:\n",
        "        if why and fact.bound in info:\n",
        FACTS,
    ),
    mutant("the A/A control costs nothing", VERDICTS, "(configurations + 1)", "configurations", JUDGED),
    mutant("no way back", BLOCKS, "[*there, *reversed(there)]", "[*there, *there]", INTERLEAVED),
    mutant("always the same arm first", BLOCKS, "palindrome % len(arms)", "0", INTERLEAVED),
    mutant("whatever shrinks is a break", EXACT, "return new - old >", "return abs(new - old) >", FACTS),
)
