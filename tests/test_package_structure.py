"""One reader of every public signature: the conventions of the package, enforced."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import sparsesc

ROOT = Path(sparsesc.__file__).parent
PARTS = [name for name in sparsesc.__all__ if not name.startswith("__")]
MODULES: dict[str, ModuleType] = {name: import_module(f"sparsesc.{name}") for name in PARTS}
# These take an AnnData; the others take arrays, or names of data.
ON_ADATA = {"get", "pl", "pp", "tl"}

PUBLIC = {
    f"{part}.{name}": getattr(module, name)
    for part, module in MODULES.items()
    for name in getattr(module, "__all__", [])  # that there is one has a test of its own
}
FUNCTIONS: dict[str, Callable] = {name: obj for name, obj in PUBLIC.items() if inspect.isfunction(obj)}
CLASSES: dict[str, type] = {name: obj for name, obj in PUBLIC.items() if inspect.isclass(obj)}
ADATA_FUNCTIONS = {name: obj for name, obj in FUNCTIONS.items() if name.split(".")[0] in ON_ADATA}

# (function, rule): why it deviates.
DEVIATIONS: dict[tuple[str, str], str] = {
    (f"get.{table}", "module"): "readers of one shape share a module"
    for table in [
        *["absorption", "annotation", "association", "count_diagnostics", "crosscoder", "differential", "drift"],
        *["enrichment", "genes", "geneset_impact", "history", "latent_diagnostics", "locality", "rank_fidelity"],
        *["similarity", "steering", "suppression"],
    ]
} | {
    ("pp.rank_value_encode", "key_added"): "names a rank encoding, not an autoencoder",
    ("pp.ranked_genes", "key"): "names a rank encoding, not an autoencoder",
    ("pp.cell_sentences", "key_added"): "returns the sentences, and writes them only when asked",
    ("pl.representations", "adata"): "takes the table of compare_representations",
    ("pl.sweep", "adata"): "takes the table of tl.sweep",
    ("pp.thin_counts", "key_added"): "names two layers of counts, not an autoencoder",
    ("tl.rank_fidelity", "key_added"): "names a study of types, not an autoencoder",
    ("get.rank_fidelity", "key"): "names a study of types, not an autoencoder",
    ("pl.rank_fidelity", "key"): "names a study of types, not an autoencoder",
    ("tl.saliency", "key_added"): "names what drives a model, not an autoencoder",
    ("tl.geneset_impact", "key"): "names what drives a model, not an autoencoder",
    ("get.saliency", "key"): "names what drives a model, not an autoencoder",
    ("get.geneset_impact", "key"): "names what drives a model, not an autoencoder",
    ("pl.geneset_impact", "key"): "names what drives a model, not an autoencoder",
    ("tl.count_diagnostics", "key_added"): "names tables of distributions of counts, not an autoencoder",
    ("get.count_diagnostics", "key"): "names tables of distributions of counts, not an autoencoder",
    ("pl.count_diagnostics", "key"): "names tables of distributions of counts, not an autoencoder",
    ("tl.suppress_features", "key_added"): "names an embedding in obsm, not an autoencoder",
    ("tl.latent_diagnostics", "key_added"): "names diagnostics of a model, not an autoencoder",
    ("get.latent_diagnostics", "key"): "names diagnostics of a model, not an autoencoder",
    ("pl.latent_diagnostics", "key"): "names diagnostics of a model, not an autoencoder",
    ("pp.pool_gene_embeddings", "key_added"): "names an embedding in obsm, not an autoencoder",
}

SECTIONS = ("Parameters", "Returns", "Raises", "See Also", "Notes", "References", "Examples")


def section(doc: str, name: str) -> str | None:
    """Text of one section of a numpy-style docstring."""
    match = re.search(rf"^{name}\n-+\n(.*?)(?=^(?:{'|'.join(SECTIONS)})\n-+\n|\Z)", doc, re.MULTILINE | re.DOTALL)
    return match.group(1) if match else None


def documented_parameters(doc: str) -> list[str]:
    """Names in the section "Parameters", in order."""
    text = section(doc, "Parameters") or ""
    return [name.strip("* ") for line in re.findall(r"^(\S.*)$", text, re.MULTILINE) for name in line.split(",")]


def deviates(name: str, rule: str) -> bool:
    return (name, rule) in DEVIATIONS


def parameters(function: Callable) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(function).parameters)


@pytest.mark.parametrize("name", ADATA_FUNCTIONS)
def test_adata_comes_first_and_few_parameters_are_positional(name):
    params = list(parameters(FUNCTIONS[name]).values())
    if not deviates(name, "adata"):
        assert params[0].name == "adata"
        assert params[0].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    positional = [p for p in params if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
    assert len(positional) <= 3
    assert not any(p.kind in {p.VAR_POSITIONAL, p.VAR_KEYWORD} for p in params) or deviates(name, "variadic")


SHARED = {"key": "sae", "key_added": "sae", "rng": 0, "copy": False}
USES = [
    (name, param) for name, function in ADATA_FUNCTIONS.items() for param in SHARED if param in parameters(function)
]


@pytest.mark.parametrize(("name", "param"), USES)
def test_shared_parameters_share_their_default(name, param):
    found = parameters(FUNCTIONS[name])[param]
    if not deviates(name, param):
        assert found.default == SHARED[param]
        assert type(found.default) is type(SHARED[param])
    if param != "key":
        assert found.kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", ADATA_FUNCTIONS)
def test_randomness_is_called_rng(name):
    refused = {"seed", "random_state", "generator", "random_seed"}
    assert not refused & set(parameters(FUNCTIONS[name]))


IN_PLACE = [name for name, function in ADATA_FUNCTIONS.items() if "copy" in parameters(function)]


@pytest.mark.parametrize("name", IN_PLACE)
def test_in_place_functions_say_that_they_may_return_none(name):
    assert "None" in str(inspect.signature(FUNCTIONS[name]).return_annotation)


@pytest.mark.parametrize("name", [name for name in ADATA_FUNCTIONS if name.startswith("pl.")])
def test_plots_take_what_scanpys_take(name):
    missing = {"show", "save", "return_fig"} - set(parameters(FUNCTIONS[name]))
    assert not missing or deviates(name, "plot"), missing
    assert "copy" not in parameters(FUNCTIONS[name])


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_parameter_and_result_has_a_type(name):
    signature = inspect.signature(FUNCTIONS[name])
    assert signature.return_annotation is not inspect.Signature.empty
    assert [p.name for p in signature.parameters.values() if p.annotation is inspect.Parameter.empty] == []


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring_has_its_sections(name):
    doc = inspect.getdoc(FUNCTIONS[name]) or ""
    assert re.match(r"\S.{10,}", doc), "no summary"
    assert section(doc, "Returns")
    if name.split(".")[0] == "tl":
        assert section(doc, "Raises")
        assert section(doc, "Notes")  # when not to use it
    order = [found for found in re.findall(r"^([A-Z][\w ]+)\n-+$", doc, re.MULTILINE) if found in SECTIONS]
    assert order == sorted(order, key=SECTIONS.index)


@pytest.mark.parametrize("name", [*FUNCTIONS, *CLASSES])
def test_docstring_has_examples_that_run_and_names_what_is_related(name):
    doc = inspect.getdoc(PUBLIC[name]) or ""
    assert ">>> " in (section(doc, "Examples") or "")
    related = section(doc, "See Also") or ""
    for target in re.findall(r"^sparsesc\.(\w+\.\w+)", related, re.MULTILINE):
        assert target in PUBLIC, target
    assert related.strip()


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstring_describes_all_parameters_in_order(name):
    doc = inspect.getdoc(FUNCTIONS[name]) or ""
    assert documented_parameters(doc) == [p.strip("*") for p in parameters(FUNCTIONS[name])]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_types_stand_in_the_signature_only(name):
    text = section(inspect.getdoc(FUNCTIONS[name]) or "", "Parameters") or ""
    assert not re.findall(r"^\S+ : .*$", text, re.MULTILINE)


@pytest.mark.parametrize("name", CLASSES)
def test_public_methods_of_classes_are_documented_and_typed(name):
    cls = CLASSES[name]
    assert cls.__doc__
    for attribute, value in vars(cls).items():
        if attribute.startswith("_") or not callable(getattr(value, "__func__", value)):
            continue
        function = getattr(value, "__func__", value)
        assert function.__doc__, attribute
        assert inspect.signature(function).return_annotation is not inspect.Signature.empty, attribute


@pytest.mark.parametrize("name", ADATA_FUNCTIONS)
def test_one_public_function_a_private_module(name):
    part, function = name.split(".")
    module = FUNCTIONS[name].__module__
    assert module.startswith((f"sparsesc.{part}.", "sparsesc.studies.")) or deviates(name, "module")
    assert module.endswith(f"._{function}") or deviates(name, "module")
    others = [other for other, obj in ADATA_FUNCTIONS.items() if obj.__module__ == module and other != name]
    assert others == [] or deviates(name, "module")


@pytest.mark.parametrize("part", PARTS)
def test_exports_are_real(part):
    module = MODULES[part]
    assert module.__doc__
    assert len(set(module.__all__)) == len(module.__all__)
    for name in module.__all__:
        assert hasattr(module, name), name


def test_every_folder_is_a_part_of_the_package():
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert folders <= set(PARTS) | {"door", "studies"}  # these two are reached through the others


def test_every_deviation_names_a_function_and_a_reason():
    for (name, _rule), reason in DEVIATIONS.items():
        assert name in FUNCTIONS
        assert len(reason) > 10
