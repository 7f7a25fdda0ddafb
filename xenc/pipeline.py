"""The road in one place: pairs -> tokens -> plan -> batches -> forward -> logits in the caller's order.

Shapes: N = pairs of a request, B = rows of a batch, L = padded length, C = labels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from .collate import Collator, PaddedBatch
from .compiled import CompiledForward, WarmupReport
from .errors import ExecutionError, NonFiniteScoreError
from .execution import Execution
from .forward import classify
from .plan import Plan, bucket_lengths, plan_batches, warmup_shapes
from .tokens import TokenizedPairs, tokenize


@dataclass(frozen=True, kw_only=True)
class PredictReport:
    """What one request cost.

    Attributes:
        pairs: pairs scored.
        truncated_pairs: pairs that lost tokens to max_length.
        token_counts: [N] tokens of each pair, after truncation.
        all_tokens: tokens the device processed, padding and dummy rows included.
        waste: padded tokens / all tokens.
    """

    pairs: int
    truncated_pairs: int
    token_counts: tuple[int, ...]
    all_tokens: int
    waste: float


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Logits [N, C] on the device, in the caller's order and at least float32; and what they cost."""

    logits: Tensor
    report: PredictReport


class Pipeline:
    """One model under one execution. Its stages are attributes: tokenizer, plan(), collator, forward.

    Args:
        model: a sequence-classification model, on its device.
        tokenizer: the model's tokenizer.
        max_length: the most tokens a pair may have.
        execution: how to order, pad and run.
        compiled: graphs to go on using, if they were made for the same model and graph settings.

    Raises:
        ExecutionError: buckets that end below max_length.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int,
        execution: Execution,
        compiled: CompiledForward | None = None,
    ) -> None:
        self.execution = execution
        self.max_length = max_length
        self.device = model.device
        self.compiled = compiled
        if execution.compile_mode is not None and compiled is None:
            self.compiled = CompiledForward(model, execution)
        if self.compiled is not None:
            self.compiled.strict = execution.strict
        self.tokenizer = tokenizer
        self._buckets = bucket_lengths(execution.buckets, max_length)
        self.forward: Callable[[PaddedBatch], Tensor] = self.compiled or partial(_run_eagerly, model)
        pad_id = tokenizer.pad_token_id
        self.collator = Collator(
            pad_id=pad_id if isinstance(pad_id, int) else 0,
            has_token_types="token_type_ids" in tokenizer.model_input_names,
            device=model.device,
        )

    def warmup(self, batch_size: int, passes: int) -> WarmupReport:
        """Run every shape that batches of `batch_size` can have; nothing if nothing is compiled."""
        _check_batch_size(batch_size)
        if self.compiled is None:
            return WarmupReport(shapes=(), graphs=0, seconds=0.0)
        return self.compiled.warmup(warmup_shapes(self._buckets, batch_size), self.collator, passes)

    def score(
        self, pairs: Sequence[tuple[str, str]], *, batch_size: int, show_progress: bool = False
    ) -> Scored:
        """Score N >= 1 pairs, `batch_size` at a time.

        Raises:
            ExecutionError: a batch size below 1.
            NonFiniteScoreError: NaN logits; the message says for which pairs.
            CompileError: something compiled after warm-up, in strict mode.
        """
        _check_batch_size(batch_size)
        tokens = self.tokenize(pairs)
        plan = self.plan(tokens, batch_size=batch_size)
        batches = tqdm(plan.batches, desc="Batches", disable=not show_progress)
        # a batch's dummy rows stand behind its real ones
        logits = [self.forward(self.collator.collate(tokens, batch))[: len(batch.rows)] for batch in batches]
        restored = _in_callers_order(torch.cat(logits), plan)
        _check_finite(restored)
        return Scored(logits=restored, report=_report(tokens, plan))

    def tokenize(self, pairs: Sequence[tuple[str, str]]) -> TokenizedPairs:
        """The tokens of N pairs, cut to max_length."""
        return tokenize(self.tokenizer, pairs, max_length=self.max_length)

    def plan(self, tokens: TokenizedPairs, *, batch_size: int) -> Plan:
        """The batches this execution makes of tokenized pairs."""
        buckets = self._buckets if self.execution.layout == "bucketed" else None
        return plan_batches(tokens.counts, batch_size=batch_size, sort=self.execution.sort, buckets=buckets)


def _check_batch_size(batch_size: int) -> None:
    if batch_size <= 0:
        raise ExecutionError(f"batch_size={batch_size!r} must be a positive number of pairs.")


def _run_eagerly(model: PreTrainedModel, batch: PaddedBatch) -> Tensor:
    return classify(model, batch.input_ids, batch.attention_mask, batch.token_type_ids)


def _in_callers_order(logits: Tensor, plan: Plan) -> Tensor:
    """[N, C] in the order of the batches -> [N, C] in the order of the pairs, at least float32."""
    if logits.dtype.itemsize < 4:
        logits = logits.float()
    rows = torch.tensor([row for batch in plan.batches for row in batch.rows])
    restored = torch.empty_like(logits)
    restored[rows.to(logits.device)] = logits
    return restored


def _check_finite(logits: Tensor) -> None:
    nan_rows = torch.isnan(logits).any(dim=1).nonzero().flatten().tolist()
    if nan_rows:
        raise NonFiniteScoreError(
            f"the model answered NaN for {len(nan_rows)} of {len(logits)} pairs, at indices "
            f"{nan_rows[:20]}: check the model's weights, or score in float32."
        )


def _report(tokens: TokenizedPairs, plan: Plan) -> PredictReport:
    counts = tuple(tokens.counts)
    return PredictReport(
        pairs=len(counts),
        truncated_pairs=tokens.truncated_pairs,
        token_counts=counts,
        all_tokens=plan.all_tokens,
        waste=plan.waste,
    )
