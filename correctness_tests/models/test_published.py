"""Each published configuration, at small width: its layout, and that it scores as each pair alone."""

from __future__ import annotations

import numpy as np
import pytest
import sentence_transformers

import xenc
from correctness_tests.scoring import assert_close, logits, on_cpu
from perf_tests import workloads
from perf_tests.published import PUBLISHED, Size

SMALL = Size(hidden=64, layers=4, heads=4, spread=0.2)

PAIRS = [
    ("", ""),
    *workloads.seed(pairs=4, batch_size=4).round(0),
    (
        "How are names looked up?",
        " ".join(document for _, document in workloads.seed(pairs=8, batch_size=4).round(1)),
    ),
]


@pytest.mark.parametrize("published", PUBLISHED, ids=lambda each: each.name)
def test_a_published_configuration_scores_as_sentence_transformers_does_one_by_one(tmp_path, published):
    if not published.exists:
        pytest.skip(
            f"{published.architecture} is in transformers since {'.'.join(map(str, published.since))}"
        )
    published.save(tmp_path, SMALL)
    folder = tmp_path / "chain" if published.head == "chain" else tmp_path
    capped = "attn_logit_softcapping" in published.settings  # SDPA in transformers 5.17 knows none
    options = {"model_kwargs": {"attn_implementation": "eager"}} if capped else {}
    plain = sentence_transformers.CrossEncoder(str(folder), device="cpu", max_length=512, **options)
    expected = np.array([logits(plain, [pair])[0] for pair in PAIRS])
    assert expected.std() > 0.1
    model = on_cpu(folder, xenc.Execution(compile_mode=None), max_length=512)
    assert model.execution.layout == published.layout
    assert_close(logits(model, PAIRS), expected)
    assert max(model.last_report.token_counts) == 512
