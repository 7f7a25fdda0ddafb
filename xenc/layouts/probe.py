"""A look at a model that nobody has tested: does it score a pair in our batches as it does alone?

Some models mix padding into every score (FNet), look at a window that reaches into it (ConvBERT), or attend
in another way to longer rows (block-sparse BigBird). What a class is called does not tell, so three pairs
are scored both ways.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..batching.plan import BatchPlan, PackedPlan
from ..errors import first_line
from ..execution import Execution
from ..models.reranker import Reranker
from ..models.twin import copy_sharing_weights
from ..text.readers import Reader
from .choice import layout_of

logger = logging.getLogger(__name__)

OwnLogits = Callable[[PreTrainedModel, tuple[str, str]], Tensor]

PAIRS: Final = [
    (
        "What is padding?",
        "Tokens without a meaning, behind a text that is shorter than the longest in its batch.",
    ),
    ("how far", "not far"),
    (
        "which words does each word see",
        "Some models read a long text in blocks and a shorter one as a whole. " * 25,
    ),
]

LONGEST: Final = 768
"""Tokens that the pairs are padded to, or max_length: more than BigBird attends to in full (704)."""


@torch.inference_mode()
def moves_scores(reranker: Reranker, execution: Execution, reader: Reader, own: OwnLogits) -> str | None:
    """Why batches of an execution's layout would change a model's scores; None if they do not.

    Three pairs are scored alone, without padding, and again in one batch: packed, or padded to 768 tokens
    (or max_length), of bucketed batches with a dummy row. All of it runs in the model's own dtype, not
    compiled, each time on a copy of its modules, since a model may note what it has seen: BigBird attends in
    full for ever once it has seen a short text. No random number is used up.

    Args:
        reranker: the model.
        execution: its layout and attention are looked at.
        reader: tokenizes the model's pairs.
        own: the logits [1, C] of a pair by sentence-transformers' own steps.
    """
    name, devices = type(reranker.model).__name__, [reranker.model.device]
    try:
        first, second = (copy_sharing_weights(reranker.model) for _ in range(2))
        with torch.random.fork_rng([each for each in devices if each.type == "cuda"]):
            alone = torch.cat([own(first, pair) for pair in PAIRS]).float()
            batched = _in_a_batch(reranker, second, execution, reader).float()
    except Exception as error:  # whatever the model raises
        return f"{name} failed on three pairs, alone or in {execution.layout} batches ({first_line(error)})"
    moved, most = float((batched - alone).abs().max()), _rounding(alone, reranker.model.dtype)
    measured = f"{name} in {execution.layout} batches: scores of three pairs moved by {moved:.2g}"
    if moved <= most:
        logger.info("%s, which is rounding (at most %.2g)", measured, most)
        return None
    return f"{measured}, which is more than rounding ({most:.2g})"


def _rounding(logits: Tensor, dtype: torch.dtype) -> float:
    """The most that rounding in a dtype moves logits: in bfloat16 3 %, in float16 1 %, in float32 0.01 %."""
    share = max(0.01, 4 * torch.finfo(dtype).eps) if dtype.itemsize < 4 else 1e-4
    return share * max(0.1, float(logits.abs().max()))


def _in_a_batch(reranker: Reranker, model: PreTrainedModel, execution: Execution, reader: Reader) -> Tensor:
    """Logits [3, C] of PAIRS."""
    eager = replace(execution, compile_mode=None, quantize=None, products=None, share_prefix=False)
    layout = layout_of(reranker, eager, model=model)
    tokens = reader.for_request(None)(PAIRS)
    rows = tuple(range(len(PAIRS)))
    padded = BatchPlan(rows, len(rows) + (execution.layout == "bucketed"), min(reranker.max_length, LONGEST))
    plans: Sequence[BatchPlan | PackedPlan] = [padded]
    if execution.layout == "packed":
        plans = layout.plan(tokens, 1).batches
    model.set_attn_implementation(layout.attention)
    logits = [layout.forward(layout.collator.collate(tokens.of_rows(plan.rows), plan)) for plan in plans]
    in_order = torch.tensor([row for plan in plans for row in plan.rows]).argsort()
    return torch.cat([part[: len(plan.rows)] for part, plan in zip(logits, plans, strict=True)])[in_order]
