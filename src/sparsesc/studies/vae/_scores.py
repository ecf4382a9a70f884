"""Scores of decoders that can be compared across scales and likelihoods, because all are of counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse, stats

if TYPE_CHECKING:
    import torch

_FEWEST = 10  # cells with a count of a gene, to rank cells by it
_NEIGHBORS = 15


def rounded_log_prob(mean: torch.Tensor, sd: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """Log probability that a normal variable falls between two limits, exact far out; `low` may be -inf."""
    import torch

    a, b = (low - mean) / sd, (high - mean) / sd
    flipped = a > 0  # the upper tail as the lower one of the negative: no difference of two numbers near 1
    a, b = torch.where(flipped, -b, a), torch.where(flipped, -a, b)
    below_b, below_a = torch.special.log_ndtr(b), torch.special.log_ndtr(a)
    gap = torch.log(-torch.expm1((below_a - below_b).clamp(max=-1e-15)))
    return below_b + gap


def spearman_of_genes(expected: np.ndarray, counts: sparse.csr_matrix, totals: np.ndarray) -> float:
    """Mean over genes of the rank correlation over cells between expected expression and counts per total.

    Genes with counts in fewer than ten cells are left out; NaN if none is left. A constant expectation counts as 0.
    """
    usable = np.flatnonzero(np.bincount(counts.indices, minlength=counts.shape[1]) >= _FEWEST)
    if not len(usable):
        return float("nan")
    observed = stats.rankdata((sparse.diags_array(1 / totals) @ counts[:, usable]).toarray(), axis=0)
    predicted = stats.rankdata(expected[:, usable], axis=0)
    observed -= observed.mean(0)
    predicted -= predicted.mean(0)
    norm = np.sqrt((observed**2).sum(0) * (predicted**2).sum(0))
    return float(np.divide((observed * predicted).sum(0), norm, out=np.zeros(len(usable)), where=norm > 0).mean())


def label_transfer(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Share of held-out cells whose label is predicted by their 15 nearest training cells, averaged over labels.

    Cells with a negative code and labels without a training cell are left out.
    """
    from sklearn.neighbors import KNeighborsClassifier

    known = train_labels >= 0
    tested = np.isin(test_labels, train_labels[known])
    if not tested.any() or len(np.unique(train_labels[known])) < 2:
        return float("nan")
    model = KNeighborsClassifier(min(_NEIGHBORS, int(known.sum()))).fit(train[known], train_labels[known])
    labels = test_labels[tested]
    correct = model.predict(test[tested]) == labels
    return float(np.mean([correct[labels == label].mean() for label in np.unique(labels)]))
