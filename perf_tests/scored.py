"""What is exact about one revision's model on a workload, and where its time goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import torch
from tokenizers import Tokenizer

from perf_tests.against import CHECKPOINTS
from perf_tests.ready_models import ReadyModel
from perf_tests.scorers import DTYPES, output_error
from perf_tests.workloads import Pair, Workload
from xenc.gate.exact import Fact, Rule
from xenc.profiling import stages

Run = Callable[[list[Pair]], Any]

FACTS: Final[Mapping[str, Fact]] = {
    # a quotient: equal batches give equal shares except for rounding
    "padded_share": Fact(label="padded share", unit="share", absolute=1e-9),
    "kendall_tau": Fact(label="Kendall's tau", rule=Rule.OWN_FLOOR, bound="kendall_floor"),
    "ndcg_loss": Fact(label="nDCG lost", rule=Rule.OWN_TOLERANCE, bound="ndcg_tolerance"),
}
"""How the gate judges the exact facts that only this suite knows."""


def facts_of(
    ready: ReadyModel, run: Run, pairs: list[Pair], workload: Workload, *, explains: bool
) -> dict[str, float | None]:
    """The number of graphs; if it `explains`, also padding, tokenized texts, the error against the oracle.

    Raises:
        RuntimeError: a compiled execution has no graph.
    """
    model, device = ready.model, ready.device
    compiled = model.pipeline.compiled
    graphs = compiled.graphs if compiled is not None else 0
    if model.execution.compile_mode is not None and graphs == 0:
        raise RuntimeError(f"{ready.name} is compiled and has no graph: is Dynamo disabled?")
    if not explains:
        return {"graphs": graphs}
    logits, texts = with_texts_tokenized(model, lambda: run(pairs))
    error, tolerance = output_error(
        logits, pairs, model=CHECKPOINTS[device](), device=device, max_length=workload.max_length,
        dtype=DTYPES[device],
    )  # fmt: skip
    waste = None if model.last_report is None else model.last_report.waste
    return {
        "graphs": graphs, "padded_share": waste, "texts_tokenized": texts,
        "output_error": error, "output_tolerance": tolerance,
    }  # fmt: skip


def with_texts_tokenized(model: Any, job: Callable[[], Any]) -> tuple[Any, int | None]:
    """What a job returns, and how many texts the model's tokenizer encoded meanwhile; a pair is two texts.

    They are counted where all revisions, and transformers itself, encode: in the tokenizer's Rust backend.
    None for a tokenizer without one, and for a model whose texts another tokenizer encodes.
    """
    backend = getattr(getattr(model, "tokenizer", None), "backend_tokenizer", None)
    if not isinstance(backend, Tokenizer):
        return job(), None
    texts = 0

    def counting(encode: Callable[..., Any], count: Callable[..., int]) -> Callable[..., Any]:
        def encode_counted(*arguments: Any, **options: Any) -> Any:
            nonlocal texts
            texts += count(*arguments, **options)
            return encode(*arguments, **options)

        return encode_counted

    for name, count in _ENCODERS.items():
        setattr(backend, name, counting(getattr(backend, name), count))
    try:
        return job(), texts or None
    finally:
        for name in _ENCODERS:
            delattr(backend, name)


def _texts_of_one(sequence: Any, pair: Any = None, *_: Any, **__: Any) -> int:
    return 1 if pair is None else 2


def _texts_of_batch(input: Sequence[Any], *_: Any, **__: Any) -> int:
    return sum(1 if isinstance(each, str) else len(each) for each in input)


_ENCODERS: Final = {
    "encode": _texts_of_one, "encode_batch": _texts_of_batch, "encode_batch_fast": _texts_of_batch,
}  # fmt: skip
"""Methods of a backend that encode, and the number of texts in their arguments, named as theirs."""


def exact(info: Mapping[str, Any]) -> dict[str, Any]:
    """What a stored baseline keeps of a benchmark's `extra_info` beside seconds."""
    keys = {"graphs": "graphs", "peak_bytes": "peak_bytes", "waste": "padded_share"}
    return {fact: info[key] for key, fact in keys.items() if info.get(key) is not None}


def stage_seconds(ready: ReadyModel, run: Run, rounds: Sequence[list[Pair]]) -> dict[str, float]:
    """Mean seconds per round of each stage; none for a revision whose pipeline has no spans yet."""
    pipeline = ready.model.pipeline
    if not hasattr(pipeline, "span"):
        return {}
    synchronize = torch.cuda.synchronize if ready.device == "cuda" else lambda: None
    with stages.recorded_stages(pipeline, synchronize) as spans:
        for pairs in rounds:
            run(pairs)
    return stages.stage_seconds(spans, passes=len(rounds))
