"""Whether a model's weights are what they were: asked by whatever keeps something that was made from them."""

from __future__ import annotations

from transformers import PreTrainedModel


def weights_version(model: PreTrainedModel) -> tuple[object, ...]:
    """Changes whenever a weight is replaced or written to, unless through `.data`."""
    return tuple(
        (parameter.data_ptr(), None if parameter.is_inference() else parameter._version)
        for parameter in model.parameters()
    )


def sum_of_weights(model: PreTrainedModel) -> float:
    """Changes with any weight, at the cost of reading them all."""
    return sum(float(parameter.detach().double().sum()) for parameter in model.parameters())
