"""The layout: one name in one room, few modules in the root, scripts of a few lines, no circle."""

import ast
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from conftest import REPOSITORY

SOURCES = REPOSITORY / "src"
LIBRARY = SOURCES / "tsf_seq2seq"
MODULES = {
    path.relative_to(LIBRARY).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
    for path in sorted(LIBRARY.rglob("*.py"))
}
NETWORKS = {"Seq2Seq", "TSFSeq2Seq"}


def public_names(module: ast.Module) -> Iterator[str]:
    """Functions, classes and constants that a module defines for others."""
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names = [node.name]
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            parts = (part for target in targets for part in ast.walk(target))
            names = [part.id for part in parts if isinstance(part, ast.Name)]
        else:
            continue
        yield from (name for name in names if not name.startswith("_"))


def asks_for_a_network(module: ast.Module) -> bool:
    """Whether there is an isinstance(…, Seq2Seq), or the like, in it."""
    return any(
        isinstance(part, ast.Name) and part.id in NETWORKS
        for call in ast.walk(module)
        if isinstance(call, ast.Call) and getattr(call.func, "id", None) == "isinstance"
        for part in ast.walk(call.args[1])
    )


def imported(module: ast.Module) -> Iterator[str]:
    """Modules of the library that are imported together with one."""
    for node in module.body:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names] + [str(node.module)]
        else:
            continue
        for name in names:
            path = name.removeprefix("tsf_seq2seq").lstrip(".").replace(".", "/")
            if name.startswith("tsf_seq2seq"):
                yield from ({f"{path}.py", f"{path}/__init__.py".lstrip("/")} & set(MODULES))


def test_a_public_name_stands_in_one_module():
    places = defaultdict(set)
    for path, module in MODULES.items():
        for name in public_names(module):
            places[name].add(path)
    assert {name: where for name, where in places.items() if len(where) > 1} == {}


def test_the_root_holds_at_most_ten_modules():
    assert len(set(LIBRARY.glob("*.py")) - {LIBRARY / "__init__.py"}) <= 10


def test_only_the_rooms_of_networks_ask_which_one_it_is():
    rooms = ("models/", "checkpoints/", "export/")
    others = {path: module for path, module in MODULES.items() if not path.startswith(rooms)}
    assert not {path for path, module in others.items() if asks_for_a_network(module)}


def test_scripts_are_a_few_lines():
    scripts = set(SOURCES.rglob("*.py")) - set(LIBRARY.rglob("*.py"))
    assert scripts
    lengths = {path.name: len(Path(path).read_text().splitlines()) for path in scripts}
    assert {name: length for name, length in lengths.items() if length > 15} == {}


def test_imports_go_in_no_circle():
    graph = {path: set(imported(module)) - {path} for path, module in MODULES.items()}
    assert graph["cli/data.py"] >= {"cli/arguments.py", "data/check.py", "config.py"}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle
