from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sparsesc.tl.labels._names import clear_genes, gene_evidence, make_names, term_evidence

FEATURES = pd.Index([f"sae_{i}" for i in range(4)])
NONE = pd.Series(dtype=object)


def labels(rows):
    """Labels that hold: feature, text, excess."""
    table = pd.DataFrame(rows, columns=["feature", "evidence", "excess"])
    table = table.assign(text=table["evidence"], holds=True, source="label", key="type", score=0.9, null=0.1)
    return table.assign(pval=0.0, padj=0.0, held_out=True)


def genes(table):
    """Genes of features, best first."""
    rows = [(f, g, 9.0 - i, 2.0, 1e-9, 1e-8) for f, names in table.items() for i, g in enumerate(names)]
    frame = pd.DataFrame(rows, columns=["feature", "gene", "score", "effect_size", "pval", "padj"])
    return gene_evidence(frame, n=5, features=FEATURES)


def terms(table):
    rows = [(f, t, 5.0, 1e-5, 1e-4, "") for f, t in table.items()]
    frame = pd.DataFrame(rows, columns=["feature", "term", "score", "pval", "padj", "genes"])
    return term_evidence(frame, None, alpha=0.05, n=3, features=FEATURES)


def names(label_rows, others, coherent=tuple(FEATURES), confidence=NONE):
    return make_names(labels(label_rows), others, FEATURES, confidence=confidence, coherent=set(coherent)).table


def test_where_and_what():
    found = names(
        [("sae_0", "B cell", 0.9), ("sae_1", "beta, alpha", 0.3)],
        [terms({"sae_0": "HALLMARK_MYC_TARGETS", "sae_1": "HALLMARK_ER_STRESS", "sae_2": "HALLMARK_HYPOXIA"}),
         genes({"sae_0": ["CD79A", "MS4A1"], "sae_1": ["HSPA5"], "sae_2": ["VEGFA", "CA9"], "sae_3": []})],
    )  # fmt: skip
    assert found["name"].tolist() == [
        "B cell | CD79A",
        "ER stress: beta, alpha | HSPA5",
        "Hypoxia | VEGFA",
        "unknown (sae_3)",
    ]
    assert found["name_source"].tolist() == ["label+gene", "label+term+gene", "term+gene", "unknown"]
    assert found["where"].tolist() == ["B cell", "beta, alpha", "", ""]
    assert found["what"].tolist() == ["MYC targets", "ER stress", "Hypoxia", ""]
    assert found["marker_genes"].tolist() == ["CD79A, MS4A1", "HSPA5", "VEGFA, CA9", ""]


def test_genes_that_do_not_vary_together_are_listed_and_name_nothing():
    found = names(
        [("sae_0", "B cell", 0.9)], [genes({"sae_0": ["CD79A"], "sae_2": ["VEGFA", "CA9"]})], coherent=["sae_3"]
    )
    assert found["name"].tolist()[:3] == ["B cell", "unknown (sae_1)", "unknown (sae_2)"]
    assert found["marker_genes"].iloc[2] == "VEGFA, CA9"
    assert (found["what"] == "").all()


def test_two_features_of_one_label_are_told_apart_by_more_genes_then_by_their_number():
    found = names(
        [(f, "NK", 0.9) for f in FEATURES],
        [genes({"sae_0": ["GNLY"], "sae_1": ["GNLY", "NKG7"], "sae_2": ["NKG7"], "sae_3": ["NKG7"]})],
    )
    assert found["name"].tolist() == ["NK | GNLY", "NK | GNLY, NKG7", "NK | NKG7", "NK | NKG7 (sae_3)"]
    assert found["name"].is_unique


def test_a_gene_set_stands_for_labels_that_are_too_long():
    long = "a label of many words that goes on, and another one of as many words"
    found = names([("sae_0", long, 0.9)], [terms({"sae_0": "HALLMARK_HYPOXIA"}), genes({"sae_0": ["CA9"]})])
    assert found["name"].iloc[0] == "Hypoxia | CA9"
    assert found["where"].iloc[0] == long


def test_a_gene_set_that_says_what_the_label_says_is_left_out():
    found = names(
        [("sae_0", "CD14+ Monocyte", 0.3), ("sae_1", "CD19+ B", 0.3)],
        [
            terms({"sae_0": "Classical monocyte", "sae_1": "Plasma cell"}),
            genes({"sae_0": ["LYZ"], "sae_1": ["JCHAIN"]}),
        ],
    )
    assert found["name"].tolist()[:2] == ["CD14+ Monocyte | LYZ", "Plasma cell: CD19+ B | JCHAIN"]


def test_names_do_not_depend_on_other_features_that_are_unknown():
    alone = names([("sae_2", "NK", 0.9)], [genes({"sae_2": ["GNLY"]})])
    more = names([("sae_2", "NK", 0.9), ("sae_3", "B", 0.9)], [genes({"sae_2": ["GNLY"], "sae_3": ["CD79A"]})])
    assert alone.loc["sae_2", "name"] == more.loc["sae_2", "name"]


def test_confidence_is_that_of_the_label_or_low():
    confidence = pd.Series({"sae_0": "high"})
    found = names([("sae_0", "NK", 0.9)], [genes({"sae_1": ["GNLY"]})], confidence=confidence)
    assert found["confidence"].tolist() == ["high", "low", "none", "none"]
    assert found["confidence"].cat.ordered


def test_clear_genes_are_significant_higher_and_large():
    table = pd.DataFrame(
        {"score": [5, 5, -5, 5], "padj": [0.01, 0.2, 0.01, 0.01], "effect_size": [1, 1, -1, 0.2]},
        index=["yes", "not significant", "lower", "small"],
    )
    assert clear_genes(table, alpha=0.05, min_effect=0.5, correlation=False).index.tolist() == ["yes"]
    # r = .2 between two halves of the cells is a difference of .41 standard deviations, r = .25 of .52
    r = pd.DataFrame({"score": 5, "padj": 0.01, "effect_size": [0.2, 0.25]})
    x = np.repeat([0.0, 1.0], 50_000)
    y = 0.52 * x + np.random.default_rng(0).normal(size=100_000)
    assert np.corrcoef(x, y)[0, 1] == pytest.approx(0.25, abs=0.01)
    assert clear_genes(r, alpha=0.05, min_effect=0.5, correlation=True).index.tolist() == [1]


def test_genes_of_every_feature_come_last():
    found = genes({"sae_0": ["ACTB", "GNLY"], "sae_1": ["ACTB", "CD79A"], "sae_2": ["ACTB", "PPBP"]})
    assert found.groupby("feature")["evidence"].first().tolist() == ["GNLY", "CD79A", "PPBP"]
