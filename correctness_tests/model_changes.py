"""What people do to a model of BERT's between two predictions. Each returns how to undo it, if one does."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import sentence_transformers
import torch
from tokenizers import normalizers
from torch import nn
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

Undo = Callable[[], object]
Change = Callable[[object], Undo | None]


def bert(model) -> nn.Module:
    return model.transformers_model.bert


def dense(model) -> nn.Linear:
    return bert(model).encoder.layer[0].output.dense


def optimised(kind=torch.optim.AdamW, **settings) -> Change:
    def step(model) -> None:
        network = model.transformers_model
        network.requires_grad_(True)
        optimiser = kind(network.parameters(), **{"lr": 0.05, **settings})
        inputs = model.tokenizer([["a question", "an answer"]], return_tensors="pt")
        with torch.enable_grad():
            network(**inputs).logits.sum().backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def in_place(model) -> None:
    with torch.no_grad():
        dense(model).weight.mul_(-1.5)


def data_written(model) -> None:
    dense(model).weight.data.mul_(-1.5)


def data_assigned(model) -> None:
    dense(model).weight.data = dense(model).weight.detach() * -1.5


def parameter_replaced(model) -> None:
    dense(model).weight = nn.Parameter(dense(model).weight.detach() * -1.5)


def state(model):
    return {name: part * 1.2 for name, part in model.transformers_model.state_dict().items()}


def state_loaded(model) -> None:
    model.transformers_model.load_state_dict(state(model))


def state_assigned(model) -> None:
    model.transformers_model.load_state_dict(state(model), assign=True)


def mixed(module, inputs, output):
    return output * 0.5 + output.roll(1, dims=1)


def negated(module, inputs, output):
    return -output


def halved(module, inputs):
    return (inputs[0] * 0.5, *inputs[1:])


def hook_on_the_model(model) -> Undo:
    def negate(module, inputs, given, output):
        output.logits = -output.logits
        return output

    return model.transformers_model.register_forward_hook(negate, with_kwargs=True).remove


def negate_scores(module, inputs, output):
    return {**output, "scores": output["scores"] * -2}


def hook_on_the_cross_encoder(model) -> Undo:
    return model.register_forward_hook(negate_scores).remove


def hook_on_the_first_module(model) -> Undo:
    return model[0].register_forward_hook(negate_scores).remove


def pre_hook_on_the_first_module(model) -> Undo:
    def first_tokens(module, inputs):
        features = dict(inputs[0])
        features["attention_mask"] = torch.ones_like(features["attention_mask"])
        features["input_ids"] = features["input_ids"].flip(1)
        return (features, *inputs[1:])

    return model[0].register_forward_pre_hook(first_tokens).remove


def global_hook(model) -> Undo:
    def of_pooler(module, inputs, output):
        return output * 0.5 if type(module).__name__ == "BertPooler" else None

    return nn.modules.module.register_module_forward_hook(of_pooler).remove


def another_pooler(model) -> None:
    pooler = copy.deepcopy(bert(model).pooler)
    with torch.no_grad():
        pooler.dense.weight.mul_(-2)
    bert(model).pooler = pooler


class Mean(nn.Module):
    def __init__(self, dense: nn.Linear) -> None:
        super().__init__()
        self.dense = dense

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return torch.tanh(self.dense(hidden[:, :4].mean(dim=1)))


def pooler_of_somebody(model) -> Undo:
    before = bert(model).pooler
    bert(model).pooler = Mean(before.dense)
    return functools.partial(setattr, bert(model), "pooler", before)


def deeper_classifier(model) -> None:
    torch.manual_seed(1)
    width = bert(model).config.hidden_size
    head = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))
    model.transformers_model.classifier = head.to(model.device, model.dtype)


def a_layer_in_a_second_place(model) -> Undo:
    layers = bert(model).encoder.layer
    layers.append(layers[0])
    return functools.partial(layers.__delitem__, len(layers) - 1)


def scores_that_depend_on_each_other(model) -> Undo:
    """By a layer of PyTorch's."""
    inner = model.transformers_model
    before = inner.classifier
    inner.classifier = nn.Sequential(before, nn.Softmax(dim=0))
    return functools.partial(setattr, inner, "classifier", before)


def another_layer(model) -> None:
    layer = copy.deepcopy(bert(model).encoder.layer[0])
    with torch.no_grad():
        layer.output.dense.weight.mul_(-2)
    bert(model).encoder.layer[0] = layer


def a_layer_more(model) -> None:
    bert(model).encoder.layer.append(copy.deepcopy(bert(model).encoder.layer[0]))


