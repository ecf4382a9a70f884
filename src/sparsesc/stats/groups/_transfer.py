"""Can labels be transferred between batches? Label transfer by nearest neighbors."""

from __future__ import annotations

import numpy as np


def transfer_labels(
    X: np.ndarray, labels: np.ndarray, batches: np.ndarray, queries: np.ndarray, *, n_neighbors: int
) -> np.ndarray:
    """Label of each query as most of its nearest rows in all other batches have it.

    Parameters
    ----------
    X
        Rows x dimensions.
    labels, batches
        Codes of each row; rows with a negative label are no reference.
    queries
        Boolean, one a row.
    n_neighbors
        Rows that vote; ties go to the smaller code.

    Returns
    -------
    Code of the label of each row; -1 for rows that are no queries, and where there is no other batch.
    """
    from sklearn.neighbors import KNeighborsClassifier

    out = np.full(len(X), -1)
    for batch in np.unique(batches[queries]):
        rows = np.flatnonzero(queries & (batches == batch))
        reference = np.flatnonzero((batches != batch) & (labels >= 0))
        if len(reference):
            vote = KNeighborsClassifier(min(n_neighbors, len(reference))).fit(X[reference], labels[reference])
            out[rows] = vote.predict(X[rows])
    return out


def known_elsewhere(labels: np.ndarray, batches: np.ndarray) -> np.ndarray:
    """Rows whose label some other batch has, too: the only ones that a transfer can get right."""
    known = labels >= 0
    table = np.zeros((labels.max(initial=0) + 1, batches.max(initial=0) + 1), bool)
    table[labels[known], batches[known]] = True
    return known & (table.sum(axis=1)[np.where(known, labels, 0)] > 1)


def transfer_scores(predicted: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Share of right labels, and the mean over the labels that there are of their F1."""
    from sklearn.metrics import f1_score

    return (
        float((predicted == labels).mean()),
        float(f1_score(labels, predicted, labels=np.unique(labels), average="macro", zero_division=0.0)),
    )
