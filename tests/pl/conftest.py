"""A code with every table that plots read, computed from its own cells by plain numpy."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from scipy.stats import norm, rankdata


def associations(codes: np.ndarray, obs: pd.DataFrame, keys: list[str], names: pd.Index) -> pd.DataFrame:
    alive = np.flatnonzero(codes.max(0) > 0)
    Z = codes[:, alive]
    ranks = rankdata(Z, axis=0)
    blocks = []
    for key in keys:
        for category in obs[key].cat.categories:
            inside = (obs[key] == category).to_numpy()
            n1, n0 = inside.sum(), (~inside).sum()
            auroc = (ranks[inside].sum(0) - n1 * (n1 + 1) / 2) / (n1 * n0)
            r = ((Z - Z.mean(0)) * (inside - inside.mean())[:, None]).mean(0) / (Z.std(0) * inside.std())
            block = {"feature": names[alive], "key": key, "category": category, "pearson_r": r, "auroc": auroc}
            block |= {"f1": np.clip(r, 0, 1), "mean_in": Z[inside].mean(0), "mean_out": Z[~inside].mean(0)}
            blocks.append(pd.DataFrame(block | {"pval": 1e-4, "padj": 1e-3, "n_cells": n1}))
    return pd.concat(blocks, ignore_index=True)


def gene_scores(codes: np.ndarray, X: np.ndarray) -> np.ndarray:
    """Fisher's z of the correlation of features and genes."""
    Z, G = (codes - codes.mean(0)) / codes.std(0), (X - X.mean(0)) / X.std(0)
    return np.arctanh(Z.T @ G / len(Z)) * np.sqrt(len(Z) - 3)


def gene_table(scores: np.ndarray, features: pd.Index, genes: pd.Index, n_top: int) -> pd.DataFrame:
    top = np.argsort(-scores, axis=1)[:, :n_top]
    score = np.take_along_axis(scores, top, axis=1).ravel()
    p = 2 * norm.sf(np.abs(score))
    table = {"feature": np.repeat(features, n_top), "gene": genes[top.ravel()], "score": score, "logfc": score / 10}
    return pd.DataFrame(table | {"pval": p, "padj": np.minimum(1, 100 * p)})


def term_table(scores: np.ndarray, features: pd.Index, genes: pd.Index) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for t in range(12):
        members = rng.choice(len(genes), 20, replace=False)
        z = scores[:, members].mean(1) / scores[:, members].std(1) * np.sqrt(20)
        term = f"regulation of a rather long biological process number {t} (GO:00{t})" if t % 2 else f"HALLMARK_SET_{t}"
        p = 2 * norm.sf(np.abs(z))
        block = {"feature": features, "term": term, "score": z, "pval": p, "padj": np.minimum(1, 50 * p), "n_genes": 20}
        rows.append(pd.DataFrame(block | {"genes": ",".join(genes[members[:3]])}))
    return pd.concat(rows, ignore_index=True).sort_values(["feature", "pval"], ignore_index=True)


_BUILT = {}


@pytest.fixture
def described(request):
    """`pbmc68k_code` with its history and the tables of associations, genes and enrichment; feature 63 is dead."""
    if not _BUILT:
        _BUILT["adata"] = describe(request.getfixturevalue("pbmc68k_code"))
    return _BUILT["adata"].copy()


def describe(adata):
    slot = adata.uns["sae"]
    codes = adata.obsm["X_sae"].tolil()
    codes[:, 63] = 0
    adata.obsm["X_sae"] = codes.tocsr()
    slot["features"].loc["sae_63"] = [0.0, 0.0, 0.0, 0, True]
    features = slot["features"].index
    epochs = np.arange(20)
    slot["params"]["best_epoch"] = 17
    slot["history"] = pd.DataFrame(
        {
            "epoch": epochs,
            "train_fvu": 0.2 + 0.6 * np.exp(-epochs / 4),
            "validation_fvu": 0.25 + 0.5 * np.exp(-epochs / 4),
            "l0": 8.0,
            "dead_fraction": np.linspace(0.1, 0.02, 20),
            "lr": np.linspace(1e-3, 0, 20),
            "seconds": 0.1,
        }
    )
    Z = adata.obsm["X_sae"].toarray()
    slot["association"] = associations(Z, adata.obs, ["bulk_labels", "phase"], features)
    scores = gene_scores(Z[:, :63], adata.raw.X.toarray())
    slot["genes"] = gene_table(scores, features[:63], adata.raw.var_names, 20)
    slot["enrichment"] = term_table(scores, features[:63], adata.raw.var_names)
    return adata


@pytest.fixture(autouse=True)
def _closed_figures(tmp_path):
    """No figure of one test is seen by another, and nothing is written outside of the test's folder."""
    import scanpy as sc

    before = sc.settings.figdir
    sc.settings.figdir = tmp_path / "figures"
    yield
    sc.settings.figdir = before
    plt.close("all")
