"""What a run consists of: ranges that the code marks, and calls of a package's functions."""

from __future__ import annotations

import importlib
import math
import sys
import time
from types import SimpleNamespace

import pytest
import torch
from torch._C._profiler import RecordScope, _EventType
from torch.profiler import record_function

from xenc.gate.errors import SubjectError
from xenc.gate.fixture import folder_of
from xenc.gate.measuring import explain
from xenc.gate.measuring.explain import look_inside, stages_of
from xenc.gate.measuring.sides import without_revision
from xenc.gate.measuring.subject import Subject


def subject(run, inputs=(1,), **known):
    return Subject(run=run, inputs=inputs, **known)


def work(value):
    with record_function("outer"):
        time.sleep(0.002)
        for _ in range(value):
            with record_function("inner"):
                time.sleep(0.005)
                torch.ones(4).relu()
    with record_function("after"):
        torch.ones(4)


def test_stages_are_the_ranges_that_the_code_marks_each_without_those_inside_it():
    started = time.perf_counter()
    found = explain._marked(subject(work), "cpu", [1, 3])
    whole = time.perf_counter() - started
    seconds = {name: seconds for name, (_, seconds) in found.items()}
    assert found["inner"][0] > found["after"][0] > 0
    assert seconds.keys() == {"outer", "inner", "after"}
    assert seconds["inner"] >= 4 * 0.005
    assert seconds["outer"] >= 2 * 0.002
    assert sum(seconds.values()) <= whole
    assert seconds["after"] > 0


def node(name, milliseconds, *children, scope=RecordScope.USER_SCOPE):
    return SimpleNamespace(
        name=name, tag=_EventType.TorchOp, duration_time_ns=milliseconds * 1e6, children=children,
        extra_fields=SimpleNamespace(scope=scope),
    )  # fmt: skip


def operator(milliseconds, *children):
    return node("aten::add", milliseconds, *children, scope=RecordScope.FUNCTION)


@pytest.mark.parametrize(
    ("roots", "own"),
    [
        ([node("a", 10, node("b", 3), node("b", 4))], {"a": (0, 3), "b": (0, 7)}),
        ([node("a", 10, operator(8, node("b", 6)))], {"a": (1, 4), "b": (0, 6)}),
        ([node("a", 10, operator(1, operator(1), operator(1)), node("b", 6, operator(1)))],
         {"a": (2, 4), "b": (1, 6)}),
        ([node("a", 10, node("a", 4, operator(1)))], {"a": (1, 10)}),
        ([node("a", 10, node("Torch-Compiled Region: 0/0", 9, node("b", 3), operator(2)))],
         {"a": (1, 7), "b": (0, 3)}),
        ([node("a", 1), operator(5), node("a", 2)], {"a": (0, 3)}),
        ([operator(5)], {}),
    ],
    ids=["nested", "below an operator", "operators", "within itself", "PyTorch's own", "twice", "none"],
)  # fmt: skip
def test_a_ranges_own_operators_and_seconds_leave_out_the_ranges_inside_it(roots, own):
    found = {}
    explain._add_own(roots, found)
    assert {name: (calls, pytest.approx(1000 * seconds)) for name, (calls, seconds) in found.items()} == own


def test_ranges_that_pytorch_marks_itself_are_no_stages():
    compiled = torch.compile(lambda x: (x * 2).sum(), backend="aot_eager", dynamic=False)
    x = torch.ones(4, requires_grad=True)

    def run(value):
        with record_function("mine"):
            compiled(x).backward()

    run(1)
    assert explain._marked(subject(run), "cpu", [1]).keys() == {"mine"}


FILES = {
    "other.py": "import mine\n\ndef run(values):\n    return mine.sort(values)\n",
    "mine/__init__.py": "from .room.deep import sort\n",
    "mine/room/__init__.py": "",
    "mine/room/deep.py": """
def smaller(one, other):
    return one < other

def sort(values):
    values = list(values)
    for at in range(len(values)):
        for next in range(at + 1, len(values)):
            if smaller(values[next], values[at]):
                values[at], values[next] = values[next], values[at]
    return sorted(values, key=lambda value: value)
""",
}


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package beside another one that calls it."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("other")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("mine", "other")]:
        del sys.modules[name]


def calls(functions):
    return {name: count for name, (count, _) in functions.items()}


def test_without_kernels_the_calls_of_the_packages_functions_are_counted_and_no_others(package):
    seen = look_inside(subject(package.run, [[3, 1, 2], [1, 2]]), "cpu", folder_of("mine"))
    counted = {"mine/room/deep.py:sort": 2, "mine/room/deep.py:smaller": 4, "mine/room/deep.py:<lambda>": 5}
    assert calls(seen.functions) == counted
    assert all(seconds >= 0 for _, seconds in seen.functions.values())
    assert seen.facts == {"python_calls": 11}
    assert seen.kernels == {}


def test_facts_are_of_the_counted_inputs_and_the_same_each_time(package):
    it = subject(package.run, [[3, 1, 2]], exact_on=[[5, 4], [4, 5]], rounds=9)
    found = [look_inside(it, "cpu", folder_of("mine")) for _ in range(2)]
    assert calls(found[0].functions) == calls(found[1].functions)
    assert found[0].facts == {"python_calls": 2 + 2 + 4}


def test_with_kernels_these_are_counted_instead_and_without_a_package_nothing_is(package):
    assert look_inside(subject(package.run, [[2, 1]]), "cpu", None).facts == {}
    computing = subject(lambda values: torch.ones(len(package.run(values))).relu(), [[2, 1]])
    seen = look_inside(computing, "cpu", folder_of("mine"))
    assert calls(seen.kernels) == {"aten::ones": 1, "aten::relu": 1}
    assert seen.functions == {}
    assert seen.facts == {"kernels": 2, "peak_bytes": 16}


def test_stages_of_the_tests_own_are_asked_for_instead():
    asked = []
    own = subject(work, [1, 2], rounds=20, stages=lambda values: asked.append(values) or {"all": 1.0})
    assert stages_of(own, "cpu") == {"all": (0, 1.0)}
    assert asked == [[1, 2] * 4]


@pytest.mark.parametrize("seconds", [math.nan, math.inf, None, "x"])
def test_stages_that_are_no_seconds_are_refused(seconds):
    with pytest.raises(SubjectError, match="stages: "):
        stages_of(subject(work, stages=lambda values: {"all": seconds}), "cpu")


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("xenc_head::packed_attention", "xenc_base::packed_attention"),
        ("xenc_same::packed_attention", "xenc::packed_attention"),
        ("xenc_head_kernels::linear", "xenc_base_kernels::linear"),
        ("void xenc_head::f<xenc_head::g>()", "void xenc::f<xenc::g>()"),
    ],
)
def test_two_revisions_names_of_one_kernel_match(ours, theirs):
    assert without_revision(ours, "xenc") == without_revision(theirs, "xenc")


def test_names_of_other_packages_are_not_shortened():
    for name in ("xenc_header::f", "my_xenc_head::f", "aten::mm", "xenc_slowed::f"):
        assert without_revision(name, "xenc") == name
    assert without_revision("a.b_head::f", "a.b") == "a.b::f"
    assert without_revision("axb_head::f", "a.b") == "axb_head::f"
