"""BERT-large's geometry on sequences of one length, beside MLPerf's offline scenario.

MLPerf's sequences have the lengths of SQuAD and come as token ids; here they all have one length, and
only the device's work on batches made in advance is timed, not tokenizing.
"""

from __future__ import annotations

import statistics
from typing import Any

from perf_tests import workloads
from perf_tests.hopper.setting import Setting
from perf_tests.scorers import laid_out
from xenc import CrossEncoder
from xenc.gate.measuring.rounds import synchronised_seconds
from xenc.gate.record import relative_spread
from xenc.profiling.flops import device_peak, workload_flops


def sequences_per_second(setting: Setting, length: int, preset: str, rounds: int = 7) -> dict[str, Any]:
    """Sequences of `length` tokens that a preset scores in a second."""
    workload = workloads.full(pairs=setting.sequences, max_length=length)
    model = CrossEncoder(
        str(setting.large()), device=setting.device, max_length=length,
        model_kwargs={"dtype": setting.dtype}, execution=preset,
    )  # fmt: skip
    with model:
        model.warmup(workload.batch_size)
        pipeline, transformer = model.pipeline, model.transformers_model
        tokens, batches = laid_out(model, workload.round(0), workload.batch_size)
        pipeline.run(batches)
        seconds = []
        for _ in range(rounds):
            started = synchronised_seconds()
            pipeline.run(batches)
            seconds.append(synchronised_seconds() - started)
        median = statistics.median(seconds)
        assert set(tokens.counts) == {length}, "a sequence is shorter"
        flops = workload_flops(transformer, tokens.counts)
        peak = device_peak(setting.device, setting.dtype)
    return {
        "execution": preset,
        "length": length,
        "sequences_per_s": len(tokens.counts) / median,
        "mfu": flops / median / peak.flops_per_s,
        "spread": relative_spread(seconds),
        "rounds": rounds,
    }
