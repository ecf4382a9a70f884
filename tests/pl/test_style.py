from __future__ import annotations

import numpy as np
import pytest

from sparsesc.pl import _style


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("short", "short"),
        ("HALLMARK_INTERFERON_GAMMA_RESPONSE", "HALLMARK_INTERFERON_\nGAMMA_RESPONSE"),
        ("T cell receptor signaling pathway", "T cell receptor\nsignaling pathway"),
        ("a" * 30, "a" * 20 + "\n" + "a" * 10),
        ("", ""),
    ],
)
def test_wrap_breaks_at_natural_places(text, expected):
    assert _style.wrap(text, 20) == expected


def test_wrap_cuts_what_does_not_fit():
    wrapped = _style.wrap("one two three four five six seven", 10, 2)
    assert wrapped.count("\n") == 1
    assert wrapped.endswith("…")
    assert all(len(line) <= 10 for line in wrapped.split("\n"))


@pytest.mark.parametrize("width", [5, 12, 40])
def test_wrap_loses_nothing_when_there_is_room(width):
    text = "positive regulation of T-cell mediated cytotoxicity/NK_cell"
    assert "".join(_style.wrap(text, width, 99).split()) == "".join(text.split())


def test_dollar_signs_are_not_formulas():
    assert _style.wrap("a$b$c") == r"a\$b\$c"


@pytest.mark.parametrize("label", ["", "  ", "nan", None, np.nan, "None"], ids=repr)
def test_blank_labels(label):
    assert _style.is_blank(label)


def test_colors_need_one_for_each_category(described):
    names = list(described.obs["bulk_labels"].cat.categories)
    stored = _style.category_colors(described, "bulk_labels", names[:2])
    assert list(stored) == names[:2]
    described.uns["bulk_labels_colors"] = described.uns["bulk_labels_colors"][:3]
    assert _style.category_colors(described, "bulk_labels", names) is None
    assert _style.category_colors(described, "louvain", ["no such category"]) is None


@pytest.mark.parametrize(
    ("values", "center", "full", "expected"),
    [
        ([0.2, 0.9], 0.5, (0, 1), (0, 1)),
        ([-1.0, 3.0], 0.0, None, (-3, 3)),
        ([1.0, 3.0], None, None, (0, 3)),
        ([np.nan], None, None, (0, 1)),
        ([0.0], 0.0, None, (-1, 1)),
    ],
)
def test_limits(values, center, full, expected):
    assert _style.limits(np.array(values), center=center, full=full) == expected
