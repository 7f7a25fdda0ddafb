"""The base of all layouts: what a layout provides, and how its forward is compiled."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel

from ..batching.limit import Limit
from ..batching.plan import BatchPlan, PackedPlan, Plan
from ..compiling.prefix_cache import Compiled
from ..compiling.wrapper import Batch, CompiledForward
from ..execution import Execution
from ..models.reranker import Reranker
from ..serving.queue import BatchQueue, RequestQueue
from ..text.tokens import PairTokens, TokenizedPairs


class Layout(ABC):
    """The stages of one model under one execution.

    Args:
        reranker: the model and its properties.
        execution: an execution that the model can run.
        model: a model to run instead of the reranker's, with the same weights; None for the reranker's.
        compiled: a compiled forward to reuse.
        limit: what fits the device's memory, as another layout of the same model has learned; None if nothing
            is known.

    Attributes:
        limit: as given, or empty; batches are planned within it.
        attention: transformers' name of the attention implementation.
        collator: has `collate(pairs, batch plan) -> batch`.
        forward: batch -> logits, compiled or not.
        compiled: the forward if it is compiled, else None.
    """

    attention: str
    collator: Any
    forward: Callable[[Any], Tensor]
    compiled: Compiled | None

    def __init__(
        self,
        reranker: Reranker,
        execution: Execution,
        *,
        model: PreTrainedModel | None = None,
        compiled: Compiled | None = None,
        limit: Limit | None = None,
    ) -> None:
        self.limit = limit or Limit()
        self._reranker, self._execution = reranker, execution
        self._model = reranker.model if model is None else model
        self.forward = forward = self._make(compiled)
        self.compiled = None if execution.compile_mode is None else forward
        if self.compiled is not None:
            self.compiled.strict = execution.strict

    @abstractmethod
    def _make(self, compiled: Compiled | None) -> Any:
        """Set the other attributes and return the forward; called once."""

    @abstractmethod
    def plan(self, tokens: TokenizedPairs, batch_size: int) -> Plan:
        """The batches of one request."""

    @abstractmethod
    def every_shape(self, batch_size: int) -> Iterator[Batch]:
        """A dummy batch of every shape that batches can have, by what the limit says when its turn comes."""

    @abstractmethod
    def again(
        self, pairs: Sequence[PairTokens], plan: Any, batch_size: int
    ) -> Sequence[BatchPlan | PackedPlan]:
        """See `queue.Again`."""

    @abstractmethod
    def halve(self, shape: tuple[int, int], *, pairs: int | None = None, prefix: Any = None) -> str | None:
        """Plan smaller batches from now on.

        Args:
            shape: of a batch that did not fit.
            pairs: how many it held; None for a dummy.
            prefix: the prefix that its pairs share, or None.

        Returns:
            What did not fit, in words; None if none is smaller.
        """

    def is_unknown(self, shape: tuple[int, int]) -> bool:  # noqa: ARG002
        """Whether warm-up left a shape out, since a smaller one did not fit."""
        return False

    @abstractmethod
    def described(self, shape: tuple[int, int]) -> str:
        """A batch of this shape, in words."""

    @abstractmethod
    def limited(self, shape: tuple[int, int]) -> str:
        """How batches are planned since one did not fit and one of this shape did; how to begin with that."""

    def queue(self) -> BatchQueue:
        """A new queue of tokenized pairs for the device."""
        return RequestQueue(self.plan, self.again)

    def _collating(self) -> dict[str, Any]:
        """The arguments that all collators have."""
        tokenizer = self._reranker.tokenizer
        pad_id = tokenizer.pad_token_id
        return {
            "pad_id": pad_id if isinstance(pad_id, int) else 0,
            "has_token_types": "token_type_ids" in tokenizer.model_input_names,
            "device": self._reranker.model.device,
        }

    def _runs(self, function: Callable[..., Tensor], *constants: object) -> Any:
        """batch -> function(model, *batch.arguments, *constants), compiled if the execution compiles."""
        model = self._model
        if self._execution.compile_mode is None:
            return lambda batch: function(model, *batch.arguments, *constants)
        return CompiledForward(function, model, self._execution, constants)
