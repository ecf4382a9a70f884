"""Shared data: built once a session, handed out as copies so that no test sees another's writes."""

from __future__ import annotations

import os

os.environ.setdefault("MPLBACKEND", "Agg")

import anndata as ad
import numba
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

if os.environ.get("PYTEST_XDIST_WORKER"):  # other processes have the other cores
    numba.set_num_threads(1)
    torch.set_num_threads(1)


def random_code(X: np.ndarray, *, n_features: int, k: int, seed: int) -> tuple[sparse.csr_matrix, dict]:
    """An untrained top-k code of ``X``: random unit directions, the k largest positive projections of each cell."""
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(n_features, X.shape[1])).astype(np.float32)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    center = X.mean(0)
    pre = np.maximum((X - center) @ directions.T, 0)
    pre[pre < -np.partition(-pre, k - 1, axis=1)[:, k - 1 : k]] = 0
    codes = sparse.csr_matrix(pre)
    codes.sort_indices()
    weights = {
        "W_enc": np.ascontiguousarray(directions.T),
        "b_enc": np.zeros(n_features, np.float32),
        "W_dec": directions,
        "b_dec": center.astype(np.float32),
        "threshold": np.zeros(n_features, np.float32),
    }
    return codes, weights


def write_random_sae(adata, *, use_rep="X_pca", n_features=64, k=8, key="sae", seed=0):
    """Store an untrained code in the slots of a fitted one: ground to test readers of codes on."""
    X = np.asarray(adata.obsm[use_rep], dtype=np.float32)
    codes, weights = random_code(X, n_features=n_features, k=k, seed=seed)
    n_cells = np.diff(codes.tocsc().indptr)
    sums = np.asarray(codes.sum(0)).ravel()
    adata.obsm[f"X_{key}"] = codes
    adata.uns[key] = {
        "params": {"use_rep": use_rep, "architecture": "topk", "n_features": n_features, "k": k, "schema_version": 1},
        "weights": weights,
        "features": pd.DataFrame(
            {
                "density": n_cells / adata.n_obs,
                "mean_active": np.divide(sums, n_cells, out=np.zeros_like(sums), where=n_cells > 0),
                "max": codes.max(0).toarray().ravel(),
                "n_cells": n_cells,
                "dead": n_cells == 0,
            },
            index=pd.Index([f"{key}_{i}" for i in range(n_features)], name="feature"),
        ),
    }
    return adata


@pytest.fixture(scope="session")
def write_code():
    """The function that stores an untrained code."""
    return write_random_sae


def load_published(name):
    """A published data set of ``ssc.datasets``, or a skip that says why."""
    import sparsesc as ssc

    try:
        return getattr(ssc.datasets, name)()
    except FileNotFoundError as error:
        pytest.skip(f"SPARSESC_DATA_DIR has no file of {name}: {str(error)[:60]}")


@pytest.fixture(scope="session")
def published():
    """The function that loads a published data set by name, or skips."""
    return load_published


@pytest.fixture(scope="session")
def _pbmc68k():
    import scanpy as sc

    return sc.datasets.pbmc68k_reduced()


@pytest.fixture
def pbmc68k(_pbmc68k):
    """700 real blood cells: X_pca (50-d), log-normalized ``raw``, scaled ``X``, ``bulk_labels``."""
    return _pbmc68k.copy()


@pytest.fixture
def pbmc68k_code(_pbmc68k):
    """The same cells with an untrained code under ``"sae"`` (64 features, 8 active)."""
    return write_random_sae(_pbmc68k.copy())


@pytest.fixture
def counts():
    """Thirty cells x twenty genes of counts with many ties; the last cell is empty."""
    rng = np.random.default_rng(0)
    X = rng.poisson(rng.gamma(1.0, 1.0, size=20), size=(30, 20)).astype(np.float32)
    X[-1] = 0
    X[:, -1] = 0
    return ad.AnnData(
        sparse.csr_matrix(X),
        obs=pd.DataFrame(index=[f"cell_{i}" for i in range(30)]),
        var=pd.DataFrame({"gene_ids": [f"ENSG{i:011}" for i in range(20)]}, index=[f"G{i}" for i in range(20)]),
    )
