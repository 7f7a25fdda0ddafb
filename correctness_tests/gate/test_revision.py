"""Copies of revisions, and two revisions in one process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from torch._dynamo.eval_frame import remove_from_cache
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

import xenc
from xenc.gate.paired.revision import (
    RevisionError,
    changed_files,
    extract,
    import_package,
    resolve,
    snapshot,
    two_revisions,
)

INITIAL = "xenc/__init__.py"
PAIRS = [("a", "b " * words) for words in (1, 20, 5)]


def git(repository: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "init.defaultBranch=main")
    command = ["git", *identity, *arguments]
    return subprocess.run(command, cwd=repository, check=True, capture_output=True, text=True).stdout.strip()


def commit(repository: Path, files: dict[str, str]) -> str:
    """A commit of these files alone."""
    git(repository, "rm", "-rq", "--ignore-unmatch", ".")
    for name, text in files.items():
        file = repository / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    git(repository, "add", "-A")
    git(repository, "commit", "-q", "--allow-empty", "-m", "a")
    return git(repository, "rev-parse", "HEAD")


def new_repository(folder: Path) -> Path:
    folder.mkdir()
    git(folder, "init", "-q")
    return folder


@pytest.fixture
def repository(tmp_path) -> Path:
    """Two revisions: VALUE is 1, then 2."""
    made = new_repository(tmp_path / "repository")
    commit(made, {INITIAL: "from .value import VALUE\n", "xenc/value.py": "VALUE = 1\n", "README": "a"})
    commit(made, {INITIAL: "from .value import VALUE\n", "xenc/value.py": "VALUE = 2\n", "README": "b"})
    return made


@pytest.fixture(autouse=True)
def unchanged_modules() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in [name for name in sys.modules if name.startswith("xenc_") and name not in before]:
        del sys.modules[name]


def test_a_name_resolves_to_its_commit(repository):
    head = git(repository, "rev-parse", "HEAD")
    git(repository, "tag", "-a", "-m", "annotated", "first", "HEAD~1")
    assert (
        resolve("HEAD", repository) == resolve("main", repository) == resolve(head[:10], repository) == head
    )
    assert resolve("first", repository) == git(repository, "rev-parse", "HEAD~1")


@pytest.mark.parametrize("ref", ["", "-h", "--all", "nowhere", "HEAD~7", "HEAD^{tree}", "main..main", "a\0b"])
def test_what_names_no_commit_is_named(repository, ref):
    with pytest.raises(RevisionError) as raised:
        resolve(ref, repository)
    assert repr(ref) in str(raised.value)


@pytest.mark.parametrize("ref", ["", "-h", "--all"])
def test_an_option_is_never_given_to_git(repository, ref):
    with pytest.raises(RevisionError, match=f"{ref!r} does not name a commit"):
        resolve(ref, repository)


def test_an_unknown_name_comes_with_the_remedy(repository):
    with pytest.raises(RevisionError, match=r"no commit 'nowhere'.*fetch it: git fetch"):
        resolve("nowhere", repository)


def test_a_commit_that_a_shallow_clone_lacks_can_be_fetched(repository, tmp_path):
    git(tmp_path, "clone", "-q", "--depth=1", f"file://{repository}", "shallow")
    with pytest.raises(RevisionError, match=r"'HEAD~1'.*shallow, fetch it: git fetch --depth="):
        resolve("HEAD~1", tmp_path / "shallow")


def test_a_folder_that_is_no_repository_is_named(tmp_path):
    with pytest.raises(RevisionError, match=f"{tmp_path} is not a git repository"):
        resolve("HEAD", tmp_path)
    with pytest.raises(RevisionError, match="absent is not a folder"):
        resolve("HEAD", tmp_path / "absent")


def test_a_repository_without_commits_is_named(tmp_path):
    with pytest.raises(RevisionError, match="no commit 'HEAD'"):
        resolve("HEAD", new_repository(tmp_path / "empty"))


def test_without_git_the_error_says_so(repository, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RevisionError, match="git is not installed"):
        resolve("HEAD", repository)


def test_a_checkout_of_another_user_is_read(repository, monkeypatch):
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(subprocess.CalledProcessError, match="128"):
        git(repository, "rev-parse", "HEAD")
    with two_revisions("HEAD~1", repository) as revisions:
        assert (revisions.base / INITIAL).is_file()


def test_a_git_hook_of_another_repository_does_not_redirect(repository, tmp_path, monkeypatch):
    head = git(repository, "rev-parse", "HEAD")
    other = new_repository(tmp_path / "other")
    monkeypatch.setenv("GIT_DIR", str(other / ".git"))
    assert resolve("HEAD", repository) == head


def test_a_revision_is_copied_whole_and_alone(repository, tmp_path):
    extract(resolve("HEAD~1", repository), repository, "xenc", tmp_path / "base")
    files = {file.relative_to(tmp_path / "base").as_posix() for file in (tmp_path / "base").rglob("*.py")}
    assert files == {INITIAL, "xenc/value.py"}
    assert [file.name for file in (tmp_path / "base").iterdir()] == ["xenc"]
    assert (tmp_path / "base/xenc/value.py").read_text() == "VALUE = 1\n"


@pytest.mark.parametrize("files", [{"README": "a"}, {"xenc": "a file"}, {"xenc/README": "a"}])
def test_a_revision_without_the_package_is_named(repository, tmp_path, files):
    made = commit(repository, files)
    with pytest.raises(RevisionError, match=f"commit {made} has no xenc/"):
        extract(made, repository, "xenc", tmp_path / "base")


def test_a_commit_whose_files_are_lost_is_named(repository, tmp_path):
    made = resolve("HEAD", repository)
    blob = git(repository, "rev-parse", "HEAD:xenc/value.py")
    (repository / ".git/objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(RevisionError, match=f"commit {made} cannot be read.*fetch"):
        extract(made, repository, "xenc", tmp_path / "base")


def test_a_copy_that_has_no_place_is_named(repository, tmp_path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(RevisionError, match=r"cannot be copied to .*taken"):
        extract(resolve("HEAD", repository), repository, "xenc", tmp_path / "taken")
    with pytest.raises(RevisionError, match=r"cannot be copied to .*taken"):
        snapshot(repository / "xenc", tmp_path / "taken")


def test_a_link_out_of_the_folder_is_not_followed(repository, tmp_path):
    (repository / "xenc/out").symlink_to("/etc")
    git(repository, "add", "-A")
    git(repository, "commit", "-qm", "a")
    with pytest.raises(RevisionError, match="cannot be copied"):
        extract(resolve("HEAD", repository), repository, "xenc", tmp_path / "base")


def test_a_snapshot_has_what_is_uncommitted_and_no_caches(repository, tmp_path):
    (repository / "xenc/value.py").write_text("VALUE = 3\n")
    (repository / "xenc/new.py").write_text("")
    (repository / "xenc/__pycache__").mkdir()
    (repository / "xenc/.#value.py").symlink_to("an editor's lock")
    snapshot(repository / "xenc", tmp_path / "head")
    names = {file.name for file in (tmp_path / "head/xenc").iterdir()}
    assert names == {"__init__.py", "value.py", "new.py"}
    assert (tmp_path / "head/xenc/value.py").read_text() == "VALUE = 3\n"


def test_a_folder_without_the_package_has_no_snapshot(tmp_path):
    with pytest.raises(RevisionError, match=f"{tmp_path} has no xenc/"):
        snapshot(tmp_path / "xenc", tmp_path / "head")


def test_changed_files_of_the_package_are_named(repository):
    assert changed_files(repository) == ()
    (repository / "README").write_text("not of the package")
    (repository / "xenc/inner").mkdir()
    (repository / "xenc/inner/new ü.py").write_text("")
    git(repository, "mv", "xenc/value.py", "xenc/renamed.py")
    assert changed_files(repository) == ("xenc/inner/new ü.py", "xenc/renamed.py", "xenc/value.py")


def test_two_revisions_lie_side_by_side(repository):
    (repository / "xenc/value.py").write_text("VALUE = 3\n")
    with two_revisions("HEAD~1", repository) as revisions:
        assert revisions.base_commit == resolve("HEAD~1", repository)
        assert revisions.head_commit == resolve("HEAD", repository)
        assert revisions.dirty == ("xenc/value.py",)
        assert len(str(revisions.base)) == len(str(revisions.head))
        assert import_package(revisions.base, "xenc_base").VALUE == 1
        assert import_package(revisions.head, "xenc_head").VALUE == 3


def test_two_runs_at_once_share_nothing(repository):
    with two_revisions("HEAD~1", repository) as one, two_revisions("HEAD", repository) as other:
        assert (one.base / "xenc/value.py").read_text() == "VALUE = 1\n"
        assert (other.base / "xenc/value.py").read_text() == "VALUE = 2\n"


@pytest.mark.parametrize("ending", [KeyboardInterrupt, SystemExit, ValueError])
def test_the_copies_are_removed_however_it_ends(repository, ending):
    with pytest.raises(ending), two_revisions("HEAD~1", repository) as revisions:  # noqa: PT012
        folder = revisions.base.parent
        assert folder.is_dir()
        raise ending
    assert not folder.exists()


def test_nothing_is_written_to_the_repository(repository):
    os.utime(repository / "xenc/value.py", (0, 0))  # the index is out of date, which git status would mend

    def state() -> dict[str, tuple[int, int]]:
        files = [file for file in repository.rglob("*") if file.is_file()]
        return {str(file): (file.stat().st_mtime_ns, file.stat().st_size) for file in files}

    before = state()
    with two_revisions("HEAD~1", repository):
        assert state() == before
    assert state() == before


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("def broken(:", "SyntaxError: .*line 1"),
        ("import no_such_dependency", "ModuleNotFoundError: No module named 'no_such_dependency'"),
        ("raise SystemExit('not today')", "SystemExit: not today"),
        ("raise ValueError('two\\nlines')", "ValueError: two lines"),
    ],
)
def test_a_revision_that_fails_to_import_says_why_in_one_line(tmp_path, text, cause):
    (tmp_path / "xenc").mkdir()
    (tmp_path / "xenc/__init__.py").write_text("from . import first, second\n")
    (tmp_path / "xenc/first.py").write_text("")
    (tmp_path / "xenc/second.py").write_text(text)
    with pytest.raises(RevisionError, match=f"xenc_base \\({cause}") as raised:
        import_package(tmp_path, "xenc_base")
    assert "\n" not in str(raised.value)
    assert [name for name in sys.modules if name.startswith("xenc_base")] == []


def test_a_name_that_is_taken_is_refused(repository):
    import_package(repository, "xenc_base")
    with pytest.raises(RevisionError, match="xenc_base is already imported"):
        import_package(repository, "xenc_base")


@pytest.mark.parametrize("text", ["import xenc.value", "from xenc import value", "def f():\n    import xenc"])
def test_a_revision_that_would_import_another_is_refused(repository, text):
    (repository / "xenc/value.py").write_text(text)
    with pytest.raises(RevisionError, match=r"value.py imports xenc by name"):
        import_package(repository, "xenc_base")


@pytest.fixture
def copies(tmp_path) -> Iterator[list[ModuleType]]:
    """xenc twice, and transformers without their attention functions afterwards."""
    snapshot(Path(xenc.__file__).parent, tmp_path)
    yield [import_package(tmp_path, name) for name in ("xenc_one", "xenc_two")]
    for name in ("xenc_one_packed", "xenc_two_packed"):
        AttentionInterface._global_mapping.pop(name)
        AttentionMaskInterface._global_mapping.pop(name)


def test_two_copies_of_xenc_share_no_class_no_operator_and_no_name(copies):
    assert len({copy.CrossEncoder for copy in (xenc, *copies)}) == 3
    assert len({sys.modules[f"{name}.watch"] for name in ("xenc", "xenc_one", "xenc_two")}) == 3
    attentions = [sys.modules[f"{name}.attention"] for name in ("xenc_one", "xenc_two")]
    assert [attention.PACKED_ATTENTION for attention in attentions] == ["xenc_one_packed", "xenc_two_packed"]
    operators = [attention.packed_attention._opoverload.name() for attention in attentions]
    assert operators == ["xenc_one::packed_attention", "xenc_two::packed_attention"]


@pytest.mark.parametrize("execution", ["bucketed", "packed-eager"])
def test_two_copies_of_xenc_score_alike_with_graphs_of_their_own(copies, tiny, execution):
    models = [
        copy.CrossEncoder(str(tiny), device="cpu", execution=execution, max_length=32) for copy in copies
    ]
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


def test_whether_there_is_anything_to_compare_is_known(repository):
    with two_revisions("HEAD", repository) as revisions:
        assert revisions.same_code
    (repository / "xenc" / "__init__.py").write_text("value = 'changed'\n")
    with two_revisions("HEAD", repository) as revisions:
        assert not revisions.same_code
