"""Traits of model architectures: pooling, heads, and which layouts a model can run in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from torch import nn
from transformers import PreTrainedModel

from ..batching.packed_collate import Pooling
from ..kernels.biased_attention import why_not_biased
from .chain import Chain
from .foreign_code import OURS
from .last_layer import is_unmodified
from .relative_attention import attend_alike

Head = Literal[
    "pooler", "context-pooler", "features", "pre-classifier", "prediction-head", "dense", "score",
    "vocabulary", "chain",
]  # fmt: skip


@dataclass(frozen=True)
class Packable:
    """Traits for the packed forward pass.

    Attributes:
        pooling: what the head reads of a document: first token, the last that is not padding, or the mean.
        head: which of the model's modules turn that into logits; see `models.forward.head_logits`.
        late: whether the head runs on every token, and the mean is that of its logits.
        pooled_alone: whether the last layer can run only on the tokens that the head reads; see `forward`.
        relative: whether attention depends on how far apart tokens are; see `relative_attention`.
    """

    pooling: Pooling
    head: Head
    pooled_alone: bool = False
    late: bool = False
    relative: bool = False


_CAUSAL: Final = ("Qwen2", "Qwen3", "Llama", "Mistral", "Gemma", "Gemma2")

_PACKABLE: Final = {
    "BertForSequenceClassification": Packable("first", "pooler", pooled_alone=True),
    **{
        f"{family}ForSequenceClassification": Packable("first", "features", pooled_alone=True)
        for family in ("Roberta", "XLMRoberta", "Camembert", "Electra")
    },
    "DistilBertForSequenceClassification": Packable("first", "pre-classifier"),
    "ModernBertForSequenceClassification": Packable("first", "prediction-head"),
    "GteForSequenceClassification": Packable("first", "pooler"),
    "EuroBertForSequenceClassification": Packable("first", "dense"),
    **{f"{family}ForSequenceClassification": Packable("last", "score") for family in _CAUSAL},
    **{f"{family}ForCausalLM": Packable("last", "vocabulary") for family in (*_CAUSAL, "Gemma3")},
    "Gemma3TextForSequenceClassification": Packable("last", "score"),
    "DebertaV2ForSequenceClassification": Packable("first", "context-pooler", relative=True),
    "MPNetForSequenceClassification": Packable("first", "features", relative=True),
    **{
        f"{family}Model": Packable("first", "chain", pooled_alone=True)
        for family in ("Bert", "Roberta", "XLMRoberta", "Camembert", "Electra")
    },
    **{
        f"{family}Model": Packable("first", "chain")
        for family in ("DistilBert", "ModernBert", "Gte", "EuroBert")
    },
    **{f"{family}Model": Packable("first", "chain", relative=True) for family in ("DebertaV2", "MPNet")},
    **{f"{family}Model": Packable("last", "chain") for family in (*_CAUSAL, "Gemma3Text")},
}
"""By class, not by model type: these classes are tested against plain transformers."""

_POOLINGS: Final[dict[str, dict[object, Pooling]]] = {
    "first": {"cls": "first", "mean": "mean"},
    "last": {"lasttoken": "last"},
}
"""What a chain's poolings read, of encoders whose tokens see all others and of causal ones."""

_CLASSIFIED: Final[dict[str, Pooling]] = {
    "cls": "first", "bos": "first", "mean": "mean", "late": "mean",
}  # fmt: skip
"""The same of a configuration's `classifier_pooling`."""

_READS_ALL: Final = {"pooler": "pooler", "context-pooler": "pooler", "features": "classifier"}
"""Head -> the module that finds the first token among all of them; it is given that token alone."""


def packable(
    model: PreTrainedModel, unmodified: Callable[[PreTrainedModel], bool] = is_unmodified,
    chain: Chain | None = None,
) -> Packable | str:  # fmt: skip
    """How to run a model on packed batches, or why it cannot. Classes that are not tested cannot.

    Args:
        model: a model.
        unmodified: `last_layer.is_unmodified`, or what has asked it before.
        chain: what follows an encoder without a head.
    """
    name = type(model).__name__
    traits = _PACKABLE.get(name)
    if traits is None or not _is_transformers_own(model):
        return f"{name} is not among the packable architectures"
    why_not = _why_not(model, traits, unmodified)
    if why_not is not None:
        return f"{name} {why_not}"
    if chain is not None:
        pooling = _POOLINGS[traits.pooling].get(chain.mode) if traits.head == "chain" else None
        if pooling is None:
            return f"{name} with {chain.mode} pooling"
        traits = replace(traits, pooling=pooling, pooled_alone=traits.pooled_alone and pooling == "first")
    if traits.head in ("prediction-head", "dense"):
        read_by: Any = model if traits.head == "dense" else model.config
        late, read = read_by.classifier_pooling == "late", _CLASSIFIED.get(read_by.classifier_pooling)
        if read is None:
            return f"{name} with {read_by.classifier_pooling} pooling"
        return Packable(read, traits.head, late=late)
    if traits.pooled_alone and not unmodified(model):
        return replace(traits, pooled_alone=False)
    return traits


