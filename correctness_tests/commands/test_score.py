"""`xenc score` and `xenc rank` with a real model: what `predict` gives, from a file to a file."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from xenc import CrossEncoder
from xenc.commands import main
from xenc.commands import score as score_command
from xenc.profiling.texts import prose_pairs


@pytest.fixture
def pairs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = prose_pairs(40)
    Path("pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in found))
    return found


def rows_of(name: str) -> list[dict]:
    return [json.loads(line) for line in Path(name).read_text().split("\n")[:-1]]


def test_scores_are_those_of_predict(tiny, pairs):
    assert main(["score", "pairs.jsonl", "-o", "scores.jsonl", "--model", str(tiny), "--device", "cpu"]) == 0
    rows = rows_of("scores.jsonl")
    assert [(row["query"], row["document"]) for row in rows] == pairs
    with CrossEncoder(str(tiny), device="cpu", execution="packed-eager") as model:
        np.testing.assert_allclose([row["score"] for row in rows], model.predict(pairs), atol=1e-5)


def test_every_label_has_its_score(three_labels, pairs):
    assert (
        main(["score", "pairs.jsonl", "-o", "scores.csv", "--model", str(three_labels), "--keep", "query"])
        == 0
    )
    assert main(["score", "pairs.jsonl", "-o", "scores.jsonl", "--model", str(three_labels)]) == 0
    assert main(["score", "pairs.jsonl", "-o", "scores.parquet", "--model", str(three_labels)]) == 0
    with CrossEncoder(str(three_labels), device="cpu", execution="packed-eager") as model:
        expected = model.predict(pairs)
    np.testing.assert_allclose([row["score"] for row in rows_of("scores.jsonl")], expected, atol=1e-5)
    assert (
        main(["score", "scores.csv", "--document-column", "score", "--score-column", "s", "-o", "t.jsonl"])
        == 0
    )
    np.testing.assert_allclose([json.loads(row["score"]) for row in rows_of("t.jsonl")], expected, atol=1e-5)


def test_a_stream_is_scored_and_stays_a_stream(tiny, pairs, monkeypatch, capfdbinary):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(Path("pairs.jsonl").read_bytes())))
    assert main(["score", "-", "--model", str(tiny), "--execution", "packed-eager"]) == 0
    captured = capfdbinary.readouterr()
    assert [json.loads(line)["query"] for line in captured.out.splitlines()] == [query for query, _ in pairs]
    assert b"xenc: 40 pairs in " in captured.err


def test_what_is_small_is_not_compiled(pairs):
    options = score_command.argparse.Namespace(execution=None, pairs="pairs.jsonl")
    assert score_command._execution(options) == "packed-eager"
    with Path("large.jsonl").open("wb") as large:
        large.truncate(score_command.EAGER_BYTES)  # a hole
    options.pairs = "large.jsonl"
    assert score_command._execution(options) == "packed"
    options.pairs = "-"
    assert score_command._execution(options) == "packed"


def test_a_large_input_is_scored_by_a_model_that_was_warmed_up(one_layer, pairs, monkeypatch, caplog):
    monkeypatch.setattr(score_command, "EAGER_BYTES", 1)
    assert (
        main(["score", "pairs.jsonl", "-o", "s.jsonl", "--model", str(one_layer), "--cache-dir", "cache"])
        == 0
    )
    assert "warmed up" in caplog.text
    assert list(Path("cache").iterdir())
    with CrossEncoder(str(one_layer), device="cpu", execution="packed-eager") as model:
        np.testing.assert_allclose(
            [row["score"] for row in rows_of("s.jsonl")], model.predict(pairs), atol=1e-4
        )


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_in_one_line_and_keeps_what_is_done(tiny, pairs, number, status):
    Path("many.jsonl").write_text(Path("pairs.jsonl").read_text() * 500)
    command = [sys.executable, "-m", "xenc", "score", "many.jsonl", "-o", "s.jsonl", "--model", str(tiny)]
    root = Path(score_command.__file__).parents[2]
    child = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(root)}
    )
    while not Path("s.jsonl.progress").exists():
        assert child.poll() is None, child.stderr.read()
        time.sleep(0.05)
    child.send_signal(number)
    said = child.communicate()[1].strip().splitlines()
    assert child.returncode == status
    kept = json.loads(Path("s.jsonl.progress").read_text())["scored"]
    assert said[-2] == f"xenc: {kept:,} scored records are kept: the same command with --resume goes on"
    assert said[-1] == f"xenc score: stopped by {number.name}"
    assert not Path("s.jsonl").exists()
    assert rows_of("s.jsonl.partial")[: json.loads(Path("s.jsonl.progress").read_text())["scored"]]


def test_an_error_that_nobody_expected_is_one_line_and_debug_shows_where(pairs, monkeypatch, capsys):
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("the device is on fire\nand more")

    monkeypatch.setattr(score_command.ask, "load", broken)
    assert main(["score", "pairs.jsonl", "-o", "s.jsonl"]) == 1
    assert (
        capsys.readouterr().err == "xenc score: RuntimeError: the device is on fire (--debug shows where)\n"
    )
    with pytest.raises(RuntimeError, match="on fire"):
        main(["score", "pairs.jsonl", "-o", "s.jsonl", "--resume", "--debug"])


DOCUMENTS = [
    "Bees make honey from nectar.",
    "A bank lends money.",
    "Milk keeps in the cold.",
    "Hives hold honey.",
]


@pytest.mark.parametrize("kind", ["txt", "jsonl", "csv", "parquet"])
def test_documents_are_ranked_as_rank_does(tiny, pairs, capsys, kind):
    Path("docs.txt").write_text("\n".join(DOCUMENTS) + "\n\n")
    Path("docs.jsonl").write_text(
        "".join(json.dumps({"query": "", "document": text}) + "\n" for text in DOCUMENTS)
    )
    if kind in ("csv", "parquet"):
        assert main(["score", "docs.jsonl", "-o", f"docs.{kind}", "--model", str(tiny), "--quiet"]) == 0
    question = "How do bees make honey?"
    asked = [f"docs.{kind}", "--model", str(tiny), "--device", "cpu", "--top-k", "3"]
    assert main(["rank", question, *asked, "--json"]) == 0
    hits = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    with CrossEncoder(str(tiny), device="cpu", execution="packed-eager") as model:
        expected = model.rank(question, DOCUMENTS, top_k=3)
    assert [hit["index"] for hit in hits] == [int(hit["corpus_id"]) for hit in expected]
    assert [hit["document"] for hit in hits] == [DOCUMENTS[hit["index"]] for hit in hits]
    np.testing.assert_allclose([hit["score"] for hit in hits], [hit["score"] for hit in expected], atol=1e-5)


def test_several_questions_each_get_a_table(tiny, pairs, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    Path("docs.txt").write_text("\n".join([*DOCUMENTS, "long " * 99]) + "\n")
    Path("questions.txt").write_text("What is [bold] honey?\nWho lends?\n")
    assert main(["rank", "--queries", "questions.txt", "docs.txt", "--model", str(tiny), "--top-k", "9"]) == 0
    printed = capsys.readouterr().out
    assert "What is [bold] honey?" in printed
    assert "Who lends?" in printed
    assert all(printed.count(text) == 2 for text in DOCUMENTS)
    assert all(len(line) <= 100 for line in printed.splitlines())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["docs.txt"], "give either a QUESTION or a file of them with --queries"),
        (["q", "docs.txt", "--queries", "docs.txt"], "give either a QUESTION or a file"),
        (["q", "absent.txt"], "absent.txt: cannot be read"),
        (["q", "empty.txt"], "xenc rank: empty.txt holds no text: give at least one line.\n"),
        (["q", "bad.txt"], "bad.txt, line 2: is not UTF-8"),
        (["q", "docs.jsonl"], "docs.jsonl, line 1: is not JSON"),
    ],
)
def test_what_cannot_be_ranked_is_refused(tiny, pairs, capsys, arguments, said):
    for name, content in (
        ("docs.txt", b"a\n"),
        ("empty.txt", b"\n"),
        ("bad.txt", b"a\n\xff\n"),
        ("docs.jsonl", b"a\n"),
    ):
        Path(name).write_bytes(content)
    assert main(["rank", *arguments, "--model", str(tiny)]) == 2
    assert said in capsys.readouterr().err


def test_a_model_of_several_labels_cannot_rank(three_labels, pairs, capsys):
    Path("docs.txt").write_text("a\n")
    assert main(["rank", "q", "docs.txt", "--model", str(three_labels)]) == 2
    assert "gives 3 scores for a pair: it cannot rank" in capsys.readouterr().err