class Shifted(nn.Linear):
    """Mixes each token with the one before it."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return super().forward(hidden + hidden.roll(1, dims=1))


def layer_that_mixes_tokens(model) -> Undo:
    before, parent = dense(model), bert(model).encoder.layer[0].output
    shifted = Shifted(before.in_features, before.out_features, dtype=before.weight.dtype)
    shifted.weight, shifted.bias = before.weight, before.bias
    parent.dense = shifted
    return functools.partial(setattr, parent, "dense", before)


class Adapted(nn.Module):
    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.base, self.scale = base, 1.0
        self.down = nn.Linear(base.in_features, 2, bias=False, dtype=base.weight.dtype)
        self.up = nn.Linear(2, base.out_features, bias=False, dtype=base.weight.dtype)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.base(hidden) + self.scale * self.up(self.down(hidden))


def adapter(model) -> Undo:
    attention = bert(model).encoder.layer[0].attention.self
    attention.query = Adapted(attention.query)

    def merge() -> None:
        adapted = attention.query
        if isinstance(adapted, Adapted):
            with torch.no_grad():
                adapted.base.weight += adapted.scale * adapted.up.weight @ adapted.down.weight
            attention.query = adapted.base

    return merge


def adapters_scale(model) -> None:
    for module in model.modules():
        if isinstance(module, Adapted):
            module.scale = module.scale * 3


def wrapped(module: nn.Module, change: Callable) -> Undo:
    own = module.forward

    @functools.wraps(own)
    def wrapper(*arguments, **options):
        return change(own(*arguments, **options))

    module.forward = wrapper
    return lambda: vars(module).pop("forward", None)


def negate_logits(output):
    output.logits = -output.logits
    return output


def forward_of_the_model(model) -> Undo:
    return wrapped(model.transformers_model, negate_logits)


def forward_of_the_pooler(model) -> Undo:
    return wrapped(bert(model).pooler, torch.neg)


def patched_class(model) -> Undo:
    kind = type(bert(model).pooler)
    own = kind.forward
    kind.forward = functools.wraps(own)(lambda self, hidden: -own(self, hidden))
    return lambda: setattr(kind, "forward", own)


def patched_step(model) -> Undo:
    kind = sentence_transformers.CrossEncoder
    own = kind._inference
    kind._inference = functools.wraps(own)(lambda self, *given, **named: -own(self, *given, **named))
    return lambda: setattr(kind, "_inference", own)


HAVING_STEPS = [patched_step] if hasattr(sentence_transformers.CrossEncoder, "_inference") else []
"""Sentence-transformers 6.0 has no such step."""


def patched_call(model) -> Undo:
    own = nn.Module.__call__

    @functools.wraps(own)
    def call(self, *given, **named):
        output = own(self, *given, **named)
        return -output if type(self).__name__ == "BertPooler" else output

    nn.Module.__call__ = call
    return lambda: setattr(nn.Module, "__call__", own)


def patched_method(model) -> Undo:
    kind = type(bert(model).encoder.layer[0])
    own = kind.feed_forward_chunk
    kind.feed_forward_chunk = functools.wraps(own)(lambda self, hidden: -own(self, hidden))
    return lambda: setattr(kind, "feed_forward_chunk", own)


def method_of_an_object(model) -> Undo:
    layer = bert(model).encoder.layer[0]
    own = layer.feed_forward_chunk
    layer.feed_forward_chunk = lambda hidden: -own(hidden)
    return lambda: vars(layer).pop("feed_forward_chunk", None)


def function_of_an_activation(model) -> Undo:
    activation = bert(model).encoder.layer[0].intermediate.intermediate_act_fn
    before = activation.act
    activation.act = lambda hidden: hidden.relu()
    return functools.partial(setattr, activation, "act", before)


def builtin_of_an_activation(model) -> None:
    bert(model).encoder.layer[0].intermediate.intermediate_act_fn.act = torch.tanh


def masks_of_somebody(model) -> Undo:
    own = bert(model)._create_attention_masks

    def all_seen(*args, **options):
        _, *others = own(*args, **options)
        return (None, *others)

    bert(model)._create_attention_masks = all_seen
    return lambda: vars(bert(model)).pop("_create_attention_masks", None)


def positions_of_somebody(model) -> Undo:
    embeddings = bert(model).embeddings
    before = embeddings.position_ids
    embeddings.position_ids = before.flip(1)
    return functools.partial(setattr, embeddings, "position_ids", before)


def causal_layers(model) -> Undo:
    layers = bert(model).encoder.layer

    def look_back(whether: bool) -> None:
        for layer in layers:
            layer.attention.self.is_causal = whether

    look_back(True)
    return functools.partial(look_back, False)


def other_precision(model) -> Undo:
    model.transformers_model.to(torch.float64)
    return lambda: model.transformers_model.to(torch.float32)


def device(model) -> None:
    model.to("cpu")


def frozen(model) -> Undo:
    model.transformers_model.requires_grad_(False)
    return lambda: model.transformers_model.requires_grad_(True)


def training(model) -> None:
    model.train()


def evaluating(model) -> None:
    model.eval()


def another_tokenizer(model) -> None:
    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("a", "e")
    model[0].processor = tokenizer


def padding_on_the_left(model) -> None:
    model.tokenizer.padding_side = "left"


def tokenizer_of_somebody(model) -> None:
    kind = type(model.tokenizer)

    def three_words(self, queries, documents=None, *args, **kwargs):
        if isinstance(queries, list) and documents is None and isinstance(queries[0], (list, tuple)):
            queries, documents = map(list, zip(*queries, strict=True))
        short = documents and [" ".join(text.split()[:3]) for text in documents]
        return kind.__call__(self, queries, short, *args, **kwargs)

    tokenizer = copy.deepcopy(model.tokenizer)
    tokenizer.__class__ = type(f"Short{kind.__name__}", (kind,), {"__call__": three_words})
    model[0].processor = tokenizer


class Wrapped(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args, **kwargs):
        return self.inner(*args, **kwargs)


def wrapped_encoder(model) -> None:
    bert(model).encoder = Wrapped(bert(model).encoder)


def another_length(model) -> None:
    model.max_seq_length = 12


def another_activation(model) -> None:
    model.activation_fn = nn.Tanh()


def another_epsilon(model) -> None:
    bert(model).embeddings.LayerNorm.eps = 3.0


def scripted(model) -> None:
    classifier = copy.deepcopy(model.transformers_model.classifier)
    with torch.no_grad():
        classifier.weight.neg_()
    model.transformers_model.classifier = torch.jit.script(classifier)


def quantised_by_pytorch(model) -> Undo:
    before, parent = dense(model), bert(model).encoder.layer[0].output
    if before.weight.dtype == torch.float32:
        twin = nn.Sequential(copy.deepcopy(before))
        parent.dense = torch.ao.quantization.quantize_dynamic(twin, {nn.Linear})[0]
    return functools.partial(setattr, parent, "dense", before)


def compiled(model) -> None:
    model.compile(mode="default", dynamic=True)


def attention_of_somebody(model) -> Undo:
    def sharper(module, query, key, value, mask, **options):
        return sdpa_attention_forward(module, query * 3, key, value, mask, **options)

    AttentionInterface.register("sharper", sharper)
    network = model.transformers_model
    network.set_attn_implementation("sharper")
    return lambda: network.set_attn_implementation("sdpa")


class Negated:
    """A forward that is an object, as other libraries set."""

    def __init__(self, own: Callable) -> None:
        self.own = own

    def __call__(self, *given, **named):
        return -self.own(*given, **named)


def object_as_forward(model) -> Undo:
    pooler = bert(model).pooler
    pooler.forward = Negated(pooler.forward)
    return lambda: vars(pooler).pop("forward", None)


def hook_on_the_pooler(model) -> Undo:
    return bert(model).pooler.dense.register_forward_hook(negated).remove


def hook_on_the_classifier(model) -> Undo:
    return model.transformers_model.classifier.register_forward_hook(negated).remove


def hook_on_a_layer(model) -> Undo:
    return bert(model).encoder.layer[0].output.register_forward_hook(mixed).remove


def pre_hook_on_the_pooler(model) -> Undo:
    return bert(model).pooler.register_forward_pre_hook(halved).remove


def pre_hook_on_a_layer(model) -> Undo:
    return bert(model).encoder.layer[0].register_forward_pre_hook(halved).remove


ATTACHED: tuple[Change, ...] = (
    hook_on_the_pooler, hook_on_the_classifier, hook_on_a_layer, pre_hook_on_the_pooler, pre_hook_on_a_layer,
    hook_on_the_model, hook_on_the_cross_encoder, hook_on_the_first_module, pre_hook_on_the_first_module,
    global_hook, forward_of_the_model, forward_of_the_pooler, patched_class,
    attention_of_somebody, patched_method, method_of_an_object, function_of_an_activation, masks_of_somebody,
    positions_of_somebody, causal_layers, patched_call, object_as_forward, *HAVING_STEPS,
)  # fmt: skip
"""Somebody's code, which sentence-transformers runs. All can be undone."""

