"""The rows of the table: the original recipe, what one would use instead, and xenc."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Final

from perf_tests.hopper.attention_ways import USUAL, WAYS
from perf_tests.hopper.setting import Setting
from xenc import PRESETS, Execution
from xenc.compiling.wrapper import CUDAGRAPH_MODES

RECIPE: Final = "original recipe"
PEER: Final = "sentence-transformers"
XENC: Final = "xenc"

ORIGINAL: Final = MappingProxyType(
    {name: PRESETS[name] for name in ("eager-unsorted", "eager-sorted", "sdpa-unsorted", "sdpa-sorted")}
    | {
        "compiled-sdpa-unsorted": replace(PRESETS["compiled-sdpa-sorted"], sort=False),
        "compiled-sdpa-sorted": PRESETS["compiled-sdpa-sorted"],
    }
)
"""Unfused attention, fused attention, and fused attention bucketed and compiled; each unsorted and sorted."""

PUBLISHED_S: Final = MappingProxyType(
    dict(zip(ORIGINAL, (0.3566, 0.3245, 0.2961, 0.2658, 0.2595, 0.2089), strict=True))
)
"""Seconds that the original recipe's author measured for these rows, on an H100 and other texts."""

TUNED: Final = "packed, max-autotune"
"""Kernels chosen by measurement, and CUDA graphs."""

JOINT: Final = "packed, cuBLASLt"
"""Query, key and value in one product, and GELU inside a product."""

LAUNCHED: Final = "packed, launched one by one"
BUCKETED_LAUNCHED: Final = "bucketed, launched one by one"
"""Without CUDA graphs; the second is the original recipe without autotuning, which takes minutes."""

PROFILED: Final = ("packed", LAUNCHED, JOINT, "packed-float8", "compiled-sdpa-sorted")
"""Rows of which a profile is made, if they are ready."""

REQUESTED: Final = ("packed", LAUNCHED, JOINT)
"""Rows under which requests are made one after the other, if they are ready."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table.

    Attributes:
        group, name: the system, and the row's name in the table.
        turn: rows of a lower turn are made ready first; when time is up the rest is left out.
        batch_size: pairs of a padded batch.
        execution: how xenc scores; None for a peer.
        peer: the peer's name in `perf_tests.peers`; None for xenc.
        attention: which kernel computes packed attention: one of `attention_ways.WAYS`.
    """

    group: str
    name: str
    turn: int
    batch_size: int
    execution: Execution | None = None
    peer: str | None = None
    attention: str = USUAL

    @property
    def quantize(self) -> str | None:
        return None if self.execution is None else self.execution.quantize

    @property
    def is_autotuned(self) -> bool:
        """Whether the compiler chooses kernels by measuring them."""
        return self.execution is not None and (self.execution.compile_mode or "").startswith("max-autotune")

    @property
    def model_key(self) -> object:
        """Rows with the same key share a model and its graphs."""
        if self.execution is None:
            return self.peer
        recorded = self.execution.compile_mode_on("cuda") in CUDAGRAPH_MODES
        kernel = self.attention if recorded else ""  # a CUDA graph keeps the kernel it was recorded with
        return (*self.execution.graph_settings, kernel) if self.execution.compile_mode else "not compiled"


def table_rows(setting: Setting) -> tuple[Row, ...]:
    """All rows, in the order of the table."""
    rows = (*_recipe(setting), *_peers(setting), *_ours(setting))
    return tuple(row for row in rows if row.name not in setting.left_out)


def chosen_rows(setting: Setting, names: tuple[str, ...] | None) -> tuple[Row, ...]:
    """The rows with these names that the setting has; all for None."""
    return tuple(row for row in table_rows(setting) if names is None or row.name in names)


def _recipe(setting: Setting) -> Iterator[Row]:
    for name, execution in ORIGINAL.items():
        yield Row(
            group=RECIPE, name=name, turn=0 if execution.compile_mode is None else 2,
            batch_size=setting.workload.batch_size, execution=execution,
        )  # fmt: skip


def _peers(setting: Setting) -> Iterator[Row]:
    for turn, peer in ((0, "sentence-transformers"), (1, "sentence-transformers-compiled")):
        for batch_size in setting.peer_batch_sizes:
            yield Row(
                group=PEER, name=f"{peer}, batch {batch_size}", turn=turn, batch_size=batch_size, peer=peer
            )


def _ours(setting: Setting) -> Iterator[Row]:
    row = Row(
        group=XENC, name="packed", turn=0, batch_size=setting.workload.batch_size, execution=PRESETS["packed"]
    )
    turns = {
        "bucketed": 3, "packed": 0, "packed-eager": 0, "packed-deterministic": 0, "packed-float8": 3,
    }  # fmt: skip
    for name, turn in turns.items():
        yield replace(row, name=name, turn=turn, execution=PRESETS[name])
    yield replace(row, name=TUNED, turn=5, execution=Execution(compile_mode="max-autotune"))
    for name, layout in ((LAUNCHED, "packed"), (BUCKETED_LAUNCHED, "bucketed")):
        yield replace(row, name=name, turn=1, execution=Execution(layout=layout, compile_mode="default"))
    for budget in setting.token_budgets:
        yield replace(
            row, name=f"packed, {budget:,} tokens", turn=3, execution=Execution(token_budgets=budget)
        )
    joint = Execution(products="cublaslt")
    for name, execution in (
        (JOINT, joint),
        (f"{JOINT}, 16,384 tokens", replace(joint, token_budgets=16_384)),
    ):
        yield replace(row, name=name, turn=1, execution=execution)
    for way in (way for way in WAYS if way != USUAL):
        yield replace(row, name=f"packed, {way} attention", turn=2, attention=way)
