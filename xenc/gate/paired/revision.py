"""REF -> a copy of that revision's package in a folder; a package from a folder under another name.

The copies come from `git archive`, not `git worktree`: nothing is written to the repository, so a killed run
leaves nothing in it, two runs cannot collide, and a checkout that is read-only or another user's works.
"""

from __future__ import annotations

import ast
import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Final

from ...errors import XencError
from ..git import run_git

PACKAGE: Final = "xenc"

_IGNORED: Final = shutil.ignore_patterns("__pycache__", "*.pyc")


class RevisionError(XencError, ValueError):
    """A revision that cannot be found, copied or imported."""


@dataclass(frozen=True, kw_only=True)
class Revisions:
    """Two revisions of the package, copied.

    Attributes:
        base_commit: 40 hex digits.
        head_commit: what is checked out.
        dirty: files of the head's copy that differ from `head_commit`, from the repository's root.
        same_code: whether there is nothing to compare.
        base: the folder that holds the base's package; as long a path as `head`.
        head: the folder that holds the head's package.
    """

    base_commit: str
    head_commit: str
    dirty: tuple[str, ...]
    same_code: bool
    base: Path
    head: Path


@contextmanager
def two_revisions(ref: str, repository: Path, package: str = PACKAGE) -> Iterator[Revisions]:
    """Copy a revision and the working tree, side by side, until the context ends in whichever way.

    Args:
        ref: any name of a commit.
        repository: the folder that holds the package, of a git working tree.
        package: its name.

    Raises:
        RevisionError: either is no commit, has no package, or cannot be copied.
    """
    base_commit, head_commit = resolve(ref, repository), resolve("HEAD", repository)
    with tempfile.TemporaryDirectory(prefix="xenc-gate-", ignore_cleanup_errors=True) as folder:
        base, head = (Path(folder).resolve() / name for name in ("base", "head"))
        extract(base_commit, repository, package, base)
        snapshot(repository / package, head)
        dirty = changed_files(repository, package)
        same = _contents(base) == _contents(head)
        yield Revisions(
            base_commit=base_commit,
            head_commit=head_commit,
            dirty=dirty,
            same_code=same,
            base=base,
            head=head,
        )


def resolve(ref: str, repository: Path) -> str:
    """The full hexadecimal name of the commit that `ref` names.

    Raises:
        RevisionError: no git, no repository, or it has no such commit.
    """
    if not ref or ref.startswith("-") or "\0" in ref:
        raise RevisionError(f"{ref!r} names no commit: give a branch, a tag or a commit.")
    answer = _git(repository, "rev-parse", "--verify", "--end-of-options", f"{ref}^{{commit}}")
    commit = answer.stdout.decode().strip()
    if answer.returncode == 0 and re.fullmatch(r"[0-9a-f]{40,64}", commit):
        return commit
    inside = _git(repository, "rev-parse", "--is-shallow-repository")
    if inside.returncode != 0:
        raise RevisionError(f"{repository} is no git repository ({_reason(inside)}): run in a checkout.")
    if inside.stdout.strip() == b"true":
        remedy = f"the clone is shallow, fetch it: git fetch --depth=1 origin {ref}, or git fetch --unshallow"
    else:
        remedy = "check its spelling, or fetch it: git fetch origin"
    raise RevisionError(f"{repository} has no commit {ref!r} ({_reason(answer)}): {remedy}.")


def extract(commit: str, repository: Path, package: str, into: Path) -> None:
    """Place a commit's package at `into / package`.

    Args:
        commit: as `resolve` gives it.
        repository: the folder that holds the package.
        package: its name.
        into: made if it is not there.

    Raises:
        RevisionError: the commit has no such package, or it cannot be copied.
    """
    listed = _git(repository, "ls-tree", "--name-only", commit, "--", f"{package}/__init__.py")
    if listed.returncode == 0 and not listed.stdout:
        raise RevisionError(f"commit {commit} has no {package}/: name one that has.")
    archive = _git(repository, "archive", "--format=tar", commit, "--", package)
    if archive.returncode != 0:
        raise RevisionError(f"commit {commit} cannot be read ({_reason(archive)}): fetch it again.")
    try:
        into.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(into, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise RevisionError(f"commit {commit} cannot be copied to {into} ({error}): make room.") from error


def snapshot(package_dir: Path, into: Path) -> None:
    """Place a package as it is on disk, uncommitted changes included, at `into / <its name>`.

    Raises:
        RevisionError: it is not there, or cannot be copied.
    """
    if not (package_dir / "__init__.py").is_file():
        raise RevisionError(f"{package_dir.parent} has no {package_dir.name}/: run in a checkout of it.")
    try:
        shutil.copytree(package_dir, into / package_dir.name, ignore=_IGNORED, ignore_dangling_symlinks=True)
    except OSError as error:
        raise RevisionError(f"{package_dir} cannot be copied to {into} ({error}): make room.") from error


def changed_files(repository: Path, package: str = PACKAGE) -> tuple[str, ...]:
    """Files of a package that differ from the commit checked out, or are new to it; ignored ones left out.

    Raises:
        RevisionError: git cannot tell.
    """
    listed = _git(
        repository, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", package
    )
    if listed.returncode != 0:
        raise RevisionError(f"{repository}: git cannot tell what changed ({_reason(listed)}).")
    return tuple(sorted(line[3:] for line in os.fsdecode(listed.stdout).split("\0") if line))


def _contents(folder: Path) -> dict[Path, bytes]:
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*.py")}


def import_package(folder: Path, name: str, package: str = PACKAGE) -> ModuleType:
    """Import `folder / package` under another name, beside whatever is imported already.

    Raises:
        RevisionError: it fails to import, or would import part of another revision. Nothing of it stays in
            `sys.modules`.
    """
    if name in sys.modules:
        raise RevisionError(f"a package {name} is imported already: choose another name.")
    _refuse_imports_of_its_own_name(folder / package)
    importlib.invalidate_caches()
    initial = folder / package / "__init__.py"
    spec = importlib.util.spec_from_file_location(
        name, initial, submodule_search_locations=[str(initial.parent)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        for imported in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
            del sys.modules[imported]
        if not isinstance(error, (Exception, SystemExit)):
            raise
        cause = " ".join(f"{type(error).__name__}: {error}".split())
        raise RevisionError(f"{initial.parent} cannot be imported as {name} ({cause}).") from error
    return module


def _refuse_imports_of_its_own_name(package_dir: Path) -> None:
    """`import xenc` in a copy would bring in the installed revision, unnoticed."""
    for file in sorted(package_dir.rglob("*.py")):
        try:
            nodes = list(ast.walk(ast.parse(file.read_bytes())))
        except (SyntaxError, ValueError):
            continue  # its import says so, if it is imported
        imported = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        imported += [
            node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level
        ]
        if package_dir.name in {module.partition(".")[0] for module in imported}:
            raise RevisionError(
                f"{file} imports {package_dir.name} by name, which may be another revision: "
                f"choose one that imports itself relatively."
            )


def _git(repository: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return run_git(repository, *arguments)
    except FileNotFoundError as error:
        if not repository.is_dir():
            raise RevisionError(f"{repository} is no folder: run in a checkout.") from error
        raise RevisionError("git is not installed: install it to compare with another revision.") from error
    except OSError as error:
        raise RevisionError(f"git cannot be run in {repository} ({error}): run in a checkout.") from error


def _reason(answer: subprocess.CompletedProcess[bytes]) -> str:
    lines = answer.stderr.decode(errors="replace").strip().splitlines()
    return lines[0] if lines else f"git ended with exit status {answer.returncode}"
