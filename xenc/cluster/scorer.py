"""A callable class for Ray Data's `map_batches`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..cross_encoder import CrossEncoder
from ..default_model import DEFAULT_MODEL
from ..errors import NotInstalledError, PairError
from ..execution import Execution
from ..files import Columns, begun
from ..files.chunk import Row, pair_of
from ..presets import DEFAULT_PRESET
from .connection import ray
from .members import use_cores


class Scorer:
    """Adds a column of scores to batches of pairs; each actor loads the model and warms it up once.

    A pair that cannot be scored has null for its score, and a column says why; of all others it is null.

    Args:
        model: a model's name, or a folder that every machine has.
        execution: an `Execution`, or a preset's name.
        query_column, document_column: the columns of the pairs.
        score_column, error_column: the new columns.
        stop_at_error: raise PairError for a pair that cannot be scored.
        threads: CPU threads; None for the CPUs that Ray gives the actor.
        cache_dir: a folder for compiled code, which actors may share.
        **loading: as `CrossEncoder`: device, max_length, model_kwargs, ...

    Raises:
        ModelError, ExecutionError: as `CrossEncoder`.

    Example:
        >>> pairs.map_batches(Scorer, fn_constructor_kwargs={"model": "BAAI/bge-reranker-base"}, num_gpus=1,
        ...                   compute=ray.data.ActorPoolStrategy(size=8), batch_size=4096)
    """

    def __init__(
        self, model: str = DEFAULT_MODEL, *, execution: Execution | str = DEFAULT_PRESET,
        query_column: str = "query", document_column: str = "document", score_column: str = "score",
        error_column: str = "error", stop_at_error: bool = False, threads: int | None = None,
        cache_dir: str | Path | None = None, **loading: Any,
    ) -> None:  # fmt: skip
        if (cores := threads or _cpus_of_this_actor()) is not None:
            use_cores(cores)
        self._columns, self._stops = Columns(query_column, document_column), stop_at_error
        self._score, self._error = score_column, error_column
        self._model: CrossEncoder = CrossEncoder(model, execution=execution, **loading)
        self._model.warmup(cache_dir=cache_dir)

    def __call__(self, batch: Any) -> Any:
        """A batch with its scores.

        Args:
            batch: a dictionary of arrays [N] (Ray's "numpy" format), or an Arrow table of N rows ("pyarrow").

        Returns:
            The same with two more columns. In an Arrow table scores are float32, or lists of float32 of a
            model with several labels; in a dictionary both columns are arrays of Python's objects, because
            those can hold None.

        Raises:
            PairError: a column that is missing, or there already; with `stop_at_error` also a pair at fault.
        """
        is_dictionary = isinstance(batch, Mapping)
        names = list(batch) if is_dictionary else getattr(batch, "column_names", None)
        if names is None:
            raise PairError(f"a batch is a {type(batch).__name__}: use batch_format 'numpy' or 'pyarrow'.")
        self._check(names)
        asked = (self._columns.query, self._columns.document)
        texts = [batch[name].tolist() if is_dictionary else batch[name].to_pylist() for name in asked]
        scores, why = self._scored([dict(zip(asked, row, strict=True)) for row in zip(*texts, strict=True)])
        if self._stops and (first := next((each for each in why if each is not None), None)):
            raise PairError(f"pair {why.index(first)} of a batch {first}.")
        if is_dictionary:
            return {**batch, self._score: _objects(scores), self._error: _objects(why)}
        return self._with_columns(batch, scores, why)

    def _check(self, names: Sequence[str]) -> None:
        for name in (self._columns.query, self._columns.document):
            if name not in names:
                raise PairError(
                    f"there is no column {name!r}, only {', '.join(map(repr, names))}: give query_column "
                    "and document_column."
                )
        for name in (self._score, self._error):
            if name in names:
                raise PairError(
                    f"there is a column {name!r} already: give another score_column and error_column."
                )

    def _scored(self, rows: Sequence[Row]) -> tuple[list[Any], list[str | None]]:
        """Of each record its score or None, and why it has none or None."""
        scores: list[Any] = [None] * len(rows)
        why: list[str | None] = [None] * len(rows)
        pairs = {}
        for place, row in enumerate(rows):
            pair = pair_of(row, self._columns)
            if isinstance(pair, str):
                why[place] = pair
            else:
                pairs[place] = pair
        if pairs:
            places, answers = list(pairs), begun(self._model, list(pairs.values()))()
            for place, score in answers.scores.items():
                scores[places[place]] = score
            for place, fault in answers.why.items():
                why[places[place]] = f"cannot be scored: {fault}"
        return scores, why

    def _with_columns(self, table: Any, scores: list[Any], why: list[str | None]) -> Any:
        import pyarrow as pa

        kind = pa.float32() if self._model.num_labels == 1 else pa.list_(pa.float32())
        table = table.append_column(self._score, pa.array(scores, kind))
        return table.append_column(self._error, pa.array(why, pa.string()))


def _objects(values: Sequence[Any]) -> Any:
    column = np.empty(len(values), object)
    for place, value in enumerate(values):
        column[place] = value
    return column


def _cpus_of_this_actor() -> int | None:
    """The CPUs that Ray gives the actor that this is, at least one; None if it is none."""
    try:
        found = ray()
    except NotInstalledError:
        return None
    if not found.is_initialized() or (context := found.get_runtime_context()).get_actor_id() is None:
        return None
    return max(1, int(context.get_assigned_resources().get("CPU", 0)))
