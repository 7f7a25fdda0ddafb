"""What Dynamo did: graphs, recompiles and why, graph breaks, and the silent fall to eager.

Dynamo's counters show most of it. They do not show a function that has used up its recompile limit: every
new shape then runs eagerly for ever, no counter moves, no callback fires and no stance raises. What does
show is the function itself, whose cache of compiled graphs is full; so a watch ends by looking there.
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
"""Functions named so are compiled with fullgraph=True: past the limit they raise and never fall back."""

_LIMIT_EXCEEDED: Final = "Dynamo recompile limit exceeded"


@dataclass(frozen=True, kw_only=True)
class CompileReport:
    """What was compiled while a watch was on, in the whole process.

    Attributes:
        graphs: graphs compiled, first compilations and recompilations alike.
        recompiles: one guard's reason for each recompilation.
        graph_breaks: one reason for each graph break.
        eager_fallbacks: functions that had used up their recompile limit when the watch ended, whether
            during it or before, and frames that Dynamo gave up on: they run eagerly and never say so.
        cudagraph_recordings: CUDA graphs recorded.
        cudagraph_skips: regions that should have been a CUDA graph and were not.
    """

    graphs: int
    recompiles: tuple[str, ...]
    graph_breaks: tuple[str, ...]
    eager_fallbacks: tuple[str, ...]
    cudagraph_recordings: int
    cudagraph_skips: int

    @property
    def clean(self) -> bool:
        """True if nothing compiled, broke, was recorded, or ran eagerly in a compiled function's place."""
        counted = (self.graphs, self.cudagraph_recordings, self.cudagraph_skips)
        return not any(counted) and not (self.recompiles or self.graph_breaks or self.eager_fallbacks)

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
    """Collects what happens between `start` and `stop`; made by `watch_compiles`."""

    def __init__(self) -> None:
        self._events: list[Any] = []
        self._report: CompileReport | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._seen = list(get_compilation_metrics())
        self._before = _read_counters()
        callback.callback_handler.register_start_callback(self._events.append)

    def stop(self) -> None:
        """Stop watching and fix the report."""
        self._report = self.report
        if self._events.append in callback.callback_handler.start_callbacks:  # torch._dynamo.reset drops it
            callback.callback_handler.remove_start_callback(self._events.append)

    @property
    def report(self) -> CompileReport:
        """What happened so far; after the watch has ended, what happened while it was on."""
        if self._report is not None:
            return self._report
        now = _read_counters()
        grown = {key: now.get(key, 0) - self._before.get(key, 0) for key in now}
        seen = {id(metrics) for metrics in self._seen}
        metrics = [entry for entry in get_compilation_metrics() if id(entry) not in seen]
        overflowed = sum(1 for entry in metrics if _is_overflow(entry))
        return CompileReport(
            graphs=grown.get(("stats", "unique_graphs"), 0),
            recompiles=self._recompiles(metrics),
            graph_breaks=tuple(
                first_line(reason)
                for (group, reason), count in grown.items()
                if group == "graph_break"
                for _ in range(count)
            ),
            eager_fallbacks=_exhausted_functions(overflowed)
            + _skipped_frames(
                grown.get(("frames", "total"), 0) - grown.get(("frames", "ok"), 0) - overflowed
            ),
            cudagraph_recordings=sum(
                event.callback_trigger.name == "CUDAGRAPH_RECORDING" for event in self._events
            ),
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

    Dynamo's counters belong to the process: a model that another thread compiles meanwhile is reported too.

    Example:
        >>> with watch_compiles() as watch:
        ...     scores = model.predict(pairs)
        >>> assert watch.report.clean, watch.report.describe()
    """
    watch = CompileWatch()
    watch.start()
    try:
        yield watch
    finally:
        watch.stop()


def cached_graphs(code: CodeType) -> int:
    """How many compiled graphs Dynamo holds for one code object."""
    return len(_cache_entries(code))


def _cache_entries(code: CodeType) -> list[Any]:
    return list(_debug_get_cache_entry_list(code))


class _Overflows(logging.Filter):
    """Overhears which functions Dynamo says, once each, to have exceeded a limit; it may be their own."""

    def __init__(self) -> None:
        super().__init__()
        self._codes: list[ReferenceType[CodeType]] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Note the function; let every record pass."""
        if str(record.msg).startswith("torch._dynamo hit config.") and isinstance(record.args, tuple):
            named = [code for code in _known_codes() if f"'{code.co_name}' {_place(code)}" == record.args[2]]
            self._codes += [ref(code) for code in named if cached_graphs(code)]
        return True

    def include(self, code: CodeType) -> bool:
        """Whether this very code object exceeded a limit."""
        return any(reference() is code for reference in self._codes)


_overflows: Final = _Overflows()
convert_frame.log.addFilter(_overflows)


def last_recompile_reason(name: str) -> str:
    """Why the function called `name` was last compiled anew, as its guard put it."""
    for entry in reversed(get_compilation_metrics()):
        if entry.co_name == name and entry.recompile_reason is not None:
            return first_line(entry.recompile_reason)
    return "PyTorch gives no reason"


def _read_counters() -> dict[tuple[str, str], int]:
    return {(group, key): count for group, counts in counters.items() for key, count in counts.items()}


def _is_overflow(metrics: Any) -> bool:
    return str(metrics.fail_reason or "").startswith(_LIMIT_EXCEEDED)


def _exhausted_functions(overflowed: int) -> tuple[str, ...]:
    """Functions whose cache is full; and a line for an overflow that leaves no such trace."""
    limit = torch._dynamo.config.recompile_limit
    found = []
    for code in _known_codes():
        if code.co_name.startswith(FULLGRAPH_PREFIX):
            continue
        regions = Counter(getattr(entry, "isolate_recompiles_id", -1) for entry in _cache_entries(code))
        fullest = max(regions.values(), default=0)
        if fullest >= limit or (fullest and _overflows.include(code)):
            found.append(
                f"{code.co_name} {_place(code)} has used up its recompile limit; "
                "every further shape runs eagerly"
            )
    if overflowed and not found:
        found.append(f"{overflowed} function(s) exceeded a recompile limit")
    return tuple(found)


def _known_codes() -> list[CodeType]:
    """Every code object that Dynamo has been asked to compile and that still lives."""
    codes = (reference() for reference in convert_frame.input_codes.seen)
    return [code for code in codes if code is not None]


def _place(code: CodeType) -> str:
    return f"({code.co_filename}:{code.co_firstlineno})"


def _skipped_frames(count: int) -> tuple[str, ...]:
    return (f"Dynamo gave up on {count} frame(s)",) if count > 0 else ()
