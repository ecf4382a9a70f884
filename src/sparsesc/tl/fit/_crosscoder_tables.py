"""Tables of what the features of a crosscoder are to each embedding, on cells that the fit did not see."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sparsesc.stats.core._multiple import benjamini_hochberg
from sparsesc.stats.features._columnwise_pearson import columnwise_pearson

if TYPE_CHECKING:
    from scipy import sparse

    from sparsesc.nn import SparseAutoencoder

SHARED, MIXED, PRIVATE = KINDS = "shared", "mixed", "private"


@dataclass(frozen=True)
class Rule:
    """When a feature is shared."""

    names: list[str]
    """Of the embeddings."""
    columns: list[slice]
    """Where they are in the joint embedding."""
    min_share: float
    alpha: float


@dataclass(frozen=True)
class Reading:
    """One crosscoder, read on cells that it was not fitted to."""

    features: pd.DataFrame
    """Shares, gains, pairing and kind, one row a feature."""
    fvu: np.ndarray
    """Of each embedding."""
    cross: pd.DataFrame
    """FVU of each embedding from each other one."""
    counts: dict[str, int]
    """Features of each kind."""


def read_crosscoder(sae: SparseAutoencoder, X: np.ndarray, unseen: np.ndarray, rule: Rule) -> Reading:
    """Read a crosscoder on the cells among `X`, (n, d), that the fit did not see."""
    from sparsesc.nn._crosscoder import block_fvu
    from sparsesc.nn._metrics import active_features

    codes = sae.encode(X)
    held_out = codes[unseen]
    features = _features(sae, X[unseen], held_out, ~active_features(codes), rule)
    kinds = features["kind"].value_counts()
    counts = {kind: int(kinds.get(kind, 0)) for kind in KINDS}
    fvu = block_fvu(X[unseen], sae.decode(held_out), rule.columns)
    return Reading(features, fvu, _cross(sae, X, unseen, rule), counts)


def linear_cross(X: np.ndarray, unseen: np.ndarray, source: slice, target: slice) -> float:
    """FVU of one embedding from another one by ridge regression, its penalty chosen on the training cells."""
    from sklearn.linear_model import RidgeCV

    from sparsesc.nn._metrics import fraction_unexplained

    model = RidgeCV(alphas=np.logspace(-3, 3, 13)).fit(X[~unseen, source], X[~unseen, target])
    predicted = model.predict(X[unseen, source]).reshape(int(unseen.sum()), -1)
    return fraction_unexplained(X[unseen, target], predicted)


def shuffle_pairing(X: np.ndarray, columns: list[slice], unseen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Cells of which every embedding but the first is that of another cell of the same part (unseen or not)."""
    X = X.copy()
    for embedding in columns[1:]:
        for part in (np.flatnonzero(unseen), np.flatnonzero(~unseen)):
            X[part, embedding] = X[rng.permutation(part), embedding]
    return X


def _features(
    sae: SparseAutoencoder, X: np.ndarray, codes: sparse.csr_matrix, dead: np.ndarray, rule: Rule
) -> pd.DataFrame:
    from sparsesc.nn._crosscoder import contributions, decoder_shares, gains

    names, n = rule.names, sae.n_features
    shares, gained = decoder_shares(sae, rule.columns), gains(sae, X, codes, rule.columns)
    order = np.argsort(-shares, axis=1, kind="stable")
    # The two embeddings of a feature are chosen by its weights: the cells that test it had no say.
    spread = (shares[np.arange(n), order[:, 1]] >= rule.min_share) & ~dead
    added = np.stack([contributions(sae, X, part) for part in rule.columns])
    first, second = (added[order[:, i], :, np.arange(n)].T for i in (0, 1))
    r, log_p = columnwise_pearson(first, second)
    pval = np.where(spread, np.exp(log_p), np.nan)
    padj = benjamini_hochberg(pval)
    shared = spread & (r > 0) & (padj < rule.alpha)

    def partners(i: int) -> str:
        among = [names[j] for j in order[i] if shares[i, j] >= rule.min_share]
        return "" if dead[i] else "; ".join(among)

    table = {f"share_{name}": shares[:, i] for i, name in enumerate(names)}
    table |= {f"gain_{name}": gained[:, i] for i, name in enumerate(names)}
    table |= {"pairing_r": np.where(spread, r, np.nan), "pairing_pval": pval, "pairing_padj": padj}
    kind = np.select([dead, shared, spread], ["", SHARED, MIXED], PRIVATE).astype(object)
    return pd.DataFrame(table | {"kind": kind, "embedding": np.array([partners(i) for i in range(n)], dtype=object)})


def _cross(sae: SparseAutoencoder, X: np.ndarray, unseen: np.ndarray, rule: Rule) -> pd.DataFrame:
    """How well each embedding is predicted from each other one: FVU on unseen cells, passes chosen on the others."""
    from sparsesc.nn._crosscoder import best_passes, block_fvu, complete

    rows = []
    for i, given in enumerate(rule.columns):
        targets = [j for j in range(len(rule.columns)) if j != i]
        n_passes = best_passes(sae, X[~unseen], given, [rule.columns[j] for j in targets])
        fvu = block_fvu(X[unseen], complete(sae, X[unseen], given, n_passes)[-1], rule.columns)
        rows += [
            {"source": rule.names[i], "target": rule.names[j], "fvu": fvu[j], "n_passes": n_passes} for j in targets
        ]
    return pd.DataFrame(rows)
