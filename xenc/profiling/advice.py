"""What to use by the times that were measured, in a sentence and in Python."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from .contestant import Timed
from .rows import SENTENCE_TRANSFORMERS, Row

FEW_ROUNDS: Final = 3
"""With fewer, no difference is told from noise."""

_MUCH_FURTHER: Final = 4
_ROUNDING: Final = 1e-3


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times as fast one row is as another: the median, the least and the most of so many rounds."""

    median: float
    low: float
    high: float
    rounds: int

    @property
    def certain(self) -> bool:
        """Whether every round says the same."""
        return self.rounds >= FEW_ROUNDS and (self.low > 1 or self.high < 1)

    def __str__(self) -> str:
        return (
            f"{self.median:.2f} times as fast ({self.low:.2f} to {self.high:.2f} in {self.rounds} round(s))"
        )


def ratio(row: Timed, other: Timed, *, in_turns: bool) -> Ratio:
    """Compare two rows that were timed: round by round if they took turns, else their extremes."""
    if in_turns:
        each = [theirs / ours for ours, theirs in zip(row.seconds, other.seconds, strict=True)]
        return Ratio(median=statistics.median(each), low=min(each), high=max(each), rounds=len(each))
    return Ratio(
        median=statistics.median(other.seconds) / statistics.median(row.seconds),
        low=min(other.seconds) / max(row.seconds), high=max(other.seconds) / min(row.seconds),
        rounds=min(len(row.seconds), len(other.seconds)),
    )  # fmt: skip


def counterpart(row: Timed, rows: Iterable[Timed]) -> Timed | None:
    """sentence-transformers' row in the same dtype, if that was timed."""
    same = Row(SENTENCE_TRANSFORMERS, row.row.dtype)
    return next((each for each in rows if each.row == same and each.counts), None)


def is_further(row: Timed, rows: Iterable[Timed]) -> bool:
    """Whether a row is much further from float32 than sentence-transformers is in the same dtype."""
    plain = next((each for each in rows if each.row == Row(SENTENCE_TRANSFORMERS, row.row.dtype)), None)
    if row.row.eight_bits or row.agreement is None or plain is None or plain.agreement is None:
        return False
    return row.agreement.largest_error > _MUCH_FURTHER * plain.agreement.largest_error + _ROUNDING


def chosen(rows: Sequence[Timed], *, eight_bits: bool = False) -> Timed | None:
    """The fastest of xenc's rows that may be used; by default of those that do not round to eight bits."""
    counting = [each for each in rows if each.row.is_xenc and each.counts and not is_further(each, rows)]
    usable = [each for each in counting if each.row.eight_bits == eight_bits]
    return min(usable, key=_median, default=None)


def best_plain(rows: Sequence[Timed]) -> Timed | None:
    """sentence-transformers' fastest row."""
    plain = [each for each in rows if not each.row.is_xenc and each.counts]
    return min(plain, key=_median, default=None)


def to_use(rows: Sequence[Timed], *, in_turns: bool) -> Timed | None:
    """The row to use: xenc's, unless sentence-transformers' best is faster in every round."""
    ours, plain = chosen(rows), best_plain(rows)
    if ours is None or plain is None:
        return ours or plain
    found = ratio(ours, plain, in_turns=in_turns)
    return plain if found.certain and found.high < 1 else ours


def sentence(rows: Sequence[Timed], *, in_turns: bool) -> str:
    """What to use, how much faster it is than sentence-transformers' best, and what it costs in accuracy."""
    ours, plain, use = chosen(rows), best_plain(rows), to_use(rows, in_turns=in_turns)
    if use is None:
        return "No row was timed without something going wrong, so nothing can be said."
    if ours is None or plain is None:
        return f"Use {use.row}: there is nothing to compare it with."
    found, best = ratio(ours, plain, in_turns=in_turns), f"sentence-transformers' best ({_described(plain)})"
    if found.rounds < FEW_ROUNDS:
        return f"{ours.row} is {found} as {best}: too few rounds to tell from noise, at least {FEW_ROUNDS}."
    more = _eight(rows, in_turns=in_turns)
    if not found.certain:
        return f"{ours.row} is within the noise of {best}: {found}. Use either, or measure longer.{more}"
    if use is plain:
        return f"Stay with {best}: {ours.row} is {found} as that.{more}"
    costs = "" if ours.agreement is None else f"; its logits are within {_error(ours)} of float32's"
    return f"Use {ours.row}: it is {found} as {best}{costs}.{more}"


def _eight(rows: Sequence[Timed], *, in_turns: bool) -> str:
    """What eight bits would add, if they are the fastest."""
    quantised, ours = chosen(rows, eight_bits=True), chosen(rows)
    if quantised is None or ours is None:
        return ""
    found = ratio(quantised, ours, in_turns=in_turns)
    if not found.certain or found.high < 1:
        return ""
    return f" If errors of {_error(quantised)} do no harm, {quantised.row} is {found} as {ours.row}."


def in_python(use: Timed, model: str, loading: Mapping[str, Any], plain_dtype: str | None) -> str:
    """Three lines that score as a row does.

    Args:
        use: the row.
        model: its name or folder.
        loading: other arguments of the model.
        plain_dtype: the dtype that it has if nothing is said, if known.
    """
    row, arguments = use.row, [repr(model)]
    if row.is_xenc and row.system != "packed":
        arguments.append(f"execution={row.system!r}")
    if row.precision != plain_dtype:
        arguments.append(f'model_kwargs={{"dtype": {row.precision!r}}}'.replace("'", '"'))
    arguments += [f"{name}={value!r}" for name, value in loading.items()]
    size = "" if use.batch_size is None else f", batch_size={use.batch_size}"
    warm = f"  # after model.warmup({use.batch_size or ''})" if use.warmup_s is not None else ""
    return (
        f"from {'xenc' if row.is_xenc else 'sentence_transformers'} import CrossEncoder\n"
        f"model = CrossEncoder({', '.join(arguments)})\n"
        f"scores = model.predict(pairs{size}){warm}"
    )


def _described(plain: Timed) -> str:
    return f"{plain.row.precision}, batches of {plain.batch_size}"


def _error(row: Timed) -> str:
    return "an unknown size" if row.agreement is None else f"{row.agreement.largest_error:.2g}"


def _median(row: Timed) -> float:
    return statistics.median(row.seconds)
