"""Runs git read-only: it takes no locks, never prompts, and accepts a checkout of another user."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

_OF_ANOTHER_REPOSITORY: Final = {
    "GIT_DIR", "GIT_COMMON_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_PREFIX",
}  # fmt: skip
"""Variables that git sets for its hooks. They would override the folder that git is run in."""


def run_git(directory: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run git in a folder and return the finished process, whatever its exit status.

    Raises:
        OSError: git is not installed, or the folder does not exist.
    """
    environment = {key: value for key, value in os.environ.items() if key not in _OF_ANOTHER_REPOSITORY}
    environment |= {"GIT_OPTIONAL_LOCKS": "0", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    return subprocess.run(
        ["git", "-c", "safe.directory=*", *arguments],
        cwd=directory, env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip
