from __future__ import annotations

import anndata
import numpy as np
import pytest
from scipy import sparse

from sparsesc.datasets import simulate_programs


@pytest.fixture(scope="module")
def large():
    return simulate_programs(n_cells=4000, n_genes=300)


def test_basal_activity_is_poisson(large):
    X0 = large.obsm["X0"].astype(float)
    rate = 1 + 0.1 * np.arange(100)
    z = (X0.mean(0) - rate) / np.sqrt(rate / 4000)
    assert np.abs(z).max() < 4.5
    assert z.std() == pytest.approx(1, abs=0.25)
    # the variance of a sample variance of a Poisson variable is (rate + 2 rate^2) / n
    z = (X0.var(0) - rate) / np.sqrt((rate + 2 * rate**2) / 4000)
    assert np.abs(z).max() < 4.5


def test_covariate_shifts_all_programs_of_a_cell(large):
    shift = (large.obsm["X1"] - large.obsm["X0"]).astype(float)
    covariate = large.obs["covariate"].astype(int).to_numpy()
    for c in range(3):
        assert shift[covariate == c].mean() == pytest.approx(c, abs=0.001)
        assert shift[covariate == c].std() == pytest.approx(0.1, abs=0.001)
    assert shift.mean() == pytest.approx(1, abs=0.05)
    # of a program: Poisson, three values of the covariate and the noise
    variance = (1 + 0.1 * np.arange(100)) + covariate.var() + 0.01
    np.testing.assert_allclose(large.obsm["X1"].astype(float).var(0) / variance, 1, atol=0.15)


def test_types_switch_programs(large):
    C = large.uns["simulation"]["type_programs"]
    assert C.shape == (40, 100)
    assert (C == 0).mean() == pytest.approx(0.7, abs=0.03)
    types = large.obs["type"].cat.codes.to_numpy()
    np.testing.assert_array_equal(large.obsm["X2"], large.obsm["X1"] * C[types])


def test_genes_sum_their_programs(large):
    A = large.varm["programs"]
    assert set(np.unique(A)) == {0, 1}
    assert A.mean() == pytest.approx(0.1, abs=0.01)
    np.testing.assert_allclose(large.X, large.obsm["X2"] @ A.T, atol=1e-3)
    assert large.X.dtype == np.float32


@pytest.mark.parametrize(("kind", "n_types", "density"), [("large", 40, 0.3), ("easy", 10, 0.7)])
def test_kinds_are_the_published_ones(kind, n_types, density):
    adata = simulate_programs(kind, n_genes=20)
    used = adata.uns["simulation"]
    assert (adata.n_obs, used["n_programs"], used["gene_density"]) == (10_000, 100, 0.1)
    assert (used["n_types"], used["type_density"]) == (n_types, density)
    assert adata.obs["type"].cat.categories.size == n_types
    assert adata.obs["covariate"].cat.categories.size == {"large": 3, "easy": 1}[kind]


def test_all_genes_are_simulated_unless_fewer_are_asked_for():
    assert simulate_programs(n_cells=3).shape == (3, 20_000)


def test_small_simulation():
    adata = simulate_programs("small")
    assert adata.shape == (12_000, 5)
    assert adata.obsm["X0"].mean() == pytest.approx(2, abs=0.03)
    assert adata.obsm["X0"].var() == pytest.approx(2, abs=0.08)
    np.testing.assert_allclose(adata.obsm["X1"].mean(0), [0.5, 0.1, 0.9], atol=0.02)
    np.testing.assert_array_equal(adata.obsm["X2"], adata.obsm["X0"] * adata.obsm["X1"])
    loadings = np.array([[0, 1, 1, 0, 0], [1, 1, 0, 1, 0], [0, 0, 0, 1, 1]])
    np.testing.assert_array_equal(adata.X, adata.obsm["X2"] @ loadings)


# counts


@pytest.mark.parametrize(("noise", "dispersion"), [("poisson", 0.0), ("nb", 0.5)])
def test_counts_have_the_mean_and_the_variance(noise, dispersion):
    adata = simulate_programs(
        n_cells=3000, n_genes=200, count_noise=noise, dispersion=0.5, library_size=2000, library_sd=0.2
    )
    counts = adata.layers["counts"]
    assert sparse.isspmatrix_csr(counts)
    assert counts.dtype == np.int32
    np.testing.assert_array_equal(adata.X.toarray(), counts.toarray())
    assert adata.X.dtype == np.float32
    expression = np.maximum(adata.obsm["X2"] @ adata.varm["programs"].T, 0).astype(float)
    size = adata.obs["size_factor"].to_numpy()
    assert np.log(size).std() == pytest.approx(0.2, abs=0.01)
    assert size.mean() == pytest.approx(1, abs=0.02)
    mean = expression * size[:, None] * 2000 / expression.sum(1).mean()
    assert counts.sum() / 3000 == pytest.approx(2000, rel=0.03)
    residual = counts.toarray() - mean
    assert abs(residual.sum() / mean.sum()) < 0.01
    assert (residual**2).sum() / (mean + dispersion * mean**2).sum() == pytest.approx(1, abs=0.02)
    assert counts.toarray()[mean == 0].sum() == 0


