"""The C++ operators: built once per machine, loaded once per process; what runs without them says why.

The library's name is made of all that its code depends on: the sources, PyTorch's version, the instructions
of this processor, and the package's own name, because two revisions of xenc may live in one process. It is
kept in the folder where `torch.utils.cpp_extension` keeps what it builds.
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

logger = logging.getLogger(__name__)

NAMESPACE: Final = (__package__ or "xenc.kernels").replace(".", "_")
"""What the operators are registered under."""

DTYPES: Final = (torch.float32, torch.bfloat16, torch.float16)
"""What there are kernels for."""

SOURCES: Final = tuple(sorted((Path(__file__).parent / "cpp").glob("*.cpp")))
_HEADERS: Final = tuple(sorted((Path(__file__).parent / "cpp").glob("*.h")))


@dataclass(frozen=True, kw_only=True)
class Library:
    """The operators, or why there are none.

    Attributes:
        operators: `torch.ops`' namespace; None if the library cannot be had.
        missing: why not, in one line; None if it is there.
        panel_columns: columns of a panel of weights.
        bfloat16_depth: how many bfloat16 numbers are multiplied at once: 2 with AVX512_BF16, else 1.
        has_int8: whether there are products of int8: with AVX512_VNNI.
    """

    operators: Any = None
    missing: str | None = None
    panel_columns: int = 0
    bfloat16_depth: int = 1
    has_int8: bool = False


@cache
def instructions() -> tuple[str, ...]:
    """The instruction sets the library is built for, as PyTorch's dispatch sees the processor.

    Empty where there is nothing to build for: on other processors than x86, and without AVX2. Setting
    ATEN_CPU_CAPABILITY=avx2 before the process cu_seqlens hides AVX-512 here as it does in PyTorch.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    if capability == "AVX2":
        return ("avx2", "fma", "f16c")
    if capability != "AVX512":
        return ()
    found = ["avx2", "fma", "f16c", "avx512f", "avx512dq", "avx512bw", "avx512vl"]
    found += ["avx512bf16"] if torch.cpu._is_avx512_bf16_supported() else []
    vnni = getattr(torch.cpu, "_is_vnni_supported", lambda: False)  # private to PyTorch, so it may go
    return (*found, *(["avx512vnni"] if vnni() else []))


def flags() -> list[str]:
    """What the compiler is told. Without the capability, `at::vec` would silently be scalar code."""
    capability = "AVX512" if "avx512f" in instructions() else "AVX2"
    return [
        "-O3", "-g0", "-fopenmp", *(f"-m{name}" for name in instructions()),
        f"-DCPU_CAPABILITY={capability}", f"-DCPU_CAPABILITY_{capability}", f"-DXENC_NAMESPACE={NAMESPACE}",
    ]  # fmt: skip


def name() -> str:
    """The library's name."""
    digest = hashlib.sha256(repr((torch.__version__, flags())).encode())
    for file in (*SOURCES, *_HEADERS):
        digest.update(file.read_bytes())
    return f"{NAMESPACE}_{digest.hexdigest()[:16]}"


def library() -> Library:
    """The operators; builds them if this machine has not yet, in some ten seconds. Says once if it cannot."""
    with _LOADING:  # whoever waits for another thread finds what that made
        return _loaded()


_LOADING: Final = threading.Lock()


@cache
def _loaded() -> Library:
    if not instructions():
        return Library(missing="no kernels for this processor: they are for x86 with AVX2 or AVX-512")
    try:
        torch.ops.load_library(_built(name()))  # type: ignore[no-untyped-call]
        _describe_to_the_compiler()
    except Exception as error:
        reason = _last_line(error)
        logger.warning(
            "xenc's C++ kernels could not be built or loaded, PyTorch's are used, which are slower: %s "
            "(they need a C++ compiler, found as c++ or in CXX, and `pip install ninja`)", reason,
        )  # fmt: skip
        return Library(missing=reason)
    operators = getattr(torch.ops, NAMESPACE)
    return Library(
        operators=operators,
        panel_columns=operators.panel_columns(),
        bfloat16_depth=operators.bfloat16_depth(),
        has_int8=operators.has_int8(),
    )


def build_in_background() -> None:
    """Begin to build and load, so that it is done while a model is read.

    What that imports is imported here first: while a model is read transformers imports too, and of two
    threads that import from one package at once one may find it half made.
    """
    if not _loaded.cache_info().currsize:
        with suppress(ImportError):  # setuptools is absent, which `library` says
            importlib.import_module("torch.utils.cpp_extension")
        threading.Thread(target=library, name="xenc-kernels", daemon=True).start()


def _built(name: str) -> Path:
    """The library's file. Of two processes at once the second waits, and a build that dies leaves nothing."""
    from torch.utils import cpp_extension

    root = os.environ.get("TORCH_EXTENSIONS_DIR") or cpp_extension.get_default_build_root()
    folder = Path(root) / name
    library = folder / f"{name}.so"
    if _is_whole(library):
        return library
    folder.mkdir(parents=True, exist_ok=True)
    with _alone_in(folder):
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
    """Whether a file is what was built: loading one that is cut short would kill the process."""
    try:
        return _digest_of(library).read_text() == _digest(library)
    except OSError:
        return False


def _digest_of(library: Path) -> Path:
    return library.with_suffix(".sha256")


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold a lock that ends with this process, however it ends."""
    import fcntl

    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def _ninja_on_path() -> Iterator[None]:
    """Ninja as pip installs it is found beside the interpreter only in an activated environment."""
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


def _last_line(error: Exception) -> str:
    """Of a compiler's output what it complains of, else the end of what was said."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    complaints = [line for line in lines if "error:" in line or "not found" in line]
    return (complaints or lines or [type(error).__name__])[-1]


@cache
def _describe_to_the_compiler() -> None:
    """What torch.compile is told of the operators' results."""

    def attention(query: Tensor, *_: Any) -> Tensor:
        return torch.empty(query.shape, dtype=query.dtype, device=query.device)

    def linear(left: Tensor, *rest: Any) -> Tensor:
        *_, outputs, _ = rest
        return left.new_empty(*left.shape[:-1], outputs)

    for name in ("attention", "pooled_attention"):
        torch.library.register_fake(f"{NAMESPACE}::{name}", attention)
    torch.library.register_fake(f"{NAMESPACE}::linear", linear)
