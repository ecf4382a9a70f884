"""The examples of all public docstrings run, and print what they say."""

from __future__ import annotations

import doctest
import inspect
from importlib import import_module

import pytest
from matplotlib import pyplot as plt

import sparsesc

PARTS = [name for name in sparsesc.__all__ if not name.startswith("__")]
FLAGS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


def documented():
    """Every public object, and the public methods of classes, by name."""
    for part in PARTS:
        module = import_module(f"sparsesc.{part}")
        for name in module.__all__:
            value = getattr(module, name)
            yield f"{part}.{name}", value
            if inspect.isclass(value):
                own = {key: getattr(member, "__func__", member) for key, member in vars(value).items()}
                yield from ((f"{part}.{name}.{key}", f) for key, f in own.items() if inspect.isfunction(f))


EXAMPLES = {
    name: test
    for name, value in documented()
    if (doc := inspect.getdoc(value)) and (test := doctest.DocTestParser().get_doctest(doc, {}, name, None, 0)).examples
}


@pytest.fixture(scope="module")
def fitted():
    """Fits of an untouched data set by their options: most examples begin with the same one."""
    return {}


@pytest.fixture
def _one_fit(fitted, monkeypatch):
    """The second fit with the same options to the same cells is a copy of the first: same bits, no wait."""
    import scanpy as sc

    fit = sparsesc.tl.fit_sae
    plain = sc.datasets.pbmc68k_reduced()

    def fit_once(adata, **options):
        untouched = (
            adata.shape == plain.shape and set(adata.obsm) == set(plain.obsm) and set(adata.uns) == set(plain.uns)
        )
        if not untouched or options.get("copy"):
            return fit(adata, **options)
        asked = repr(sorted(options.items()))
        if asked not in fitted:
            fitted[asked] = fit(plain.copy(), copy=True, **options)
        key, source = options.get("key_added", "sae"), fitted[asked].copy()
        adata.obsm[f"X_{key}"], adata.uns[key] = source.obsm[f"X_{key}"], source.uns[key]
        return None

    monkeypatch.setattr(sparsesc.tl, "fit_sae", fit_once)


def run(test: doctest.DocTest) -> None:
    report: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=FLAGS)
    runner.run(test, out=report.append)
    if any("SPARSESC_DATA_DIR" in text for text in report):
        pytest.skip("SPARSESC_DATA_DIR has no file of this data set")
    plt.close("all")  # of examples of plots
    assert runner.failures == 0, "".join(report)


@pytest.mark.filterwarnings(r"ignore::Warning:lightning\b")  # about workers, short trainings and its own calls
@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "tl.fit_sae"])
def test_examples_print_what_they_say(name, tmp_path, monkeypatch, _one_fit):
    monkeypatch.chdir(tmp_path)
    run(EXAMPLES[name])


def test_the_example_of_the_fit_is_a_fit():
    run(EXAMPLES["tl.fit_sae"])
