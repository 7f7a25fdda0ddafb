"""A watch on torch.compile: graphs, recompiles and their reasons, graph breaks, silent eager execution.

Dynamo's counters, callbacks and stances do not show a function that has reached its recompile limit and runs
every new shape eagerly. So the watch also looks for functions whose cache of compiled graphs is full.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType
from typing import Any, Final
from weakref import ReferenceType, ref

import torch
from torch._dynamo import callback, convert_frame
from torch._dynamo.eval_frame import _debug_get_cache_entry_list
from torch._dynamo.utils import counters, get_compilation_metrics

from ..errors import first_line

FULLGRAPH_PREFIX: Final = "xenc_fullgraph_"
"""Prefix of functions compiled with fullgraph=True: beyond the limit they raise, and never run eagerly."""

_LIMIT_EXCEEDED: Final = "Dynamo recompile limit exceeded"


@dataclass(frozen=True, kw_only=True)
class CompileReport:
    """What the whole process compiled during a watch.

    Attributes:
        graphs: graphs compiled, including recompilations.
        recompiles: a guard's reason for each recompilation.
        graph_breaks: the reason for each graph break.
        eager_fallbacks: functions that run eagerly without a warning: those at their recompile limit when
            the watch ended, whenever they reached it, and frames that Dynamo gave up on.
        cudagraph_recordings: CUDA graphs recorded.
        cudagraph_skips: regions that could not become a CUDA graph.
    """

    graphs: int
    recompiles: tuple[str, ...]
    graph_breaks: tuple[str, ...]
    eager_fallbacks: tuple[str, ...]
    cudagraph_recordings: int
    cudagraph_skips: int

    @property
    def clean(self) -> bool:
        """True if nothing was compiled or recorded, and no compiled function ran eagerly."""
        return not any(vars(self).values())

    def describe(self) -> str:
        """The findings, one a line; "nothing compiled" for a clean report."""
        lines = [f"{self.graphs} graph(s) compiled"] if self.graphs else []
        lines += [f"recompiled: {reason}" for reason in self.recompiles]
        lines += [f"graph break: {reason}" for reason in self.graph_breaks]
        lines += [f"silently eager: {reason}" for reason in self.eager_fallbacks]
        if self.cudagraph_recordings:
            lines.append(f"{self.cudagraph_recordings} CUDA graph(s) recorded")
        if self.cudagraph_skips:
            lines.append(f"{self.cudagraph_skips} CUDA graph(s) skipped")
        return "\n".join(lines) or "nothing compiled"


class CompileWatch:
    """Collects what is compiled while a `watch_compiles` block runs."""

    def __init__(self) -> None:
        self._events: list[Any] = []
        self._seen = list(get_compilation_metrics())
        self._before = _read_counters()
        self._report: CompileReport | None = None

    @property
    def report(self) -> CompileReport:
        """What was compiled so far; after the block has ended, what was compiled in it."""
        if self._report is not None:
            return self._report
        now = _read_counters()
        grown = {key: now.get(key, 0) - self._before.get(key, 0) for key in now}
        seen = {id(metrics) for metrics in self._seen}
        metrics = [entry for entry in get_compilation_metrics() if id(entry) not in seen]
        overflowed = sum(_is_overflow(entry) for entry in metrics)
        breaks = [[reason] * count for (group, reason), count in grown.items() if group == "graph_break"]
        failed = grown.get(("frames", "total"), 0) - grown.get(("frames", "ok"), 0) - overflowed
        recordings = [event.callback_trigger.name == "CUDAGRAPH_RECORDING" for event in self._events]
        return CompileReport(
            graphs=grown.get(("stats", "unique_graphs"), 0),
            recompiles=self._recompiles(metrics),
            graph_breaks=tuple(first_line(reason) for reasons in breaks for reason in reasons),
            eager_fallbacks=_exhausted_functions(overflowed)
            + ((f"Dynamo gave up on {failed} frame(s)",) if failed > 0 else ()),
            cudagraph_recordings=sum(recordings),
            cudagraph_skips=grown.get(("inductor", "cudagraph_skips"), 0),
        )

    def _recompiles(self, metrics: list[Any]) -> tuple[str, ...]:
        reasons = [
            first_line(entry.recompile_reason)
            for entry in metrics
            if entry.recompile_reason is not None and not _is_overflow(entry)
        ]
        # A compile id is frame/attempt; Dynamo keeps the reasons of its last 64 compilations only.
        ids = {event.compile_id for event in self._events if event.callback_trigger.name == "DYNAMO"}
        recompiled = sum(not compile_id.endswith("/0") for compile_id in ids)
        forgotten = max(0, recompiled - len(reasons))
        return (*reasons, *["PyTorch no longer has the reason"] * forgotten)


@contextmanager
def watch_compiles() -> Iterator[CompileWatch]:
    """Watch everything that torch.compile does in this process while the block runs.

    Dynamo's counters belong to the process: compilations in other threads are reported too.

    Example:
        >>> with watch_compiles() as watch:
        ...     scores = model.predict(pairs)
        >>> assert watch.report.clean, watch.report.describe()
    """
    watch = CompileWatch()
    note, handler = watch._events.append, callback.callback_handler
    handler.register_start_callback(note)
    try:
        yield watch
    finally:
        watch._report = watch.report
        if note in handler.start_callbacks:  # torch._dynamo.reset drops it
            handler.remove_start_callback(note)


def cached_graphs(code: CodeType) -> int:
    """How many compiled graphs Dynamo holds for one code object."""
    return len(_debug_get_cache_entry_list(code))


_overflowed: Final[list[ReferenceType[CodeType]]] = []


def _note_overflow(record: logging.LogRecord) -> bool:
    """Note a function that Dynamo logs as beyond a recompile limit, which may be its own."""
    if str(record.msg).startswith("torch._dynamo hit config.") and isinstance(record.args, tuple):
        named = [code for code in _known_codes() if f"'{code.co_name}' {_place(code)}" == record.args[2]]
        _overflowed.extend(ref(code) for code in named if cached_graphs(code))
    return True


convert_frame.log.addFilter(_note_overflow)


def last_recompile_reason(name: str) -> str:
    """The guard's reason for the last recompilation of the function called `name`."""
    for entry in reversed(get_compilation_metrics()):
        if entry.co_name == name and entry.recompile_reason is not None:
            return first_line(entry.recompile_reason)
    return "PyTorch gives no reason"