OTHERS = (
    pooler_of_somebody, layer_that_mixes_tokens,
    in_place, data_written, data_assigned, parameter_replaced, state_loaded, state_assigned, another_pooler,
    deeper_classifier, another_layer, a_layer_more, a_layer_in_a_second_place,
    scores_that_depend_on_each_other, adapter, adapters_scale, other_precision, device, frozen,
    training, evaluating, another_tokenizer, padding_on_the_left, tokenizer_of_somebody, another_length,
    another_activation, another_epsilon, builtin_of_an_activation, compiled,
)  # fmt: skip

CHANGES: dict[str, Change] = {
    "SGD": optimised(torch.optim.SGD), "SGD fused": optimised(torch.optim.SGD, fused=True),
    "AdamW": optimised(foreach=False), "AdamW foreach": optimised(foreach=True),
    "AdamW fused": optimised(fused=True), "Adam fused": optimised(torch.optim.Adam, fused=True),
    **{change.__name__.replace("_", " "): change for change in (*ATTACHED, *OTHERS)},
}  # fmt: skip

ALONE = {
    change.__name__.replace("_", " "): change for change in (scripted, quantised_by_pytorch, wrapped_encoder)
}
"""Changes that leave a module behind to which the others cannot be done."""

NEUTRAL = (
    hook_on_the_model, causal_layers, adapters_scale, other_precision, device, frozen, training, evaluating,
    compiled, wrapped_encoder,
)  # fmt: skip
