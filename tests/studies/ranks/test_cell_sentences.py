from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

import sparsesc as ssc


def test_words_are_expressed_genes_in_descending_order(counts, warned):
    sentences = ssc.pp.cell_sentences(counts)
    assert sentences.index.equals(counts.obs_names)
    dense = counts.X.toarray()
    for cell, sentence in enumerate(sentences):
        genes = counts.var_names.get_indexer(sentence.split())
        assert set(genes) == set(np.flatnonzero(dense[cell]))
        assert len(genes) == (dense[cell] > 0).sum()
        assert (np.diff(dense[cell][genes]) <= 0).all()
    assert sentences.iloc[-1] == ""
    assert any("1 cells express nothing" in message for message in warned)
    assert list(counts.obs.columns) == []


def test_log_normalized_values_give_the_same_sentences(counts):
    expected = ssc.pp.cell_sentences(counts, ties="first")
    counts.layers["log"] = np.log1p(counts.X)
    assert ssc.pp.cell_sentences(counts, layer="log", ties="first").equals(expected)


def test_ties(counts):
    first = ssc.pp.cell_sentences(counts, ties="first")
    dense = counts.X.toarray()
    for cell, sentence in enumerate(first):
        genes = np.flatnonzero(dense[cell])
        expected = genes[np.argsort(-dense[cell][genes], kind="stable")]
        assert sentence.split() == list(counts.var_names[expected])
    again = [ssc.pp.cell_sentences(counts, rng=rng) for rng in [0, 0, 1]]
    assert again[0].equals(again[1])
    assert not again[0].equals(again[2])
    assert not again[0].equals(first)


def test_options(counts):
    whole = ssc.pp.cell_sentences(counts, ties="first")
    short = ssc.pp.cell_sentences(counts, ties="first", n_top=3, sep=", ", gene_key="gene_ids", key_added="sentence")
    symbol = dict(zip(counts.var["gene_ids"], counts.var_names, strict=True))
    for a, b in zip(whole, short, strict=True):
        assert a.split()[:3] == ([symbol[name] for name in b.split(", ")] if b else [])
    assert counts.obs["sentence"].tolist() == short.tolist()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ties": "average"}, ValueError, "Unknown ties: 'average'. Choose one of 'random', 'first'"),
        ({"n_top": 0}, ValueError, "n_top must be a whole number"),
        ({"sep": ""}, ValueError, "sep must be a string that is not empty"),
        ({"sep": "G"}, ValueError, "20 gene names contain the separator 'G'"),
        ({"gene_key": "symbol"}, KeyError, "Did not find adata.var"),
        ({"layer": "counts"}, KeyError, "Did not find adata.layers"),
    ],
)
def test_bad_input_is_told(counts, options, error, message):
    with pytest.raises(error, match=message):
        ssc.pp.cell_sentences(counts, **options)


def test_scaled_values_are_refused(pbmc68k):
    with pytest.raises(ValueError, match=r"negative values .* adata.raw.to_adata\(\)"):
        ssc.pp.cell_sentences(pbmc68k)
    assert ssc.pp.cell_sentences(pbmc68k.raw.to_adata()).str.len().min() > 0


def test_only_its_own_column_is_replaced(counts, tmp_path):
    ssc.pp.cell_sentences(counts, key_added="sentence")
    ssc.pp.cell_sentences(counts, key_added="sentence", n_top=2)
    assert counts.obs["sentence"].str.split().str.len().max() == 2
    assert counts.uns["sentence"]["params"]["n_top"] == 2
    counts.write_h5ad(tmp_path / "a.h5ad")
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    ssc.pp.cell_sentences(back, key_added="sentence", n_top=3)  # known as its own after a file
    back.obs["cell_type"] = "B"
    with pytest.raises(ValueError, match=r"overwrite obs\['cell_type'\], which ssc.pp.cell_sentences did not write"):
        ssc.pp.cell_sentences(back, key_added="cell_type")
    assert (back.obs["cell_type"] == "B").all()