def _why_not(
    model: PreTrainedModel, traits: Packable, unmodified: Callable[[PreTrainedModel], bool]
) -> str | None:
    """Why a model of a packable class cannot be packed as it is configured; None if it can."""
    config: Any = model.config
    head: Any = {"pooler": model.base_model, "context-pooler": model, "features": model}.get(traits.head)
    reads_all = None if head is None else getattr(head, _READS_ALL[traits.head], None)
    if head is not None and type(reads_all).__module__ != type(model).__module__:
        return f"with a {_READS_ALL[traits.head]} of another architecture"
    if getattr(config, "position_embedding_type", None) not in (None, "absolute", "rope"):
        return f"with position_embedding_type={config.position_embedding_type!r}"
    if getattr(config, "is_decoder", False):
        return "as a decoder"
    text_config = config.get_text_config()
    if traits.pooling == "last" and not getattr(text_config, "is_causal", True):
        return "with is_causal=False"
    if "longrope" in str(getattr(text_config, "rope_parameters", None)):
        return "with longrope, whose factors depend on the longest text beside it,"
    windowed = getattr(config, "sliding_window", None) is not None
    if model.device.type == "cuda" and model.dtype.itemsize == 4 and windowed:
        return f"in {model.dtype}: sliding windows need float16 or bfloat16 on CUDA"
    return _why_not_relative(model, unmodified) if traits.relative else _why_not_capped(model)


