"""A model, an execution and pairs -> a `Profile`.

Timed passes, passes by stage and the traced pass are separate, because each closer look costs time: passes by
stage wait for the device after every stage, and the trace records every operator. All run what `predict`
runs, after one pass that does not count, and none may compile anything.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch._dynamo.exc import TorchDynamoException

from ..compiling.watch import CompileReport, watch_compiles
from ..cross_encoder import CrossEncoder
from ..errors import CompileError, first_line
from ..models.precision import fastest_dtype
from ..presets import PRESETS
from .flops import device_peak, gemm_seconds_per_token, workload_flops
from .kernels import profile_pass
from .profile import Profile
from .stages import add_to_trace, recorded_stages, stage_seconds


def profile_model(
    model: CrossEncoder,
    pairs: Sequence[tuple[str, str]],
    *,
    batch_size: int = 32,
    repeats: int = 5,
    trace: Path | None = None,
) -> Profile:
    """Warm up a model and profile the scoring of N >= 1 pairs; nothing else may use the model meanwhile.

    Args:
        model: under the execution to profile.
        pairs: scored in each pass.
        batch_size: of padded and bucketed batches, as for `predict`.
        repeats: timed passes, and as many by stage.
        trace: the file of a Chrome trace of one pass.

    Raises:
        ModelError: sentence-transformers scores this model itself; the message says why.
        CompileError: the forward pass does not compile as one graph, or something compiled while measuring.
    """
    _ = model.pipeline  # raises if there is none to profile

    def score() -> None:
        model.predict(list(pairs), batch_size=batch_size, show_progress_bar=False)

    with watch_compiles() as warmup:
        warmup_s = _warmed_up(model, batch_size)
        score()
    pipeline, transformer = model.pipeline, model.pipeline.model
    with watch_compiles() as watch:
        seconds = tuple(_seconds(score) for _ in range(repeats))
        gemm_s = gemm_seconds_per_token(transformer, dtype=pipeline.multiplied_dtype)
        with recorded_stages(pipeline, _wait) as spans:
            for _ in range(repeats):
                score()
        with recorded_stages(pipeline) as traced_spans:
            traced = profile_pass(
                score,
                device=model.device.type,
                on_device=model._worker.result_on_device,
                trace=trace,
            )
    _check_nothing_compiled(watch.report)
    if trace is not None:
        add_to_trace(trace, traced_spans)
    report = model.last_report
    assert report is not None
    computed = sum(report.token_counts) - report.shared_tokens  # a shared prefix counts once
    return Profile(
        model=str(transformer.name_or_path),
        execution=model.execution,
        described=_described(model),
        max_length=pipeline.reranker.max_length,
        device=model.device.type,
        dtype=_name(transformer.dtype),
        fastest_dtype=_name(fastest_dtype(model.device)),
        report=report,
        seconds=seconds,
        stages=stage_seconds(spans, passes=repeats),
        traced=traced,
        warmup_s=warmup_s,
        graphs=0 if pipeline.compiled is None else pipeline.compiled.graphs,
        cudagraph_skips=warmup.report.cudagraph_skips,
        flops=workload_flops(transformer, report.token_counts) * computed / sum(report.token_counts),
        peak=device_peak(model.device.type, pipeline.multiplied_dtype),
        gemm_s=gemm_s * computed,
    )


def _warmed_up(model: CrossEncoder, batch_size: int) -> float:
    try:
        return model.warmup(batch_size).seconds
    except TorchDynamoException as error:
        raise CompileError(
            f"the forward pass does not compile as one graph: {first_line(error)}. Profile an execution "
            "that is not compiled, such as packed-eager, or take what is named out of the model."
        ) from error


def _check_nothing_compiled(report: CompileReport) -> None:
    if report.graphs or report.recompiles or report.cudagraph_recordings:
        raise CompileError(
            "something compiled while it was profiled, so the times are not those of scoring: "
            f"{'; '.join(report.describe().splitlines())}. Run no other model in this process meanwhile."
        )


def _seconds(score: Callable[[], object]) -> float:
    _wait()
    started = time.perf_counter()
    score()
    _wait()
    return time.perf_counter() - started


def _described(model: CrossEncoder) -> str:
    execution, device = model.execution, model.device
    name: Any = next((name for name, known in PRESETS.items() if known == execution), execution)
    mode = execution.compile_mode
    compiled = "not compiled" if mode is None else f"compile_mode={mode!r}"
    machine = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return (
        f"Execution {name} ({execution.layout} batches, {compiled}) in {_name(model.pipeline.model.dtype)} "
        f"on {device.type} ({machine}, {torch.get_num_threads()} CPU threads), torch {torch.__version__}."
    )


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
