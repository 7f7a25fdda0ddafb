"""A model, an execution and pairs -> a `Profile`: timed passes, passes by stage, and one that is traced.

They are apart, because what looks closer also burdens: the timed passes carry nothing, the stages wait for
the device, the traced pass records every operator. All run what `predict` runs, after one pass that does not
count, and none may compile anything.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.exc import TorchDynamoException
from transformers import PreTrainedModel

from ..compiling.watch import CompileReport, watch_compiles
from ..cross_encoder import CrossEncoder
from ..errors import CompileError, ModelError, first_line
from ..models.precision import fastest_dtype
from ..models.reranker import current_reranker
from ..presets import PRESETS
from ..serving.request import PredictReport
from .facts import Compilation, Limit, Profile, Subject, Traced, Work
from .flops import device_peak, gemm_seconds_per_token, workload_flops
from .kernels import profile_pass
from .stages import StageClock, measured_stages
from .trace import StageSpans, add_spans

Pairs = Sequence[tuple[str, str]]


def profile_model(
    model: CrossEncoder,
    pairs: Pairs,
    *,
    batch_size: int = 32,
    repeats: int = 5,
    trace: Path | None = None,
) -> Profile:
    """Profile the scoring of N >= 1 pairs.

    Args:
        model: under the execution to profile. It is warmed up; nobody else may be using it.
        pairs: what one pass scores.
        batch_size: that of padded and bucketed batches, as for `predict`.
        repeats: timed passes, and as many by stage.
        trace: where to write a Chrome trace of one pass; None for none.

    Raises:
        ModelError: a model that sentence-transformers scores by itself; the message says why.
        CompileError: a forward pass that does not compile as one graph, or something that compiled while
            it was measured.
    """
    slow = current_reranker(model)
    if isinstance(slow, str):
        raise ModelError(f"sentence-transformers scores this model by itself ({slow}): profile that instead.")
    transformer: Any = model.transformers_model

    def score() -> None:
        model.predict(list(pairs), batch_size=batch_size, show_progress_bar=False)

    compilation = _warmed_up(model, batch_size, score)
    with watch_compiles() as watch:
        seconds = tuple(_timed(score) for _ in range(repeats))
        gemm_s = gemm_seconds_per_token(
            transformer, tokens=None if _is_native(model) else 64, dtype=model.pipeline.multiplied_dtype
        )
        stages = _by_stage(model, score, repeats)
        traced = _traced(model, score, trace)
    _check_nothing_compiled(watch.report)
    report = model.last_report
    assert report is not None
    return Profile(
        subject=_subject(model, str(transformer.name_or_path)),
        work=_work(model, report, traced.batches),
        seconds=seconds,
        stages=stages,
        traced=traced,
        compilation=replace(compilation, eager_fallbacks=watch.report.eager_fallbacks),
        limit=_limit(model, transformer, report, gemm_s),
    )


def _warmed_up(model: CrossEncoder, batch_size: int, score: Callable[[], None]) -> Compilation:
    with watch_compiles() as watch:
        try:
            warmup = model.warmup(batch_size)
        except TorchDynamoException as error:
            raise CompileError(
                f"the forward pass does not compile as one graph: {first_line(error)}. Profile an execution "
                "that is not compiled, such as packed-eager, or take what is named out of the model."
            ) from error
        score()
    compiled = model.pipeline.compiled
    return Compilation(
        graphs=compiled.graphs if compiled is not None else 0,
        warmup_s=warmup.seconds,
        graph_breaks=watch.report.graph_breaks,
        cudagraph_skips=watch.report.cudagraph_skips,
        eager_fallbacks=(),
    )


def _check_nothing_compiled(report: CompileReport) -> None:
    if report.graphs or report.recompiles or report.cudagraph_recordings:
        raise CompileError(
            "something compiled while it was profiled, so the times are not those of scoring: "
            f"{'; '.join(report.describe().splitlines())}. Keep other models of this process still meanwhile."
        )


def _timed(score: Callable[[], None]) -> float:
    _wait()
    started = time.perf_counter()
    score()
    _wait()
    return time.perf_counter() - started


def _by_stage(model: CrossEncoder, score: Callable[[], None], repeats: int) -> dict[str, float]:
    """Mean seconds of each stage; the device is waited for in each, so that its work counts there."""
    clock = StageClock(_wait)
    with measured_stages(model.pipeline, clock.timed):
        for _ in range(repeats):
            score()
    return {stage: seconds / repeats for stage, seconds in clock.seconds.items()}


def _traced(model: CrossEncoder, score: Callable[[], None], trace: Path | None) -> Traced:
    spans = StageSpans()
    walls: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        written = None if trace is None else Path(folder) / "trace.json"
        with measured_stages(model.pipeline, spans.timed):
            found = profile_pass(
                lambda: walls.append(_timed(score)),
                device=model.device.type,
                on_device=lambda job: model._worker.on_device(job).result(),
                trace=written,
            )
        if trace is not None and written is not None:
            add_spans(written, spans.spans)
            trace.parent.mkdir(parents=True, exist_ok=True)
            trace.write_bytes(written.read_bytes())
    return Traced(
        wall_s=walls[0],
        busy_s=found.busy_s,
        kernels=found.kernels,
        batches=sum(span.stage == "forward" for span in spans.spans),
        region_calls=found.region_calls,
        cudagraph_launches=found.cudagraph_launches,
    )


def _subject(model: CrossEncoder, name: str) -> Subject:
    execution, device = model.execution, model.device
    preset = next((name for name, known in PRESETS.items() if known == execution), None)
    return Subject(
        model=name,
        execution=preset or repr(execution),
        layout=execution.layout,
        compile_mode=execution.compile_mode,
        device=device.type,
        device_name=torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        dtype=_name(model.pipeline.dtype),
        fastest_dtype=_name(fastest_dtype(device)),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
    )


def _work(model: CrossEncoder, report: PredictReport, batches: int) -> Work:
    return Work(
        pairs=report.pairs,
        truncated_pairs=report.truncated_pairs,
        max_length=model.pipeline.reranker.max_length,
        tokens=sum(report.token_counts),
        all_tokens=report.all_tokens,
        batches=batches,
        shared_tokens=report.shared_tokens,
    )


def _limit(
    model: CrossEncoder, transformer: PreTrainedModel, report: PredictReport, gemm_seconds: float
) -> Limit:
    peak = device_peak(model.device.type, model.pipeline.multiplied_dtype)
    tokens = sum(report.token_counts)
    computed = tokens - report.shared_tokens  # what pairs share counts once
    return Limit(
        flops=workload_flops(transformer, report.token_counts) * computed / tokens,
        peak_flops_per_s=peak.flops_per_s,
        peak_source=peak.source,
        gemm_s=gemm_seconds * computed,
    )


def _is_native(model: CrossEncoder) -> bool:
    """Whether the device has instructions for the model's dtype: emulated products take minutes."""
    return model.pipeline.dtype in (torch.float32, fastest_dtype(model.device))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
