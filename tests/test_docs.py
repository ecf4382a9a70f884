"""The documentation names every public function, and what the README says works as it stands there."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

import sparsesc

ROOT = Path(__file__).parents[1]
API = ROOT / "docs" / "api"
PARTS = [name for name in sparsesc.__all__ if not name.startswith("__")]

pytestmark = pytest.mark.skipif(not API.is_dir(), reason="the documentation is not part of this distribution")


def listed(part: str) -> list[str]:
    """Names on the page of a part."""
    text = (API / f"{part}.md").read_text()
    return re.findall(rf"^(?:   |\.\. py:data:: ){part}\.(\w+)$", text, re.MULTILINE)


@pytest.mark.parametrize("part", PARTS)
def test_page_lists_what_is_public(part):
    assert sorted(listed(part)) == sorted(import_module(f"sparsesc.{part}").__all__)


def test_every_part_has_its_page():
    index = (API / "index.md").read_text()
    assert (
        set(re.findall(r"^(\w+)$", index, re.MULTILINE)) == set(PARTS) == {p.stem for p in API.glob("*.md")} - {"index"}
    )


def test_readme_has_the_two_commands():
    lines = (ROOT / "README.md").read_text().splitlines()
    for command in ["sparsesc demo", "pytest"]:
        assert f"pip install uv && uv run {command}" in lines


@pytest.mark.parametrize("path", ["README.md", "docs/index.md"])
def test_example_runs(path, monkeypatch):
    code = re.search(r"```python\n(.*?)```", (ROOT / path).read_text(), re.DOTALL).group(1)
    assert len(re.findall(r"^ssc\.", code, re.MULTILINE)) == 5
    # the calls as they stand there, with less training
    fit = sparsesc.tl.fit_sae
    monkeypatch.setattr(sparsesc.tl, "fit_sae", lambda adata, **options: fit(adata, max_steps=200, **options))
    namespace: dict = {}
    exec(compile(code, path, "exec"), namespace)
    adata = namespace["adata"]
    assert {"association", "genes", "enrichment"} <= set(adata.uns["sae"])
    assert plt.get_fignums()
    plt.close("all")


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert target.startswith("http") or (ROOT / target).exists(), target
