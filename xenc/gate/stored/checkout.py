"""Which revision is checked out, and whether it is that and nothing else."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ...errors import BaselineError
from ..git import run_git


def commit_of(directory: Path) -> str:
    """The checked-out revision, with "+dirty" if other code than its own lies there; "unknown" outside git.

    Baselines themselves do not count, so that several devices can be recorded one after the other, nor do
    new files other than Python's.
    """
    try:
        revision = _git(directory, "rev-parse", "HEAD").strip()
        changed = _git(
            directory,
            "status",
            "--porcelain",
            "--untracked-files=all",
            "--",
            ":/",
            ":(top,exclude).benchmarks",
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    lines = changed.splitlines()
    dirty = any(not line.startswith("??") or line.rstrip('"').endswith(".py") for line in lines)
    return f"{revision}+dirty" if dirty else revision


def clean_commit(directory: Path) -> str:
    """The checked-out revision.

    Raises:
        BaselineError: files differ from it, or this is no git checkout: nobody could measure the same again.
    """
    commit = commit_of(directory)
    require_clean(commit, str(directory))
    return commit


def require_clean(commit: str, where: str) -> None:
    """Refuse what names no revision that anybody could check out.

    Raises:
        BaselineError: the commit is dirty or unknown.
    """
    if commit == "unknown":
        raise BaselineError(
            f"{where} is of no git revision, and a baseline belongs to one; record in a clone."
        )
    if commit.endswith("+dirty"):
        raise BaselineError(
            f"{where} differs from revision {commit.removesuffix('+dirty')}: a baseline must be of code that "
            "anybody can check out; commit or stash the changes and record again."
        )


def _git(directory: Path, *arguments: str) -> str:
    answer = run_git(directory, *arguments)
    answer.check_returncode()
    return answer.stdout.decode()
