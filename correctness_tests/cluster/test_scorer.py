"""`Scorer` adds scores to batches, and says of a pair that has none why."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from correctness_tests.files.fake_model import POISON, FakeModel, score_of
from perf_tests.workloads import seed
from xenc import CrossEncoder, PairError
from xenc.cluster import Scorer, members, scorer

PAIRS = [(f"query {n}", f"document {n}") for n in range(9)]
BAD = {2: (7, "a number"), 4: ("half a pair \ud800", "d"), 5: (None, "d"), 7: ("q", POISON)}
WHY = {2: "'query' is 7, and no text", 4: "half of a surrogate pair", 5: "is None", 7: "is poison"}


class Fake(FakeModel):
    def __init__(self, model: str, **loading: object) -> None:
        pass


class ThreeLabels(Fake):
    num_labels = 3

    def submit(self, inputs):
        future = super().submit(inputs)
        if not future.exception():
            future._result = np.stack([future.result()] * 3, axis=1)
        return future


@pytest.fixture
def fake(monkeypatch):
    monkeypatch.setattr(scorer, "CrossEncoder", Fake)


def columns(pairs):
    return {"id": np.arange(len(pairs)), **{
        name: np.array([pair[place] for pair in pairs], object)
        for place, name in enumerate(("query", "document"))
    }}  # fmt: skip


def test_a_dictionary_keeps_its_columns_and_only_pairs_at_fault_have_no_score(fake):
    pairs = [BAD.get(n, pair) for n, pair in enumerate(PAIRS)]
    batch = columns(pairs)
    out = Scorer()(batch)
    assert list(out) == ["id", "query", "document", "score", "error"]
    assert out["query"] is batch["query"]
    for n, pair in enumerate(pairs):
        assert (out["score"][n] is None) == (n in BAD) == (out["error"][n] is not None)
        if n in BAD:
            assert WHY[n] in out["error"][n]
        else:
            assert np.float32(out["score"][n]) == score_of(pair)


def test_an_arrow_table_has_columns_of_their_types(fake, monkeypatch):
    pairs = [BAD[7] if n == 7 else pair for n, pair in enumerate(PAIRS)]
    table = pa.table({"query": [pair[0] for pair in pairs], "document": [pair[1] for pair in pairs]})
    out = Scorer(score_column="s", error_column="e")(table)
    assert out.schema.field("s").type == pa.float32()
    assert out.schema.field("e").type == pa.string()
    assert out["s"].null_count == 1
    assert out["e"].null_count == 8
    assert out["s"].to_pylist()[:7] == [score_of(pair) for pair in pairs[:7]]
    monkeypatch.setattr(scorer, "CrossEncoder", ThreeLabels)
    assert Scorer()(table)["score"].type == pa.list_(pa.float32())
    assert len(Scorer()(columns(PAIRS))["score"][0]) == 3
    assert len(Scorer()(table.slice(0, 0))) == 0


def test_it_stops_at_an_error_if_asked(fake):
    with pytest.raises(PairError, match="pair 1 of a batch 'query' is None, and no text"):
        Scorer(stop_at_error=True)(columns([PAIRS[0], BAD[5]]))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"query_column": "q"}, "there is no column 'q', only 'id', 'query', 'document'"),
        ({"score_column": "id"}, "there is a column 'id' already"),
        ({"error_column": "query"}, "there is a column 'query' already"),
    ],
)
def test_columns_that_cannot_be_are_refused(fake, options, said):
    with pytest.raises(PairError, match=said):
        Scorer(**options)(columns(PAIRS))


def test_another_batch_format_is_refused(fake):
    pandas = pytest.importorskip("pandas", reason="pip install 'xenc[ray]', which brings pandas")
    with pytest.raises(PairError, match="a batch is a DataFrame: use batch_format 'numpy' or 'pyarrow'"):
        Scorer()(pandas.DataFrame(columns(PAIRS)).drop(columns="id").set_index("query"))


def test_threads_are_those_asked_for(fake, monkeypatch):
    asked = []
    monkeypatch.setattr(scorer, "use_cores", asked.append)
    Scorer(threads=3)
    Scorer()  # outside Ray nothing is changed
    assert asked == [3]
    assert members.use_cores is not asked.append


def test_ray_data_scores_as_one_process_does(local_ray):
    import ray

    pairs = seed(pairs=48, batch_size=16).round(0)
    rows = [{"id": n, "query": query, "document": text} for n, (query, text) in enumerate(pairs)]
    rows[20]["document"] = None
    found = ray.data.from_items(rows).repartition(4).map_batches(
        Scorer, fn_constructor_kwargs={"execution": "packed-eager", "max_length": 128}, batch_size=8,
        batch_format="pyarrow", compute=ray.data.ActorPoolStrategy(size=2), num_cpus=1,
    ).take_all()  # fmt: skip
    found.sort(key=lambda row: row["id"])
    assert [row["id"] for row in found if row["error"] is not None] == [20]
    assert "'document' is None" in found[20]["error"]
    assert found[20]["score"] is None
    del pairs[20], found[20]
    with CrossEncoder(scorer.DEFAULT_MODEL, execution="packed-eager", max_length=128, device="cpu") as model:
        np.testing.assert_allclose([row["score"] for row in found], model.predict(pairs), atol=1e-4, rtol=0)
