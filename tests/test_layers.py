"""Imports go downward only, and what takes arrays knows no AnnData. Read from the source: nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import sparsesc

ROOT = Path(sparsesc.__file__).parent

# Height of each part; private modules at the top of the package (_logging, _random, _values) are the ground.
HEIGHT = {
    "stats": 1,
    "nn": 2,
    "datasets": 2,
    "door": 3,
    "decoders": 4,  # decoders, models and get do not import each other
    "models": 4,
    "get": 4,
    "studies": 5,
    "pp": 6,  # pp and tl do not import each other
    "tl": 6,
    "pl": 7,
    "report": 8,
    "_demo": 9,
    "cli": 10,
    "__main__": 11,
}
# Parts with rooms of their own: no room imports another, but for the ground floor of `stats`.
WINGS = {"tl": set(), "stats": {"core"}, "studies": set()}
# These take arrays: no annotated container and nothing that works on one.
ARRAYS_ONLY = {
    "stats": {"anndata", "mudata", "scanpy", "scvi", "decoupler"},
    "nn": {"anndata", "mudata", "scanpy", "scvi", "decoupler"},
}

# Plots draw what `tl` has stored: they import nothing that computes.
COMPUTES = {"sparsesc.stats", "sparsesc.tl", "sparsesc.nn", "sparsesc.studies", "scipy", "sklearn"}
# (plot, import): the need of the drawing that it serves.
DRAWING = {
    (
        "pl/_similarity.py",
        "scipy.cluster.hierarchy",
    ): "order of the leaves of a tree: similar rows side by side",
    ("pl/_similarity.py", "scipy.spatial.distance"): "the distances of that tree",
}

# (importing file, imported part): why it may look sideways.
SIDEWAYS: dict[tuple[str, str], str] = {}

FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))
FILES.remove("__init__.py")  # names all parts, imports none at run time


def imports(path: str) -> Iterator[str]:
    """Absolute names of everything a module imports, wherever the statement stands."""
    package = ["sparsesc", *Path(path).parent.parts]
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            yield module
            # `from sparsesc import tl` names the part in the alias
            yield from (f"{module}.{alias.name}" for alias in node.names)


def part_of(module: str) -> str | None:
    """``sparsesc.tl.fit._fit_sae`` -> ``tl``; ``None`` for the ground and for other packages."""
    names = module.split(".")
    return names[1] if names[0] == "sparsesc" and len(names) > 1 and names[1] in HEIGHT else None


def test_every_part_has_a_height():
    parts = {Path(path).parts[0].removesuffix(".py") for path in FILES}
    assert {part for part in parts if not part.startswith("_")} <= set(HEIGHT)


@pytest.mark.parametrize("path", FILES)
def test_imports_go_downward(path):
    own = Path(path).parts[0].removesuffix(".py")
    height = HEIGHT.get(own, 0)
    for part in {part_of(module) for module in imports(path)} - {None, own}:
        assert HEIGHT[part] < height or (path, part) in SIDEWAYS, f"{path} ({own}) imports {part}"


@pytest.mark.parametrize("path", [path for path in FILES if Path(path).parts[0] in ARRAYS_ONLY])
def test_array_code_knows_no_anndata(path):
    refused = ARRAYS_ONLY[Path(path).parts[0]]
    assert not {module.split(".")[0] for module in imports(path)} & refused


WINGED = [path for path in FILES if Path(path).parts[0] in WINGS and len(Path(path).parts) > 2]


@pytest.mark.parametrize("path", WINGED)
def test_no_wing_imports_another(path):
    part, wing = Path(path).parts[:2]
    names = [module.split(".") for module in imports(path)]
    others = {name[2] for name in names if name[:2] == ["sparsesc", part] and len(name) > 2}
    wings = {folder.name for folder in (ROOT / part).iterdir() if folder.is_dir()}
    assert not (others & wings) - {wing} - (WINGS[part] if wing not in WINGS[part] else set())


@pytest.mark.parametrize("path", WINGED)
def test_no_wing_imports_the_face_of_its_part(path):
    part = Path(path).parts[0]
    assert f"sparsesc.{part}" not in set(imports(path))


def test_no_room_holds_more_than_a_fifth_of_the_lines():
    lines: dict[str, int] = {}
    for path in FILES:
        parts = Path(path).parent.parts
        room = "/".join(parts[:2] if parts and parts[0] in WINGS else parts[:1])
        lines[room] = lines.get(room, 0) + len((ROOT / path).read_text().splitlines())
    largest = max(lines, key=lambda room: lines[room])
    assert lines[largest] <= sum(lines.values()) / 5, f"{largest} holds {lines[largest]} lines"


def computing_imports(path: str) -> set[str]:
    """Modules that a plot imports and that compute; a name imported from one of them stands for its module."""
    hits = {module for module in imports(path) if any(f"{module}.".startswith(f"{part}.") for part in COMPUTES)}
    return {module for module in hits if module.rpartition(".")[0] not in hits}


@pytest.mark.parametrize("path", [path for path in FILES if path.startswith("pl/")])
def test_plots_compute_nothing(path):
    assert {module for module in computing_imports(path) if (path, module) not in DRAWING} == set()


def test_exceptions_are_in_use():
    for path, module in DRAWING:
        assert module in computing_imports(path)
    for path, part in SIDEWAYS:
        assert part in {part_of(module) for module in imports(path)}
