"""Workers may die at any moment: nothing is lost, repeated or moved, and what ends them is said."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from correctness_tests.cluster import killers
from correctness_tests.files.fake_model import POISON, score_of
from xenc.cluster import ClusterError, Pool, Share, pool
from xenc.commands import options
from xenc.files import scored
from xenc.files.chunk import Chunk, Place

ON_RAY = ("--ray", "local", "--ray-workers", 2, "--ray-cpus", 1)
TWO = Share(2, 1, 0)


def chunk_of(number: int, *queries: str) -> Chunk:
    pairs = [(query, f"document {number}") for query in queries]
    numbers = [number * 10 + place for place in range(len(pairs))]
    return Chunk([{} for _ in pairs], numbers, pairs, [], Place(number, number))


def chunks(count: int, **special: str):
    """Chunks of three pairs. `c5="x"` puts x into the middle of the fifth."""
    return [chunk_of(number, "a", special.get(f"c{number}", "b"), "c") for number in range(count)]


def write_pairs(count: int, others: dict[int, tuple[str, str]]) -> None:
    """Line n holds the pair of n, or the one that is given for it."""
    pairs = [others.get(n, (f"query {n}", f"document {n}")) for n in range(1, count + 1)]
    Path("x.jsonl").write_text("".join(json.dumps([*pair]) + "\n" for pair in pairs))


def read_lines(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def test_a_worker_that_dies_is_replaced_and_the_output_is_that_of_one_process(local_ray, score, tmp_path):
    write_pairs(100, {n: (f"{killers.ONCE}{tmp_path}/{n}", "d") for n in (3, 44)} | {60: ("q", POISON)})
    asked = (*ON_RAY, "--skip-bad", "bad.jsonl")
    assert score("x.jsonl", "-o", "y.jsonl", *asked) == 0
    assert all((tmp_path / str(n)).exists() for n in (3, 44))  # they did die
    assert score("x.jsonl", "-o", "whole.jsonl", "--skip-bad", "whole-bad.jsonl") == 0
    assert Path("y.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()
    assert Path("bad.jsonl").read_bytes() == Path("whole-bad.jsonl").read_bytes()
    assert [row["number"] for row in read_lines("bad.jsonl")] == [60]


def test_on_standard_output_there_are_records_and_nothing_of_ray(local_ray, score, capfdbinary, tmp_path):
    write_pairs(30, {9: (f"{killers.ONCE}{tmp_path}/died", "d")})
    assert score("x.jsonl", *ON_RAY) == 0
    on_ray, said = capfdbinary.readouterr()
    assert b"A worker died" in said  # Ray says so, elsewhere
    assert score("x.jsonl") == 0
    assert on_ray == capfdbinary.readouterr().out


def test_a_chunk_on_which_workers_die_is_bad_by_its_lines_and_others_are_scored(local_ray, score):
    write_pairs(60, {24: (killers.ALWAYS, "d")})
    assert score("x.jsonl", "-o", "y.jsonl", *ON_RAY, "--skip-bad", "bad.jsonl") == 0
    bad = read_lines("bad.jsonl")
    assert [row["number"] for row in bad] == [*range(22, 29)]  # seven records are a chunk here
    assert {row["why"] for row in bad} == {
        "cannot be scored: 3 workers died while they scored lines 22 to 28"
    }
    assert [row["query"] for row in read_lines("y.jsonl")] == [
        f"query {n}" for n in range(1, 61) if not 22 <= n <= 28
    ]
    for row in read_lines("y.jsonl"):
        assert np.float32(row["score"]) == score_of((row["query"], row["document"]))


def test_without_skip_bad_it_stops_there_and_goes_on_without_ray(local_ray, score, capsys, monkeypatch):
    monkeypatch.setattr(pool, "MOST_DEATHS", 2)
    write_pairs(60, {24: (killers.ALWAYS, "d")})
    assert score("x.jsonl", "-o", "y.jsonl", *ON_RAY) == 2
    assert "x.jsonl, line 22: cannot be scored: 2 workers died" in capsys.readouterr().err
    assert len(read_lines("y.jsonl.partial")) == 21
    Path("x.jsonl").write_text(Path("x.jsonl").read_text().replace(killers.ALWAYS, "query 24"))
    assert score("x.jsonl", "-o", "y.jsonl", "--resume") == 0
    assert len(read_lines("y.jsonl")) == 60


def test_a_chunk_beside_the_one_at_fault_is_scored(local_ray, monkeypatch):
    """Both are with one worker when it dies, so both are suspect; alone, only one kills again."""
    monkeypatch.setattr(pool, "MOST_DEATHS", 2)
    with Pool(killers.load, Share(1, 1, 0)) as workers:
        workers.wait_for_a_worker()
        found = list(scored(workers, chunks(8, c2=killers.SLOW, c3=killers.ALWAYS, c4=killers.SLOW)))
    assert [len(part.scores) for part in found] == [3, 3, 3, 0, 3, 3, 3, 3]
    assert [part.end.number for part in found] == [*range(8)]


def test_a_worker_has_few_chunks_at_a_time_and_little_is_read_ahead(local_ray):
    read = 0

    def reading():
        nonlocal read
        for chunk in chunks(60):
            read += 1
            yield chunk

    with Pool(killers.load, TWO) as workers:
        workers.wait_for_a_worker()
        for done, _ in enumerate(scored(workers, reading())):
            assert read - done <= workers.ahead + 1
            assert all(len(worker.jobs) <= 2 for worker in workers._workers)
    assert workers.ahead == 8


def test_an_error_of_loading_is_the_commands_own(local_ray, score, capsys, monkeypatch):
    monkeypatch.setattr(options, "load", killers.cannot_load)
    write_pairs(9, {})
    assert score("x.jsonl", "-o", "y.jsonl", *ON_RAY) == 2
    assert capsys.readouterr().err == "xenc score: there is no such model\n"


@pytest.mark.slow  # seven workers start, each of which imports torch
def test_workers_that_die_while_they_load_end_the_run_and_one_that_does_so_once_does_not(local_ray, tmp_path):
    with (
        Pool(killers.dies_while_loading, TWO) as workers,
        pytest.raises(ClusterError, match="3 workers died one after the other while they loaded the model"),
    ):
        list(scored(workers, chunks(3)))
    with Pool(partial(killers.dies_while_loading_once, tmp_path / "died"), TWO) as workers:
        assert [len(part.scores) for part in scored(workers, chunks(3))] == [3, 3, 3]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--ray", "local", "--dtype", "fastest"), "--dtype fastest depends on the machine"),
        (("--ray-workers", 2), "--ray-workers and --ray-cpus are of a cluster"),
        (("--ray-cpus", 2), "--ray-workers and --ray-cpus are of a cluster"),
    ],
)
def test_options_that_mean_nothing_are_refused(score, capsys, arguments, said):
    write_pairs(1, {})
    assert score("x.jsonl", "-o", "y.jsonl", *arguments) == 2
    assert said in capsys.readouterr().err


def test_without_ray_it_says_what_to_install(score, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    write_pairs(1, {})
    assert score("x.jsonl", "-o", "y.jsonl", "--ray", "auto") == 2
    assert "Ray is not installed: pip install 'xenc[ray]'" in capsys.readouterr().err
