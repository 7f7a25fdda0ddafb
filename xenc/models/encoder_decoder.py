"""Encoder-decoders -> the logits of a padded batch: the functions that get compiled.

Shapes: B = rows, L = padded length, H = hidden size, P = tokens of a decoder prefix, S = scores of a pair.

There are no packed ones: T5 adds a bias per pair of positions, counted from the start of the row and not of
the document, and the flash kernel that packed batches run on a GPU takes no bias.
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

    The decoder reads what the encoder reads, shifted to the right by one. It sees nothing that comes after,
    so padding behind the last <eos> does not matter, and rows may have any number of them.

    Args:
        model: a sequence-classification model with a `classification_head`.
        input_ids: int64 [B, L], padded on the right.
        attention_mask: int64 [B, L], 1 on the tokens to attend to.
        _token_type_ids: of no use to such a model.

    Returns:
        [B, C], in the model's dtype; of a row without <eos>, what its first token says.
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

    The encoder runs once; the decoder runs once for each prefix, over that prefix alone, and the
    vocabulary's logits are computed for the targets only.

    Args:
        model: an encoder-decoder with an `lm_head`.
        input_ids: int64 [B, L].
        attention_mask: int64 [B, L], 1 on the tokens to attend to.
        _token_type_ids: of no use to such a model.
        asked: what the decoder begins with, and which tokens are compared.

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
        targets: int64 [2 x pairs], relevant and irrelevant by turns.
        scale: what the decoder's state is multiplied with before the vocabulary's projection.
    """

    def __init__(self, ids: FirstStepIds, model: Any) -> None:
        self.scale, device = ids.scale, model.device
        self.prefixes = tuple(_constant([list(prefix)], device) for prefix in ids.prefixes)
        self.targets = _constant([target for pair in ids.targets for target in pair], device)


def _constant(values: list[Any], device: torch.device) -> Tensor:
    tensor = torch.tensor(values, dtype=torch.int64, device=device)
    # else a size that happens to equal the batch's would be tied to it
    torch._dynamo.mark_static(tensor)
    return tensor


@torch.no_grad()
def projection_scale(model: Any) -> float:
    """What a T5 multiplies the decoder's state with before it projects onto the vocabulary.

    d_model ** -0.5 in the original T5, whose embedding is the projection too, and 1 in others; which says so
    in its config differs between versions of transformers. So it is read off the model's own logits.

    Args:
        model: an encoder-decoder with an `lm_head`.

    Raises:
        ModelError: its logits are neither.
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
        f"{type(model).__name__} does something to the decoder's state before lm_head that xenc does not "
        f"know: a ratio of {float(logits / plain):.3g}, where 1 and {width**-0.5:.3g} are known. Use plain "
        "transformers for this one."
    )
