"""Forward passes from a batch to logits, one per kind of batch; these functions get compiled.

Shapes: B = rows, L = padded length, T = tokens of a packed batch, N = its document slots, H = hidden size,
C = labels (1 for a reranker).
"""

from __future__ import annotations

from typing import Any, Final

import torch
from einops import rearrange
from torch import Tensor
from transformers import PreTrainedModel

from ..kernels.pooled_attention import pooled_attention
from .chain import Chain
from .families import Packable
from .relative_attention import hidden_of_relative

_EMBEDDED: Final = ("input_ids", "position_ids", "token_type_ids")


def classify(
    model: PreTrainedModel, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None,
    chain: Chain | None = None,
) -> Tensor:  # fmt: skip
    """Logits of one padded batch.

    Args:
        model: a sequence-classification model, or an encoder that a chain follows.
        input_ids: int64 [B, L].
        attention_mask: int64 [B, L], 1 on the tokens to attend to.
        token_type_ids: int64 [B, L] or None.
        chain: the modules behind an encoder.

    Returns:
        [B, C], in the model's dtype.
    """
    types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
    output = model(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **types)
    if chain is not None:
        return chain.scores_of_tokens(output.last_hidden_state, attention_mask)
    logits: Tensor = output.logits
    return logits


def classify_packed(
    model: PreTrainedModel,
    input_ids: Tensor,
    position_ids: Tensor,
    token_type_ids: Tensor | None,
    cu_seqlens: Tensor,
    pooled: Tensor,
    max_seqlen: int,
    traits: Packable,
    targets: Tensor | None,
    chain: Chain | None = None,
    buckets: Tensor | None = None,
) -> Tensor:
    """Logits of one packed batch.

    The base model runs on one row of T tokens, with attention within each document. The head, and in some
    families the last layer (see `hidden_of_pooled`), runs only on the token it reads of each.

    Args:
        model: its attention implementation is `kernels.packed_attention.PACKED_ATTENTION`.
        input_ids: int64 [T].
        position_ids: int64 [T], restarting in each document.
        token_type_ids: int64 [T] or None.
        cu_seqlens: int32 [N + 1]; see `kernels.packed_attention.packed_attention`.
        pooled: int64 [N], the token that the head reads of each document.
        max_seqlen: upper bound of the documents' lengths.
        traits: the family's pooling and head.
        targets: int64 [1] or [2], the token ids that a "vocabulary" head compares; see `head_logits`.
        chain: the modules behind the encoder that are a "chain" head.
        buckets: int32 [2 F + 1], where attention depends on distances; see `distance_buckets`.

    Returns:
        [N, C], in the model's dtype; undefined for slots without a document.
    """

    def head(rows: Tensor) -> Tensor:
        return head_logits(model, rows, traits, targets, chain)

    inputs = packed_inputs(input_ids, position_ids, token_type_ids, cu_seqlens, max_seqlen, traits)
    if traits.pooled_alone:
        return head(hidden_of_pooled(model, inputs, pooled))
    hidden = _hidden(model, inputs, buckets)[0]
    if traits.late:
        return _mean(head(hidden), cu_seqlens)
    return head(_mean(hidden, cu_seqlens) if traits.pooling == "mean" else hidden[pooled])


def _hidden(model: PreTrainedModel, inputs: dict[str, Any], buckets: Tensor | None) -> Tensor:
    """The base model's last hidden states [1, T, H]; arguments as for `classify_packed`."""
    body: Any = model.base_model
    if buckets is not None:
        hidden = body.embeddings(**{name: inputs[name] for name in _EMBEDDED if name in inputs})
        return hidden_of_relative(body, hidden, inputs["cu_seq_lens_q"], inputs["max_length_q"], buckets)
    last: Tensor = body(**inputs, return_dict=True).last_hidden_state
    return last


def _mean(of_tokens: Tensor, cu_seqlens: Tensor) -> Tensor:
    """The mean of each document's rows [T, H] -> [N, H], summed in float32."""
    means = torch.segment_reduce(of_tokens.float(), "mean", offsets=cu_seqlens.long(), initial=0)
    return means.to(of_tokens.dtype)


