from __future__ import annotations

import json

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse, stats

import sparsesc as ssc


def published(counts: np.ndarray, medians: np.ndarray, target_sum: float = 1e4) -> np.ndarray:
    """Genes of one cell by the published rule, equal values in the order of the genes."""
    values = counts / counts.sum() * target_sum / medians
    genes = np.flatnonzero(counts)
    return genes[np.argsort(-values[genes], kind="stable")]


def own_medians(dense: np.ndarray) -> np.ndarray:
    total = np.maximum(dense.sum(1, keepdims=True), 1)
    normalized = pd.DataFrame(np.where(dense > 0, dense / total * 1e4, np.nan))
    return normalized.median().to_numpy()


def hand_made() -> AnnData:
    #                        A  B  C  D  E
    X = np.array([[8, 2, 0, 3, 1], [0, 5, 5, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0]], dtype=np.float32)
    return AnnData(sparse.csr_matrix(X), var=pd.DataFrame(index=list("ABCDE")))


MEDIANS = {"A": 8.0, "B": 1.0, "C": 2.0, "D": 1.0, "E": 4.0}


def test_hand_made_cells():
    adata = hand_made()
    assert ssc.pp.rank_value_encode(adata, medians=MEDIANS) is None
    # values over medians: 1, 2, -, 3, .25 / -, 5, 2.5, -, - / .125, 1, .5, 1, .25
    expected = [[3, 2, 0, 1, 4], [0, 1, 2, 0, 0], [5, 1, 3, 2, 4], [0, 0, 0, 0, 0]]
    np.testing.assert_array_equal(adata.layers["rank"].toarray(), expected)
    assert sparse.isspmatrix_csr(adata.layers["rank"])
    assert adata.layers["rank"].dtype == np.float32
    assert adata.obs["rank_n_genes"].tolist() == [4, 2, 5, 0]
    assert "rank_zeros" not in adata.obs
    assert adata.var["rank_median"].to_dict() == MEDIANS
    names = ssc.pp.ranked_genes(adata)
    assert [list(genes) for genes in names] == [list("DBAE"), list("BC"), list("BDCEA"), []]


@pytest.mark.parametrize("n_top", [1, 3, None])
def test_published_rule_with_medians_of_the_data(counts, n_top):
    ssc.pp.rank_value_encode(counts, n_top=n_top)
    dense = counts.X.toarray().astype(np.float64)
    medians = own_medians(dense)
    np.testing.assert_allclose(counts.var["rank_median"], medians, rtol=1e-12)
    genes = ssc.pp.ranked_genes(counts)
    for i, cell in enumerate(counts.obs_names[:-1]):
        expected = published(dense[i], medians)
        value = dense[i] / medians  # the published factor can split exact ties by rounding: compare values
        found = counts.var_names.get_indexer(genes[cell])
        assert len(found) == min(len(expected), n_top or 20)
        np.testing.assert_allclose(value[found], value[expected][:n_top], rtol=1e-12)


def test_geneformers_dictionaries_on_real_cells(pbmc3k, geneformer):
    folder, medians, tokens = geneformer
    ssc.pp.rank_value_encode(pbmc3k, medians=folder / "gene_median_dictionary.json", gene_key="gene_ids", n_top=2048)
    found = ssc.pp.ranked_genes(pbmc3k, tokens=folder / "token_dictionary.json")
    ids = pbmc3k.var["gene_ids"].to_numpy()
    median = np.array([medians.get(g, np.nan) for g in ids])
    token = np.array([tokens.get(g, -1) for g in ids])
    known = np.isfinite(median)
    dense = pbmc3k.X.toarray().astype(np.float64)
    n_in_order = 0
    place = dict(zip(token, range(len(ids)), strict=True))
    for i in range(pbmc3k.n_obs):
        values = np.where(known, dense[i] / dense[i].sum() * 1e4 / np.where(known, median, 1), 0)
        genes = np.flatnonzero(values)
        genes = genes[np.argsort(-values[genes], kind="stable")][:2048]
        assert set(found.iloc[i]) == set(token[genes])
        position = [place[t] for t in found.iloc[i]]
        np.testing.assert_allclose(values[position], values[genes], rtol=1e-12)
        n_in_order += np.array_equal(found.iloc[i], token[genes])
    assert n_in_order > 0.95 * pbmc3k.n_obs  # the others differ by rounding within ties
    unmatched = pbmc3k.uns["rank"]["unmatched"]
    assert set(unmatched) == set(ids) - set(medians)
    assert pbmc3k.var["rank_median"].isna().sum() == len(unmatched)


