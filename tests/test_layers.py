"""Imports go downward only, and what takes arrays knows no AnnData. Read from the source: nothing is imported."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import sparsesc

ROOT = Path(sparsesc.__file__).parent

# Height of each part; other private modules at the top of the package (_keys, ...) are the ground.
HEIGHT = {
    "stats": 1,
    "nn": 2,
    "decoders": 3,  # neither of decoders and models imports the other
    "models": 3,
    "datasets": 3,
    "_slots": 3,
    "get": 4,
    "pp": 4,
    "tl": 5,
    "pl": 6,
    "report": 7,
    "_demo": 8,
    "cli": 9,
    "__main__": 10,
}
# These take arrays: no annotated container and nothing that works on one.
ARRAYS_ONLY = {
    "stats": {"anndata", "mudata", "scanpy", "scvi", "decoupler"},
    "nn": {"anndata", "mudata", "scanpy", "scvi", "decoupler"},
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
    """``sparsesc.tl._fit_sae`` -> ``tl``; ``None`` for the ground and for other packages."""
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


def test_exceptions_are_in_use():
    for path, part in SIDEWAYS:
        assert part in {part_of(module) for module in imports(path)}
