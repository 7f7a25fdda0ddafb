"""Copies two revisions of a package into folders, and imports a package under another name.

The copies are made by `git archive`, not by `git worktree`. Nothing is written to the repository, so a killed
run leaves nothing behind, two runs do not conflict, and a read-only or another user's checkout works.
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

from ..errors import RevisionError
from ..git import run_git

_IGNORED: Final = shutil.ignore_patterns("__pycache__", "*.pyc")


@dataclass(frozen=True, kw_only=True)
class Revisions:
    """Copies of two revisions of the package.

    Attributes:
        base_commit: 40 hex digits.
        head_commit: the commit that is checked out.
        dirty: files of the head that differ from `head_commit`, as paths from the repository's root.
        same_code: whether both copies are equal.
        base: the folder that contains the base's package; its path is as long as `head`.
        head: the folder that contains the head's package.
    """

    base_commit: str
    head_commit: str
    dirty: tuple[str, ...]
    same_code: bool
    base: Path
    head: Path


@contextmanager
def two_revisions(ref: str, repository: Path, package: str) -> Iterator[Revisions]:
    """Copy a revision and the working tree into a temporary folder, which is removed at the end.

    Args:
        ref: any name of a commit.
        repository: a folder of a git working tree that contains the package, or has it below src/.
        package: its name.

    Raises:
        RevisionError: one of them is not a commit, has no such package, or cannot be copied.
    """
    if not (repository / package).is_dir() and (repository / "src" / package).is_dir():
        repository = repository / "src"
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
        RevisionError: git is missing, this is not a repository, or it has no such commit.
    """
    if not ref or ref.startswith("-") or "\0" in ref:
        raise RevisionError(f"{ref!r} does not name a commit: give a branch, a tag or a commit.")
    answer = _git(repository, "rev-parse", "--verify", "--end-of-options", f"{ref}^{{commit}}")
    commit = answer.stdout.decode().strip()
    if answer.returncode == 0 and re.fullmatch(r"[0-9a-f]{40,64}", commit):
        return commit
    inside = _git(repository, "rev-parse", "--is-shallow-repository")
    if inside.returncode != 0:
        raise RevisionError(f"{repository} is not a git repository ({_reason(inside)}): run in a checkout.")
    if inside.stdout.strip() == b"true":
        remedy = f"the clone is shallow, fetch it: git fetch --depth=1 origin {ref}, or git fetch --unshallow"
    else:
        remedy = "check its spelling, or fetch it: git fetch origin"
    raise RevisionError(f"{repository} has no commit {ref!r} ({_reason(answer)}): {remedy}.")


def extract(commit: str, repository: Path, package: str, into: Path) -> None:
    """Copy a commit's package to `into / package`.

    Args:
        commit: as returned by `resolve`.
        repository: the folder that contains the package.
        package: its name.
        into: created if it does not exist.

    Raises:
        RevisionError: the commit has no such package, or it cannot be copied.
    """
    listed = _git(repository, "ls-tree", "--name-only", commit, "--", f"{package}/__init__.py")
    if listed.returncode == 0 and not listed.stdout:
        raise RevisionError(f"commit {commit} has no {package}/: choose one that has it.")
    archive = _git(repository, "archive", "--format=tar", commit, "--", package)
    if archive.returncode != 0:
        raise RevisionError(f"commit {commit} cannot be read ({_reason(archive)}): fetch it again.")
    try:
        into.mkdir(parents=True, exist_ok=True)
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(into, filter="data")
    except (OSError, tarfile.TarError) as error:
        raise RevisionError(f"commit {commit} cannot be copied to {into} ({error}).") from error


def snapshot(package_dir: Path, into: Path) -> None:
    """Copy a package as it is on disk, with uncommitted changes, to `into / <its name>`.

    Raises:
        RevisionError: it does not exist, or cannot be copied.
    """
    if not (package_dir / "__init__.py").is_file():
        raise RevisionError(f"{package_dir.parent} has no {package_dir.name}/: run in a checkout of it.")
    try:
        shutil.copytree(package_dir, into / package_dir.name, ignore=_IGNORED, ignore_dangling_symlinks=True)
    except OSError as error:
        raise RevisionError(f"{package_dir} cannot be copied to {into} ({error}).") from error


def changed_files(repository: Path, package: str) -> tuple[str, ...]:
    """Files of a package that differ from the commit checked out, or are new; without ignored files.

    Raises:
        RevisionError: `git status` fails.
    """
    listed = _git(
        repository, "status", "--porcelain", "-z", "--no-renames", "--untracked-files=all", "--", package
    )
    if listed.returncode != 0:
        raise RevisionError(f"{repository}: git status failed ({_reason(listed)}).")
    return tuple(sorted(line[3:] for line in os.fsdecode(listed.stdout).split("\0") if line))


def _contents(folder: Path) -> dict[Path, bytes]:
    return {file.relative_to(folder): file.read_bytes() for file in folder.rglob("*.py")}


def import_package(folder: Path, name: str, package: str) -> ModuleType:
    """Import `folder / package` under another name, beside other copies of it.

    Raises:
        RevisionError: the name is taken, the import fails, or it would import part of another revision. No
            module of it stays in `sys.modules`.
    """
    if name in sys.modules:
        raise RevisionError(f"a package {name} is already imported: choose another name.")
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
    """Refuse a copy that imports itself by name: it would silently import the installed revision."""
    for file in sorted(package_dir.rglob("*.py")):
        try:
            nodes = list(ast.walk(ast.parse(file.read_bytes())))
        except (SyntaxError, ValueError):
            continue  # importing it will fail with this error
        named = [node for node in nodes if package_dir.name in _packages_of(node)]
        for node in sorted(named, key=lambda node: getattr(node, "lineno", 0)):
            where = f"{file.relative_to(package_dir.parent)}, line {getattr(node, 'lineno', 0)}"
            raise RevisionError(
                f"{where}: `{ast.unparse(node)}` would import another copy of {package_dir.name}: "
                "import relatively (`from . import ...`), in both revisions."
            )


def _packages_of(node: ast.AST) -> set[str]:
    """The packages that a statement imports by name."""
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and not node.level:
        return {(node.module or "").partition(".")[0]}
    return set()


def _git(repository: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return run_git(repository, *arguments)
    except FileNotFoundError as error:
        if not repository.is_dir():
            raise RevisionError(f"{repository} is not a folder: run in a checkout.") from error
        raise RevisionError("git is not installed: install it to compare with another revision.") from error
    except OSError as error:
        raise RevisionError(f"git cannot be run in {repository} ({error}): run in a checkout.") from error


def _reason(answer: subprocess.CompletedProcess[bytes]) -> str:
    lines = answer.stderr.decode(errors="replace").strip().splitlines()
    return lines[0] if lines else f"git ended with exit status {answer.returncode}"
