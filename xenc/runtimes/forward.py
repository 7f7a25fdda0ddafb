"""A forward pass in another runtime than PyTorch: exported once, and again when a weight changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

import torch
from torch import Tensor
from transformers import PreTrainedModel

from ..collate import PaddedBatch
from ..errors import ExecutionError, ModelError, first_line
from ..execution import Execution
from ..forward import classify
from ..prepared import Batch, PreparedForward, WarmupReport
from ..weights import has_hooks, settings_of, weights_version
from .export import Exported, exported, fingerprint
from .onnxruntime import OnnxRuntime
from .openvino import OpenVino
from .probe import probe
from .runtime import Runtime, Session
from .tensorrt import check_tensorrt

RUNTIMES: Final[dict[str, Runtime]] = {"onnxruntime": OnnxRuntime(), "openvino": OpenVino()}
"""Those that run an exported model, by their names in an `Execution`."""


def check_runtime(execution: Execution, model: PreTrainedModel) -> None:
    """Refuse a runtime that cannot run this model where it is.

    Raises:
        ExecutionError: its device or its dtype; the message names the remedy.
    """
    if execution.runtime == "tensorrt":
        check_tensorrt(model.device)
    elif execution.runtime in RUNTIMES:
        RUNTIMES[execution.runtime].check(model.device, model.dtype)


class ForeignForward(PreparedForward):
    """A model's forward pass in another runtime.

    A session has as many CPU threads as it was opened with, so that each number of threads that callers use
    has a session of its own, with weights of its own.

    Args:
        name: the runtime's, one of `RUNTIMES`.
        model: on its device.
        token_types: whether its batches have token_type_ids.
        strict: whether to raise for what is exported or opened after warm-up.
        function: the forward pass to export, which is PyTorch's for such batches too.
    """

    def __init__(
        self,
        name: str,
        model: PreTrainedModel,
        *,
        token_types: bool,
        strict: bool,
        function: Callable[..., Tensor] = classify,
    ) -> None:
        super().__init__(strict=strict)
        self._function = function
        self._name, self._model, self._token_types = name, model, token_types
        self._folder: Path | None = None
        self._warm = False
        self._forget()

    def _forget(self) -> None:
        self._exported: Exported | None = None
        self._failed: str | None = None
        self._sessions: dict[int, Session] = {}
        self._version: tuple[object, ...] | None = None

    @property
    def graphs(self) -> int:
        """Sessions open."""
        return len(self._sessions)

    def __call__(self, batch: Batch) -> Tensor:
        """Logits of a batch: float32 [B, C].

        Raises:
            ModelError: the model cannot be exported.
            CompileError: something was exported or opened after warm-up, in strict mode.
        """
        changed = self._version is not None and self._version != _version(self._model)
        if changed:
            self._forget()
        before = self.graphs
        logits = self._run(batch)
        if self._warm and self.graphs > before:
            self._report_late(
                f"opened a session of {self._name}: "
                + (
                    "the model changed"
                    if changed
                    else f"the caller has {torch.get_num_threads()} CPU threads"
                ),
                "Call model.warmup() after changing the model, and with the CPU threads you predict with.",
            )
        return logits

    def warmup(
        self, batches: Iterable[Batch], passes: int | None = None, folder: Path | None = None
    ) -> WarmupReport:
        """Export, open a session for the caller's CPU threads, run every batch; once, if passes is None."""
        started = time.perf_counter()
        if folder is not None and folder != self._folder:
            self._folder = folder
            self._forget()
        if self._failed is not None or self._outdated():
            self._forget()
        before, shapes = self.graphs, []
        self._session()
        for batch in batches:
            for _ in range(passes or 1):
                self._run(batch)
            shapes.append(batch.shape)
        self._warm = True
        return WarmupReport(
            shapes=tuple(shapes), graphs=self.graphs - before, seconds=time.perf_counter() - started
        )

    def _outdated(self) -> bool:
        """Whether a weight changed, also in a way that leaves no trace."""
        made_from = None if self._exported is None else self._exported.fingerprint
        return made_from is not None and made_from != self._fingerprint()

    def _fingerprint(self) -> str:
        return fingerprint(self._model, token_types=self._token_types, function=self._function)

    def _run(self, batch: Batch) -> Tensor:
        assert isinstance(batch, PaddedBatch)
        return self._session()(batch)

    def _session(self) -> Session:
        """That of the caller's CPU threads."""
        threads = torch.get_num_threads()
        if threads not in self._sessions:
            self._sessions[threads] = self._open(threads)
        return self._sessions[threads]

    def _open(self, threads: int) -> Session:
        """A session; the first of these weights is exported for, and compared with the model."""
        model = self._model
        if self._failed is not None:
            raise ModelError(self._failed)
        self._version = _version(model)
        try:
            if has_hooks(model):
                raise ModelError(
                    f"runtime={self._name!r}: {type(model).__name__} has forward hooks, whose code is not "
                    "the model's to export. Remove them, or use runtime='torch'."
                )
            if not self._sessions:
                self._exported = exported(
                    model, token_types=self._token_types, folder=self._folder, function=self._function
                )  # fmt: skip
                session = self._load(threads)
                probe(model, session, token_types=self._token_types, function=self._function)
                return session
            return self._load(threads)
        except (ModelError, ExecutionError) as error:
            self._failed = str(error)
            raise
        except Exception as error:  # ONNX Runtime's own are of no other class
            self._failed = (
                f"{type(model).__name__} cannot be run by {self._name} ({first_line(error)}). "
                "Use runtime='torch'."
            )
            raise ModelError(self._failed) from error

    def _load(self, threads: int) -> Session:
        assert self._exported is not None
        model = self._model
        return RUNTIMES[self._name].open(self._exported.file, model.device, model.dtype, threads)


def _version(model: PreTrainedModel) -> tuple[object, ...]:
    return weights_version(model), settings_of(model)
