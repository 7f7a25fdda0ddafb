"""Every format holds what was put into it, and a record that holds no pair is named by its line."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from correctness_tests.files.fake_model import POISON, score_of
from xenc import PairError
from xenc.files import Columns, PairsFile, ScoresFile, lines, read_pairs

TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
PLAIN = st.text(st.characters(codec="utf-8", exclude_characters="\t\r\n\ufeff"), max_size=12)
"""What TSV can hold: no tab and no line's end."""


def pairs_of(name: str, columns: Columns | None = None) -> list[tuple[str, str]]:
    source = PairsFile(name, columns or Columns())
    chunks = list(source.chunks())
    source.close()
    assert [chunk.bad for chunk in chunks if chunk.bad] == []
    return [pair for chunk in chunks for pair in chunk.pairs]


def exactly(scores: Iterable[Any]) -> list[float]:
    """Written with the digits of float32, they are these numbers."""
    return [float(np.float32(score)) for score in scores]


def lines_of(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text().split("\n")[:-1]]


@pytest.mark.parametrize("format", ["jsonl", "csv", "tsv", "parquet"])
@settings(deadline=None)
@given(data=st.data())
def test_what_is_written_is_read_again(tmp_path_factory, format, data):
    text = PLAIN if format == "tsv" else TEXTS
    pairs = data.draw(st.lists(st.tuples(text, text), min_size=1, max_size=20))
    rows = [{"query": query, "document": document, "n": str(n)} for n, (query, document) in enumerate(pairs)]
    scores = [score_of(pair) for pair in pairs]
    folder = tmp_path_factory.mktemp("written")
    written, finished = folder / "written", folder / f"x.{format}"
    writer = ScoresFile(format, "score")
    parts = [part for part in (slice(3), slice(3, None)) if rows[part]]
    written.write_bytes(b"".join(writer.encode(rows[part], scores[part]) for part in parts))
    writer.finish(written, finished)
    assert pairs_of(str(finished)) == pairs
    (chunk,) = PairsFile(str(finished), Columns()).chunks()
    read = chunk.rows if isinstance(chunk.rows, list) else chunk.rows.to_pylist()
    assert exactly(row["score"] for row in read) == scores
    assert [row["n"] for row in read] == [row["n"] for row in rows]


@settings(deadline=None)
@given(
    records=st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=20), end=st.sampled_from(["\n", "\r\n"])
)
def test_csv_is_read_as_pythons_own_reader_reads_it(tmp_path_factory, records, end):
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    out = io.StringIO()
    csv.writer(out, lineterminator=end, quoting=csv.QUOTE_ALL).writerows([("query", "document"), *records])
    path.write_bytes(out.getvalue().encode())
    assert pairs_of(str(path)) == records


