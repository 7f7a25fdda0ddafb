"""One request: its pairs, and the logits that batches have given them so far.

Shapes: N = pairs of the request, C = labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import ExecutionError
from ..text.tokens import TokenizedPairs
from ..text.windows import LongDocuments, Windows
from .spans import Span


@dataclass(frozen=True, kw_only=True)
class PredictReport:
    """Token counts and padding of one request.

    Attributes:
        pairs: pairs scored.
        truncated_pairs: pairs cut to max_length.
        token_counts: [N] tokens of each pair, after truncation.
        all_tokens: tokens processed, including padding and dummies. Padding of a batch that several
            requests share is divided in proportion to their tokens.
        waste: the padding fraction, 1 - (sum of token_counts - shared_tokens) / all_tokens.
        batches: batches in which the pairs ran.
        shared_tokens: tokens not computed again, because they belong to a shared prefix.
        halved: batches that did not fit the device's memory; their pairs ran in smaller ones, which `batches`
            counts.
        windows: what was scored in place of the pairs, if documents were cut into windows (then token_counts
            are theirs); else 0.
    """

    pairs: int
    truncated_pairs: int
    token_counts: tuple[int, ...]
    all_tokens: int
    waste: float
    batches: int
    shared_tokens: int = 0
    halved: int = 0
    windows: int = 0


class Scored(NamedTuple):
    """Logits [N, C] on the device, in the caller's order, float32 or wider; and the report on them."""

    logits: Tensor
    report: PredictReport

    def joined(self, windows: Windows, how: LongDocuments) -> Scored:
        """Of N pairs, from the logits of their windows: the largest, the mean or the first, of each label."""
        if how == "first":
            logits = self.logits
        else:
            counts = torch.tensor(windows.counts, device=self.logits.device)
            logits = torch.segment_reduce(self.logits, how, lengths=counts)
        report = replace(self.report, pairs=len(windows.counts), windows=len(windows.pairs))
        return Scored(logits=logits, report=report)


class Request:
    """Collects the logits of N >= 1 pairs from the batches they run in.

    Args:
        pairs: (query, document) pairs.
        batch_size: rows of a padded batch.
        tokenize: tokenizes some of the pairs.
        answer: converts the logits to the result.
        on_progress: called with the number of pairs of each batch that has run.
        leave: called, perhaps repeatedly, before the Future is set, or by `Future.cancel`.

    Raises:
        ExecutionError: a batch size below 1.

    Attributes:
        future: the result, or this request's error.
        pairs, batch_size, tokenize: as given.
        unread: pairs not tokenized yet.
        shared_tokens, halved: see `PredictReport`.
        threads: the caller's number of CPU threads.
    """

    def __init__(
        self,
        pairs: Sequence[tuple[str, str]],
        *,
        batch_size: int,
        tokenize: Callable[[Sequence[tuple[str, str]]], TokenizedPairs],
        answer: Callable[[Scored], Any],
        on_progress: Callable[[int], object] = lambda _: None,
        leave: Callable[[], object] = lambda: None,
    ) -> None:
        check_batch_size(batch_size)
        self.future: Future[Any] = Future()
        self.future.add_done_callback(lambda _: leave())
        self.future.add_done_callback(_acknowledge)
        self.pairs, self.batch_size, self.tokenize = pairs, batch_size, tokenize
        self.unread = len(pairs)
        self._answer, self._on_progress, self._leave = answer, on_progress, leave
        self._counts: list[int] = []
        self._truncated = 0
        self._scored: list[tuple[Tensor, Sequence[int], Sequence[int]]] = []
        self._missing = len(pairs)
        self._all_tokens = 0.0
        self.shared_tokens = self.halved = 0
        self.threads = torch.get_num_threads()

    @property
    def dropped(self) -> bool:
        """Whether the rest need not run: cancelled, failed or done."""
        return self.future.done()

    def note_read(self, tokens: TokenizedPairs) -> None:
        """Record the next pairs' tokens, in the caller's order."""
        self._counts += tokens.counts
        self._truncated += tokens.truncated_pairs
        self.unread -= len(tokens.input_ids)

    def note_scored(
        self, logits: Tensor, slots: Sequence[int], rows: Sequence[int], *, all_tokens: float
    ) -> bool:
        """Record the logits of some pairs; True if they were the last.

        Args:
            logits: [slots of the batch, C], on the device.
            slots: this request's slots in the batch.
            rows: this request's pairs in those slots.
            all_tokens: this request's share of the tokens that the batch processed.
        """
        self._scored.append((logits, slots, rows))
        self._missing -= len(rows)
        self._all_tokens += all_tokens
        self._on_progress(len(rows))
        return self._missing == 0

    def finish(self, span: Span) -> None:
        """Set the result. Call it on another thread than the device's: it waits for the device."""
        try:
            with span("collect"), torch.inference_mode():
                logits = self._in_callers_order()
                answer = self._answer(Scored(logits=logits, report=self._report()))
        except BaseException as error:
            self.fail(error)
        else:
            self._settle(self.future.set_result, answer)

    def fail(self, error: BaseException) -> None:
        """Set the error, unless the Future is done already."""
        self._settle(self.future.set_exception, error)

    def _settle(self, settle: Callable[[Any], None], outcome: Any) -> None:
        self._leave()
        with suppress(InvalidStateError):  # done or cancelled meanwhile
            settle(outcome)

    def _in_callers_order(self) -> Tensor:
        """[N, C] from all batches, float32 or wider."""
        logits = torch.cat([part for part, _, _ in self._scored])
        if logits.dtype.itemsize < 4:
            logits = logits.float()
        where = torch.empty(len(self.pairs), dtype=torch.int64)
        offset = 0
        for part, slots, rows in self._scored:
            where[list(rows)] = torch.tensor(slots) + offset
            offset += len(part)
        return logits[where.to(logits.device)]

    def _report(self) -> PredictReport:
        all_tokens = round(self._all_tokens)
        return PredictReport(
            pairs=len(self.pairs),
            truncated_pairs=self._truncated,
            token_counts=tuple(self._counts),
            all_tokens=all_tokens,
            waste=1 - (sum(self._counts) - self.shared_tokens) / all_tokens,
            batches=len(self._scored),
            shared_tokens=self.shared_tokens,
            halved=self.halved,
        )


def check_batch_size(batch_size: int) -> None:
    """Raise ExecutionError for a batch without pairs."""
    if batch_size <= 0:
        raise ExecutionError(f"batch_size={batch_size!r} must be a positive number of pairs.")


def _acknowledge(future: Future[Any]) -> None:
    """Otherwise `concurrent.futures.wait` never returns for a cancelled Future."""
    if future.cancelled():
        future.set_running_or_notify_cancel()
