"""Copies of revisions, and two revisions in one process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from torch._dynamo.eval_frame import remove_from_cache
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

import xenc
from correctness_tests.gate.conftest import commit_all, git
from xenc.gate.errors import RevisionError
from xenc.gate.paired.revision import (
    changed_files,
    extract,
    import_package,
    resolve,
    snapshot,
    two_revisions,
)

INITIAL, VALUE = "made/__init__.py", "made/value.py"
PAIRS = [("a", "b " * words) for words in (1, 20, 5)]


def commit(repository: Path, files: dict[str, str]) -> str:
    """A commit of these files alone."""
    git(repository, "rm", "-rq", "--ignore-unmatch", ".")
    for name, text in files.items():
        file = repository / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return commit_all(repository)


def new_repository(folder: Path) -> Path:
    folder.mkdir()
    git(folder, "init", "-q")
    return folder


@pytest.fixture
def repository(tmp_path) -> Path:
    """Two revisions: VALUE is 1, then 2."""
    made = new_repository(tmp_path / "repository")
    for value, readme in ((1, "a"), (2, "b")):
        commit(made, {INITIAL: "from .value import VALUE\n", VALUE: f"VALUE = {value}\n", "README": readme})
    return made


@pytest.fixture(autouse=True)
def unchanged_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in [name for name in sys.modules if name.startswith(("made_", "xenc_")) and name not in before]:
        del sys.modules[name]


def test_a_name_resolves_to_its_commit_even_within_another_repositorys_hook(
    repository, tmp_path, monkeypatch
):
    head, first = (git(repository, "rev-parse", name) for name in ("HEAD", "HEAD~1"))
    git(repository, "tag", "-a", "-m", "annotated", "first", "HEAD~1")
    monkeypatch.setenv("GIT_DIR", str(new_repository(tmp_path / "other") / ".git"))
    assert [resolve(name, repository) for name in ("HEAD", "main", head[:10])] == [head] * 3
    assert resolve("first", repository) == first


@pytest.mark.parametrize(
    ("ref", "said"),
    [
        *((ref, "does not name a commit") for ref in ("", "-h", "--all", "a\0b")),  # no option reaches git
        *((ref, "fetch it: git fetch") for ref in ("nowhere", "HEAD~7", "HEAD^{tree}", "main..main")),
    ],
)
def test_a_ref_that_names_no_commit_is_shown_with_a_remedy(repository, ref, said):
    with pytest.raises(RevisionError, match=said) as raised:
        resolve(ref, repository)
    assert repr(ref) in str(raised.value)


def test_a_commit_that_a_shallow_clone_lacks_can_be_fetched(repository, tmp_path):
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{repository}", "shallow")
    with pytest.raises(RevisionError, match=r"'HEAD~1'.*shallow, fetch it: git fetch --depth="):
        resolve("HEAD~1", tmp_path / "shallow")


def test_a_folder_that_is_no_repository_or_has_no_commit_is_named(tmp_path, monkeypatch):
    empty = new_repository(tmp_path / "empty")
    for folder, said in (
        (tmp_path, f"{tmp_path} is not a git repository"),
        (tmp_path / "absent", "absent is not a folder"),
        (empty, "no commit 'HEAD'"),
    ):
        with pytest.raises(RevisionError, match=said):
            resolve("HEAD", folder)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RevisionError, match="git is not installed"):
        resolve("HEAD", empty)


def test_a_checkout_of_another_user_is_read(repository, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(subprocess.CalledProcessError, match="128"):
        git(repository, "rev-parse", "HEAD")
    with two_revisions("HEAD~1", repository, "made") as revisions:
        assert (revisions.base / INITIAL).is_file()


@pytest.mark.parametrize("files", [{"README": "a"}, {"made": "a file"}, {"made/README": "a"}])
def test_a_revision_or_folder_without_the_package_is_named(repository, tmp_path, files):
    made = commit(repository, files)
    with pytest.raises(RevisionError, match=f"commit {made} has no made/"):
        extract(made, repository, "made", tmp_path / "base")
    with pytest.raises(RevisionError, match=f"{repository} has no made/"):
        snapshot(repository / "made", tmp_path / "head")


def test_a_commit_whose_files_are_lost_is_named(repository, tmp_path):
    made = resolve("HEAD", repository)
    blob = git(repository, "rev-parse", f"HEAD:{VALUE}")
    (repository / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(RevisionError, match=f"commit {made} cannot be read.*fetch"):
        extract(made, repository, "made", tmp_path / "base")


def test_a_copy_that_cannot_be_written_or_links_out_of_its_folder_is_an_error(repository, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(RevisionError, match=r"cannot be copied to .*taken"):
        extract(resolve("HEAD", repository), repository, "made", tmp_path / "taken")
    with pytest.raises(RevisionError, match=r"cannot be copied to .*taken"):
        snapshot(repository / "made", tmp_path / "taken")
    (repository / "made/out").symlink_to("/etc")
    commit_all(repository)
    with pytest.raises(RevisionError, match="cannot be copied"):
        extract(resolve("HEAD", repository), repository, "made", tmp_path / "base")


def test_a_snapshot_has_uncommitted_changes_and_no_caches(repository, tmp_path):
    (repository / VALUE).write_text("VALUE = 3\n")
    (repository / "made/new.py").write_text("")
    (repository / "made/__pycache__").mkdir()
    (repository / "made/.#value.py").symlink_to("an editor's lock")
    snapshot(repository / "made", tmp_path / "head")
    names = {file.name for file in (tmp_path / "head/made").iterdir()}
    assert names == {"__init__.py", "value.py", "new.py"}
    assert (tmp_path / "head" / VALUE).read_text() == "VALUE = 3\n"


def test_changed_files_of_the_package_are_named(repository):
    assert changed_files(repository, "made") == ()
    (repository / "README").write_text("not of the package")
    (repository / "made/inner").mkdir()
    (repository / "made/inner/new ü.py").write_text("")
    git(repository, "mv", VALUE, "made/renamed.py")
    assert changed_files(repository, "made") == ("made/inner/new ü.py", "made/renamed.py", VALUE)


def test_two_revisions_are_copied_side_by_side_and_runs_at_once_share_nothing(repository):
    with two_revisions("HEAD", repository, "made") as other:
        assert other.same_code
        (repository / VALUE).write_text("VALUE = 3\n")
        with two_revisions("HEAD~1", repository, "made") as revisions:
            assert revisions.base_commit == resolve("HEAD~1", repository)
            assert revisions.head_commit == resolve("HEAD", repository)
            assert revisions.dirty == (VALUE,)
            assert not revisions.same_code
            assert len(str(revisions.base)) == len(str(revisions.head))
            copied = {file.relative_to(revisions.base).as_posix() for file in revisions.base.rglob("*")}
            assert copied == {"made", INITIAL, VALUE}
            assert import_package(revisions.base, "made_base", "made").VALUE == 1
            assert import_package(revisions.head, "made_head", "made").VALUE == 3
            assert import_package(other.base, "made_other", "made").VALUE == 2
            with pytest.raises(RevisionError, match="made_base is already imported"):
                import_package(revisions.base, "made_base", "made")


def test_a_package_below_src_is_found_and_only_its_changes_count(repository):
    for value in (1, 2):
        commit(repository, {f"src/{INITIAL}": f"VALUE = {value}\n", VALUE: "not this one"})
    (repository / VALUE).unlink()
    (repository / "made").rmdir()
    (repository / f"src/{VALUE}").write_text("new")
    with two_revisions("HEAD~1", repository, "made") as revisions:
        assert revisions.dirty == (f"src/{VALUE}",)
        assert import_package(revisions.base, "made_base", "made").VALUE == 1
        assert import_package(revisions.head, "made_head", "made").VALUE == 2
        assert {file.name for file in revisions.base.rglob("*.py")} == {"__init__.py"}


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit, ValueError])
def test_the_copies_are_removed_however_it_ends(repository, ending):
    with pytest.raises(ending), two_revisions("HEAD~1", repository, "made") as revisions:  # noqa: PT012
        folder = revisions.base.parent
        assert folder.is_dir()
        raise ending
    assert not folder.exists()


def test_nothing_is_written_to_the_repository(repository):
    os.utime(repository / VALUE, (0, 0))  # the index is out of date, which git status would update

    def state() -> dict[str, tuple[int, int]]:
        files = [file for file in repository.rglob("*") if file.is_file()]
        return {str(file): (file.stat().st_mtime_ns, file.stat().st_size) for file in files}

    before = state()
    with two_revisions("HEAD~1", repository, "made"):
        assert state() == before
    assert state() == before


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("def broken(:", r"made_base \(SyntaxError: .*line 1"),
        ("import no_such_module", r"made_base \(ModuleNotFoundError: No module named 'no_such_module'"),
        ("raise SystemExit('not today')", r"made_base \(SystemExit: not today"),
        ("raise ValueError('two\\nlines')", r"made_base \(ValueError: two lines"),
        *(
            (f"{before}{named}", rf"second.py, line {line}: `{named}` would import .*: import relatively")
            for before, named, line in (
                ("", "import made.first", 1),
                ("", "from made import first", 1),
                ("def f():\n    ", "import made", 2),
            )
        ),
    ],
)
def test_a_revision_that_fails_to_import_or_imports_another_says_why_in_one_line(tmp_path, text, cause):
    (tmp_path / "made").mkdir()
    for name, content in (("__init__", "from . import first, second\n"), ("first", ""), ("second", text)):
        (tmp_path / "made" / f"{name}.py").write_text(content)
    with pytest.raises(RevisionError, match=cause) as raised:
        import_package(tmp_path, "made_base", "made")
    assert "\n" not in str(raised.value)
    assert [name for name in sys.modules if name.startswith("made_base")] == []


@pytest.fixture
def copies(tmp_path) -> Iterator[list[ModuleType]]:
    """xenc twice; transformers forget their attention functions afterwards."""
    snapshot(Path(xenc.__file__).parent, tmp_path)
    yield [import_package(tmp_path, name, "xenc") for name in ("xenc_one", "xenc_two")]
    for name in ("xenc_one_packed", "xenc_two_packed"):
        AttentionInterface._global_mapping.pop(name)
        AttentionMaskInterface._global_mapping.pop(name)


def test_two_copies_of_xenc_share_no_class_no_operator_and_no_name(copies):
    assert len({copy.CrossEncoder for copy in (xenc, *copies)}) == 3
    assert len({sys.modules[f"{name}.compiling.watch"] for name in ("xenc", "xenc_one", "xenc_two")}) == 3
    attentions = [sys.modules[f"{name}.kernels.packed_attention"] for name in ("xenc_one", "xenc_two")]
    assert [attention.PACKED_ATTENTION for attention in attentions] == ["xenc_one_packed", "xenc_two_packed"]
    operators = [attention.packed_attention._opoverload.name() for attention in attentions]
    assert operators == ["xenc_one::packed_attention", "xenc_two::packed_attention"]


@pytest.mark.parametrize("execution", ["bucketed", "packed-eager"])
def test_two_copies_of_xenc_score_alike_with_graphs_of_their_own(copies, tiny, execution):
    models = [
        copy.CrossEncoder(
            str(tiny), device="cpu", max_length=32,
            execution=replace(copy.PRESETS[execution], products="torch"),  # or each measures what is fastest
        )
        for copy in copies
    ]  # fmt: skip
    compiled = [model.pipeline.compiled for model in models if model.pipeline.compiled is not None]
    graphs = []
    for model in models:
        model.warmup(batch_size=2, passes=1)
        graphs.append([each.graphs for each in compiled])
    scores = [model.predict(PAIRS, batch_size=2) for model in models]
    np.testing.assert_array_equal(*scores)
    assert np.ptp(scores[0]) > 0
    assert graphs == ([[1, 0], [1, 1]] if execution == "bucketed" else [[], []])
    assert [each.graphs for each in compiled] == graphs[-1]
    for each in compiled:
        remove_from_cache(each._own_function)
