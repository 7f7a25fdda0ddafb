"""What the numbers of a profile say, in sentences, and what to try next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final, NamedTuple

from .kernel_names import ATTENTION, COPIES, ELEMENTWISE, shares_by_class
from .profile import Profile

NOISY, IDLE, WASTEFUL = 0.05, 0.15, 0.1
"""What is worth a word: the spread of the timed passes, the share of idle time, the share of padding."""

MUCH: Final = {ATTENTION: 0.4, ELEMENTWISE: 0.3, COPIES: 0.1}
"""Shares of the kernels' time above which a class of kernels is worth a word."""

_RECORDING: Final = ("reduce-overhead", "max-autotune")
"""Modes of torch.compile that record CUDA graphs."""

_ON_DEVICE: Final = ("plan", "collate", "forward")
"""The stages that the device's thread runs one after the other."""


class Finding(NamedTuple):
    """One thing that the numbers say, and what to try because of it, if anything."""

    says: str
    hint: str | None = None


def findings(profile: Profile) -> tuple[Finding, ...]:
    """All that a profile says, the most general first. The same numbers say the same."""
    parts = (_compilation, _cudagraphs, _idle, _limit, _padding, _kernel_classes, _caveats)
    return tuple(finding for part in parts for finding in part(profile))


def _compilation(profile: Profile) -> Iterator[Finding]:
    regions, mode = profile.regions, profile.execution.compile_mode
    if regions == 0 and mode is None:
        kernels = profile.traced.kernel_count / profile.report.batches
        yield Finding(
            f"Nothing is compiled: PyTorch launches {kernels:.0f} kernels a batch one by one.",
            "try --execution packed, which fuses the small kernels between the matrix products",
        )
    elif regions == 0:
        why = "; ".join(profile.compiled.eager_fallbacks) or "PyTorch gives no reason"
        yield Finding(
            f"0 compiled regions: compile_mode={mode!r} was asked for, and the forward pass ran eagerly "
            f"({why}).",
            "warm up the batch size that you predict with, in the process that predicts",
        )
    elif regions == 1:
        yield Finding("1 compiled region: the whole forward pass is one graph, without a graph break.")
        if profile.graphs > 1:
            yield Finding(f"{profile.graphs} graphs are kept, for different shapes; warm-up ran them all.")
    else:
        breaks = Counter(profile.compiled.graph_breaks).items()
        why = "; ".join(f"{reason} ({count} times)" if count > 1 else reason for reason, count in breaks)
        yield Finding(
            f"{regions:g} compiled regions: Python runs between them in every forward pass, because of "
            f"{why or 'graph breaks that were reported before this profile began'}. Nothing is fused across "
            "a graph break, and the device may wait for the host there.",
            "take what is named out of the forward pass, so that fullgraph=True compiles it",
        )


def _cudagraphs(profile: Profile) -> Iterator[Finding]:
    mode, device = profile.execution.compile_mode, profile.device
    if mode not in _RECORDING:
        return
    if device != "cuda":
        yield Finding(f"compile_mode={mode!r} records CUDA graphs, which {device} does not have.")
        return
    replays = profile.traced.cudagraph_launches / profile.report.batches
    skips = profile.compiled.cudagraph_skips
    skipped = f"; {skips} region(s) could not be recorded and were skipped" if skips else ""
    hint = "run with TORCH_LOGS=perf_hints, which says why a graph was skipped"
    if replays:
        says = f"{replays:g} CUDA graph replay(s) a batch, each launching all its kernels at once{skipped}."
        yield Finding(says, hint if skips else None)
    else:
        yield Finding(f"No CUDA graph was replayed, though {mode!r} records them{skipped}.", hint)


def _idle(profile: Profile) -> Iterator[Finding]:
    busy, count = profile.busy_share, profile.traced.kernel_count
    if busy is None:
        yield Finding(
            "The compiled kernels have no names, because the model was compiled before they were asked for: "
            "their time is missing from the tables of kernels.",
            "use `xenc profile`, or `name_compiled_kernels` before the warm-up",
        )
        return
    each = f"{count} kernels of {1e6 * profile.traced.busy_s / count:.0f} microseconds on average"
    if busy >= 1 - IDLE:
        yield Finding(f"A kernel ran {busy:.0%} of the time, {each}: the device is busy.")
    else:
        idle = 1 - busy
        yield Finding(
            f"A kernel ran {busy:.0%} of the time, {each}; the device was idle the other {idle:.0%}.",
            _against_idling(profile, idle),
        )


def _against_idling(profile: Profile, idle: float) -> str:
    share = {stage: seconds / profile.median_s for stage, seconds in profile.stages.items()}
    unread = 1 - sum(share.get(stage, 0.0) for stage in _ON_DEVICE)
    if unread > idle / 2:
        return (
            f"{unread:.0%} of the time no batch was ready, and tokenizing took "
            f"{share.get('tokenize', 0.0):.0%}: score more pairs in one call, so that texts are tokenized "
            "while the device runs, or give the tokenizer more CPU cores"
        )
    if profile.device != "cuda":
        return f"{idle:.0%} is Python and PyTorch between the kernels: longer batches have fewer gaps"
    if profile.execution.compile_mode in _RECORDING:
        return f"the device waits {idle:.0%} of the time even with CUDA graphs: score more pairs in one call"
    return (
        f"the device waits for the host {idle:.0%} of the time: try --execution packed-cudagraphs, where the "
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
        f"The model's matrix products alone would take {share:.0%} of the time: {rest}. MFU is "
        f"{profile.mfu:.0%} of the device's peak."
    )
    if dtype != "float32" and fastest == "float32":
        says = f"This device has no instructions for {dtype}: it emulates products, {share:.0%} of the time."
        yield Finding(says, "try --dtype float32")
    elif dtype == "float32" and fastest != "float32":
        says = (
            f"Products in float32 need {share:.0%} of the time, and this device has {fastest} instructions."
        )
        yield Finding(says, f"try --dtype {fastest}, and compare the scores")


def _padding(profile: Profile) -> Iterator[Finding]:
    if profile.report.waste >= WASTEFUL:
        hint = "try --execution packed, which lays pairs end to end"
        if profile.execution.layout == "packed":
            hint = (
                f"{profile.report.batches} batch(es) held {profile.tokens} tokens: score more pairs in one "
                "call, or choose Execution(token_budgets=...) nearer to what a request holds"
            )
        says = f"{profile.report.waste:.1%} of the tokens that the device processed were padding."
        yield Finding(says, hint)


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
