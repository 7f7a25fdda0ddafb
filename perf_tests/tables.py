"""Records of a run -> rows of the tables of configurations, techniques and load."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from typing import Any, Final

from perf_tests.cpu.case import case_table
from xenc.gate.report import Overview, Record, Table, flagged, speedup

CASE_TITLE = "xenc beside what one would use instead"


def is_configuration(record: Record) -> bool:
    """Whether it belongs in the table of configurations: it has a configuration and no chapter."""
    return "configuration" in record.info and "chapter" not in record.info


def configuration_row(record: Record) -> dict[str, str]:
    """A configuration on one workload."""
    info, times, name = record.info, speedup(record), record.info["configuration"]
    return {
        "workload": str(info["workload"]),
        "configuration": f"{name} ({info['not_measured']})" if "not_measured" in info else name,
        "pairs/s": _number(info.get("pairs_per_s")),
        "tokens/s": _number(info.get("tokens_per_s")),
        "waste": f"{info['waste']:.1%}" if "waste" in info else "",
        f"vs {info.get('reference', 'eager')}": f"{times:.2f}x" if times is not None else "",
        "graphs": str(info.get("graphs", "")),
        "recompiles": str(info.get("recompiles", "")),
        "MFU": f"{info['mfu']:.0%}" if "mfu" in info else "",
        "GEMM share": f"{info['gemm_share']:.0%}" if "gemm_share" in info else "",
        "median s": f"{statistics.median(record.seconds):.3f}" if record.seconds else "",
        "spread": flagged(record.spread) if record.seconds else "",
        "n": str(len(record.seconds)),
    }


def technique_row(record: Record) -> dict[str, str]:
    """A technique; all are timed on one workload, in the order of chapters."""
    info, times = record.info, speedup(record)
    return {
        "choice of": str(info["chapter"]),
        "technique": str(info["configuration"]),
        "speed-up": str(info.get("not_measured", "")) if times is None else f"{times:.2f}x",
        "over": str(info["reference"]) if times is not None else "",
        "spread": flagged(record.spread) if record.seconds else "",
        "n": str(len(record.seconds)) if record.seconds else "",
        "warm-up s": f"{info['warmup_s']:.1f}" if "warmup_s" in info else "",
        "graphs": str(info.get("graphs", "")),
        "recompiles": str(info.get("recompiles", "")),
        "waste": f"{info['waste']:.1%}" if "waste" in info else "",
        "error": _error(info),
        "ranked by": str(info.get("ranked_model", "")),
        "nDCG@10": f"{info['ndcg']:.3f} ({-info['ndcg_loss']:+.3f})"
        if "ndcg" in info
        else str(info.get("not_ranked", "")),
        "Kendall tau": f"{info['kendall_tau']:.4f}" if "kendall_tau" in info else "",
        "when to use it": str(info["when"]),
    }


def load_row(record: Record) -> dict[str, str]:
    """A service under load. Latency counts from the time a request was due."""
    info = record.info
    return {
        "clients": str(info["clients"]),
        "offered": f"{info['offered_share']:.1f}x, {_number(info['offered_pairs_per_s'])} pairs/s",
        "server": f"{info['server']}{' (traced)' if info.get('traced') else ''}",
        "pairs/s": _number(info["answered_pairs_per_s"]),
        **{f"p{percent} ms": _milliseconds(info[f"p{percent}_s"]) for percent in (50, 90, 99)},
        "refused": str(info["refused"]),
        "behind s": f"{info['behind_s']:.1f}",
        "recompiles": str(info["recompiles"]),
        "requests": str(info["requests"]),
    }


SHOWN: Final = (
    Table(title="benchmarks", takes=is_configuration, row=configuration_row),
    Table(title="techniques", takes=lambda record: "chapter" in record.info, row=technique_row),
    Table(title="load", takes=lambda record: "clients" in record.info, row=load_row),
    Overview(title=CASE_TITLE, markdown=case_table),
)
"""What is shown of this suite's records, in this order; the gate's own table shows single stages."""


def _error(info: Mapping[str, Any]) -> str:
    """The error of the model whose ranking is judged, if any: the timed model may have random weights."""
    error = info.get("ranked_error", info.get("output_error"))
    return "" if error is None else f"{error:.1g}"


def _milliseconds(seconds: float | None) -> str:
    return "too few requests" if seconds is None else _number(1000 * seconds)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.1f}" if value < 100 else f"{value:,.0f}"
