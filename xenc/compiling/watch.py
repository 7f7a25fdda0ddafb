"""A watch on torch.compile: graphs, recompiles and their reasons, graph breaks, silent eager execution.

A function that has reached its recompile limit runs every new shape eagerly, and Dynamo, which said so once,
is not asked again: its counters, callbacks and stances show nothing. So at the start of a watch every
function that has graphs is made to ask Dynamo again about a shape that none of them fits.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType
from typing import Any, Final

from torch._C._dynamo.eval_frame import set_code_exec_strategy
from torch._dynamo import callback, convert_frame
from torch._dynamo.eval_frame import _debug_get_cache_entry_list
from torch._dynamo.types import FrameAction, FrameExecStrategy
from torch._dynamo.utils import counters, get_compilation_metrics

from ..errors import first_line

_LIMIT_EXCEEDED: Final = "Dynamo recompile limit exceeded"


@dataclass(frozen=True, kw_only=True)
class CompileReport:
    """What the whole process compiled during a watch.

    Attributes:
        graphs: graphs compiled, including recompilations.
        recompiles: a guard's reason for each recompilation.
        graph_breaks: the reason for each graph break.
        eager_fallbacks: functions that ran eagerly past their recompile limit, whenever they reached it, and
            frames that Dynamo gave up on.
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
        self._exceeded = len(_exceeded)
        self._report: CompileReport | None = None
        _ask_again()

    @property
    def report(self) -> CompileReport:
        """What was compiled so far; after the block has ended, what was compiled in it."""
        if self._report is not None:
            return self._report
        now = _read_counters()
        grown = {key: now.get(key, 0) - self._before.get(key, 0) for key in now}
        seen = {id(metrics) for metrics in self._seen}
        metrics = [entry for entry in get_compilation_metrics() if id(entry) not in seen]
        overflows = [entry for entry in metrics if _is_overflow(entry)]
        breaks = [[reason] * count for (group, reason), count in grown.items() if group == "graph_break"]
        failed = grown.get(("frames", "total"), 0) - grown.get(("frames", "ok"), 0) - len(overflows)
        recordings = [event.callback_trigger.name == "CUDAGRAPH_RECORDING" for event in self._events]
        return CompileReport(
            graphs=grown.get(("stats", "unique_graphs"), 0),
            recompiles=self._recompiles(metrics),
            graph_breaks=tuple(first_line(reason) for reasons in breaks for reason in reasons),
            eager_fallbacks=self._past_limits(len(overflows))
            + ((f"Dynamo gave up on {failed} frame(s)",) if failed > 0 else ()),
            cudagraph_recordings=sum(recordings),
            cudagraph_skips=grown.get(("inductor", "cudagraph_skips"), 0),
        )

    def _past_limits(self, overflows: int) -> tuple[str, ...]:
        """The functions that exceeded a recompile limit, or how often that was if the log is off."""
        names = dict.fromkeys(_exceeded[self._exceeded :])
        if overflows and not names:
            return (f"a recompile limit was exceeded {overflows} time(s)",)
        return tuple(
            f"{name} has used up its recompile limit; every further shape runs eagerly" for name in names
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


_exceeded: Final[list[str]] = []
"""Each time that a function exceeded its recompile limit, the function."""


def _note_exceeded(record: logging.LogRecord) -> bool:
    if str(record.msg).startswith("torch._dynamo hit config.") and isinstance(record.args, tuple):
        _exceeded.append(str(record.args[2]).replace("'", "", 2))
    return True


convert_frame.log.addFilter(_note_exceeded)


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


def _ask_again() -> None:
    """Make Dynamo judge the next new shape of functions that it has stopped judging."""
    codes = (reference() for reference in convert_frame.input_codes.seen)
    for code in codes:
        if code is not None and cached_graphs(code):
            set_code_exec_strategy(code, FrameExecStrategy(FrameAction.DEFAULT, FrameAction.DEFAULT))
