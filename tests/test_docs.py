"""The documentation names every public function, its examples run as written, and names and texts are American."""

from __future__ import annotations

import inspect
import json
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
    assert len(re.findall(r"^ssc\.", code, re.MULTILINE)) == 6
    # the calls as they stand there, with less training
    fit = sparsesc.tl.fit_sae
    monkeypatch.setattr(sparsesc.tl, "fit_sae", lambda adata, **options: fit(adata, max_steps=200, **options))
    namespace: dict = {}
    exec(compile(code, path, "exec"), namespace)
    adata = namespace["adata"]
    assert {"association", "genes", "enrichment", "annotation"} <= set(adata.uns["sae"])
    assert plt.get_fignums()
    plt.close("all")


def test_links_of_the_readme_lead_somewhere():
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert target.startswith("http") or (ROOT / target).exists(), target


# -- spelling ---------------------------------------------------------------------------------------------------------

# Stems of words that British and American English spell differently. `codespell` (in .ci/run) knows many more words,
# but does not look inside names such as `n_neighbours`.
STEMS = (
    r"(?:un)?(?:label|model|signal|travel|cancel)l(?:ed|er|ing)|artefact|behaviour|centre|centring"
    r"|catalogue|colour|defence|favour|flavour|fulfil(?!l)|grey|honour|labour|licence|neighbour|programme(?!d|r)"
    r"|analys(?:e|ed|er|ing)$|haem|leukaem|tumour|judgement|sceptic|whilst"
    r"|(?:author|capital|categor|character|emphas|factor|final|formal|general|harmon|initial|local|marginal|maxim|memor"
    r"|minim|normal|optim|organ|parallel|parametr|penal|priorit|quant|random|recogn|regular|serial|special|standard"
    r"|summar|symbol|synthes|token|util|vector|visual)is(?:e|ed|er|es|ing|ation|ations)$"
)
BRITISH = re.compile(STEMS)
# Words as others wrote them, by the reason.
QUOTED = {
    "unlabelled (failed QC)": "a label in the file of pbmc3k",
    'startswith("unlabelled")': "the same",
    '"Greys"': "a color map of matplotlib",
}
SHOWN = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted(API.glob("*.md")),
    *sorted((ROOT / "benchmarks").glob("*.md")),
    *sorted((ROOT / "tutorials").glob("*.ipynb")),
]


def british(text: str) -> set[str]:
    """Words in British spelling, in names like ``n_neighbours`` and ``CentredCells`` as well."""
    for quoted in QUOTED:
        text = text.replace(quoted, "")
    return {word for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", text) if BRITISH.match(word.lower())}


def public_texts() -> dict[str, str]:
    """Names, options with their defaults and types, and docstrings of everything public."""
    texts = {}
    for part in PARTS:
        module = import_module(f"sparsesc.{part}")
        for name in module.__all__:
            value = getattr(module, name)
            members = [value, *vars(value).values()] if inspect.isclass(value) else [value]
            functions = [member for member in members if inspect.isfunction(member)]
            signatures = [f"{f.__name__} {inspect.signature(f)} {inspect.getdoc(f)}" for f in functions]
            texts[f"{part}.{name}"] = " ".join([name, inspect.getdoc(value) or "", *signatures])
    return texts


PUBLIC = public_texts()


def test_british_words_are_recognized():
    told = "n_neighbours, CentredCells, normalised, labelling, Colour"
    assert british(told) == {"neighbours", "Centred", "normalised", "labelling", "Colour"}
    assert not british(
        "neighbors, analyses, raised, noise, promise, programmed, Unlabeled, otherwise, likelihood, gray"
    )


@pytest.mark.parametrize("name", PUBLIC)
def test_public_names_and_docstrings_are_american(name):
    assert not british(PUBLIC[name])


@pytest.mark.parametrize("path", SHOWN, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_pages_are_american(path):
    text = path.read_text()
    if path.suffix == ".ipynb":  # outputs are what a run printed
        text = "\n".join("".join(cell["source"]) for cell in json.loads(text)["cells"])
    assert not british(text)
