"""What users may rely on: the names, their docstrings; and the arrows between the rooms."""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path

import pytest

import xenc

PACKAGE = Path(xenc.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

ROOMS = (
    "errors", "default_model", "execution", "extras", "presets", "precision",
    "kernels.library", "attention", "pooled_attention", "foreign_code", "last_layer", "families",
    "checkpoints", "pairs", "pair_template", "text_ids", "tokens", "plan", "packing", "collate",
    "packed_collate",
    "forward", "nested.collate", "nested.attention", "nested.forward",
    "encoder_decoder.first_step", "encoder_decoder.forward",
    "prefix.common", "prefix.collate", "prefix.attention", "prefix.forward",
    "watch", "weights", "twin", "quantize", "kernels.products", "kernels.layers", "kernels.replace",
    "kernels.twin", "prepared", "cold_start", "runtimes.tensorrt", "compiled", "prefix.cache",
    "admission", "spans", "request", "stream", "layouts.layout", "layouts.padded",
    "layouts.packed", "layouts.nested", "layouts.shared_prefix", "layouts.choice", "worker", "pipeline",
    "flops", "answer", "causal", "encoder_decoder.scorer", "slow_path", "executed", "cross_encoder",
    "profiling.kernel_names", "profiling.profile", "profiling.stages", "profiling.kernels",
    "profiling.texts", "profiling.findings", "profiling.report", "profiling.measure",
    "commands.profile", "commands", "__main__",
    "gate.verdict", "gate.whole_file", "gate.git", "gate.measure", "gate.machine", "gate.exact",
    "gate.report", "gate.picture",
    "gate.stored.entry", "gate.stored.rule", "gate.stored.baseline", "gate.stored.checkout",
    "gate.session", "gate.stored.record", "gate.publish", "gate.plugin",
    "gate.paired.revision", "gate.paired.campaign", "gate.paired.blocks", "gate.paired.growth",
    "gate.paired.rule", "gate.paired.verdicts", "gate.paired.accepted", "gate.paired.session",
    "gate.paired.report", "gate.paired.rows", "gate.paired.picture", "gate.paired.plugin",
)  # fmt: skip
"""A room imports only rooms that stand before it."""

EXPORTED = {
    "DEFAULT_MODEL", "PRESETS", "BaselineError", "CompileError", "CompileReport", "CrossEncoder", "Execution",
    "ExecutionError", "FirstStep", "ModelError", "NonFiniteScoreError", "NotInstalledError", "Overloaded",
    "PairError", "PredictReport", "WarmupReport", "XencError", "fastest_dtype", "watch_compiles",
}  # fmt: skip


def room_of(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


def imports_of(file: Path) -> list[ast.Import | ast.ImportFrom]:
    """Every import, also those inside functions."""
    nodes = ast.walk(ast.parse(file.read_text()))
    return [node for node in nodes if isinstance(node, (ast.Import, ast.ImportFrom))]


def rooms_imported(file: Path) -> set[str]:
    """xenc's rooms that a file imports relatively."""
    folder = file.relative_to(PACKAGE).parent.parts
    rooms = set()
    for node in imports_of(file):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = folder[: len(folder) - (node.level - 1)]
            names = [node.module] if node.module else [alias.name for alias in node.names]
            rooms |= {".".join((*base, name)) for name in names}
    return rooms


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


@pytest.mark.parametrize("file", FILES, ids=room_of)
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


def test_every_exported_class_and_function_has_a_docstring_of_its_own():
    for name in xenc.__all__:
        value = getattr(xenc, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert "__doc__" in vars(value) or inspect.isfunction(value)
            assert value.__doc__, name


def test_every_room_has_its_place():
    folders = {room_of(file) for file in FILES if file.name == "__init__.py"} - set(ROOMS)
    assert {room_of(file) for file in FILES} - folders == set(ROOMS)


@pytest.mark.parametrize("file", FILES, ids=room_of)
def test_a_room_imports_only_rooms_above_it(file):
    room = room_of(file)
    if room in ROOMS:
        assert rooms_imported(file) <= set(ROOMS[: ROOMS.index(room)])


@pytest.mark.parametrize("file", FILES, ids=room_of)
def test_xenc_imports_itself_only_relatively(file):
    assert "xenc" not in packages_imported(file)


@pytest.mark.parametrize("file", FILES, ids=room_of)
def test_no_stage_imports_the_gate(file):
    if not room_of(file).startswith("gate"):
        assert not [room for room in rooms_imported(file) if room.startswith("gate")]


@pytest.mark.parametrize(
    "room",
    [
        "plan", "packing", "prefix.common", "gate.verdict", "gate.stored.entry", "execution", "presets",
        "errors", "spans", "profiling.profile", "profiling.findings", "profiling.kernel_names",
        "profiling.report",
    ],
)  # fmt: skip
def test_the_subtle_rooms_need_nothing_but_python(room):
    file = PACKAGE.joinpath(*room.split(".")).with_suffix(".py")
    assert packages_imported(file) <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("room", ["stored.rule", "paired.rule", "paired.growth", "paired.verdicts"])
def test_the_gates_rules_need_nothing_but_python_and_scipy(room):
    packages = packages_imported(PACKAGE.joinpath("gate", *room.split(".")).with_suffix(".py"))
    assert packages <= {*sys.stdlib_module_names, "scipy"}


@pytest.mark.parametrize("room", ["pairs", "pair_template", "tokens", "stream"])
def test_tokens_need_no_torch(room):
    assert "torch" not in packages_imported(PACKAGE / f"{room}.py")
