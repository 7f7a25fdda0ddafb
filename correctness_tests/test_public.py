"""What users may rely on: the names, their docstrings; and the arrows between the rooms."""

from __future__ import annotations

import ast
import inspect
import subprocess
import sys
import tomllib
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import xenc
from xenc.models.quantize import missing_torchao

PACKAGE = Path(xenc.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

ROOMS = (
    "errors", "forks", "default_model", "execution", "presets", "text", "batching", "kernels", "models",
    "compiling", "serving", "layouts", "pipeline", "cross_encoder", "frameworks", "files", "cluster",
    "profiling", "commands", "gate", "__main__",
)  # fmt: skip
"""In the order of the road: the modules of a room import only rooms that stand before it, and each other."""

PURE = (
    "errors", "forks", "execution", "presets", "batching.limit", "batching.plan", "batching.padded_plan",
    "batching.packed_plan", "batching.prefix_plan", "gate.verdict", "gate.errors",
    "gate.record", "gate.exact", "gate.growth",
)  # fmt: skip
"""Subtle mistakes live here, so they are tested in microseconds: neither torch nor transformers."""

RULES = ("gate.stored.rule", "gate.paired.rule", "gate.paired.verdicts")
"""The gate's, which need SciPy too."""

EXPORTED = {
    "DEFAULT_MODEL", "PRESETS", "CompileError", "CompileReport", "CrossEncoder", "Execution",
    "ExecutionError", "FirstStep", "ModelError", "NonFiniteScoreError", "NotInstalledError",
    "OutOfMemoryError", "Overloaded", "PairError", "PredictReport", "WarmupReport", "XencError",
    "fastest_dtype", "replace_cross_encoders", "watch_compiles",
}  # fmt: skip


def module_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    return module.partition(".")[0]


def imports_of(file: Path) -> list[ast.Import | ast.ImportFrom]:
    """Every import, also those inside functions."""
    nodes = ast.walk(ast.parse(file.read_text()))
    return [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]


def modules_imported(file: Path) -> set[str]:
    """xenc's modules that a file imports relatively."""
    folder = file.relative_to(PACKAGE).parent.parts
    modules = set()
    for node in imports_of(file):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = folder[: len(folder) - (node.level - 1)]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            modules |= {".".join((*base, name)) for name in names}
    return modules


def packages_imported(file: Path) -> set[str]:
    names = set()
    for node in imports_of(file):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif not node.level:
            names.add(node.module or "")
    return {name.split(".")[0] for name in names}


def is_setter(node: ast.ClassDef | ast.FunctionDef) -> bool:
    """A setter shares the docstring of its property."""
    decorators = node.decorator_list
    return any(
        isinstance(decorator, ast.Attribute) and decorator.attr == "setter" for decorator in decorators
    )


def test_the_exported_names_are_the_documented_ones():
    assert set(xenc.__all__) == EXPORTED
    assert len(xenc.__all__) == len(EXPORTED)
    public = {name for name, value in vars(xenc).items() if name[0] != "_" and not inspect.ismodule(value)}
    assert public == EXPORTED


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_every_public_definition_has_a_docstring(file):
    tree = ast.parse(file.read_text())
    assert ast.get_docstring(tree)
    definitions = (ast.ClassDef, ast.FunctionDef)
    scopes = [tree, *(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name[0] != "_")]
    public = [
        node
        for scope in scopes
        for node in scope.body
        if isinstance(node, definitions) and node.name[0] != "_" and not is_setter(node)
    ]
    assert [node.name for node in public if not ast.get_docstring(node)] == []


def test_every_room_has_its_place():
    assert {room_of(module_of(file)) for file in FILES} == {*ROOMS, "__init__"}
    assert len([entry for entry in PACKAGE.iterdir() if entry.name != "__pycache__"]) <= 25


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_a_room_imports_only_rooms_above_it(file):
    room = room_of(module_of(file))
    if room != "__init__":
        above = {*ROOMS[: ROOMS.index(room)], room}
        assert {room_of(module) for module in modules_imported(file)} <= above


def test_no_modules_import_each_other_in_a_circle():
    graph = {module_of(file): modules_imported(file) for file in FILES if file.name != "__init__.py"}
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_xenc_imports_itself_only_relatively(file):
    assert "xenc" not in packages_imported(file)


def test_of_xenc_the_gate_imports_the_watch_and_kernels_alone_which_know_no_reranker():
    imports = {module_of(file): modules_imported(file) for file in FILES}
    gate = [module for module in imports if room_of(module) == "gate"]
    found = {module for each in gate for module in imports[each] if room_of(module) != "gate"}
    assert found == {"compiling.watch", "profiling.kernels", "profiling.kernel_names"}
    assert {module for each in found for module in imports[each]} <= {*found, "errors"}
    assert imports["errors"] == set()


@pytest.mark.parametrize("module", [*PURE, *RULES])
def test_the_subtle_modules_need_nothing_but_python_and_the_gates_rules_scipy(module):
    file = PACKAGE.joinpath(*module.split(".")).with_suffix(".py")
    assert packages_imported(file) <= {*sys.stdlib_module_names, *(["scipy"] if module in RULES else [])}


@pytest.mark.parametrize(
    "module", ["text.pairs", "text.tokenizer", "text.tokens", "text.readers", "serving.queue"]
)
def test_tokens_need_no_torch(module):
    assert "torch" not in packages_imported(PACKAGE.joinpath(*module.split(".")).with_suffix(".py"))


def test_importing_xenc_imports_neither_pytest_nor_a_peer():
    code = "import sys, transformers, sentence_transformers; before = {*sys.modules}\n"
    code += "import xenc; print({*sys.modules} - before)"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert "xenc.pipeline" in imported
    assert "xenc.kernels.triton_attention" not in imported  # Triton is not everywhere
    assert not {"pytest", "hypothesis", "onnxruntime", "openvino", "nncf", "torchao"} & ast.literal_eval(
        imported
    )


def test_the_extra_that_messages_name_exists_and_what_is_installed_is_not_missing(monkeypatch):
    project = tomllib.loads((PACKAGE.parent / "pyproject.toml").read_text())["project"]
    monkeypatch.setattr("xenc.models.quantize.find_spec", lambda name: None)
    assert missing_torchao() == "not installed: pip install 'xenc[torchao]'"
    assert "torchao" in project["optional-dependencies"]
    monkeypatch.setattr("xenc.models.quantize.find_spec", lambda name: name)
    assert missing_torchao() is None