def test_a_record_in_each_format_goes_to_each_other(score, tmp_path):
    pairs = [("a query", 'of "quotes", commas'), ("another", "ünï \u2028 code")]
    Path("x.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    names = ["x.jsonl"]
    for step, format in enumerate(["csv", "parquet", "tsv", "parquet", "csv", "jsonl"]):
        name = f"{step}.{format}"
        assert score(names[-1], "-o", name, "--keep", "query,document") == 0
        assert pairs_of(name) == pairs
        names.append(name)
    assert exactly(row["score"] for row in lines_of(names[-1])) == [score_of(pair) for pair in pairs]


def test_parquet_keeps_the_types_of_other_columns(score):
    table = pa.table({
        "query": ["a", "b"], "when": pa.array([1, 2], pa.timestamp("ns")), "document": ["c", "d"],
        "tags": [["x"], []], "kind": pa.array(["u", "v"]).dictionary_encode(),
    })  # fmt: skip
    pq.write_table(table, "x.parquet")
    assert score("x.parquet", "-o", "y.parquet") == 0
    scored = pq.read_table("y.parquet")
    assert scored.drop_columns("score").equals(table)
    assert scored["score"].to_pylist() == [score_of(("a", "c")), score_of(("b", "d"))]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.tsv", "query\tdocument\na\tb\nonly one\n", "line 3: has 1 fields, and the header 2"),
        ("x.tsv", "a\tb\n", "its first line names the columns 'a', 'b', not 'query': give --query-column"),
        ("x.csv", "query,query,document\na,b,c\n", "twice 'query'"),
        ("x.csv", 'query,document\n"a,b\nc,d\n', "line 2: is not CSV: .*up to line 3"),
        ("x.csv", "", "is empty, so no line names its columns"),
        ("x.csv", "query;document\n", "Fields are separated by commas"),
        ("x.jsonl.gz", "", "is compressed: unpack it into a stream"),
        ("x.jsonl", '["a", "b"]\nnot json\n', "line 2: is not JSON"),
        ("x.jsonl", "[" * 100_000, "line 1: is not JSON"),
        ("x.jsonl", '{"query": "a"}\n', "line 1: has no 'document', only 'query'"),
        ("x.jsonl", '{"query": "a", "document": null}\n', "line 1: 'document' is None, and no text"),
        ("x.jsonl", '["a", "\\ud800"]\n', "line 1: 'document' holds half of a surrogate pair"),
        ("x.jsonl", '["a", "b", "c"]\n', "line 1: .*neither an object nor an array"),
        ("x.jsonl", b'["a", "b"]\n\xff\n', "line 2: is not UTF-8"),
        ("x.jsonl", "\n\n", "holds no pairs"),
        ("x.parquet", "no", "is no Parquet file"),
        ("x.txt", "a", "'.txt' is none of .jsonl"),
        ("-", "parquet", "cannot be a stream"),
    ],
)  # fmt: skip
def test_what_is_no_pair_is_named(tmp_path, monkeypatch, name, text, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(PairError, match=said):
        read_pairs(name, Columns(), "parquet" if name == "-" else None)


def test_pairs_are_read_as_they_are(tmp_path):
    path = tmp_path / "pairs.tsv"
    path.write_bytes('\ufeffa "query\ta \u2028 document\r\n\r\n\tempty is a text too\n'.encode())
    columns = Columns("1", "2", header=False)
    assert read_pairs(str(path), columns) == [('a "query', "a \u2028 document"), ("", "empty is a text too")]


def test_a_line_without_end_is_bad_and_the_next_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "LONGEST_LINE", 100)
    monkeypatch.setattr(lines, "_BLOCK", 16)
    path = tmp_path / "x.jsonl"
    path.write_text('["a", "b"]\n["a", "' + "b" * 333 + '"]\n["c", "d"]\n')
    (chunk,) = PairsFile(str(path), Columns()).chunks()
    assert [bad.number for bad in chunk.bad] == [2]
    assert list(zip(chunk.numbers, chunk.pairs, strict=True)) == [(1, ("a", "b")), (3, ("c", "d"))]


@pytest.mark.parametrize("poisons", [[0], [6, 7], [3, 9, 10, 15], list(range(16))], ids=str)
def test_a_record_that_cannot_be_scored_fails_alone(score, capsys, poisons):
    pairs = [(str(n), POISON if n in poisons else "good") for n in range(16)]
    Path("x.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    assert score("x.jsonl", "-o", "y.jsonl") == 2
    assert f"x.jsonl, line {poisons[0] + 1}: cannot be scored: pair 0: is poison" in capsys.readouterr().err
    assert not Path("y.jsonl").exists()
    assert score("x.jsonl", "-o", "y.jsonl", "--resume", "--skip-bad", "bad.jsonl") == 0
    scored = lines_of("y.jsonl")
    good = [pair for n, pair in enumerate(pairs) if n not in poisons]
    assert [(row["query"], row["document"]) for row in scored] == good
    assert exactly(row["score"] for row in scored) == [score_of(pair) for pair in good]
    bad = lines_of("bad.jsonl")
    assert [row["number"] for row in bad] == [n + 1 for n in poisons]


def test_a_record_that_the_output_cannot_hold_fails_alone(score, capsys):
    Path("x.jsonl").write_text('["a", "b"]\n["a", "tab\\there"]\n["c", "d"]\n')
    assert score("x.jsonl", "-o", "y.tsv", "--skip-bad", "bad.jsonl") == 0
    assert capsys.readouterr().err.startswith("xenc: 2 pairs in ")
    assert pairs_of("y.tsv") == [("a", "b"), ("c", "d")]
    (bad,) = lines_of("bad.jsonl")
    assert bad["number"] == 2
    assert "holds a tab or a line's end" in bad["why"]


@pytest.mark.parametrize("name", ["x.jsonl", "x.csv", "x.parquet"])
def test_a_column_of_scores_replaces_none_of_the_inputs(score, capsys, name):
    Path("first.jsonl").write_text('["a", "b"]\n["c", "d"]\n')
    assert score("first.jsonl", "-o", name) == 0
    assert score(name, "-o", "y.jsonl") == 2
    assert "a column 'score' already: name the new one with --score-column" in capsys.readouterr().err
    assert score(name, "-o", "y.jsonl", "--resume", "--overwrite", "--score-column", "new") == 2
    assert score(name, "-o", "y.jsonl", "--overwrite", "--score-column", "new") == 0
    assert [sorted(row) for row in lines_of("y.jsonl")] == [["document", "new", "query", "score"]] * 2
    assert score(name, "-o", "z.jsonl", "--keep", "query") == 0
    assert [sorted(row) for row in lines_of("z.jsonl")] == [["query", "score"]] * 2