def _why_not_relative(model: PreTrainedModel, unmodified: Callable[[PreTrainedModel], bool]) -> str | None:
    body: Any = model.base_model
    device, config = model.device, model.config
    if device.type not in ("cpu", "cuda"):
        return f"on {device.type}: attention with a bias has kernels for CPUs and for CUDA only"
    if not unmodified(model):
        return "with modules that somebody changed, around which a packed pass goes"
    if getattr(body.encoder, "conv", None) is not None:
        return "with a convolution, which reads across documents"
    if not attend_alike(body):
        return "with layers that attend each in their own way"
    if device.type == "cpu":
        return None
    size = getattr(config, "attention_head_size", config.hidden_size // config.num_attention_heads)
    why_not = why_not_biased(device, model.dtype, size)
    return None if why_not is None else f"on cuda, where attention with a bias does not run: {why_not}"


def _why_not_capped(model: PreTrainedModel) -> str | None:
    cap = _cap_of_scores(model)
    if cap is not None and cap <= 0:
        return f"with a cap of {cap}, which is not positive"
    capped_on_cuda = cap is not None and model.device.type == "cuda"
    return f"on cuda: attention with a cap of {cap} has a kernel for CPUs only" if capped_on_cuda else None


def _cap_of_scores(model: PreTrainedModel) -> float | None:
    """The cap of attention scores, as Gemma 2 has it."""
    return getattr(model.config.get_text_config(), "attn_logit_softcapping", None)


def is_paddable(model: PreTrainedModel, traits: Packable | str) -> bool:
    """Whether padding and dummy rows are known to change no score; traits are those of `packable`.

    Known of classes that are tested against plain transformers, while their modules are plain.
    """
    tested = isinstance(traits, Packable) or reads_eos(model) or _is_relative(model)
    files = (type(model).__module__, "transformers.activations", OURS)
    return tested and all(reads_tokens_alone(module, files) for module in model.modules())


def _is_relative(model: PreTrainedModel) -> bool:
    """Whether attention depends on how far apart tokens are, in a class that is tested."""
    traits = _PACKABLE.get(type(model).__name__) if _is_transformers_own(model) else None
    return traits is not None and traits.relative


_CONTAINERS: Final = (nn.ModuleList, nn.ModuleDict, nn.Sequential)
_DROPOUTS: Final = (nn.Dropout, nn.Dropout1d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_POINTWISE: Final = (
    nn.ReLU, nn.RReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish,
    nn.Sigmoid, nn.LogSigmoid, nn.Tanh, nn.Hardtanh, nn.Hardsigmoid, nn.Hardswish, nn.Softplus, nn.Softsign,
    nn.Tanhshrink, nn.Softshrink, nn.Hardshrink, nn.Threshold,
)  # fmt: skip
_ALONE: Final = frozenset((nn.Linear, nn.Embedding, nn.Identity, *_CONTAINERS, *_DROPOUTS, *_POINTWISE))
"""Layers of PyTorch that compute each token's numbers from that token's alone."""


def reads_tokens_alone(module: nn.Module, files: tuple[str, ...]) -> bool:
    """Whether a module is written in one of some files, or is a layer of PyTorch's that looks at one token.

    Others may read a whole batch at once: a BatchNorm, a Softmax over rows, a TransformerEncoderLayer, layers
    of another architecture, PyTorch's own quantised layers.
    """
    if type(module) in (nn.LayerNorm, nn.RMSNorm):
        shape: Any = module.normalized_shape
        return len(shape) == 1
    return type(module) in _ALONE or type(module).__module__.startswith(files)


def unshareable(model: PreTrainedModel, traits: Packable | str) -> str | None:
    """Why pairs cannot share a prefix on a model with these traits; None if they can."""
    name = type(model).__name__
    if not isinstance(traits, Packable):
        return traits
    if traits.head == "chain":
        return f"{name} is followed by other modules"
    if traits.pooling != "last":
        return f"{name} attends both ways, so what stands before a document depends on it"
    if _cap_of_scores(model) is not None:
        return f"{name} with a cap of its attention's scores"
    if getattr(model.config.get_text_config(), "sliding_window", None) is not None:
        return f"{name} with sliding windows, in which a prefix goes out of sight,"
    if model.device.type == "cuda" and model.dtype.itemsize == 4:
        return f"{name} in {model.dtype}: attention after a prefix needs float16 or bfloat16 on CUDA"
    return None


def without_sdpa(model: PreTrainedModel) -> str | None:
    """Why a model's padded batches cannot run in SDPA attention; None if they can.

    UMT5 in transformers 5.17 neither makes a mask for its decoder there, nor sets `is_causal`.
    """
    name = model.config.model_type
    if not model._supports_sdpa:
        return f"{name} has no SDPA attention"
    if _cap_of_scores(model) is not None:  # transformers 5.17 leaves it out in silence
        return f"{name} has a cap of its attention's scores, which SDPA attention does not know"
    if name != "umt5" or not model.config.is_encoder_decoder:
        return None
    decoder: Any = model.get_decoder()  # type: ignore[no-untyped-call]
    looks_ahead = not decoder.block[0].layer[0].SelfAttention.is_causal
    return f"{name}'s decoder looks ahead in SDPA attention" if looks_ahead else None


def compiles_for_minutes(model: PreTrainedModel) -> str | None:
    """Why a model is better not compiled; None if it may be.

    Linear attention carries a state from token to token. Transformers' code for that is a loop as long as the
    text, which a compiler writes out for each length: 4 minutes were not enough for six layers of Qwen3.5.
    """
    layers = getattr(model.config.get_text_config(), "layer_types", None) or ()
    if "linear_attention" not in layers:
        return None
    return f"{type(model).__name__} has linear attention, which takes minutes to compile for each length"


_POOLED_AT_EOS: Final = frozenset({"t5", "mt5", "umt5", "bart", "mbart", "plbart", "led", "mvp"})

_READ_AT_EOS: Final = frozenset(
    f"{family}ForSequenceClassification" for family in ("T5", "MT5", "UMT5", "Bart")
)
"""Classes for which `classify_at_eos` is tested against plain transformers."""


def _is_transformers_own(model: PreTrainedModel) -> bool:
    return type(model).__module__.startswith("transformers.")


def reads_eos(model: PreTrainedModel) -> bool:
    """Whether `models.encoder_decoder.classify_at_eos` runs a model, which may be in any padded batch."""
    known = _is_transformers_own(model) and type(model).__name__ in _READ_AT_EOS
    return known and isinstance(model.config.eos_token_id, int)


def looks_up_eos(model: PreTrainedModel) -> bool:
    """Whether a classifier searches the ids for the last end-of-sequence token in its own forward pass.

    That cannot be compiled, and all rows need the same number of these tokens, which rules out dummy rows.
    """
    pooled = type(model).__name__.endswith("ForSequenceClassification")
    return model.config.model_type in _POOLED_AT_EOS and pooled and not reads_eos(model)