def test_counts_in_blocks_are_the_same_cells(monkeypatch):
    from sparsesc.datasets import _simulate_programs as module

    monkeypatch.setattr(module, "_COUNT_BLOCK", 3000)
    adata = simulate_programs(n_cells=95, n_genes=300, count_noise="poisson")
    assert adata.layers["counts"].shape == (95, 300)
    assert (adata.layers["counts"].sum(1) > 0).all()


# batches, sizes of types, randomness


def test_batch_effect_multiplies_genes():
    plain = simulate_programs(n_cells=300, n_genes=2000, n_batches=3)
    shifted = simulate_programs(n_cells=300, n_genes=2000, n_batches=3, batch_effect=0.4)
    assert "batch_effect" not in plain.varm
    log_factor = shifted.varm["batch_effect"]
    assert log_factor.std() == pytest.approx(0.4, abs=0.02)
    assert np.exp(log_factor.astype(float)).mean() == pytest.approx(1, abs=0.02)
    batches = shifted.obs["batch"].cat.codes.to_numpy()
    np.testing.assert_allclose(shifted.X, plain.X * np.exp(log_factor.T[batches]), rtol=1e-5, atol=1e-5)


def test_imbalance_is_the_ratio_of_the_largest_to_the_smallest():
    adata = simulate_programs(n_cells=20_000, n_genes=5, n_programs=5, n_types=5, imbalance=16)
    sizes = adata.obs["type"].value_counts(sort=False).to_numpy()
    expected = 16.0 ** -np.linspace(0, 1, 5)
    np.testing.assert_allclose(sizes / 20_000, expected / expected.sum(), atol=0.012)


def test_rng_decides_all():
    a, b, c = (simulate_programs(n_cells=50, n_genes=20, count_noise="nb", rng=rng) for rng in (1, 1, 2))
    np.testing.assert_array_equal(a.X.toarray(), b.X.toarray())
    assert (a.X != c.X).nnz
    assert a.uns["simulation"]["rng"] == "1"


def test_options_leave_the_cells_as_they_are():
    a = simulate_programs(n_cells=50, n_genes=20)
    b = simulate_programs(n_cells=50, n_genes=30, count_noise="nb", n_batches=2, batch_effect=1.0)
    for name in ("X0", "X1", "X2"):
        np.testing.assert_array_equal(a.obsm[name], b.obsm[name])


def test_truth_survives_files(tmp_path):
    adata = simulate_programs(n_cells=40, n_genes=10, count_noise="poisson", n_batches=2, batch_effect=0.1)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    adata.write_zarr(tmp_path / "cells.zarr")
    for back in (anndata.read_h5ad(tmp_path / "cells.h5ad"), anndata.read_zarr(tmp_path / "cells.zarr")):
        assert back.uns["simulation"]["kind"] == "large"
        np.testing.assert_array_equal(back.uns["simulation"]["type_programs"], adata.uns["simulation"]["type_programs"])
        np.testing.assert_array_equal(back.obsm["X2"], adata.obsm["X2"])


# the door


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "huge"}, "Unknown kind: 'huge'"),
        ({"n_cells": 0}, "n_cells must be a whole number"),
        ({"n_types": 2.5}, "n_types must be a whole number"),
        ({"type_density": 1.5}, "type_density must be a probability"),
        ({"gene_density": 0.0}, "gene_density must be a probability"),
        ({"count_noise": "zinb"}, "Unknown count_noise: 'zinb'"),
        ({"library_size": 0}, "library_size must be above 0"),
        ({"dispersion": -1}, "dispersion must be above 0"),
        ({"batch_effect": -1}, "batch_effect must be 0 or more"),
        ({"n_batches": 0}, "n_batches must be a whole number"),
        ({"imbalance": 0.5}, "imbalance is the largest type over the smallest"),
        ({"kind": "small", "n_genes": 10, "imbalance": 2.0}, "remove 'n_genes', 'imbalance'"),
    ],
)
def test_bad_parameters_are_told(options, message):
    size = {} if options.get("kind") == "small" else {"n_genes": 5}
    with pytest.raises(ValueError, match=message):
        simulate_programs(**{"n_cells": 10, **size, **options})
