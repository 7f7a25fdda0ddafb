"""`xenc doctor`: what it finds on this machine, what it says of others, and its exit status."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import xenc
from xenc.commands import main
from xenc.kernels import library as kernels
from xenc.profiling import machine
from xenc.profiling.checkup import MINIMUM, OPTIONAL, Checkup, compiler, try_to_compile
from xenc.profiling.remedies import ailments

ROOT = Path(xenc.__file__).parents[1]

HEALTHY = Checkup(
    device="cpu", gpus=(), unused_gpu=False, processor="A processor",
    instructions=("avx2", "avx512f", "avx512_vnni"), hidden="", cores=4, threads=4, memory_bytes=1 << 34,
    versions={"python": "3.12", **MINIMUM, "cuda": None, "triton": None},
    compiler=("c++", "/usr/bin/c++", "c++ 12"), ninja="/usr/bin/ninja", kernels_file="/kept/x.so",
    were_built=True, kernels_missing=None, kernels_s=0.1, compile_fails=None, compile_s=1.0,
    inductor_cache="/kept/inductor", hub_cache="/kept/hub", offline=False,
    optional=dict.fromkeys(OPTIONAL, "1.0"), fastest_dtype="float32",
)  # fmt: skip
ABSENT = ("/nonexistent/c++", None, "")


def test_it_reports_this_machine_and_json_holds_the_same(capsys, monkeypatch):
    monkeypatch.setattr("xenc.profiling.checkup.try_to_compile", lambda device: (None, 1.5))
    status = main(["doctor", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert said["status"] == status
    assert said["device"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert said["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert said["fastest_dtype"] == str(xenc.fastest_dtype(said["device"])).removeprefix("torch.")
    assert said["threads"] == torch.get_num_threads()
    assert said["kernels_missing"] == kernels.library().missing
    assert Path(said["kernels_file"]).name == f"{kernels.name()}.so"
    assert Path(said["kernels_file"]).exists() == (said["kernels_missing"] is None)
    assert said["optional"].keys() == {*OPTIONAL}
    assert main(["doctor"]) == status
    printed = capsys.readouterr().out
    assert said["processor"] in printed
    assert "works: a small function in 1.5 s" in printed
    assert ("Nothing has to be mended." in printed) == (status == 0)


def test_the_trials_fail_where_there_is_no_compiler(tmp_path):
    environment = {
        **os.environ, "CXX": "/nonexistent/c++", "TORCH_EXTENSIONS_DIR": str(tmp_path),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "inductor"),
    }  # fmt: skip
    command = [sys.executable, "-m", "xenc", "doctor", "--json"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    said = json.loads(done.stdout)
    assert (done.returncode, said["status"]) == (1, 1), done.stderr
    assert said["compiler"] == ["/nonexistent/c++", None, ""]
    assert not said["were_built"]
    slow = [each for each in said["findings"] if each["level"] == "slow"]
    assert slow[0]["says"].startswith("the C++ kernels could not be built or loaded: ")
    assert "unset CXX=/nonexistent/c++" in slow[0]["remedy"]
    assert any(each["says"].startswith("torch.compile does not work") for each in slow)


def test_the_supported_versions_are_the_projects():
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {f"{name}>={minimum}" for name, minimum in MINIMUM.items()} <= {*wanted}


def test_a_healthy_machine_has_nothing_to_mend():
    assert {each.level for each in ailments(HEALTHY)} == {"note"}  # that it has no bfloat16
    assert ailments(replace(HEALTHY, instructions=("avx2", "avx512_bf16", "amx_tile")))


@pytest.mark.parametrize(
    ("changed", "level", "says", "remedy"),
    [
        ({"versions": {**HEALTHY.versions, "torch": "2.9.1+cpu"}}, "broken",
         "torch 2.9.1+cpu is older than 2.11", "pip install -U 'torch>=2.11'"),
        ({"versions": {**HEALTHY.versions, "transformers": None}}, "broken",
         "transformers is not installed", "pip install 'transformers>=5.17'"),
        ({"unused_gpu": True}, "slow", "this torch cannot use it", "pytorch.org"),
        ({"device": "cuda"}, "slow", "Triton is not installed", "pip install triton"),
        ({"kernels_missing": "c++: not found", "compiler": ("c++", None, "")}, "slow",
         "the C++ kernels could not be built or loaded: c++: not found", "apt-get install g++)"),
        ({"kernels_missing": "not found", "compiler": ABSENT}, "slow", "not found", "unset CXX=/nonexistent"),
        ({"kernels_missing": "Ninja is required", "ninja": None}, "slow", "Ninja", "pip install ninja"),
        ({"kernels_missing": "a.h: no such file"}, "slow", "a.h", "mend what /usr/bin/c++ complains about"),
        ({"kernels_missing": "none", "instructions": ()}, "note", "no C++ kernels for this", "AVX2"),
        ({"compile_fails": "fatal error: Python.h"}, "slow", "torch.compile does not work", "python3-dev"),
        ({"compile_fails": "no g++", "compiler": ABSENT}, "slow", "no g++", "packed-eager"),
        ({"hidden": "ATEN_CPU_CAPABILITY=avx2"}, "slow", "hides AVX-512", "unset ATEN_CPU_CAPABILITY"),
        ({"fastest_dtype": "bfloat16"}, "note", "float32 is slower than in bfloat16", "--dtype fastest"),
        ({"instructions": ("avx2",)}, "note", "no int8 instructions", "use packed"),
        ({}, "note", "no bfloat16 instructions", "AMX"),
        ({"threads": 1}, "note", "1 thread(s), and there are 4 cores", "OMP_NUM_THREADS"),
        ({"optional": {**HEALTHY.optional, "pyarrow": None}}, "note", "no Parquet", "xenc[parquet]"),
        ({"optional": {**HEALTHY.optional, "matplotlib": None}}, "note", "no picture", "matplotlib"),
        ({"optional": {**HEALTHY.optional, "torchao": None}, "instructions": ("avx2",)}, "note",
         "torchao is not installed", "xenc[torchao]"),
        ({"offline": True}, "note", "HF_HUB_OFFLINE is set", "unset HF_HUB_OFFLINE"),
    ],
)  # fmt: skip
def test_each_finding_has_its_remedy_and_decides_the_exit_status(
    monkeypatch, capsys, changed, level, says, remedy
):
    found = replace(HEALTHY, **changed)
    (ailment,) = [each for each in ailments(found) if says in each.says]
    assert ailment.level == level
    assert remedy in ailment.remedy
    monkeypatch.setattr("xenc.commands.doctor.checkup", lambda: found)
    assert main(["doctor"]) == (0 if level == "note" else 1)
    printed = " ".join(capsys.readouterr().out.split())
    assert f"{level}: {ailment.says}. -> {ailment.remedy}" in printed
    if changed:
        assert ailment not in ailments(HEALTHY)


def test_what_is_broken_stands_before_what_is_slow_and_notes_stand_last():
    versions = {**HEALTHY.versions, "transformers": None}
    found = replace(
        HEALTHY, versions=versions, instructions=(), kernels_missing="none here", compile_fails="no compiler"
    )
    assert [each.level for each in ailments(found)][:3] == ["broken", "slow", "note"]


def test_torchao_that_nothing_needs_and_kernels_that_a_gpu_does_not_use_are_no_findings():
    without = replace(HEALTHY, optional={**HEALTHY.optional, "torchao": None})
    assert ailments(without) == ailments(HEALTHY)
    versions = {**HEALTHY.versions, "triton": "3"}
    assert ailments(replace(HEALTHY, device="cuda", versions=versions, kernels_missing="no compiler")) == ()


def test_compiled_code_in_a_temporary_folder_is_a_finding(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    found = ailments(replace(HEALTHY, inductor_cache=str(tmp_path / "cache")))
    assert any("TORCHINDUCTOR_CACHE_DIR" in each.remedy for each in found)


def test_a_compile_that_fails_says_what_the_compiler_complained_about(monkeypatch):
    def fails(*_, **__):
        raise RuntimeError("a long command\nx.cpp:1: fatal error: Python.h: No such file\nmore")

    monkeypatch.setattr(torch, "compile", fails)
    assert try_to_compile("cpu")[0] == "x.cpp:1: fatal error: Python.h: No such file"


def test_the_compiler_is_cxx_or_the_one_called_cpp(tmp_path, monkeypatch):
    own = tmp_path / "my-c++"
    own.write_text("#!/bin/sh\necho mine 1.2\necho more\n")
    own.chmod(0o755)
    monkeypatch.setenv("CXX", str(own))
    assert compiler() == (str(own), str(own), "mine 1.2")
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compiler() == ("c++", None, "")


def test_a_container_has_the_memory_that_it_is_allowed(tmp_path, monkeypatch):
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(machine, "_LIMITS", (tmp_path / "absent", limit))
    limit.write_text("4096\n")
    assert machine.memory_bytes() == 4096
    limit.write_text("max\n")
    assert machine.memory_bytes() > 1 << 28


def test_the_instructions_are_those_that_the_kernels_are_built_for():
    ours, built = {*machine.instructions()}, {*kernels.instructions()}
    if not ours or machine_hides():
        pytest.skip("Linux says nothing of them, or torch is told to see fewer")
    pairs = {"avx2": "avx2", "avx512f": "avx512f", "avx512_bf16": "avx512bf16", "avx512_vnni": "avx512vnni"}
    assert {name for name, flag in pairs.items() if flag in built} == ours & {*pairs}


def machine_hides() -> bool:
    return bool(os.environ.get("ATEN_CPU_CAPABILITY"))
