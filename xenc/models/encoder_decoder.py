"""Forward passes of encoder-decoders from a padded batch to logits; these functions get compiled.

Shapes: B = rows, L = padded length, H = hidden size, P = tokens of a decoder prefix, S = scores of a pair.

None of them packs: T5 adds a bias per pair of positions in the row, not in the document, and FlashAttention,
which runs packed batches on a GPU, takes no bias.
"""

from __future__ import annotations

from typing import Any

import torch
from einops import rearrange
from torch import Tensor

from ..errors import ModelError
from ..text.prompts import FirstStepIds


def classify_at_eos(
    model: Any, input_ids: Tensor, attention_mask: Tensor, _token_type_ids: Tensor | None
) -> Tensor:
    """Logits of one padded batch of a classifier that reads the decoder's state at the last <eos>.

    Arguments as for `models.forward.classify`; the token types are ignored.

    The decoder reads the encoder's input, shifted to the right by one. It is causal, so padding after the
    last <eos> changes nothing. Rows may have any number of <eos>.

    Returns:
        [B, C], in the model's dtype; rows without <eos> are read at their first token.
    """
    shifted = {"decoder_input_ids": model._shift_right(input_ids)} if hasattr(model, "_shift_right") else {}
    hidden = model.base_model(
        input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **shifted
    ).last_hidden_state  # [B, L, H]
    rows, length = input_ids.shape
    positions = torch.arange(length, device=input_ids.device)
    is_eos = (input_ids == model.config.eos_token_id) & (attention_mask != 0)
    last = torch.where(is_eos, rearrange(positions, "l -> 1 l"), 0).amax(dim=1)  # [B]
    logits: Tensor = model.classification_head(hidden[torch.arange(rows, device=input_ids.device), last])
    return logits


def score_first_step(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    _token_type_ids: Tensor | None,
    asked: FirstStepTensors,
) -> Tensor:
    """Log-odds of tokens at the decoder's first step, for one padded batch.

    The encoder runs once, the decoder once per prefix of `asked`. Only the targets' logits are computed.
    Other arguments as for `models.forward.classify`; the token types are ignored.

    Returns:
        [B, S] in the model's dtype, S = prefixes x pairs of targets, all of the first prefix first.
    """
    encoded = model.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    weight = model.lm_head.weight[asked.targets]  # [2 x pairs, H]
    scores = []
    for prefix in asked.prefixes:
        said = model.decoder(
            input_ids=prefix.expand(input_ids.shape[0], -1),
            encoder_hidden_states=encoded,
            encoder_attention_mask=attention_mask,
            use_cache=False,
        ).last_hidden_state[:, -1]  # [B, H]
        logits = torch.nn.functional.linear(said * asked.scale, weight)
        scores.append(logits[:, 0::2] - logits[:, 1::2])
    return torch.cat(scores, dim=1)


class FirstStepTensors:
    """`FirstStepIds` on a device, as `score_first_step` takes them.

    Attributes:
        prefixes: int64 [1, P] each.
        targets: int64 [2 x pairs], relevant and irrelevant alternately.
        scale: factor of the decoder's state before `lm_head`.
    """

    def __init__(self, ids: FirstStepIds, model: Any) -> None:
        self.scale, device = ids.scale, model.device
        self.prefixes = tuple(_constant([list(prefix)], device) for prefix in ids.prefixes)
        self.targets = _constant([target for pair in ids.targets for target in pair], device)


def _constant(values: list[Any], device: torch.device) -> Tensor:
    tensor = torch.tensor(values, dtype=torch.int64, device=device)
    torch._dynamo.mark_static(tensor)  # else a size equal to the batch's would be tied to it
    return tensor


@torch.no_grad()
def projection_scale(model: Any) -> float:
    """The factor of a T5's decoder state before `lm_head`: d_model ** -0.5 with tied embeddings, or 1.

    How the config says so differs between versions of transformers, so it is measured on the model's logits.

    Raises:
        ModelError: the factor is neither.
    """
    width, device = model.config.d_model, model.device
    ids = torch.arange(3, device=device)[None]
    encoded = torch.zeros(1, 1, width, dtype=model.dtype, device=device)
    training = model.training
    model.eval()  # dropout would differ between the two
    state = model.decoder(input_ids=ids, encoder_hidden_states=encoded, use_cache=False).last_hidden_state
    plain = model.lm_head(state).float().norm()
    logits = model(encoder_outputs=(encoded,), decoder_input_ids=ids, use_cache=False).logits.float().norm()
    model.train(training)
    for scale in (1.0, width**-0.5):
        if torch.isclose(logits, plain * scale, rtol=0.05, atol=0.0):
            return float(scale)
    raise ModelError(
        f"{type(model).__name__} scales the decoder's state before lm_head by {float(logits / plain):.3g}, "
        f"and xenc supports only 1 and {width**-0.5:.3g}. Use plain transformers for this model."
    )