@pytest.mark.parametrize("ties", ["average", "min", "first"])
def test_ties_are_scipys(counts, ties):
    medians = dict.fromkeys(counts.var_names, 1.0)
    ssc.pp.rank_value_encode(counts, medians=medians, ties=ties)
    dense, ranks = counts.X.toarray(), counts.layers["rank"].toarray()
    n_ties = 0
    for cell in range(counts.n_obs):
        values = dense[cell][dense[cell] > 0]
        n_ties += len(values) - len(np.unique(values))
        method = "ordinal" if ties == "first" else ties
        np.testing.assert_array_equal(ranks[cell][dense[cell] > 0], stats.rankdata(-values, method=method))
    assert n_ties > 100


def test_equal_ratios_are_ties_whatever_the_depth():
    # 3 / 3 and 1 / 1 are equal, but not after the factor 1e4 / 7 in floating point
    adata = AnnData(sparse.csr_matrix([[3.0, 1.0, 3.0]]), var=pd.DataFrame(index=list("ABC")))
    ssc.pp.rank_value_encode(adata, medians={"A": 0.3, "B": 0.1, "C": 0.6}, ties="average")
    assert adata.layers["rank"].toarray().tolist() == [[1.5, 1.5, 3.0]]


def test_random_ties_follow_rng(counts):
    medians = dict.fromkeys(counts.var_names, 1.0)
    runs = [
        ssc.pp.rank_value_encode(counts, medians=medians, ties="random", rng=rng, copy=True).layers["rank"].toarray()
        for rng in [0, 0, np.random.default_rng(1)]
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert (runs[0] != runs[2]).any()
    dense = counts.X.toarray()
    for ranks in runs:
        for cell in range(counts.n_obs - 1):
            order = np.argsort(np.where(ranks[cell] > 0, ranks[cell], np.inf))[: (ranks[cell] > 0).sum()]
            assert (np.diff(dense[cell][order]) <= 0).all()


@pytest.mark.parametrize("ties", ["average", "min"])
def test_zeros_last_complete_the_ranks_of_all_genes(counts, ties):
    medians = dict.fromkeys(counts.var_names, 1.0)
    ssc.pp.rank_value_encode(counts, medians=medians, ties=ties, zeros="last")
    dense = counts.X.toarray()
    full = np.where(dense > 0, counts.layers["rank"].toarray(), counts.obs["rank_zeros"].to_numpy()[:, None])
    np.testing.assert_array_equal(full, stats.rankdata(-dense, method=ties, axis=1))


def test_zeros_last_of_random_order_is_its_mean_and_nan_without_zeros():
    adata = hand_made()
    ssc.pp.rank_value_encode(adata, medians={g: m for g, m in MEDIANS.items() if g != "E"}, ties="random", zeros="last")
    # genes A to D have medians: one zero, two, none, four
    np.testing.assert_array_equal(adata.obs["rank_zeros"], [4.0, 3.5, np.nan, 2.5])
    ssc.pp.rank_value_encode(adata, medians=MEDIANS)
    assert "rank_zeros" not in adata.obs


def test_totals_of_all_genes_are_used_for_medians(counts):
    counts.obs["total"] = np.asarray(counts.X.sum(1)).ravel()
    whole = ssc.pp.rank_value_encode(counts, copy=True)
    part = counts[:, :8].copy()
    ssc.pp.rank_value_encode(part, size_key="total")
    np.testing.assert_allclose(part.var["rank_median"], whole.var["rank_median"][:8], rtol=1e-6)
    part.obs["total"] = 0
    with pytest.raises(ValueError, match=r"adata.obs\['total'\] must hold positive totals"):
        ssc.pp.rank_value_encode(part, size_key="total")
    with pytest.raises(KeyError, match=r"Did not find adata.obs\['n_counts'\]"):
        ssc.pp.rank_value_encode(part, size_key="n_counts")


@pytest.mark.parametrize("kind", ["csc", "dense", "dask", "int", "explicit zeros"])
def test_any_matrix(counts, kind):
    expected = ssc.pp.rank_value_encode(counts, copy=True).layers["rank"]
    if kind == "csc":
        counts.X = counts.X.tocsc()
    elif kind == "dense":
        counts.X = counts.X.toarray()
    elif kind == "dask":
        counts.X = pytest.importorskip("dask.array").from_array(counts.X.toarray(), chunks=(7, 20))
    elif kind == "int":
        counts.X = counts.X.astype(np.int64)
    else:
        full = sparse.csr_matrix(np.ones(counts.shape, np.float32))
        full.data[:] = counts.X.toarray().ravel()
        counts.X = full
    ssc.pp.rank_value_encode(counts)
    np.testing.assert_array_equal(counts.layers["rank"].toarray(), expected.toarray())
    assert counts.layers["rank"].nnz == expected.nnz
    if kind == "explicit zeros":
        assert counts.X.nnz == 600  # the input stays as it was


def test_round_trip_and_layers(counts, tmp_path):
    counts.layers["counts"] = counts.X.copy()
    counts.X = np.log1p(counts.X)
    few = dict.fromkeys(counts.var_names[:15], 2.0)
    ssc.pp.rank_value_encode(counts, layer="counts", medians=few, zeros="last", key_added="rve")
    for suffix in ["h5ad", "zarr"]:
        path = tmp_path / f"a.{suffix}"
        getattr(counts, f"write_{suffix}")(path)
        back = getattr(ad, f"read_{suffix}")(path)
        np.testing.assert_array_equal(back.layers["rve"].toarray(), counts.layers["rve"].toarray())
        assert list(back.uns["rve"]["unmatched"]) == sorted(counts.var_names[15:])
        assert back.uns["rve"]["params"]["ties"] == "first"
        cell = counts.obs_names[0]
        assert list(ssc.pp.ranked_genes(back, cell, key="rve")[cell]) == list(
            ssc.pp.ranked_genes(counts, key="rve").iloc[0]
        )


def test_log_normalized_values_are_refused(counts, pbmc68k):
    counts.X = np.log1p(counts.X)
    with pytest.raises(ValueError, match=r"adata.X looks log-normalized .* but counts are needed"):
        ssc.pp.rank_value_encode(counts)
    with pytest.raises(ValueError, match=r"adata.X has negative values .* as after scaling"):
        ssc.pp.rank_value_encode(pbmc68k)
    assert not counts.layers and "rank" not in counts.uns


def test_normalized_counts_pass_with_the_same_ranks(counts, warned):
    medians = dict.fromkeys(counts.var_names, 1.0)
    expected = ssc.pp.rank_value_encode(counts, medians=medians, ties="average", copy=True).layers["rank"].toarray()
    counts.X = counts.X.astype(np.float64) * 128.5
    ssc.pp.rank_value_encode(counts, medians=medians, ties="average")
    assert any("not whole numbers" in message for message in warned)
    np.testing.assert_array_equal(counts.layers["rank"].toarray(), expected)


def test_unmatched_genes_and_empty_cells_are_reported(counts, warned):
    ssc.pp.rank_value_encode(counts, medians=dict.fromkeys(counts.var_names[:18], 1.0))
    said = "\n".join(warned)
    assert "2 of 20 genes have no median and get no rank: 'G18', 'G19'" in said
    assert "1 cells express no gene" in said
    assert counts.layers["rank"][:, 18:].nnz == 0


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"ties": "max"}, ValueError, "Unknown ties: 'max'"),
        ({"zeros": "first"}, ValueError, "Unknown zeros"),
        ({"n_top": 0}, ValueError, "n_top must be a whole number"),
        ({"target_sum": 0}, ValueError, "target_sum must be a positive number"),
        ({"layer": "counts"}, KeyError, r"Did not find adata.layers\['counts'\]"),
        ({"gene_key": "symbol"}, KeyError, r"Did not find adata.var\['symbol'\]. Available: 'gene_ids'"),
        ({"key_added": "a/b"}, ValueError, "key_added must be a non-empty string"),
        ({"key_added": "taken"}, ValueError, r"would overwrite uns\['taken'\], which ssc.pp.rank_value_encode did"),
        ({"medians": 3}, TypeError, "medians must be a mapping or Series"),
        ({"medians": {}}, ValueError, "medians is empty"),
        ({"medians": {"G0": "x"}}, ValueError, "medians holds no number for 'G0'"),
        (
            {"medians": {"G0": -1.0, "G1": 1.0}},
            ValueError,
            "must be positive and finite; they are not for 'G0'",
        ),
        ({"medians": "nowhere.json"}, FileNotFoundError, "Did not find the file 'nowhere.json' for medians"),
        (
            {"medians": {f"ENSG{i:011}": 1.0 for i in range(20)}},
            ValueError,
            r"Only 0 of the 20 genes in medians .* medians uses Ensembl ids, adata gene symbols",
        ),
        ({"medians": {f"g{i}": 1.0 for i in range(20)}}, ValueError, "upper and lower case"),
        ({"medians": pd.Series([1.0, 2.0], index=["G0", "G0"])}, ValueError, "medians names genes twice: 'G0'"),
    ],
)
def test_bad_input_is_told(counts, options, error, message):
    counts.uns["taken"] = {}
    with pytest.raises(error, match=message):
        ssc.pp.rank_value_encode(counts, **options)
    assert not counts.layers and list(counts.uns) == ["taken"]