def _read_counters() -> dict[tuple[str, str], int]:
    return {(group, key): count for group, counts in counters.items() for key, count in counts.items()}


def _is_overflow(metrics: Any) -> bool:
    return str(metrics.fail_reason or "").startswith(_LIMIT_EXCEEDED)


def _exhausted_functions(overflowed: int) -> tuple[str, ...]:
    """Functions whose cache of graphs is full, or how many exceeded a limit if none can be found."""
    limit = torch._dynamo.config.recompile_limit
    found = []
    for code in _known_codes():
        if code.co_name.startswith(FULLGRAPH_PREFIX):
            continue
        entries = _debug_get_cache_entry_list(code)
        regions = Counter(getattr(entry, "isolate_recompiles_id", -1) for entry in entries)
        fullest = max(regions.values(), default=0)
        if fullest >= limit or (fullest and any(noted() is code for noted in _overflowed)):
            found.append(
                f"{code.co_name} {_place(code)} has used up its recompile limit; "
                "every further shape runs eagerly"
            )
    if overflowed and not found:
        found.append(f"{overflowed} function(s) exceeded a recompile limit")
    return tuple(found)


def _known_codes() -> list[CodeType]:
    """Every code object that Dynamo was asked to compile and that still exists."""
    codes = (reference() for reference in convert_frame.input_codes.seen)
    return [code for code in codes if code is not None]


def _place(code: CodeType) -> str:
    return f"({code.co_filename}:{code.co_firstlineno})"
