"""Writes a file atomically, or says why a file cannot be written."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Replace a file by text (UTF-8) in one step. If that fails, the old file and no other remains.

    Raises:
        OSError: the file cannot be written, for instance because the disk is full.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # some file systems report a full disk only here
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def unwritten(what: str, error: OSError) -> str:
    """The reason why the gate is not green when a file cannot be written."""
    return f"{what} cannot be written ({error}): free some disk space, or choose another path"
