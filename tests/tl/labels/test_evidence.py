from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sparsesc.door._obs_columns import Labels
from sparsesc.tl.labels._evidence import column_evidence, confidence_of, label_rows, mixed_table, refuted_by_samples

N, N_TYPES = 800, 8
OPTIONS = {"alpha": 0.05, "min_precision": 0.5, "min_excess": 0.1, "refuted": {}}


def column(values, name="type"):
    categories, codes = np.unique(values, return_inverse=True)
    return Labels(name, codes, [str(c) for c in categories])


@pytest.fixture(scope="module")
def cells():
    """Eight types on a plane; features of a type, half of a type, two types, none and all but one."""
    rng = np.random.default_rng(0)
    types = rng.integers(N_TYPES, size=N)
    X = rng.normal(size=(N_TYPES, 2))[types] * 4 + rng.normal(size=(N, 2))
    kinds = [types == t for t in range(N_TYPES)]
    kinds += [(types == 0) & (rng.random(N) < 0.15), types <= 1, rng.random(N) < 0.1, types > 0]
    codes = np.array(kinds, dtype=float).T * rng.uniform(1, 2, size=(N, len(kinds)))
    held = rng.random(N) < 0.5
    return X, sparse.csr_matrix(codes), column([f"type {t}" for t in types]), held


def evidence(cells, labels, **options):
    X, codes, _, held = cells
    known = np.ones(N, bool)
    on = (codes > 0).astype(np.float32)
    return column_evidence(
        codes, on, labels, held, known, embedding=X, min_cells=5, rng=np.random.default_rng(0), **options
    )


@pytest.fixture(scope="module")
def rows(cells):
    features = pd.Index([f"sae_{i}" for i in range(12)])
    return label_rows([evidence(cells, cells[2])], features, **OPTIONS).set_index("feature")


def test_labels_of_most_cells_hold(rows):
    holds = rows[rows["holds"]]
    assert holds.loc[[f"sae_{t}" for t in range(N_TYPES)], "evidence"].tolist() == [f"type {t}" for t in range(N_TYPES)]
    assert holds.loc["sae_8", "evidence"] == "type 0"
    assert set(holds.loc["sae_9", "evidence"].split(", ")) == {"type 0", "type 1"}
    assert not rows["holds"].get("sae_10", False)
    assert not rows["holds"].get("sae_11", False)


def test_confidence_follows_the_table_of_the_documentation(rows):
    found = confidence_of(rows.reset_index(), None)
    assert (found[[f"sae_{t}" for t in range(N_TYPES)]] == "high").all()
    assert found["sae_8"] == "medium"  # in a few of its cells only
    held = rows[rows["holds"]].reset_index()
    cases = [(0.5, 0.7, "high"), (0.49, 0.7, "medium"), (0.5, 0.69, "medium"), (0.2, 0.5, "medium")]
    cases += [(0.19, 1.0, "low"), (0.2, 0.49, "low")]
    for excess, precision, level in cases:
        one = held.head(1).assign(excess=excess, precision=precision, smooth=True)
        assert confidence_of(one, None).item() == level
        assert confidence_of(one.assign(smooth=False), None).item() == "low"


def test_features_that_do_not_come_back_are_never_high(rows):
    support = pd.Series({f"sae_{i}": 0.4 if i % 2 else 0.9 for i in range(12)})
    found = confidence_of(rows.reset_index(), support)
    assert found["sae_1"] == "medium"
    assert found["sae_2"] == "high"


def test_labels_of_no_meaning_that_are_smooth_have_a_low_confidence(cells):
    """Stripes across the types."""
    X = cells[0]
    stripes = column(pd.qcut(X[:, 0], 8, labels=False).astype(str), "stripe")
    features = pd.Index([f"sae_{i}" for i in range(12)])
    rows = label_rows([evidence(cells, stripes)], features, **OPTIONS)
    assert not rows["smooth"].all()
    assert confidence_of(rows, None).isin(["high", "medium"]).sum() <= 1


def test_features_that_do_not_differ_between_samples_are_not_named_after_the_groups(cells):
    features = pd.Index([f"sae_{i}" for i in range(12)])
    refuted = {"type": np.arange(12) == 3}
    rows = label_rows([evidence(cells, cells[2])], features, **(OPTIONS | {"refuted": refuted}))
    assert set(features) - set(rows.loc[rows["holds"], "feature"]) == {"sae_3", "sae_10", "sae_11"}


def test_a_table_of_compared_samples_refutes_its_column_only():
    features = pd.Index(["sae_0", "sae_1"])
    slot = {
        "params": {"differential_features": {"condition_key": "drug"}},
        "differential": pd.DataFrame({"feature": ["sae_0", "sae_1"], "padj": [0.01, 0.3]}),
    }
    drug, other = column(["a", "b"], "drug"), column(["a", "b"], "other")
    found = refuted_by_samples(slot, [drug, other], features, 0.05)
    assert {name: marks.tolist() for name, marks in found.items()} == {"drug": [False, True]}
    assert refuted_by_samples({"params": {}}, [drug], features, 0.05) == {}


def test_rare_labels_are_named_with_their_number(cells):
    X, codes, labels, held = cells
    rare = labels.codes.copy()
    few = np.flatnonzero(rare == 7)[:12]
    values = np.where(np.isin(np.arange(N), few), "mast", [labels.categories[c] for c in labels.codes])
    codes = codes.tolil()
    codes[:, 7] = 0
    codes[few, 7] = 1.0
    found = evidence((X, sparse.csr_matrix(codes), labels, held), column(values))
    rows = label_rows([found], pd.Index([f"sae_{i}" for i in range(12)]), **OPTIONS).set_index("feature")
    assert rows.loc["sae_7", "text"] == "mast (n=12)"
    assert rows.loc["sae_7", "evidence"] == "mast"


def test_categories_that_say_little_are_told_with_their_column(cells):
    features = pd.Index([f"sae_{i}" for i in range(12)])
    texts = {}
    for name, values in {
        "leiden": cells[2].codes.astype(str),
        "kind": np.array(list("ABCDEFGH"))[cells[2].codes],
        "type": np.array(["B", *(f"T {i}" for i in range(7))])[cells[2].codes],
    }.items():
        rows = label_rows([evidence(cells, column(values, name))], features, **OPTIONS).set_index("feature")
        texts[name] = rows.loc["sae_0", "text"], rows.loc["sae_0", "evidence"]
    assert texts == {"leiden": ("leiden: 0", "0"), "kind": ("kind: A", "A"), "type": ("B", "B")}


def test_mixed_features_name_both_groups(cells):
    X, _, labels, held = cells
    level = np.select([labels.codes == 0, labels.codes == 1], [5.0, 1.0], 0.0) * np.random.default_rng(0).uniform(
        0.8, 1.2, N
    )
    codes = sparse.csr_matrix(np.stack([level, (labels.codes == 2).astype(float)], axis=1))
    found = mixed_table([evidence((X, codes, labels, held), labels)], pd.Index(["sae_0", "sae_1"]))
    assert found["mixed"].tolist() == [True, False]
    assert found["mixed_groups"].tolist() == ["strong: type 0; weak: type 1", ""]
