"""Every file that xenc reads may hold anything: it is read, or refused by xenc's own error."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from correctness_tests.gate.test_baseline import baseline, entry
from xenc import PairError, XencError
from xenc.compiling.cold_start import load_graphs
from xenc.files import Columns, PairsFile, Unfinished
from xenc.files.documents import read_documents
from xenc.gate.errors import BaselineError
from xenc.gate.paired.accepted import NAME, read_accepted
from xenc.gate.stored.baseline import read_baseline, write_baseline
from xenc.models.first_step import _restored
from xenc.models.loading import loading_errors
from xenc.text.prompts import FirstStep

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=10,
)

WRITTEN = JSON.map(lambda read: json.dumps(read).encode())

VALID = {
    "x.jsonl": b'{"query": "a", "document": "b", "n": 1}\n["c", "d"]\n',
    "x.csv": b'query,document,n\r\n"a ""b""",c,1\r\nd,"e\nf",2\r\n',
    "x.tsv": b"query\tdocument\na\tb\nc\td\n",
}


@st.composite
def damaged(draw: st.DrawFn, valid: bytes) -> bytes:
    """A valid file of which some bytes were lost, changed or put in; or anything at all."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, 3))):
        first = draw(st.integers(0, len(data)))
        last = draw(st.integers(first, min(len(data), first + 20)))
        data[first:last] = draw(st.binary(max_size=6))
    return bytes(data)


@pytest.mark.parametrize("name", VALID)
@settings(deadline=None)
@given(data=st.data())
def test_a_file_of_pairs_is_read_or_refused_and_every_record_is_told(tmp_path_factory, name, data):
    path = tmp_path_factory.getbasetemp() / name
    path.write_bytes(data.draw(damaged(VALID[name])))
    with suppress(PairError):
        source = PairsFile(str(path), Columns())
        chunks = list(source.chunks())
        source.close()
        assert all(isinstance(text, str) for chunk in chunks for pair in chunk.pairs for text in pair)
        assert all(len(chunk.rows) == len(chunk.pairs) == len(chunk.numbers) for chunk in chunks)
        assert all(bad.why and bad.number >= 1 for chunk in chunks for bad in chunk.bad)
        numbers = [number for chunk in chunks for number in chunk.numbers]
        assert numbers == sorted(set(numbers))
    with suppress(PairError):
        assert read_documents(str(path), Columns())


@settings(deadline=None, max_examples=50)
@given(data=st.data())
def test_a_parquet_file_is_read_or_refused(tmp_path_factory, data):
    pa = pytest.importorskip("pyarrow", reason="pip install 'xenc[parquet]'")
    import pyarrow.parquet as pq

    path = tmp_path_factory.getbasetemp() / "x.parquet"
    pq.write_table(pa.table({"query": ["a", "b"], "document": ["c", None]}), path)
    path.write_bytes(data.draw(damaged(path.read_bytes())))
    with suppress(PairError):
        for chunk in PairsFile(str(path), Columns()).chunks():
            assert all(isinstance(text, str) for pair in chunk.pairs for text in pair)


@settings(deadline=None)
@given(data=st.data())
def test_the_progress_of_a_run_is_read_or_refused(tmp_path_factory, data):
    out = tmp_path_factory.getbasetemp() / "out.jsonl"
    valid = {"settings": {}, "place": {"offset": 3, "number": 1, "digest": "00"}, "written": 0, "scored": 0}
    content = data.draw(
        damaged(json.dumps(valid).encode()) | JSON.map(lambda read: json.dumps(read).encode())
    )
    Path(f"{out}.progress").write_bytes(content)
    with suppress(PairError), Unfinished(out, {}).go_on() as unfinished:
        assert unfinished.progress.written == 0
        assert unfinished.place is None or unfinished.place.number >= 1


@settings(deadline=None)
@given(data=st.data())
def test_a_baseline_is_read_or_refused(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "device.json"
    write_baseline(path, baseline({"a.py::test": entry()}))
    path.write_bytes(data.draw(damaged(path.read_bytes()) | WRITTEN))
    with suppress(BaselineError):
        read_baseline(path)


@given(content=JSON)
def test_what_may_grow_is_read_or_refused(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    for written in (content, {"cpu": content}, {"cpu": {"a.py::test": content}}):
        (folder / NAME).write_text(json.dumps(written))
        with suppress(BaselineError):
            read = read_accepted(folder, "cpu")
            assert all(
                isinstance(value, (int, float)) for counts in read.values() for value in counts.values()
            )


@given(stored=st.dictionaries(st.sampled_from(["prompt", "targets", "decoder_prefixes", "new"]), JSON))
def test_a_question_is_read_or_refused(stored):
    with suppress(XencError), loading_errors("a model"):
        assert isinstance(_restored(stored), FirstStep | None)


@given(content=st.binary(max_size=300))
def test_a_cache_is_read_or_passed_over(tmp_path_factory, content):
    folder = tmp_path_factory.getbasetemp()
    (folder / "compiled.bin").write_bytes(content)
    load_graphs(folder)
