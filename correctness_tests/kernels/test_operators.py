"""The C++ operators look at what they are given before they read it: a wrong shape is an error, no crash."""

from __future__ import annotations

import pytest
import torch

from xenc.kernels.products import by_kernel, eight_bit_weight, kernel_weight

STARTS = torch.tensor([0, 3, 8], dtype=torch.int32)
GOOD = {
    "query": torch.ones(8, 4, 16), "key": torch.ones(8, 2, 16), "value": torch.ones(8, 2, 16),
    "cu_seqlens": STARTS, "max_seqlen": 5, "scale": 0.25,
}  # fmt: skip

BAD = {
    "a query of two dimensions": ({"query": torch.ones(8, 64)}, "give .tokens, heads, size. for both"),
    "a value of other tokens": ({"value": torch.ones(7, 2, 16)}, "give them one shape"),
    "heads of another size": ({"query": torch.ones(8, 4, 32)}, "give them one size"),
    "heads that do not divide": ({"query": torch.ones(8, 3, 16)}, "must be a multiple"),
    "another dtype": ({"key": torch.ones(8, 2, 16).bfloat16()}, "give them one dtype"),
    "starts of int64": ({"cu_seqlens": STARTS.long()}, "give int32"),
    "no cu_seqlens": ({"cu_seqlens": STARTS[:0]}, "give int32"),
    "cu_seqlens beyond the tokens": ({"cu_seqlens": STARTS + 1}, "cu_seqlens must ascend"),
    "negative cu_seqlens": ({"cu_seqlens": STARTS - 1}, "cu_seqlens must ascend"),
    "cu_seqlens that fall": ({"cu_seqlens": STARTS[[0, 2, 1, 2]]}, "cu_seqlens must ascend"),
    "a scale of 0": ({"scale": 0.0}, "must be positive"),
    "a negative scale": ({"scale": -1.0}, "must be positive"),
    "a scale that is no number": ({"scale": torch.nan}, "must be positive"),
    "a dtype without a kernel": (
        {name: torch.ones(8, 2, 16, dtype=torch.float64) for name in ("query", "key", "value")},
        "use float32, bfloat16 or float16",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_attention_refuses_what_it_cannot_read(kernels, what):
    changed, message = BAD[what]
    operators, given = kernels.operators, {**GOOD, **changed}
    with pytest.raises(RuntimeError, match=message):
        operators.attention(*given.values(), False, -1)
    pooled = {
        **given,
        "query": given["query"][: len(given["cu_seqlens"]) - 1 if len(given["cu_seqlens"]) else 0],
    }
    with pytest.raises(RuntimeError, match=message):
        operators.pooled_attention(*pooled.values())


def test_attention_wants_a_query_for_each_token_or_each_document(kernels):
    short = {**GOOD, "query": torch.ones(7, 4, 16)}
    with pytest.raises(RuntimeError, match="7 queries for 8 keys"):
        kernels.operators.attention(*short.values(), False, -1)
    with pytest.raises(RuntimeError, match="7 queries for 2 documents"):
        kernels.operators.pooled_attention(*short.values())


@pytest.mark.parametrize(
    "left",
    [torch.ones(2, 60), torch.ones(2, 128), torch.ones(2, 64).bfloat16(), torch.ones(())],
    ids=["fewer inputs", "more inputs", "another dtype", "one number"],
)
def test_a_product_refuses_what_its_weight_is_not_made_for(kernels, left):
    held = kernel_weight(torch.ones(70, 64), torch.ones(70))
    with pytest.raises(RuntimeError, match=r"must be of left's inputs|give them one dtype"):
        by_kernel(left, held, 70, "none")


@pytest.mark.parametrize("outputs", [0, 200])
def test_a_product_refuses_other_outputs_than_its_weight_has(kernels, outputs):
    held = kernel_weight(torch.ones(70, 64), torch.ones(70))
    with pytest.raises(RuntimeError, match="in whole panels"):
        by_kernel(torch.ones(2, 64), held, outputs, "none")


def test_eight_bits_refuse_scales_of_another_weight(kernels):
    if not kernels.has_int8:
        pytest.skip("needs AVX-512 VNNI")
    held = eight_bit_weight(torch.ones(70, 64), torch.ones(70))
    with pytest.raises(RuntimeError, match="need scales and sums"):
        by_kernel(torch.ones(2, 64), held._replace(scales=held.scales[:1]), 70, "none")
