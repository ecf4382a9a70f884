from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sparsesc as ssc


def total(adata, key="thin"):
    return adata.layers[f"{key}_train"] + adata.layers[f"{key}_test"]


def test_writes_two_layers_that_add_up(counts):
    before = counts.X.copy()
    assert ssc.pp.thin_counts(counts) is None
    assert (total(counts) != before).nnz == 0
    assert (counts.X != before).nnz == 0
    assert counts.layers["thin_train"].dtype == np.float32
    assert counts.uns["thin"]["params"]["method"] == "poisson"
    assert "thin_overdispersion" not in counts.var
    share = counts.layers["thin_train"].sum() / before.sum()
    assert abs(share - 0.5) < 4 * np.sqrt(0.25 / before.sum())


def test_same_seed_same_parts(counts):
    first, second, other = (ssc.pp.thin_counts(counts, rng=rng, copy=True).layers["thin_train"] for rng in (1, 1, 2))
    assert (first != second).nnz == 0
    assert (first != other).nnz > 0
    assert "thin" not in counts.uns


def test_fraction_and_layer(counts):
    counts.layers["counts"] = counts.X * 50
    ssc.pp.thin_counts(counts, layer="counts", fraction=0.9, key_added="most")
    assert (total(counts, "most") != counts.layers["counts"]).nnz == 0
    assert counts.layers["most_train"].sum() / counts.layers["counts"].sum() == pytest.approx(0.9, abs=0.02)


def test_overdispersion_is_estimated_or_given(counts):
    ssc.pp.thin_counts(counts, method="negative_binomial")
    expected = ssc.stats.overdispersion(counts.X)
    np.testing.assert_allclose(counts.var["thin_overdispersion"], expected)
    assert counts.uns["thin"]["params"]["overdispersion"] == "estimated"
    given = pd.Series(np.arange(20) / 20, index=counts.var_names)
    counts.var["given"] = given
    forms = [given.to_numpy(), given[::-1], "given"]
    found = []
    for form in forms:
        ssc.pp.thin_counts(counts, method="negative_binomial", overdispersion=form)
        np.testing.assert_array_equal(counts.var["thin_overdispersion"], given)
        found.append(counts.layers["thin_train"])
    assert all((part != found[0]).nnz == 0 for part in found)
    counts.obs["kind"] = pd.Categorical(["a", "b"] * 15)
    ssc.pp.thin_counts(counts, method="negative_binomial", groupby="kind")
    expected = ssc.stats.overdispersion(counts.X, groups=np.arange(30) % 2)
    np.testing.assert_allclose(counts.var["thin_overdispersion"], expected)
    ssc.pp.thin_counts(counts)
    assert "thin_overdispersion" not in counts.var


def test_mixtures_that_look_like_overdispersion_are_pointed_out(counts, monkeypatch):
    messages = []
    monkeypatch.setattr("sparsesc._logging.warning", messages.append)
    rng = np.random.default_rng(0)
    kind = np.arange(30) % 2
    mean = np.where((kind[:, None] == np.arange(20) % 2), 8.0, 0.5)
    counts.X = sparse.csr_matrix(rng.poisson(mean).astype(np.float32))
    counts.obs["kind"] = pd.Categorical(kind.astype(str))
    ssc.pp.thin_counts(counts, method="negative_binomial", groupby="kind")
    ssc.pp.thin_counts(counts, method="negative_binomial", overdispersion=2.0)
    assert not messages
    ssc.pp.thin_counts(counts, method="negative_binomial")
    assert "The estimated overdispersion is large" in messages.pop()


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_survives_files(counts, tmp_path, suffix):
    ssc.pp.thin_counts(counts, method="negative_binomial")
    getattr(counts, f"write_{suffix}")(tmp_path / f"x.{suffix}")
    read = getattr(ad, f"read_{suffix}")(tmp_path / f"x.{suffix}")
    assert (total(read) != read.X).nnz == 0
    assert read.uns["thin"]["params"] == counts.uns["thin"]["params"]
    ssc.pp.thin_counts(read)  # its own slots may be written again


def test_dense_counts(counts):
    expected = ssc.pp.thin_counts(counts, copy=True).layers["thin_train"]
    counts.X = counts.X.toarray()
    ssc.pp.thin_counts(counts)
    assert (counts.layers["thin_train"] != expected).nnz == 0


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"method": "binomial"}, ValueError, "Unknown method: 'binomial'.*'poisson', 'negative_binomial'"),
        ({"fraction": 0}, ValueError, "fraction must lie between 0 and 1 .a share of the counts., found 0"),
        ({"fraction": 1.0}, ValueError, r"found 1\.0"),
        ({"overdispersion": 0.1}, ValueError, "belong to method='negative_binomial'"),
        ({"layer": "raw"}, KeyError, r"Did not find adata\.layers\['raw'\]"),
        ({"key_added": "a/b"}, ValueError, "without '/'"),
        ({"key_added": "mine"}, ValueError, r"would overwrite layers\['mine_test'\]"),
        ({"groupby": "kind"}, ValueError, "belong to method='negative_binomial'"),
    ],
)
def test_bad_options_change_nothing(counts, kwargs, error, match):
    counts.layers["mine_test"] = counts.X
    with pytest.raises(error, match=match):
        ssc.pp.thin_counts(counts, **kwargs)
    assert "thin_train" not in counts.layers
    assert not counts.uns


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"overdispersion": "phi"}, KeyError, r"Did not find adata\.var\['phi'\]"),
        ({"overdispersion": "gene_ids"}, TypeError, "overdispersion must hold numbers"),
        ({"overdispersion": np.ones(3)}, ValueError, r"one for each of 20 genes; found shape \(3,\)"),
        ({"overdispersion": pd.Series({"G1": 0.5})}, ValueError, "no value for 19 genes: 'G0'"),
        ({"overdispersion": -1.0}, ValueError, "must not be negative"),
        ({"overdispersion": 1.0, "groupby": "kind"}, ValueError, "leave it out where they are given"),
        ({"groupby": "other"}, KeyError, r"Did not find adata\.obs\['other'\]"),
        ({"groupby": "size"}, TypeError, "holds numbers, not cell types"),
        ({"groupby": "kind"}, ValueError, "has no value in 1 cells"),
    ],
)
def test_bad_overdispersion(counts, kwargs, error, match):
    counts.obs["size"] = np.arange(30) / 7
    counts.obs["kind"] = ["a"] * 29 + [None]
    with pytest.raises(error, match=match):
        ssc.pp.thin_counts(counts, method="negative_binomial", **kwargs)


def test_values_that_are_not_counts(counts):
    counts.layers["log"] = np.log1p(counts.X)
    with pytest.raises(ValueError, match=r"adata\.layers\['log'\] holds values that are not whole.*Name a layer"):
        ssc.pp.thin_counts(counts, layer="log")
    counts.layers["scaled"] = sparse.csr_matrix(counts.X.toarray() - 1)
    with pytest.raises(ValueError, match="negative values"):
        ssc.pp.thin_counts(counts, layer="scaled")
