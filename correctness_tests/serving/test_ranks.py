"""Two ranks that evaluate one model share the pairs, as with sentence-transformers' own model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import sentence_transformers
import torch

from correctness_tests.scoring import assert_close
from correctness_tests.waiting import SOON

distributed = pytest.importorskip("sentence_transformers.util.distributed")

PAIRS = [("where is it", "here it is " * (words % 9)) for words in range(40)]

SCRIPT = """
import sys
import torch, xenc
import torch.distributed as ranks
from sentence_transformers.util.distributed import distributed_evaluation
from correctness_tests.serving.test_ranks import PAIRS

checkpoint, store, out, rank = sys.argv[1:]
ranks.init_process_group("gloo", init_method=f"file://{store}", rank=int(rank), world_size=2)
model = xenc.CrossEncoder(checkpoint, device="cpu", execution="packed-eager")
seen, forward = [], model.transformers_model.forward

def counted(input_ids, **others):
    seen.append(len(input_ids))
    return forward(input_ids=input_ids, **others)

model.transformers_model.forward = counted
scores = None
with distributed_evaluation(model) as runs:
    if runs:
        scores = model.predict(PAIRS, convert_to_tensor=True)
        del model.transformers_model.forward  # which alone keeps the model from its pipeline
        model.predict(PAIRS)
torch.save((sum(seen), scores, model.last_report), out)
ranks.barrier()
"""


@pytest.mark.skipif(not hasattr(distributed, "distributed_evaluation"), reason="not in this version")
@pytest.mark.skipif(not torch.distributed.is_available(), reason="PyTorch was built without it")
def test_two_ranks_share_the_pairs_of_an_evaluation(tiny: Path, tmp_path: Path):
    outs = [tmp_path / f"rank{rank}.pt" for rank in range(2)]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, tiny, tmp_path / "store", out, str(rank)], stderr=subprocess.PIPE
        )
        for rank, out in enumerate(outs)
    ]
    try:
        ended = [rank.communicate(timeout=12 * SOON) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [0, 0], [errors[-2000:] for _, errors in ended]
    (first, scores, report), (second, nothing, _) = (torch.load(out, weights_only=False) for out in outs)
    assert (first, second, nothing, report) == (20, 40, None, None)
    plain = sentence_transformers.CrossEncoder(str(tiny), device="cpu")
    assert_close(scores.numpy(), plain.predict(PAIRS))
