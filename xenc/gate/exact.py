"""The counts that need no statistics: a change passes or fails on them exactly."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..watch import CompileReport


def compile_counts(report: CompileReport) -> dict[str, Any]:
    """What compiled in a timed region, as plain numbers and reasons for `extra_info`."""
    return {
        "recompiles": report.graphs + report.cudagraph_recordings,
        "graph_breaks": len(report.graph_breaks),
        "eager_fallbacks": len(report.eager_fallbacks),
        "cudagraph_skips": report.cudagraph_skips,
        "compile_findings": "" if report.clean else report.describe(),
    }


def broken_laws(info: Mapping[str, Any]) -> list[str]:
    """What a benchmark's `extra_info` says that must never be so, whatever the baseline holds.

    Args:
        info: may hold the keys of `compile_counts`, and output_error with output_tolerance.
    """
    broken = []
    counted = [
        f"{info[key]} {key.replace('_', ' ')}"
        for key in ("recompiles", "graph_breaks", "eager_fallbacks", "cudagraph_skips")
        if info.get(key)
    ]
    if counted:
        broken.append(f"{', '.join(counted)} in the timed region:\n{info.get('compile_findings', '')}")
    error, tolerance = info.get("output_error"), info.get("output_tolerance")
    if error is not None and tolerance is not None and not error <= tolerance:
        broken.append(f"output error {error:.3g} is beyond the tolerance {tolerance:.3g}")
    return broken
