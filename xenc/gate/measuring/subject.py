"""What a test measures: something to call, its inputs, and what is known about it."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils import _pytree as pytree

from ..errors import SubjectError

Job = Callable[[], object]


def _at_once(job: Job) -> object:
    return job()


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Something to be timed.

    Attributes:
        run: is called with one input. It returns when the work is done, or launched on a GPU.
        inputs: what it is called with. Round n takes input n, and begins again when they are used up.
        rounds: how often it is timed; None for once on each input.
        warmup: called once before anything is timed; None to run each input twice.
        oracle: the right answer to an input; None if answers are not compared.
        tolerance: the largest difference from the oracle, in the unit of the output.
        facts: exact numbers that may not grow, by name, asked for when everything has run.
        exact_on: inputs on which kernels, memory and facts are counted; none for the inputs themselves.
        stages: seconds by stage of running some inputs; None to read them off the ranges that the code marks
            with `torch.profiler.record_function`.
        device_seconds: seconds that the device worked in the last run; None to measure them.
        load: takes a job that the next run is to do too, on the device; None if `run` may follow the job.
        on_device: runs a job on the thread that calls the operators, and waits for it.

    Raises:
        SubjectError: inputs cannot be indexed or there is none, `rounds` is no integer >= 1, tolerance is no
            number >= 0, or only one of oracle and tolerance is given.
    """

    run: Callable[[Any], Any]
    inputs: Sequence[Any]
    rounds: int | None = None
    warmup: Job | None = None
    oracle: Callable[[Any], Any] | None = None
    tolerance: float | None = None
    facts: Callable[[], Mapping[str, float | None]] | None = None
    exact_on: Sequence[Any] = ()
    stages: Callable[[Sequence[Any]], Mapping[str, float]] | None = None
    device_seconds: Callable[[], float] | None = None
    load: Callable[[Job], None] | None = None
    on_device: Callable[[Job], object] = _at_once

    def __post_init__(self) -> None:
        inputs, rounds, tolerance = self.inputs, self.rounds, self.tolerance
        indexed = hasattr(inputs, "__getitem__") and hasattr(inputs, "__len__")
        if not indexed or isinstance(inputs, (str, bytes, Mapping)):
            raise SubjectError(f"inputs is a {type(inputs).__name__}: give a list of what to call it with.")
        if not len(inputs):
            raise SubjectError("inputs is empty: give at least one thing to call it with.")
        if rounds is not None and (type(rounds) is not int or rounds < 1):
            raise SubjectError(f"rounds={rounds!r}: give an integer of at least 1.")
        if tolerance is not None and not (isinstance(tolerance, (int, float)) and tolerance >= 0):
            raise SubjectError(f"tolerance={tolerance!r}: give a number, 0 or more.")
        if (self.oracle is None) != (self.tolerance is None):
            raise SubjectError("oracle and tolerance belong together: give both or neither.")

    def timed(self, most: int | None = None) -> list[Any]:
        """The input of each round, of so many rounds at most."""
        rounds = len(self.inputs) if self.rounds is None else self.rounds
        return [self.inputs[number % len(self.inputs)] for number in range(min(rounds, most or rounds))]

    @property
    def counted(self) -> Sequence[Any]:
        """The inputs on which facts are counted."""
        return self.exact_on if len(self.exact_on) else self.inputs

    @property
    def fingerprint(self) -> str:
        """A hash of what the inputs are: shapes and dtypes of tensors and arrays, texts, numbers."""
        leaves = [[_described(leaf) for leaf in pytree.tree_leaves(value)] for value in self.inputs]
        return hashlib.sha256(repr((self.rounds, leaves)).encode()).hexdigest()[:16]

    def warm_up(self) -> None:
        """Do all that must happen before a round is timed."""
        if self.warmup is not None:
            self.warmup()
            return
        for _ in range(2):
            for value in self.inputs:
                self.run(value)

    def check(self, output: Any) -> None:
        """Refuse what has not run yet.

        Raises:
            SubjectError: the output is a coroutine or a generator.
        """
        if inspect.isawaitable(output) or inspect.isgenerator(output) or inspect.isasyncgen(output):
            raise SubjectError(
                f"run returned a {type(output).__name__}, so nothing has run yet: await or exhaust it in run."
            )

    def run_counted(self) -> None:
        """Run once on each input that facts are counted on."""
        for value in self.counted:
            self.run(value)

    def own_facts(self) -> dict[str, float | None]:
        """The test's own facts, and the output error if there is an oracle.

        Raises:
            SubjectError: a fact is no number.
        """
        asked = self.facts() if self.facts is not None else {}
        facts: dict[str, float | None] = {
            name: None if value is None else number(f"facts: {name}", value) for name, value in asked.items()
        }
        if self.oracle is not None:
            errors = [output_error(self.run(value), self.oracle(value)) for value in self.counted]
            facts |= {"output_error": _largest(errors), "output_tolerance": self.tolerance}
        return facts


def number(name: str, value: Any) -> float:
    """A value as a number of Python's.

    Raises:
        SubjectError: it is none.
    """
    plain = value.item() if hasattr(value, "item") and getattr(value, "ndim", 0) == 0 else value
    if isinstance(plain, bool) or not isinstance(plain, (int, float)):
        raise SubjectError(f"{name}={value!r} is no number: give an int or a float.")
    return plain


def _described(leaf: Any) -> object:
    if isinstance(leaf, (str, bytes, int, float, bool, type(None))):
        return leaf
    shape = getattr(leaf, "shape", None)
    return type(leaf).__name__ if shape is None else (tuple(shape), str(getattr(leaf, "dtype", "")))


def output_error(output: Any, expected: Any) -> float:
    """The largest absolute difference between two outputs: numbers, arrays, tensors, or nests of these.

    Nests are mappings with the same keys, in any order, and lists or tuples of the same length.

    Returns:
        NaN if one holds a NaN that the other does not; infinity if they are built in another way.
    """
    if isinstance(output, Mapping) and isinstance(expected, Mapping):
        if output.keys() != expected.keys():
            return math.inf
        return _largest(output_error(output[key], expected[key]) for key in output)
    if isinstance(output, (list, tuple)) and isinstance(expected, (list, tuple)):
        if len(output) != len(expected):
            return math.inf
        return _largest(map(output_error, output, expected))
    return _difference(output, expected)


def _largest(errors: Iterable[float]) -> float:
    """NaN if there is one; 0 of no errors."""
    return max(errors, key=lambda error: (math.isnan(error), error), default=0.0)


def _difference(ours: Any, theirs: Any) -> float:
    numeric = [
        isinstance(each, (int, float, complex)) or hasattr(each, "__array__") for each in (ours, theirs)
    ]
    if not all(numeric):
        return 0.0 if not any(numeric) and ours == theirs else math.inf
    one, other = _tensor(ours), _tensor(theirs)
    if one.shape != other.shape:
        return math.inf
    if one.numel() == 0:
        return 0.0
    precise = torch.complex128 if one.is_complex() or other.is_complex() else torch.float64
    one, other = one.to(precise), other.to(precise)
    apart = (one - other).abs()
    apart[(one == other) | (one.isnan() & other.isnan())] = 0.0  # also infinities
    return float("nan") if bool(apart.isnan().any()) else float(apart.max())


def _tensor(value: Any) -> torch.Tensor:
    """A number keeps all its digits, which torch would round to float32."""
    dtype = {complex: torch.complex128, float: torch.float64}.get(type(value))
    return torch.as_tensor(value, dtype=dtype).detach().cpu()
