"""Docstrings of plots: special and shared parts together, in the order of the signature."""

from __future__ import annotations

import inspect

from sparsesc.pl._docs import plot_of


def completed(source: str, doc: str) -> str:
    def plot(adata, a, *, key: str = "sae", vmin=None, vmax=None, ncols: int = 4, ax=None, show=None): ...

    plot.__doc__ = doc
    return inspect.getdoc(plot_of(source)(plot))


def test_parameters_follow_the_signature():
    doc = completed("steer", "Title.\n\nParameters\n----------\nvmin, vmax\n    Ends.\na\n    First.\n\n    - item\n")
    parts = ["adata\n    Cells with the results of :func:`sparsesc.tl.steer`.", "a\n    First.\n\n    - item", "key\n"]
    parts += ["vmin, vmax\n    Ends.", "ncols\n", "ax\n    Axes to draw on, if there is one panel.", "show\n"]
    places = [doc.index(f"\n{part}") for part in parts]
    assert places == sorted(places)


def test_what_the_signature_lacks_is_not_hidden():
    """So that the test of all signatures sees a parameter that is described in vain, or not at all."""
    doc = completed("steer", "Title.\n\nParameters\n----------\nb\n    Nothing.\n")
    assert "\nb\n    Nothing." in doc
    assert "\na\n" not in doc


def test_sections_are_merged():
    doc = completed("fit_sae", "Title.\n\nReturns\n-------\na dictionary\nof axes\n\nNotes\n-----\nNone.\n")
    assert "else with ``show=False`` a dictionary of axes; else ``None``. `adata` stays as it is." in " ".join(
        doc.split()
    )
    assert "KeyError\n    If there is no such sparse autoencoder.\nValueError\n" in doc
    assert doc.index("See Also") < doc.index("Notes")
    doc = completed("steer", "Title.\n\nRaises\n------\nKeyError\n    Special.\nTypeError\n    Other.\n")
    assert "KeyError\n    Special.\nTypeError\n    Other.\nValueError\n    If an option is out of its range." in doc
