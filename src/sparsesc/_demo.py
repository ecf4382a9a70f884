"""The main path end to end, on cells that come with the dependencies: what ``sparsesc demo`` runs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from . import datasets, get, tl
from ._random import as_generator
from .door._checks import get_feature_table, get_rep, get_sae_slot
from .door._keys import DEFAULT_KEY, LABELS, METRICS, PARAMS
from .stats.core._holdout import stratified_holdout

if TYPE_CHECKING:
    from anndata import AnnData

USE_REP = "X_pca"
LABEL_KEY = "bulk_labels"
HOLDOUT = 0.5
FEWEST_CELLS = 10  # of a label, to be given a feature
N_CLEAREST = 10
N_FIGURE = 8  # panels in a figure


def load() -> AnnData:
    """700 blood cells with ten labels, offline."""
    return datasets.pbmc68k_reduced()


def fit(adata: AnnData, rng: int, *, progress_bar: bool) -> dict[str, float]:
    """Features of the cells; returns the metrics on held-out cells, and how many features and held-out cells."""
    tl.fit_sae(adata, use_rep=USE_REP, rng=rng, progress_bar=progress_bar)
    slot = get_sae_slot(adata, DEFAULT_KEY)
    params = slot[PARAMS]
    return {**slot[METRICS], "n_features": params["n_features"], "n_validation": params["n_validation"]}


def associate(adata: AnnData, rng: int) -> None:
    """Features against labels: names are chosen on one half of the cells and scored on the other."""
    tl.feature_association(adata, LABEL_KEY, holdout=HOLDOUT, min_cells=FEWEST_CELLS, rng=rng)


def find_genes(adata: AnnData, rng: int) -> None:
    """Features against genes."""
    tl.feature_genes(adata, rng=rng, progress_bar=False)


def find_terms(adata: AnnData) -> int:
    """Features against the immune markers that come with the package; returns how many sets were tested."""
    tl.feature_enrichment(adata, datasets.gene_sets("immune_markers"), progress_bar=False)
    return get.enrichment(adata)["term"].nunique()


def name(adata: AnnData, rng: int) -> pd.Series:
    """One name for each feature; returns how many have each level of confidence, the highest first."""
    tl.annotate_features(adata, rng=rng)
    levels = get_feature_table(adata, DEFAULT_KEY)["confidence"].value_counts()
    return levels.sort_index(ascending=False)


def clearest(adata: AnnData) -> pd.DataFrame:
    """The features with the best evidence for their name: by confidence, then by F1 on held-out cells."""
    table = get_feature_table(adata, DEFAULT_KEY)
    best = table.sort_values(["confidence", "where_f1"], ascending=False, kind="stable")
    return best.head(N_CLEAREST)


def labels(adata: AnnData, rng: int) -> pd.DataFrame:
    """The feature of every label with enough cells, beside the clearest dimension of the embedding.

    Both were chosen on the same half of the cells, and scored on the other.
    """
    table = pd.DataFrame(get_sae_slot(adata, DEFAULT_KEY)[LABELS]).drop(columns="key")
    table["category"] = table["category"].astype(str)
    column = pd.Categorical(adata.obs[LABEL_KEY])
    held_out = stratified_holdout([column.codes], HOLDOUT, as_generator(rng))  # the cells that `associate` held out
    counts = pd.Series(column[held_out].astype(str)).value_counts()
    table["n_heldout"] = counts.reindex(table["category"]).to_numpy()
    table["auroc_heldout_dimension"] = _best_dimension(adata, held_out, table["category"])
    return table.sort_values("auroc_heldout", ascending=False, kind="stable", ignore_index=True)


def small_labels(adata: AnnData) -> dict[str, int]:
    """Labels with too few cells to be given a feature, and how many they have."""
    counts = adata.obs[LABEL_KEY].value_counts()
    return {str(name): int(n) for name, n in counts[counts < FEWEST_CELLS].items()}


def tables(adata: AnnData) -> dict[str, pd.DataFrame]:
    """All results as tables, by name."""
    return {
        "features": get_feature_table(adata, DEFAULT_KEY).reset_index(),
        "association": get.association(adata),
        "genes": get.genes(adata),
        "enrichment": get.enrichment(adata),
        "annotation": get.annotation(adata),
    }


def draw(adata: AnnData, best: list[str], folder: Path) -> list[Path]:
    """All figures of the main path, as PNG files; returns where they are."""
    from . import pl

    few = best[:N_FIGURE]
    jobs: dict[str, Callable[..., object]] = {
        "training": partial(pl.training, adata),
        "feature_density": partial(pl.feature_density, adata),
        "association": partial(pl.association, adata, LABEL_KEY),
        "feature_umap": partial(pl.feature_umap, adata, few),
        "genes": partial(pl.genes, adata, few),
        "enrichment": partial(pl.enrichment, adata, few),
        f"feature_card_{best[0]}": partial(pl.feature_card, adata, best[0], groupby=LABEL_KEY),
    }
    paths = {name: folder / f"{name}.png" for name in jobs}
    for name, job in jobs.items():
        job(show=False, save=paths[name])
    return list(paths.values())


def _best_dimension(adata: AnnData, held_out: np.ndarray, names: pd.Series) -> list[float]:
    """Held-out AUROC of the clearest dimension of the embedding (either sign) for every label."""
    from sklearn.metrics import roc_auc_score

    X, labels = get_rep(adata, USE_REP), adata.obs[LABEL_KEY].astype(str).to_numpy()
    result = []
    for name in names:
        choosing = np.array([roc_auc_score(labels[~held_out] == name, column) for column in X[~held_out].T])
        best = int(np.abs(choosing - 0.5).argmax())
        score = float(roc_auc_score(labels[held_out] == name, X[held_out, best]))
        result.append(score if choosing[best] >= 0.5 else 1 - score)
    return result
