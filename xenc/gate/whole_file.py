"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, text: str) -> None:
    """Put text in a file's place in one step; whatever goes wrong, the file is as it was and nothing is left.

    Raises:
        OSError: it cannot be written, for instance because the disk is full.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())  # some file systems say only here that the disk is full
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
