"""Slots are named in one place: no other module spells them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import sparsesc
from sparsesc.door import _keys

ROOT = Path(sparsesc.__file__).parent
SLOTS = {
    value
    for name, value in vars(_keys).items()
    if name.isupper() and isinstance(value, str) and name not in {"DEFAULT_KEY"}
}
# Names of variables that hold uns[key]; a constant subscript of these is a slot.
HOLDERS = ("uns", "slot", "entry", "get_sae_slot", "stored")
SUFFIXES = ("_genes", "_steered", "_clean")
FILES = sorted({path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py")} - {"door/_keys.py"})


def holds_slots(node: ast.expr) -> bool:
    """Whether an expression is ``uns[key]`` by the look of its name."""
    while isinstance(node, ast.Subscript | ast.Call):
        node = node.func if isinstance(node, ast.Call) else node.value
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name in HOLDERS


def spelled(tree: ast.AST) -> list[str]:
    """Every slot that is written out, with its line."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = node.values
            # f"X_{basis}" is scanpy's way to name an embedding: only what is made from a key is ours
            starts = isinstance(parts[0], ast.Constant) and parts[0].value == "X_" and "key" in ast.unparse(node)
            ends = len(parts) == 2 and isinstance(parts[1], ast.Constant) and parts[1].value in SUFFIXES
            if starts or ends:
                found.append(f"line {node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, ast.Subscript) and isinstance(node.slice, ast.Constant):
            if node.slice.value in SLOTS and holds_slots(node.value):
                found.append(f"line {node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args:
            first = node.args[0]
            reads = node.func.attr in {"get", "pop", "setdefault"} and isinstance(first, ast.Constant)
            if reads and first.value in SLOTS and holds_slots(node.func.value):
                found.append(f"line {node.lineno}: {ast.unparse(node)}")
        elif isinstance(node, ast.Constant) and node.value in {"X_sae", "sae_genes"}:
            found.append(f"line {node.lineno}: {node.value!r}")
    return found


@pytest.mark.parametrize("path", FILES)
def test_no_slot_is_spelled_outside_of_keys(path):
    assert spelled(ast.parse((ROOT / path).read_text())) == []


@pytest.mark.parametrize(
    "code",
    [
        'adata.uns[key]["weights"]',
        'get_sae_slot(adata, key)["params"]',
        'slot.get("features")',
        'f"X_{key}"',
        'f"{use_rep}_steered"',
        'adata.obsm["X_sae"]',
    ],
)
def test_the_check_finds_what_it_should(code):
    assert spelled(ast.parse(code))


def test_slots_follow_the_key():
    keys = _keys.sae_keys("my")
    assert (keys.key, keys.codes, keys.genes) == ("my", "X_my", "my_genes")
    assert keys.feature_names(3) == ["my_0", "my_1", "my_2"]
    assert (_keys.steered_key("X_scVI"), _keys.clean_key("X_scVI")) == ("X_scVI_steered", "X_scVI_clean")


def test_slot_names_can_be_stored():
    assert all("/" not in name for name in SLOTS)
    assert len(SLOTS) >= 10
