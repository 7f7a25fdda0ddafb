"""Builds the C++ operators once per machine and loads them once per process.

The library's name is a digest of all that its code depends on: the sources, PyTorch's version, this CPU's
instructions, and the package's name, because two revisions of xenc may live in one process. It is kept in
`torch.utils.cpp_extension`'s build folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import torch
from torch import Tensor

from ..forks import renewed_in_a_child

logger = logging.getLogger(__name__)

NAMESPACE: Final = (__package__ or "xenc.kernels").replace(".", "_")
"""The namespace of the operators in `torch.ops`."""

DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16)
"""The dtypes that the kernels support."""

SOURCES: Final = tuple(sorted((Path(__file__).parent / "cpp").glob("*.cpp")))
_HEADERS: Final = tuple(sorted((Path(__file__).parent / "cpp").glob("*.h")))


@dataclass(frozen=True, kw_only=True)
class Library:
    """The operators, or why there are none.

    Attributes:
        operators: their namespace in `torch.ops`; None if they could not be built or loaded.
        missing: why not, in one line; else None.
        panel_columns: columns of a panel of weights.
        bfloat16_depth: bfloat16 numbers that one instruction multiplies: 2 with AVX512_BF16, else 1.
        has_int8: whether there are int8 products, which need AVX512_VNNI.
    """

    operators: Any = None
    missing: str | None = None
    panel_columns: int = 0
    bfloat16_depth: int = 1
    has_int8: bool = False


@cache
def instructions() -> tuple[str, ...]:
    """The instruction sets the library is built for, as PyTorch's dispatch sees this CPU.

    Empty without AVX2, and so on CPUs other than x86. As in PyTorch, setting ATEN_CPU_CAPABILITY=avx2 before
    the process starts hides AVX-512.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    if capability == "AVX2":
        return ("avx2", "fma", "f16c")
    if capability != "AVX512":
        return ()
    found = ["avx2", "fma", "f16c", "avx512f", "avx512dq", "avx512bw", "avx512vl"]
    found += ["avx512bf16"] if torch.cpu._is_avx512_bf16_supported() else []
    vnni = getattr(torch.cpu, "_is_vnni_supported", lambda: False)  # private to PyTorch, may vanish
    return (*found, *(["avx512vnni"] if vnni() else []))


def flags() -> list[str]:
    """The compiler's flags. Without the capability macros, `at::vec` would silently be scalar code."""
    capability = "AVX512" if "avx512f" in instructions() else "AVX2"
    return [
        "-O3", "-g0", "-fopenmp", *(f"-m{name}" for name in instructions()),
        f"-DCPU_CAPABILITY={capability}", f"-DCPU_CAPABILITY_{capability}", f"-DXENC_NAMESPACE={NAMESPACE}",
    ]  # fmt: skip


def name() -> str:
    """The library's name, a digest of all that its code depends on."""
    digest = hashlib.sha256(repr((torch.__version__, flags())).encode())
    for file in (*SOURCES, *_HEADERS):
        digest.update(file.read_bytes())
    return f"{NAMESPACE}_{digest.hexdigest()[:16]}"


def file_of(name: str) -> Path:
    """Where a library of that name is kept once it is built."""
    from torch.utils import cpp_extension

    root = Path(os.environ.get("TORCH_EXTENSIONS_DIR") or cpp_extension.get_default_build_root())
    return root / name / f"{name}.so"


def is_built() -> bool:
    """Whether this machine's library is there, whole."""
    return _is_whole(file_of(name()))


def library() -> Library:
    """The operators. A machine's first call builds them in about ten seconds; failure logs one warning."""
    with _LOADING:  # so that only one thread loads
        return _loaded()


_LOADING: Final = renewed_in_a_child(threading.Lock())


@cache
def _loaded() -> Library:
    if not instructions():
        return Library(missing="no kernels for this processor: they are for x86 with AVX2 or AVX-512")
    try:
        torch.ops.load_library(_built(name()))  # type: ignore[no-untyped-call]
        for operator, described in (
            ("attention", like_query), ("biased_attention", like_query), ("pooled_attention", like_query),
            ("linear", _like_product),
        ):  # fmt: skip
            torch.library.register_fake(f"{NAMESPACE}::{operator}", described)
    except Exception as error:
        reason = _main_line(error)
        logger.warning(
            "xenc's C++ kernels could not be built or loaded, PyTorch's are used, which are slower: %s "
            "(they need a C++ compiler, found as c++ or in CXX, and `pip install ninja`)", reason,
        )  # fmt: skip
        return Library(missing=reason)
    operators = getattr(torch.ops, NAMESPACE)
    facts = {fact: getattr(operators, fact)() for fact in ("panel_columns", "bfloat16_depth", "has_int8")}
    return Library(operators=operators, **facts)


def build_in_background() -> None:
    """Start to build and load in a thread, while a model is read.

    Its imports are done here first: transformers imports while a model is read, and if two threads import
    from one package at once, one may find it incomplete.
    """
    if not _loaded.cache_info().currsize:
        with suppress(ImportError):  # `library` reports that setuptools is absent
            importlib.import_module("torch.utils.cpp_extension")
        threading.Thread(target=library, name="xenc-kernels", daemon=True).start()


def _built(name: str) -> Path:
    """The library's file. A second process waits for the first, and an interrupted build leaves nothing."""
    from torch.utils import cpp_extension

    library = file_of(name)
    folder = library.parent
    if _is_whole(library):
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(folder):
        if not _is_whole(library):
            with TemporaryDirectory(dir=folder) as scratch, _ninja_on_path():
                cpp_extension.load(
                    name, [str(source) for source in SOURCES], extra_cflags=flags(),
                    extra_ldflags=["-fopenmp"], build_directory=scratch, is_python_module=False,
                )  # fmt: skip
                made = Path(scratch) / f"{name}.so"
                _digest_of(library).write_text(_digest(made))
                os.replace(made, library)
    return library


def _is_whole(library: Path) -> bool:
    """Whether a file is as it was built: loading a truncated one would kill the process."""
    try:
        return _digest_of(library).read_text() == _digest(library)
    except OSError:
        return False


def _digest_of(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a file lock, which the system releases if the process is killed."""
    import fcntl

    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(lock, fcntl.LOCK_UN)  # a child forked meanwhile has it open too


@contextmanager
def _ninja_on_path() -> Iterator[None]:
    """Find pip's ninja, which is on the PATH only in an activated environment."""
    if shutil.which("ninja") is not None or importlib.util.find_spec("ninja") is None:
        yield
        return
    import ninja

    before = os.environ.get("PATH", "")
    os.environ["PATH"] = os.pathsep.join([ninja.BIN_DIR, before])
    try:
        yield
    finally:
        os.environ["PATH"] = before


def _main_line(error: Exception) -> str:
    """The last line of a compiler's output that names an error, else the last line of the message."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    complaints = [line for line in lines if "error:" in line or "not found" in line]
    return (complaints or lines or [type(error).__name__])[-1]


def like_query(query: Tensor, *_: Any) -> Tensor:
    """An empty contiguous tensor of the query's shape: what attention returns, for torch.compile."""
    return torch.empty(query.shape, dtype=query.dtype, device=query.device)


def _like_product(left: Tensor, *rest: Any) -> Tensor:
    *_, outputs, _ = rest
    return left.new_empty(*left.shape[:-1], outputs)