def test_columns_of_others_are_kept(counts, tmp_path):
    ssc.pp.rank_value_encode(counts)
    assert len(counts.uns["rank"]["unmatched"]) == 0
    counts.write_h5ad(tmp_path / "a.h5ad")  # nothing unmatched: an empty array of names
    back = ad.read_h5ad(tmp_path / "a.h5ad")
    ssc.pp.rank_value_encode(back, ties="average")
    assert back.uns["rank"]["params"]["ties"] == "average"
    back.obs["mine_n_genes"] = 1
    with pytest.raises(ValueError, match=r"would overwrite obs\['mine_n_genes'\]"):
        ssc.pp.rank_value_encode(back, key_added="mine")


def test_files_that_are_no_dictionaries_are_told(counts, tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04\x95")
    with pytest.raises(ValueError, match="is not a JSON file"):
        ssc.pp.rank_value_encode(counts, medians=tmp_path / "a.pkl")
    (tmp_path / "a.json").write_text(json.dumps(dict.fromkeys(counts.var["gene_ids"], 1.0)))
    ssc.pp.rank_value_encode(counts, medians=tmp_path / "a.json", gene_key="gene_ids")
    assert len(counts.uns["rank"]["unmatched"]) == 0


def test_repeated_names_are_told(counts):
    counts.var["gene_ids"] = counts.var["gene_ids"].mask(counts.var_names == "G1", counts.var["gene_ids"].iloc[0])
    with pytest.raises(ValueError, match=r"adata.var\['gene_ids'\] names several genes alike \(1 names\)"):
        ssc.pp.rank_value_encode(counts, gene_key="gene_ids")
    counts.var["gene_ids"] = counts.var["gene_ids"].astype(object).where(counts.var_names != "G2", None)
    with pytest.raises(ValueError, match=r"has no name for 1 genes: 'G2'"):
        ssc.pp.rank_value_encode(counts, gene_key="gene_ids")
    counts.var_names = ["G0", *counts.var_names[:-1]]
    with pytest.raises(ValueError, match="Gene names repeat"):
        ssc.pp.rank_value_encode(counts)
