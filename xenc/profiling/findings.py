"""Numbers -> sentences: what a profile says, and what to try next. Pure: no torch, no files."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Final

from .facts import Profile
from .kernel_names import ATTENTION, COPIES, ELEMENTWISE, by_class

NOISY: Final = 0.05
"""Spread of the timed passes beyond which a few percent mean nothing."""

IDLE: Final = 0.15
"""Share of the time without a kernel that is worth a word."""

WASTEFUL: Final = 0.1
"""Share of padding that is worth a word."""

MUCH: Final = {ATTENTION: 0.4, ELEMENTWISE: 0.3, COPIES: 0.1}
"""Shares of the kernels' time beyond which a class other than matrix products is worth a word."""

_REPLAYING: Final = ("reduce-overhead", "max-autotune")

_ON_DEVICE: Final = ("plan", "collate", "forward")
"""The stages that one after the other occupy the device's thread."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing that the numbers say, and what to try because of it, if anything."""

    says: str
    hint: str | None = None


def findings(profile: Profile) -> tuple[Finding, ...]:
    """All that a profile says, the most general first. The same numbers say the same."""
    found = (
        _regions(profile), _graphs(profile), _cudagraphs(profile), _busy(profile), _limit(profile),
        _dtype(profile), _waste(profile), *_classes(profile), _truncated(profile), _noise(profile),
    )  # fmt: skip
    return tuple(finding for finding in found if finding is not None)


def _regions(profile: Profile) -> Finding:
    traced, regions = profile.traced, profile.traced.regions
    kernels = traced.kernel_count / traced.batches
    if regions == 0 and profile.subject.compile_mode is None:
        return Finding(
            says=f"Nothing is compiled: PyTorch starts {kernels:.0f} kernels a batch one by one.",
            hint="try --execution packed, which fuses the small kernels between the matrix products",
        )
    if regions == 0:
        why = "; ".join(profile.compilation.eager_fallbacks) or "PyTorch gives no reason"
        return Finding(
            says=f"0 compiled regions: compile_mode={profile.subject.compile_mode!r} was asked for, and the "
            f"forward pass ran eagerly ({why}).",
            hint="warm up the batch size that you predict with, in the process that predicts",
        )
    if regions == 1:
        return Finding(says="1 compiled region: the whole forward pass is one graph, without a graph break.")
    return Finding(
        says=f"{regions:g} compiled regions: Python ran between them in every forward pass, because of "
        f"{_reasons(profile.compilation.graph_breaks)}. Nothing is fused across such a graph break, and the "
        "device may wait meanwhile.",
        hint="take what is named out of the forward pass, so that fullgraph=True compiles it",
    )


def _reasons(breaks: tuple[str, ...]) -> str:
    if not breaks:
        return "graph breaks that were reported when it compiled, before this profile began"
    return "; ".join(
        reason if count == 1 else f"{reason} ({count} times)" for reason, count in Counter(breaks).items()
    )


def _graphs(profile: Profile) -> Finding | None:
    graphs, regions = profile.compilation.graphs, profile.traced.regions
    if regions != 1 or graphs <= 1:
        return None
    return Finding(
        says=f"{graphs} graphs are kept for it, for different shapes; warm-up ran every one of them."
    )


def _cudagraphs(profile: Profile) -> Finding | None:
    subject, traced = profile.subject, profile.traced
    if subject.compile_mode not in _REPLAYING:
        return None
    if subject.device != "cuda":
        return Finding(
            says=f"compile_mode={subject.compile_mode!r} records CUDA graphs, which {subject.device} lacks: "
            "no kernel is replayed.",
        )
    skips = profile.compilation.cudagraph_skips
    skipped = f"; {skips} region(s) could not be recorded and were skipped" if skips else ""
    replays = traced.cudagraph_launches / traced.batches
    return Finding(
        says=f"{replays:g} CUDA graph replay(s) a batch: the host starts all kernels of one at once{skipped}."
        if replays
        else f"No CUDA graph was replayed, though {subject.compile_mode!r} records them{skipped}.",
        hint="run with TORCH_LOGS=perf_hints, which says why a graph was skipped"
        if skips or not replays
        else None,
    )


def _busy(profile: Profile) -> Finding | None:
    busy = profile.busy_share
    if busy is None:
        return Finding(
            says="The compiled kernels have no names: the model was compiled before anybody asked for them. "
            "Their time is in no table of kernels.",
            hint="use `xenc profile`, or `name_compiled_kernels` before the warm-up",
        )
    count = profile.traced.kernel_count
    each = 1e6 * profile.traced.busy_s / count
    says = f"A kernel ran {busy:.0%} of the time, {count} kernels of {each:.0f} microseconds on average"
    if busy >= 1 - IDLE:
        return Finding(says=f"{says}: the device is busy.")
    return Finding(
        says=f"{says}, and none the other {1 - busy:.0%}.", hint=_against_waiting(profile, 1 - busy)
    )


