from __future__ import annotations

import numpy as np
import pytest

import sparsesc as ssc


@pytest.fixture
def ranked(counts):
    ssc.pp.rank_value_encode(counts, medians=dict.fromkeys(counts.var["gene_ids"], 1.0), gene_key="gene_ids")
    return counts


def test_cells_in_the_order_asked(ranked):
    everything = ssc.pp.ranked_genes(ranked)
    assert everything.index.equals(ranked.obs_names)
    some = ssc.pp.ranked_genes(ranked, ["cell_5", "cell_2"])
    assert list(some.index) == ["cell_5", "cell_2"]
    np.testing.assert_array_equal(some["cell_5"], everything["cell_5"])
    ranks = ranked["cell_5", everything["cell_5"]].layers["rank"].toarray().ravel()
    np.testing.assert_array_equal(ranks, np.arange(1, len(ranks) + 1))


def test_tokens_use_the_names_of_the_medians(ranked):
    tokens = {name: i + 100 for i, name in enumerate(ranked.var["gene_ids"])}
    found = ssc.pp.ranked_genes(ranked, "cell_0", tokens=tokens)["cell_0"]
    names = ssc.pp.ranked_genes(ranked, "cell_0")["cell_0"]
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, ranked.var_names.get_indexer(names) + 100)
    ids = ssc.pp.ranked_genes(ranked, "cell_0", gene_key="gene_ids")["cell_0"]
    assert [tokens[name] for name in ids] == list(found)


def test_genes_without_token_are_left_out(ranked, warned):
    tokens = {name: i for i, name in enumerate(ranked.var["gene_ids"][:10])}
    found = ssc.pp.ranked_genes(ranked, tokens=tokens)
    assert any("ranked genes have no token and are left out" in message for message in warned)
    names = ssc.pp.ranked_genes(ranked)
    for cell in ranked.obs_names:
        position = ranked.var_names.get_indexer(names[cell])
        np.testing.assert_array_equal(found[cell], position[position < 10])


def test_shared_ranks_are_in_the_order_of_the_genes(counts):
    ssc.pp.rank_value_encode(counts, medians=dict.fromkeys(counts.var_names, 1.0), ties="min", key_added="min")
    ssc.pp.rank_value_encode(counts, medians=dict.fromkeys(counts.var_names, 1.0), ties="first")
    for a, b in zip(ssc.pp.ranked_genes(counts, key="min"), ssc.pp.ranked_genes(counts), strict=True):
        np.testing.assert_array_equal(a, b)


def test_rows_of_one_length_stay_arrays(counts):
    ssc.pp.rank_value_encode(counts, n_top=1)
    found = ssc.pp.ranked_genes(counts)
    assert all(isinstance(genes, np.ndarray) for genes in found)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"key": "other"}, KeyError, "Did not find the rank encoding 'other'.*Run ssc.pp.rank_value_encode first"),
        ({"cells": ["cell_0", "nobody"]}, KeyError, "Did not find the cells 'nobody'"),
        ({"tokens": {"G0": 1}, "gene_key": "gene_ids"}, ValueError, "Only 0 of the 1 genes in tokens"),
        ({"tokens": {"ENSG00000000000": 1.5}}, ValueError, "tokens must be whole numbers"),
    ],
)
def test_bad_input_is_told(ranked, options, error, message):
    with pytest.raises(error, match=message):
        ssc.pp.ranked_genes(ranked, **options)
