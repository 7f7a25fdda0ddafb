"""Which revision is checked out, and whether files differ from it."""

from __future__ import annotations

import subprocess
from pathlib import Path

from ..errors import BaselineError
from ..git import run_git


def commit_of(directory: Path) -> str:
    """The checked-out revision, with "+dirty" if the code differs from it; "unknown" outside git.

    Changed baselines are ignored, so that several devices can be recorded one after the other. So are new
    files other than Python's.
    """
    try:
        revision = _git(directory, "rev-parse", "HEAD").strip()
        everything = ("--", ":/", ":(top,exclude,glob)**/.benchmarks/**")
        changed = _git(directory, "status", "--porcelain", "--untracked-files=all", *everything)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    lines = changed.splitlines()
    dirty = any(not line.startswith("??") or line.rstrip('"').endswith(".py") for line in lines)
    return f"{revision}+dirty" if dirty else revision


def clean_commit(directory: Path) -> str:
    """The checked-out revision.

    Raises:
        BaselineError: files differ from it, or this is not a git checkout.
    """
    commit = commit_of(directory)
    require_clean(commit, str(directory))
    return commit


def require_clean(commit: str, where: str) -> None:
    """Check that a commit of `commit_of` names a revision that can be checked out again.

    Raises:
        BaselineError: the commit is dirty or unknown.
    """
    if commit == "unknown":
        raise BaselineError(
            f"{where} has no git revision, and a baseline belongs to one; record in a git checkout."
        )
    if commit.endswith("+dirty"):
        raise BaselineError(
            f"{where} differs from revision {commit.removesuffix('+dirty')}: a baseline must belong to a "
            "commit; commit or stash the changes and record again."
        )


def _git(directory: Path, *arguments: str) -> str:
    answer = run_git(directory, *arguments)
    answer.check_returncode()
    return answer.stdout.decode()
