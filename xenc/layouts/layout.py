"""What a layout is made from, and what it makes of that: the stages of one execution for one model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..compiled import CompiledForward
from ..encoder_decoder.forward import FirstStepTensors
from ..execution import Execution
from ..plan import Plan
from ..prepared import Batch, PreparedForward
from ..stream import Stream
from ..tokens import TokenizedPairs


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The stages that differ between layouts.

    Attributes:
        attention: transformers' name of the attention implementation to run under.
        collator: makes batches; has `collate(tokens, batch plan)`.
        forward: batch -> logits, prepared or not.
        compiled: the forward, if the execution compiles it.
        plan: (tokens, batch size) -> the batches of a request that is alone.
        warmup_batches: batch size -> a batch of every shape there is.
        stream: makes the queue of tokenized pairs.
    """

    attention: str
    collator: Any
    forward: Callable[[Any], Tensor]
    compiled: PreparedForward | None
    plan: Callable[[TokenizedPairs, int], Plan]
    warmup_batches: Callable[[int], Iterator[Batch]]
    stream: Callable[[], Stream]


@dataclass(frozen=True, kw_only=True)
class Given:
    """What a layout is made from.

    Attributes:
        model: on its device.
        tokenizer: the model's.
        max_length: the most tokens a pair may have.
        execution: what was chosen.
        targets: token ids for a causal model; see `forward.head_logits`.
        asked: what an encoder-decoder is asked; see `encoder_decoder.forward.score_first_step`.
        compiled: graphs to go on using, if the execution compiles.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    max_length: int
    execution: Execution
    targets: tuple[int, ...] = ()
    asked: FirstStepTensors | None = None
    compiled: PreparedForward | None = None

    def collating(self) -> dict[str, Any]:
        """What every collator is told about the model."""
        pad_id = self.tokenizer.pad_token_id
        return {
            "pad_id": pad_id if isinstance(pad_id, int) else 0,
            "has_token_types": "token_type_ids" in self.tokenizer.model_input_names,
            "device": self.model.device,
        }

    def compiling(
        self, function: Callable[..., Tensor], constants: tuple[object, ...] = ()
    ) -> PreparedForward | None:
        """The forward, if the execution compiles it: the one at hand, or a new one."""
        execution, compiled = self.execution, self.compiled
        if execution.compile_mode is not None:
            compiled = compiled or CompiledForward(function, self.model, execution, constants)
        if compiled is not None:
            compiled.strict = execution.strict
        return compiled

    def running(
        self, function: Callable[..., Tensor], constants: tuple[object, ...] = ()
    ) -> Callable[[Batch], Tensor]:
        """The forward as it is, not compiled."""
        return partial(_run_eagerly, function, self.model, constants)


def _run_eagerly(
    function: Callable[..., Tensor], model: PreTrainedModel, constants: tuple[object, ...], batch: Batch
) -> Tensor:
    return function(model, *batch.arguments, *constants)
