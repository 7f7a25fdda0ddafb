"""A `Checkup` -> what is broken or will be slow, why, and what to do about it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

from packaging.version import InvalidVersion, Version

from .checkup import MINIMUM, Checkup

Level = Literal["broken", "slow", "note"]
"""xenc may not work; everything is slow and need not be; something to know."""

TO_MEND: Final = ("broken", "slow")


class Ailment(NamedTuple):
    """What is the matter, and its remedy."""

    level: Level
    says: str
    remedy: str


def ailments(found: Checkup) -> tuple[Ailment, ...]:
    """All of them, the worst first; a function of the checkup only."""
    parts = (_versions, _device, _kernels, _compile, _processor, _threads, _packages, _caches)
    every = [ailment for part in parts for ailment in part(found)]
    return tuple(sorted(every, key=lambda each: [*TO_MEND, "note"].index(each.level)))


def _versions(found: Checkup) -> Iterator[Ailment]:
    for name, minimum in MINIMUM.items():
        have = found.versions[name]
        if have is None:
            yield Ailment("broken", f"{name} is not installed", f"pip install '{name}>={minimum}'")
        elif _older(have, minimum):
            yield Ailment("broken", f"{name} {have} is older than {minimum}, the oldest that works",
                f"pip install -U '{name}>={minimum}'")  # fmt: skip


def _device(found: Checkup) -> Iterator[Ailment]:
    if found.unused_gpu:
        yield Ailment("slow", "there is an NVIDIA driver, and this torch cannot use it: all runs on the CPU",
            "install torch built for CUDA, as https://pytorch.org/get-started/locally says")  # fmt: skip
    if found.device == "cuda" and found.versions["triton"] is None:
        yield Ailment("slow", "Triton is not installed: nothing compiles, and attention is PyTorch's",
            "pip install triton, in the version that torch asks for")  # fmt: skip


def _kernels(found: Checkup) -> Iterator[Ailment]:
    """On a GPU the C++ kernels are not used."""
    if found.kernels_missing is None or found.device != "cpu":
        return
    if "avx2" not in found.instructions:
        yield Ailment("note", "no C++ kernels for this processor: PyTorch's are used, which are slower",
            "run on a processor with AVX2 or AVX-512, or on a GPU")  # fmt: skip
        return
    yield Ailment(
        "slow", f"the C++ kernels could not be built or loaded: {found.kernels_missing}", _mend(found)
    )


def _compile(found: Checkup) -> Iterator[Ailment]:
    if found.compile_fails is not None:
        yield Ailment("slow", f"torch.compile does not work: {found.compile_fails}",
            f"{_mend(found, found.compile_fails)}; until then use packed-eager")  # fmt: skip


def _mend(found: Checkup, said: str = "") -> str:
    """How to get compilers to work."""
    name, path, _ = found.compiler
    if "Python.h" in said:
        return "install Python's headers (apt-get install python3-dev)"
    if path is None:
        other = "" if name == "c++" else f", or unset CXX={name}, which is not there"
        return f"install a C++ compiler (apt-get install g++){other}"
    if found.ninja is None:
        return "pip install ninja"
    return f"mend what {path} complains about, and run xenc doctor again"


def _processor(found: Checkup) -> Iterator[Ailment]:
    if found.hidden:
        yield Ailment("slow", f"{found.hidden} hides AVX-512 from torch", "unset ATEN_CPU_CAPABILITY")
    if found.fastest_dtype != "float32":
        yield Ailment("note", f"a model in float32 is slower than in {found.fastest_dtype} here",
            "--dtype fastest, or model_kwargs={\"dtype\": fastest_dtype(device)}; compare the scores with "
            "xenc bench")  # fmt: skip
    if found.device != "cpu":
        return
    if not {"avx512_vnni", "amx_tile"} & {*found.instructions}:
        yield Ailment("note", "the processor has no int8 instructions (VNNI): packed-int8 is slow",
            "use packed, or a processor with AVX512_VNNI")  # fmt: skip
    if found.fastest_dtype == "float32":
        yield Ailment("note", "the processor has no bfloat16 instructions: float32 is its fastest dtype",
            "leave models in float32, or use a processor with AVX512_BF16 or AMX")  # fmt: skip


def _threads(found: Checkup) -> Iterator[Ailment]:
    if found.threads < found.cores and found.device == "cpu":
        yield Ailment("note", f"torch uses {found.threads} thread(s), and there are {found.cores} cores",
            "unset OMP_NUM_THREADS, unless other processes use the rest")  # fmt: skip


def _packages(found: Checkup) -> Iterator[Ailment]:
    eight_bits = found.device == "cuda" or "avx512_vnni" not in found.instructions
    needs = {
        "pyarrow": ("xenc score reads and writes no Parquet", "pip install 'xenc[parquet]'"),
        "matplotlib": ("xenc bench draws no picture", "pip install matplotlib"),
    }
    if eight_bits:
        needs["torchao"] = "there are no products in eight bits", "pip install 'xenc[torchao]'"
    for name, (lacks, remedy) in needs.items():
        if found.optional[name] is None:
            yield Ailment("note", f"{name} is not installed: {lacks}", remedy)


def _caches(found: Checkup) -> Iterator[Ailment]:
    if found.offline:
        yield Ailment("note", f"HF_HUB_OFFLINE is set: only models in {found.hub_cache} are found by name",
            "unset HF_HUB_OFFLINE to fetch others, or name a folder")  # fmt: skip
    if Path(found.inductor_cache).is_relative_to(tempfile.gettempdir()):
        yield Ailment("note",
            f"{found.inductor_cache}, where compiled code is kept, may be emptied: warm-up takes longer then",
            "set TORCHINDUCTOR_CACHE_DIR to a folder that stays, or warmup(cache_dir=...)")  # fmt: skip


def _older(have: str, minimum: str) -> bool:
    try:
        return Version(have) < Version(minimum)
    except InvalidVersion:
        return False
