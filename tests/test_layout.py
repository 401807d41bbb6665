"""The rooms of the package: who may import whom, and which of them start without torch. Read from the syntax trees."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "tracesight"

# From top to bottom; a room imports from its own row and from rows above it. Two names in a row are one room in two.
ROWS = [
    {"errors"},
    {"scene"},
    {"lineage"},
    {"audit"},
    {"data"},
    {"ops"},
    {"models"},
    {"weights"},
    {"bundle", "predict"},
    {"evaluation"},
    {"training"},
    {"report"},
    {"recipes"},
    {"export", "serve"},
    {"cli"},
]
RANK = {room: rank for rank, row in enumerate(ROWS) for room in row}
# The front door: they hand names on and start the program, and so may import everything, though not at module level.
DOORS = {"", "__main__"}
LIGHT = {"errors", "scene", "lineage", "audit", "data", "cli", *DOORS}
HEAVY = {"torch", "torchvision", "timm", "transformers", "onnx", "onnxruntime", "safetensors.torch"}
SCENE_NEEDS = {"numpy", "PIL"}


@dataclass(frozen=True)
class Import:
    """`name` is imported on `line`; `early` when that happens as soon as the file itself is imported."""

    name: str
    line: int
    early: bool


def room_of(module: str) -> str:
    return [*module.split("."), ""][1]


def imports_of(source: str, package: str) -> Iterator[Import]:
    """Every import in a file of `package`, by full name; of `from a import b` both a and a.b, which may be a module."""

    def walk(node: ast.AST, early: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, early)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")
            base = ".".join(parents[: len(parents) - node.level + 1]) if node.level else ""
            name = ".".join(part for part in (base, node.module or "") if part)
            yield Import(name, node.lineno, early)
            for alias in node.names:
                yield Import(f"{name}.{alias.name}", node.lineno, early)
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in {
            getattr(n, "id", getattr(n, "attr", "")) for n in ast.walk(node.test)
        }:
            for child in node.body:
                yield from walk(child, False)
            for child in node.orelse:
                yield from walk(child, early)
        else:
            early = early and not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            for child in ast.iter_child_nodes(node):
                yield from walk(child, early)

    yield from walk(ast.parse(source), True)


def read_package(root: Path) -> dict[str, list[Import]]:
    """Module name to its imports, for every file of the package at `root`."""
    modules = {}
    for path in sorted(root.rglob("*.py")):
        parts = [root.name, *path.relative_to(root).with_suffix("").parts]
        package = ".".join(parts[:-1])
        name = package if parts[-1] == "__init__" else ".".join(parts)
        modules[name] = list(imports_of(path.read_text("utf-8"), package))
    return modules


def wrong_way(modules: dict[str, list[Import]]) -> list[str]:
    """Imports of a room from one below it, and rooms that have no place in the order."""
    found = []
    for module, imports in modules.items():
        room = room_of(module)
        if room in DOORS:
            continue
        if room not in RANK:
            found.append(f"{module}: the room {room!r} has no place in ROWS")
            continue
        for item in imports:
            target = room_of(item.name)
            if item.name.split(".")[0] == "tracesight" and RANK.get(target, -1) > RANK[room]:
                found.append(f"{module}:{item.line} imports {item.name}, but {target} is below {room}")
    return sorted(set(found))


def heavy_chain(modules: dict[str, list[Import]], module: str) -> list[str]:
    """The shortest chain of imports that takes place when `module` is imported and ends at a heavy package, or []."""
    queue, seen = [[module]], {module}
    while queue:
        chain = queue.pop(0)
        reached = [item.name for item in modules[chain[-1]] if item.early]
        for name in [*reached, *_packages_of(chain[-1]), *(p for n in reached for p in _packages_of(n))]:
            if any(name == heavy or name.startswith(f"{heavy}.") for heavy in HEAVY):
                return [*chain, name]
            if name in modules and name not in seen:
                seen.add(name)
                queue.append([*chain, name])
    return []


def _packages_of(module: str) -> list[str]:
    """The packages whose __init__ runs before the module does."""
    parts = module.split(".")
    return [".".join(parts[:count]) for count in range(1, len(parts))]


MODULES = read_package(PACKAGE)


def test_rooms_import_only_from_rooms_above_them():
    assert wrong_way(MODULES) == []


@pytest.mark.parametrize("module", [name for name in MODULES if room_of(name) in LIGHT])
def test_light_rooms_start_without_torch(module):
    chain = heavy_chain(MODULES, module)
    assert not chain, "torch at module level: " + " → ".join(chain)


def test_scene_needs_numpy_and_pillow_only():
    names = {
        item.name.split(".")[0] for name, imports in MODULES.items() if room_of(name) == "scene" for item in imports
    }
    assert names - set(sys.stdlib_module_names) - {"tracesight"} == SCENE_NEEDS


def test_the_checks_find_what_they_are_for(tmp_path):
    root = tmp_path / "tracesight"
    files = {
        "__init__.py": "def __getattr__(name):\n    import torch\n",
        "scene/__init__.py": "from tracesight.data import record",
        "lineage/__init__.py": "from ..models.build import build",
        "data/__init__.py": "",
        "data/record.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n",
        "data/batch.py": "def stack():\n    import torch\n    from tracesight import ops\n",
        "models/__init__.py": "import torch.nn as nn",
        "models/build.py": "",
        "cli/__init__.py": "from tracesight.cli import train",
        "cli/train.py": "try:\n    from tracesight.models import build\nexcept ImportError:\n    pass\n",
        "cli/models.py": "def models():\n    from tracesight.models import build\n",
        "surprise.py": "",
    }
    for name, source in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(source)
    modules = read_package(root)
    found = wrong_way(modules)
    expected = [
        "tracesight.scene:1 imports tracesight.data,",
        "tracesight.lineage:1 imports tracesight.models.build,",
        "tracesight.data.batch:3 imports tracesight.ops,",
        "tracesight.surprise: the room",
    ]
    for start in expected:
        assert any(line.startswith(start) for line in found), start
    assert not any(line.startswith("tracesight.cli") for line in found)
    assert heavy_chain(modules, "tracesight.cli.train")[-2:] == ["tracesight.models", "torch.nn"]
    assert heavy_chain(modules, "tracesight.lineage")[-1] == "torch.nn"
    for light in ("tracesight", "tracesight.scene", "tracesight.data.record", "tracesight.data.batch"):
        assert heavy_chain(modules, light) == []
    assert heavy_chain(modules, "tracesight.cli.models")[-1] == "torch.nn"  # through cli/__init__, which imports train
