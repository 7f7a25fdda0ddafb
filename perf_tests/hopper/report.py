"""`Results` -> Markdown, as tables that also read well in a terminal. Pure."""

from __future__ import annotations

import statistics
from typing import Any, Final

from perf_tests.gate_check import in_words
from perf_tests.hopper.goals import GOALS
from perf_tests.hopper.modular import modular_table
from perf_tests.hopper.results import Results, sound
from perf_tests.hopper.rows import PUBLISHED_S
from perf_tests.side_by_side.goal import goals_table
from perf_tests.side_by_side.turns import Timed, ratio
from xenc.profiling.report import table

MLPERF: Final = 7994.0
"""Sequences per second of BERT-large on one H200, 99.9% of float32's quality, lengths of SQuAD; published."""

MISSING = "not measured"


def markdown(results: Results) -> str:
    """The whole report."""
    sections = ["# Side by side", _machine(results)]
    if results.smoke:
        sections.append(f"## Every path once\n\n{_smoke(results)}")
    if results.rows:
        sections.append(f"## Goals\n\n{goals_table(GOALS, results)}")
        sections.append(f"## Rows\n\n{_rows(results)}\n\n{_legend(results)}")
    if results.kernels:
        sections.append(f"## Kernels on their own\n\n{_kernels(results)}")
    if results.modular:
        sections.append(f"## ModernBERT's rerankers\n\n{modular_table(results.modular)}")
    if results.gate:
        sections.append(f"## The gate\n\n{_gate(results.gate)}")
    if results.equal_requests or results.random_requests:
        sections.append(f"## Requests\n\n{_requests(results)}")
    if results.landmark:
        sections.append(f"## BERT-large at one length\n\n{_landmark(results)}")
    if results.profiles:
        sections.append(f"## Where the device's time goes\n\n{_profiles(results)}")
    return "\n\n".join([*sections, *results.problems_section()]) + "\n"


def _machine(results: Results) -> str:
    facts = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    work = ", ".join(f"{name} {value}" for name, value in results.workload.items())
    warning = "REHEARSAL on a small model: no number here means anything. " if results.rehearsal else ""
    peak = f"{results.peak_flops_per_s / 1e12:,.4g} TFLOP/s ({results.peak_source})"
    return f"{warning}{facts}. {work}. Peak {peak}."


def _smoke(results: Results) -> str:
    header = ["path", "", "error", "tolerated", "same twice", "compiled late", "graphs", "ready after s"]
    return table(header, [_path(each) for each in results.smoke])


def _path(each: dict[str, Any]) -> list[str]:
    if each["problem"] is not None:
        return [each["path"], f"FAILED: {each['problem'].splitlines()[-1]}", *[""] * 6]
    if "tests" in each:
        return [each["path"], each["tests"], *[""] * 6]
    return [
        each["path"], "right" if sound(each) else "WRONG", f"{each['error']:.2g}", f"{each['tolerance']:.2g}",
        "no" if each["changed"] else "yes", str(each["late"]), str(each["graphs"]), f"{each['ready_s']:.1f}",
    ]  # fmt: skip


def _kernels(results: Results) -> str:
    lines = [
        [
            each["kernel"], each["size"], each.get("way", ""),
            each["problem"] or f"{each['us']:,.1f}", "" if each["problem"] else f"{each['tera_per_s']:,.1f}",
        ]
        for each in results.kernels
    ]  # fmt: skip
    return table(["kernel", "size", "way", "us", "TFLOP/s or TB/s"], lines)


def _rows(results: Results) -> str:
    header = [
        "whose", "row", "ms", "published ms", "spread", "over recipe", "over peer", "pairs/s", "MFU",
        "MFU on device", "waste", "error", "tau", "warm-up s", "graphs", "late",
    ]  # fmt: skip
    return table(header, [_row(row, results) for row in results.rows])


def _row(row: Timed, results: Results) -> list[str]:
    if row.problem is not None or not row.seconds:
        return [row.group, row.name, row.problem or MISSING, *[""] * 13]
    recipe, peer = results.row("compiled-sdpa-sorted"), results.best_peer()
    device = results.device_mfu(row)
    error = "" if row.output_error is None else f"{row.output_error:.1g}"
    wrong = row.output_error is not None and row.output_error > (row.output_tolerance or 0.0)
    return [
        row.group,
        row.name,
        f"{1000 * statistics.median(row.seconds):,.1f}",
        f"{1000 * PUBLISHED_S[row.name]:.1f}" if row.name in PUBLISHED_S else "",
        f"{row.spread_per(results.round_tokens):.1%}",
        "" if recipe is None else f"{ratio(row, recipe):.2f}x",
        "" if peer is None else f"{ratio(row, peer):.2f}x",
        f"{row.per_second(results.round_pairs):,.0f}",
        f"{results.end_to_end_mfu(row):.1%}",
        "" if device is None else f"{device:.1%}",
        "" if row.waste is None else f"{row.waste:.1%}",
        error + (" WRONG" if wrong else ""),
        "" if row.kendall_tau is None else f"{row.kendall_tau:.3f}",
        f"{row.warmup_s:.0f}" if row.warmup_s else "",
        str(row.graphs) if row.graphs else "",
        str(sum(row.counts.values())),
    ]


def _legend(results: Results) -> str:
    rounds = max((len(row.seconds) for row in results.rows), default=0)
    tokens = statistics.median(results.round_tokens) if results.round_tokens else 0
    return (
        f"Medians of n = {rounds} rounds of {tokens:,.0f} real tokens, every row once in each round; spread "
        'is standard deviation / median of seconds per token. "over recipe" is time over '
        '`compiled-sdpa-sorted`, "over peer" over sentence-transformers\' best, both on the same round. MFU '
        "counts real tokens, from texts to scores, and on the device over the time of forward passes alone. "
        '"late" counts what compiled, broke or fell to eager while it was timed.'
    )


def _requests(results: Results) -> str:
    header = ["execution", "documents", "tokens", "requests", "p50 ms", "p90 ms", "p99 ms", "compiled"]
    lines = [
        [
            each["execution"], str(each["documents"]), f"{each['tokens']:,}", f"{each['requests']:,}",
            *(f"{1000 * each[name]:.2f}" for name in ("p50_s", "p90_s", "p99_s")), str(each["recompiles"]),
        ]
        for each in results.equal_requests
    ]  # fmt: skip
    text = table(header, lines) if lines else ""
    found = results.random_requests
    if not found:
        return text
    return (
        f"{text}\n\n{found['requests']:,} requests of random sizes under {found['execution']}: "
        f"{1000 * found['seconds_at_zero']:.2f} ms + {1e9 * found['seconds_per_token']:.0f} ns per token, "
        f"r = {found['correlation']:.2f}; {found['recompiles']} compilations."
    )


def _landmark(results: Results) -> str:
    header = ["execution", "tokens each", "sequences/s", f"beside {MLPERF:,.0f}", "MFU", "spread", "n"]
    lines = [
        [
            each["execution"], str(each["length"]), f"{each['sequences_per_s']:,.0f}",
            f"{each['sequences_per_s'] / MLPERF:.2f}x", f"{each['mfu']:.1%}", f"{each['spread']:.1%}",
            str(each["rounds"]),
        ]
        for each in results.landmark
    ]  # fmt: skip
    return f"{table(header, lines)}\n\nMFU is of the peak above, in eight bits too."


def _profiles(results: Results) -> str:
    kinds = list(dict.fromkeys(kind for shares in results.profiles.values() for kind in shares))
    lines = [
        [name, *(f"{shares[kind]:.1%}" if kind in shares else "" for kind in kinds)]
        for name, shares in results.profiles.items()
    ]
    return table(["row", *kinds], lines)


def _gate(found: dict[str, Any]) -> str:
    """What the gate said of unchanged code and, if it was asked, of code that was made slower."""
    parts = {"Unchanged code": found} | ({"Slowed code": found["slowed"]} if "slowed" in found else {})
    return "\n\n".join(_gate_run(what, each) for what, each in parts.items())


def _gate_run(what: str, found: dict[str, Any]) -> str:
    lines = "\n".join(f"- {line}" for line in in_words(found))
    if found.get("error"):
        return f"{what}:\n\n{lines}"
    return f"{what}, {found['processes']} processes, {found['seconds']} s:\n\n{lines}"