def _against_waiting(profile: Profile, idle: float) -> str:
    subject = profile.subject
    unread = 1 - sum(profile.stages.get(stage, 0.0) for stage in _ON_DEVICE) / profile.median_s
    if unread > idle / 2:
        reading = profile.stages.get("tokenize", 0.0) / profile.median_s
        return (
            f"{unread:.0%} of the time no batch was on its way, and reading texts took {reading:.0%}: score "
            "more pairs in one call, so that texts are read while the device runs, or give the tokenizer "
            "more CPU cores"
        )
    if subject.device != "cuda":
        return f"{idle:.0%} is Python and PyTorch between the kernels: longer batches have fewer gaps"
    if subject.compile_mode in _REPLAYING:
        return f"the device waits {idle:.0%} of the time even so: score more pairs in one call"
    return (
        f"the device waits for the host {idle:.0%} of the time: try --execution packed-cudagraphs, where the "
        "host starts all kernels of a batch at once"
    )


def _limit(profile: Profile) -> Finding:
    share = profile.gemm_share
    rest = (
        f"nothing in this dtype can become more than {1 / share:.1f} times as fast on these tokens"
        if share < 1
        else "which is all there is: only a lower precision or a smaller model would be faster"
    )
    return Finding(
        says=f"The model's matrix products alone would need {share:.0%} of the time: {rest}. MFU is "
        f"{profile.mfu:.0%} of the device's peak."
    )


def _dtype(profile: Profile) -> Finding | None:
    subject = profile.subject
    if subject.dtype != "float32" and subject.fastest_dtype == "float32":
        return Finding(
            says=f"This device has no instructions for {subject.dtype}: it emulates matrix products, which "
            f"need {profile.gemm_share:.0%} of the time.",
            hint="try --dtype float32",
        )
    if subject.dtype != "float32" or subject.fastest_dtype == "float32":
        return None
    return Finding(
        says=f"float32 matrix products need {profile.gemm_share:.0%} of the time, and this device has "
        f"instructions for {subject.fastest_dtype}.",
        hint=f"try --dtype {subject.fastest_dtype}, and compare the scores",
    )


def _waste(profile: Profile) -> Finding | None:
    waste = profile.work.waste
    if waste < WASTEFUL:
        return None
    says = f"{waste:.1%} of the tokens that the device processed were padding."
    if profile.subject.layout != "packed":
        return Finding(says=says, hint="try --execution packed, which lays pairs end to end")
    return Finding(
        says=says,
        hint=f"{profile.work.batches} batch(es) held {profile.work.tokens} tokens: score more pairs in one "
        "call, or choose Execution(token_budgets=...) nearer to what a request holds",
    )


def _classes(profile: Profile) -> list[Finding]:
    classes = by_class(profile.traced.kernels)
    whole = sum(seconds for _, seconds in classes.values())
    shares = {kind: seconds / whole for kind, (_, seconds) in classes.items()}
    return [
        Finding(says=f"{shares[kind]:.0%} of the kernels' time is {kind}.", hint=_hint(kind, profile))
        for kind, much in MUCH.items()
        if shares.get(kind, 0) > much
    ]


def _hint(kind: str, profile: Profile) -> str | None:
    eager = profile.subject.compile_mode is None
    mean = profile.work.tokens / profile.work.pairs
    if kind == ATTENTION:
        return f"attention grows with the square of a pair's length, here {mean:.0f}: cut texts shorter"
    if kind == ELEMENTWISE and eager:
        return "a compiled execution, such as packed, fuses these kernels"
    if kind == COPIES and eager:
        return "a compiled execution, such as packed, drops most copies"
    return None


def _truncated(profile: Profile) -> Finding | None:
    work = profile.work
    if not work.truncated_pairs:
        return None
    return Finding(
        says=f"{work.truncated_pairs} of {work.pairs} pairs were cut at {work.max_length} tokens: what was "
        "cut has no part in their scores."
    )


def _noise(profile: Profile) -> Finding | None:
    if profile.spread <= NOISY:
        return None
    return Finding(
        says=f"The timed passes differ by {profile.spread:.0%} (standard deviation / median): smaller "
        "differences than that mean nothing.",
        hint="close what else runs on this machine, or raise --repeats",
    )
