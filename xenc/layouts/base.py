"""What differs between layouts: how pairs are planned, collated and run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from ..batching.plan import Plan
from ..compiling.warmup import Batch, PreparedForward
from ..compiling.wrapper import CompiledForward
from ..execution import Execution
from ..models.reranker import Reranker
from ..serving.queue import BatchQueue, RequestQueue
from ..text.tokens import TokenizedPairs


class Layout(ABC):
    """The stages of one execution of one model.

    Args:
        reranker: the model and what is known of it.
        execution: what was chosen, and the model can run.
        model: what runs in the reranker's model's place, with its weights; None for itself.
        compiled: graphs to go on using, if the execution compiles.

    Attributes:
        attention: transformers' name of the attention implementation to run under.
        collator: has `collate(pairs, batch plan)`, which makes batches.
        forward: batch -> logits, compiled or not.
        compiled: the forward, if the execution compiles it.
    """

    attention: str
    collator: Any
    forward: Callable[[Any], Tensor]
    compiled: PreparedForward | None

    def __init__(
        self,
        reranker: Reranker,
        execution: Execution,
        *,
        model: PreTrainedModel | None = None,
        compiled: PreparedForward | None = None,
    ) -> None:
        self._reranker, self._execution = reranker, execution
        self._model = reranker.model if model is None else model
        self._make(compiled)

    @abstractmethod
    def _make(self, compiled: PreparedForward | None) -> None:
        """Set the attributes."""

    @abstractmethod
    def plan(self, tokens: TokenizedPairs, batch_size: int) -> Plan:
        """The batches of a request that is alone."""

    @abstractmethod
    def every_shape(self, batch_size: int) -> Iterator[Batch]:
        """A batch of dummies in every shape that batches can have."""

    def queue(self) -> BatchQueue:
        """A new queue of what waits for the device."""
        return RequestQueue(self.plan)

    def _collating(self) -> dict[str, Any]:
        """What every collator is told about the model."""
        tokenizer = self._reranker.tokenizer
        pad_id = tokenizer.pad_token_id
        return {
            "pad_id": pad_id if isinstance(pad_id, int) else 0,
            "has_token_types": "token_type_ids" in tokenizer.model_input_names,
            "device": self._reranker.model.device,
        }

    def _run(
        self, function: Callable[..., Tensor], constants: tuple[object, ...], compiled: PreparedForward | None
    ) -> None:
        """Have a function of (model, *batch.arguments, *constants) be the forward: compiled or as it is."""
        if self._execution.compile_mode is None:
            self.compiled = None
            self.forward = partial(run_eagerly, function, self._model, constants)
        else:
            self.compiled = compiled or CompiledForward(function, self._model, self._execution, constants)
            self.compiled.strict = self._execution.strict
            self.forward = self.compiled


def run_eagerly(
    function: Callable[..., Tensor], model: PreTrainedModel, constants: tuple[object, ...], batch: Batch
) -> Tensor:
    """The logits of a batch, by a function that is not compiled."""
    return function(model, *batch.arguments, *constants)
