"""A `Profile` -> sentences about its numbers, with what to try next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from ..compiling.wrapper import CUDAGRAPH_MODES
from .kernel_names import ATTENTION, COPIES, ELEMENTWISE, shares_by_class
from .profile import Profile

NOISY, IDLE, WASTEFUL = 0.05, 0.15, 0.1
"""Reported from here on: the spread of timed passes, the idle share of the time, the padding fraction."""

MUCH: Final = {ATTENTION: 0.4, ELEMENTWISE: 0.3, COPIES: 0.1}
"""A class of kernels is reported above this share of the kernels' time."""


class Finding(NamedTuple):
    """A statement about the numbers, and what to try because of it, if anything."""

    says: str
    hint: str | None = None


def findings(profile: Profile) -> tuple[Finding, ...]:
    """Everything the numbers say, the most general first; a function of the profile only."""
    parts = (_compilation, _cudagraphs, _idle, _limit, _padding, _kernel_classes, _caveats)
    return tuple(finding for part in parts for finding in part(profile))


def _compilation(profile: Profile) -> Iterator[Finding]:
    mode = profile.execution.compile_mode
    if mode is None:
        each = profile.traced.kernel_count / profile.report.batches
        yield Finding(
            f"Nothing is compiled: PyTorch launches {each:.0f} kernels a batch one by one.",
            "try --execution packed, which fuses the small kernels between the matrix products",
        )
    elif profile.regions == 0:
        yield Finding(
            f"0 compiled regions: compile_mode={mode!r} was asked for, and the forward pass ran eagerly.",
            "unset TORCH_COMPILE_DISABLE and TORCHDYNAMO_DISABLE",
        )
    else:
        yield Finding(f"{profile.regions:g} compiled region a batch: the whole forward pass is one graph.")
        if profile.graphs > 1:
            yield Finding(f"{profile.graphs} graphs are kept, for different shapes; warm-up ran them all.")


def _cudagraphs(profile: Profile) -> Iterator[Finding]:
    mode, skips = profile.execution.compile_mode_on(profile.device), profile.cudagraph_skips
    if mode not in CUDAGRAPH_MODES:
        return
    if profile.device != "cuda":
        yield Finding(f"compile_mode={mode!r} records CUDA graphs, which {profile.device} does not have.")
        return
    replays = profile.traced.cudagraph_launches / profile.report.batches
    skipped = f"; {skips} region(s) could not be recorded and were skipped" if skips else ""
    says = (
        f"{replays:g} CUDA graph replay(s) a batch, each launching all its kernels at once{skipped}."
        if replays
        else f"No CUDA graph was replayed, though {mode!r} records them{skipped}."
    )
    hint = "run with TORCH_LOGS=perf_hints, which says why a graph was skipped"
    yield Finding(says, None if replays and not skips else hint)


def _idle(profile: Profile) -> Iterator[Finding]:
    busy, count = profile.busy_share, profile.traced.kernel_count
    if busy is None:
        yield Finding(
            "The compiled kernels have no names, because the model was compiled before they were asked for: "
            "their time is missing from the tables of kernels.",
            "use `xenc profile`, or `name_compiled_kernels` before the warm-up",
        )
        return
    average_us = 1e6 * profile.traced.busy_s / count
    says = f"A kernel ran {busy:.0%} of the time, {count} kernels of {average_us:.0f} microseconds on average"
    if busy >= 1 - IDLE:
        yield Finding(f"{says}: the device is busy.")
    else:
        hint = _against_idling(profile, 1 - busy)
        yield Finding(f"{says}; the device was idle the other {1 - busy:.0%}.", hint)


def _against_idling(profile: Profile, idle: float) -> str:
    share = {stage: seconds / profile.median_s for stage, seconds in profile.stages.items()}
    waiting = 1 - sum(share.get(stage, 0.0) for stage in ("plan", "collate", "forward"))
    if waiting > idle / 2:
        return (
            f"{waiting:.0%} of the time no batch was ready, and tokenizing took "
            f"{share.get('tokenize', 0.0):.0%}: score more pairs in one call, so that texts are tokenized "
            "while the device runs, or give the tokenizer more CPU cores"
        )
    if profile.device != "cuda":
        return f"{idle:.0%} is Python and PyTorch between the kernels: larger batches have fewer gaps"
    if profile.execution.compile_mode_on(profile.device) in CUDAGRAPH_MODES:
        return f"the device waits {idle:.0%} of the time even with CUDA graphs: score more pairs in one call"
    return (
        f"the device waits for the host {idle:.0%} of the time: try --execution packed, where the "
        "host launches all kernels of a batch at once"
    )


def _limit(profile: Profile) -> Iterator[Finding]:
    share, dtype, fastest = profile.gemm_share, profile.dtype, profile.fastest_dtype
    rest = (
        f"nothing in this dtype can become more than {1 / share:.1f} times as fast on these tokens"
        if share < 1
        else "only a lower precision or a smaller model would be faster"
    )
    yield Finding(
        f"The model's matrix products by themselves would take {share:.0%} of the time: {rest}. MFU is "
        f"{profile.mfu:.0%} of the device's peak."
    )
    if dtype != "float32" and fastest == "float32":
        says = f"This device has no instructions for {dtype}: it emulates products, {share:.0%} of the time."
        yield Finding(says, "try --dtype float32")
    elif dtype == "float32" and fastest != "float32":
        says = (
            f"Products in float32 take {share:.0%} of the time, and this device has {fastest} instructions."
        )
        yield Finding(says, f"try --dtype {fastest}, and compare the scores")


def _padding(profile: Profile) -> Iterator[Finding]:
    report = profile.report
    if report.waste >= WASTEFUL:
        hint = "try --execution packed, which lays pairs end to end"
        if profile.execution.layout == "packed":
            hint = (
                f"{report.batches} batch(es) held {profile.tokens} tokens: score more pairs in one call, or "
                "choose Execution(token_budgets=...) nearer to the size of a request"
            )
        yield Finding(f"{report.waste:.1%} of the tokens that the device processed were padding.", hint)


def _kernel_classes(profile: Profile) -> Iterator[Finding]:
    shares = shares_by_class(profile.traced.kernels)
    mean, eager = profile.tokens / profile.report.pairs, profile.execution.compile_mode is None
    hints = {
        ATTENTION: f"attention grows with the square of a pair's tokens, here {mean:.0f}: cut texts shorter",
        ELEMENTWISE: "a compiled execution, such as packed, fuses these kernels" if eager else None,
        COPIES: "a compiled execution, such as packed, drops most copies" if eager else None,
    }
    for kind, much in MUCH.items():
        if shares.get(kind, 0.0) > much:
            yield Finding(f"{shares[kind]:.0%} of the kernels' time is {kind}.", hints[kind])


def _caveats(profile: Profile) -> Iterator[Finding]:
    report = profile.report
    if report.truncated_pairs:
        yield Finding(
            f"{report.truncated_pairs} of {report.pairs} pairs were cut at {profile.max_length} tokens: "
            "the rest of their text has no part in their scores."
        )
    if profile.spread > NOISY:
        yield Finding(
            f"The timed passes differ by {profile.spread:.0%} (standard deviation / median): smaller "
            "differences than that mean nothing.",
            "close what else runs on this machine, or raise --repeats",
        )
