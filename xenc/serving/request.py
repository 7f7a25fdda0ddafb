"""One request: pairs on their way to scores, and the Future that its caller waits on.

Shapes: N = pairs of the request, C = labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..errors import NonFiniteScoreError
from ..text.tokens import TokenizedPairs
from .spans import Span, no_span


@dataclass(frozen=True, kw_only=True)
class PredictReport:
    """What one request cost.

    Attributes:
        pairs: pairs scored.
        truncated_pairs: pairs that lost tokens to max_length.
        token_counts: [N] tokens of each pair, after truncation.
        all_tokens: tokens the device processed, padding and dummies included; of a batch shared with other
            requests, a share by real tokens.
        shared_tokens: tokens of the pairs that were not computed, since another pair's are the same.
        waste: the padding fraction, padded tokens / all tokens: 1 - (sum of token_counts - shared_tokens) /
            all_tokens.
        batches: batches in which the pairs ran.
    """

    pairs: int
    truncated_pairs: int
    token_counts: tuple[int, ...]
    all_tokens: int
    waste: float
    batches: int
    shared_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Logits [N, C] on the device, in the caller's order and at least float32; and what they cost."""

    logits: Tensor
    report: PredictReport


class Request:
    """Collects the logits of N >= 1 pairs from whatever batches they run in.

    Args:
        pairs: the pairs.
        batch_size: rows of a padded batch.
        tokenize: tokenizes a few of the pairs.
        answer: what becomes of the logits before the caller has them.
        on_progress: told how many pairs were scored, each time some were.
        leave: called once or more often, at the latest just before the caller can see that it is answered;
            after a cancellation, while `cancel` runs.

    Attributes:
        future: the answer, or the error that belongs to this caller.
        pairs, batch_size, tokenize: as given.
        unread: how many are yet to be tokenized.
        threads: how many CPU threads the caller has.
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
        self.future: Future[Any] = Future()
        self.future.add_done_callback(lambda _: leave())
        self.future.add_done_callback(_acknowledge)
        self.pairs, self.batch_size = pairs, batch_size
        self.tokenize = tokenize
        self.unread = len(pairs)
        self._answer, self._on_progress, self._leave = answer, on_progress, leave
        self._counts: list[int] = []
        self._truncated = 0
        self._scored: list[tuple[Tensor, Sequence[int], Sequence[int]]] = []
        self._missing = len(pairs)
        self._all_tokens = 0.0
        self._shared_tokens = 0
        self.threads = torch.get_num_threads()

    @property
    def dropped(self) -> bool:
        """True once nobody waits for the rest: cancelled, failed or done."""
        return self.future.done()

    def note_read(self, tokens: TokenizedPairs) -> None:
        """The next pairs have been tokenized, in the caller's order."""
        self._counts += tokens.counts
        self._truncated += tokens.truncated_pairs
        self.unread -= len(tokens.input_ids)

    def note_shared(self, tokens: int) -> None:
        """So many of the pairs' tokens will not be computed, since another pair's are the same."""
        self._shared_tokens += tokens

    def note_scored(
        self, logits: Tensor, slots: Sequence[int], rows: Sequence[int], *, all_tokens: float
    ) -> bool:
        """Some pairs ran.

        Args:
            logits: [slots of the batch, C], on the device.
            slots: where in the batch this request's pairs stood.
            rows: which of this request's pairs they are.
            all_tokens: this request's share of the tokens that the batch processed.

        Returns:
            Whether that was the last of them.
        """
        self._scored.append((logits, slots, rows))
        self._missing -= len(rows)
        self._all_tokens += all_tokens
        self._on_progress(len(rows))
        return self._missing == 0

    def finish(self, span: Span = no_span) -> None:
        """Hand the scores over, in the caller's order; call it off the device's thread, for it waits."""
        try:
            with span("collect"), torch.inference_mode():
                logits = self._in_callers_order()
                _check_finite(logits)
                answer = self._answer(Scored(logits=logits, report=self._report()))
        except BaseException as error:
            self.fail(error)
        else:
            self._settle(self.future.set_result, answer)

    def fail(self, error: BaseException) -> None:
        """Hand an error over, unless the request is settled already."""
        self._settle(self.future.set_exception, error)

    def _settle(self, settle: Callable[[Any], None], outcome: Any) -> None:
        self._leave()
        with suppress(InvalidStateError):  # settled or cancelled meanwhile
            settle(outcome)

    def _in_callers_order(self) -> Tensor:
        """[N, C] of all batches' logits, at least float32."""
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
            waste=1 - (sum(self._counts) - self._shared_tokens) / all_tokens,
            batches=len(self._scored),
            shared_tokens=self._shared_tokens,
        )


def _acknowledge(future: Future[Any]) -> None:
    """Without this, `concurrent.futures.wait` waits for a cancelled Future for ever."""
    if future.cancelled():
        future.set_running_or_notify_cancel()


def _check_finite(logits: Tensor) -> None:
    nan_rows = torch.isnan(logits).any(dim=1).nonzero().flatten().tolist()
    if nan_rows:
        raise NonFiniteScoreError(
            f"the model answered NaN for {len(nan_rows)} of {len(logits)} pairs, at indices "
            f"{nan_rows[:20]}: check the model's weights, or score in float32."
        )