def hidden_of_pooled(model: PreTrainedModel, inputs: dict[str, Any], pooled: Tensor) -> Tensor:
    """The base model's last hidden states [N, H] of the pooled tokens; arguments as for `classify_packed`.

    In the last layer keys and values are computed for all T tokens, but the query, the output projection, the
    norms and the feed-forward only for N. The modules of the model, which is of BERT's structure and
    `last_layer.is_unmodified`, are called one by one.
    """
    body: Any = model.base_model
    hidden = body.embeddings(**{name: inputs[name] for name in _EMBEDDED if name in inputs})
    if hasattr(body, "embeddings_project"):
        hidden = body.embeddings_project(hidden)
    attending = {name: value for name, value in inputs.items() if name not in _EMBEDDED}
    *layers, last = body.encoder.layer
    for layer in layers:
        hidden = layer(hidden, **attending)
    asking = hidden[:, pooled]
    attended = _attend(last.attention.self, asking, hidden, attending)
    attended = last.attention.output(attended, asking)
    of_pooled: Tensor = last.feed_forward_chunk(attended)[0]
    return of_pooled


def _attend(attention: Any, asking: Tensor, hidden: Tensor, attending: dict[str, Any]) -> Tensor:
    """Attention [1, N, H] of the tokens `asking` [1, N, H] to all tokens `hidden` [1, T, H]."""
    query, key, value = (
        part[0].unflatten(-1, (-1, attention.attention_head_size))
        for part in (attention.query(asking), attention.key(hidden), attention.value(hidden))
    )
    cu_seqlens, longest = attending["cu_seq_lens_k"], attending["max_length_k"]
    attended: Tensor = pooled_attention(query, key, value, cu_seqlens, longest, attention.scaling)
    return attended.flatten(-2)[None]


def packed_inputs(
    input_ids: Tensor, position_ids: Tensor, token_type_ids: Tensor | None, cu_seqlens: Tensor,
    max_seqlen: int, traits: Packable,
) -> dict[str, Any]:  # fmt: skip
    """Keyword arguments of the base model for one row of T tokens; arguments as for `classify_packed`."""
    return {
        **({} if token_type_ids is None else {"token_type_ids": token_type_ids[None]}),
        **({"use_cache": False} if traits.pooling == "last" else {}),
        "input_ids": input_ids[None],
        "position_ids": position_ids[None],
        # four dimensions keep transformers from making a mask, which the packed operator does not need
        "attention_mask": torch.zeros(1, 1, 1, 1, device=input_ids.device),
        "cu_seq_lens_q": cu_seqlens,
        "cu_seq_lens_k": cu_seqlens,
        "max_length_q": max_seqlen,
        "max_length_k": max_seqlen,
    }


def head_logits(
    model: Any, pooled: Tensor, traits: Packable, targets: Tensor | None = None, chain: Chain | None = None
) -> Tensor:
    """The model's own head on pooled hidden states [N, H]: [N, C].

    A "vocabulary" head returns the logit of the first target, minus that of the second if there is one: the
    log-odds of two tokens, as in sentence-transformers' `LogitScore`.
    """
    as_first_token = rearrange(pooled, "n h -> n 1 h")
    logits: Tensor
    match traits.head:
        case "pooler":
            logits = model.classifier(model.base_model.pooler(as_first_token))
        case "context-pooler":
            logits = model.classifier(model.dropout(model.pooler(as_first_token)))
        case "features":
            logits = model.classifier(as_first_token)
        case "pre-classifier":
            logits = model.classifier(torch.relu(model.pre_classifier(pooled)))
        case "prediction-head":
            logits = model.classifier(model.head(pooled))
        case "dense":
            logits = model.classifier(model.activation(model.dense(pooled)))
        case "score":
            logits = model.score(pooled)
        case "vocabulary":
            each = _target_logits(model.lm_head, pooled, targets)  # [N, targets]
            cap = getattr(model.config, "final_logit_softcapping", None)
            each = each if cap is None else cap * torch.tanh(each / cap)
            logits = each[:, :1] - each[:, 1:] if each.shape[1] > 1 else each
        case "chain":
            assert chain is not None
            logits = chain.scores_of_rows(pooled)
    return logits


def _target_logits(lm_head: torch.nn.Module, pooled: Tensor, targets: Tensor | None) -> Tensor:
    """The logits of a few tokens; a head that is more than a matrix computes the whole vocabulary first."""
    if type(lm_head) is torch.nn.Linear and lm_head.bias is None:
        return torch.nn.functional.linear(pooled, lm_head.weight[targets])
    logits: Tensor = lm_head(pooled)[:, targets]
    return logits
