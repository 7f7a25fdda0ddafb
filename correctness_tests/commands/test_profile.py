"""`xenc profile`: what it prints and writes, and how it refuses bad input."""

from __future__ import annotations

import json
import runpy
import sys
import tomllib
from importlib import import_module
from pathlib import Path

import pytest

import xenc
from xenc.commands import main
from xenc.profiling.texts import prose_pairs

SECTIONS = ("Speed", "What it says", "by stage", "by kernel", "hardware's limit", "How it was measured")


def test_profile_prints_every_section_and_leaves_them_with_a_trace(tiny, tmp_path, capsys):
    pairs, out = tmp_path / "pairs.jsonl", tmp_path / "out"
    pairs.write_text('["a query", "a document"]\n\n{"query": "another", "document": "text"}\n')
    asked = f"--execution packed-eager --device cpu --repeats 2 --pairs {pairs} --dtype float32 --out {out}"
    assert main(["profile", str(tiny), *asked.split()]) == 0
    printed = capsys.readouterr().out
    assert [section for section in SECTIONS if section not in printed] == []
    assert "Execution packed-eager (packed batches, not compiled) in float32 on cpu" in printed
    assert "| pairs per pass                       |        2 |" in printed
    assert (out / "profile.md").read_text() in printed
    assert json.loads((out / "trace.json").read_text())["traceEvents"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent"], "cannot load 'absent' as a cross-encoder: give"),
        (["--execution", "fastest"], "'fastest' is no Execution and no preset. Presets: "),
        (["--device", "gpu"], "--device gpu: "),
        (["--pairs", "absent.tsv"], "absent.tsv: cannot be read"),
        (["--pairs", "pairs.txt"], "pairs.txt: '.txt' is none of .jsonl, "),
        (["--pairs", "bad.jsonl"], "bad.jsonl, line 2: 'query' is 1, and no text"),
        (["--out", "bad.jsonl"], "--out bad.jsonl: is a file. Name a folder"),
        (["--repeats", "0"], "--repeats: '0' is not a positive whole number; see xenc profile --help"),
        (["m", "n", "o"], "unrecognized arguments: n o; see xenc profile --help"),
        (None, "the following arguments are required: COMMAND; see xenc --help"),
    ],
)
def test_bad_input_is_one_line_that_names_it_and_exit_status_two(
    tmp_path, monkeypatch, capsys, arguments, said
):
    monkeypatch.chdir(tmp_path)
    Path("bad.jsonl").write_text('["a", "b"]\n[1, 2]\n')
    monkeypatch.setattr(sys, "argv", ["xenc"] if arguments is None else ["xenc", "profile", *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("xenc", run_name="__main__")
    captured = capsys.readouterr()
    assert ended.value.code == 2
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("xenc")
    assert said in line
    assert [path.name for path in tmp_path.iterdir()] == ["bad.jsonl"]


def test_the_console_script_is_the_same_command():
    project = tomllib.loads((Path(xenc.__file__).parents[1] / "pyproject.toml").read_text())["project"]
    module, name = project["scripts"]["xenc"].split(":")
    assert getattr(import_module(module), name) is main


def test_the_built_in_pairs_are_the_same_each_time_and_of_many_lengths():
    assert prose_pairs() == prose_pairs()
    assert len({len(document) for _, document in prose_pairs()}) > 48
