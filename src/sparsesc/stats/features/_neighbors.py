"""Which features are the most similar to each, and which of them stand for the same thing?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy import sparse

from sparsesc.stats.core._largest import largest_in_rows
from sparsesc.stats.core._pvalue_pool import PValuePool

from ._coactivation import CoActivation, overlap_test

_ALPHA = 0.05


class Similarity(Protocol):
    """Similarity of some features with all."""

    def __call__(self, start: int, stop: int) -> np.ndarray:
        """Block x features."""
        ...


@dataclass(frozen=True)
class Neighbors:
    """Pairs of features, best first within each feature; what describes a pair has one value a pair."""

    feature: np.ndarray
    neighbor: np.ndarray
    rank: np.ndarray
    """1 is the most similar."""
    score: np.ndarray
    pearson_r: np.ndarray
    n_both: np.ndarray
    pval: np.ndarray
    """Of co-activation against independence, two-sided, exact."""
    padj: np.ndarray
    """Adjusted for all pairs of active features."""
    n_tests: int
    similar: np.ndarray
    """Whether a pair counts as redundant."""
    leader: np.ndarray
    """Position of the feature that represents the group of each feature; -1 for silent ones."""


class CosineOfRows:
    """Cosine of the rows of a dense matrix; 0 with a row of zeros."""

    def __init__(self, matrix: np.ndarray) -> None:
        norm = np.linalg.norm(matrix.astype(np.float64), axis=1, keepdims=True)
        self._rows = np.divide(matrix, norm, out=np.zeros(matrix.shape), where=norm > 0)

    def __call__(self, start: int, stop: int) -> np.ndarray:
        """Block x features."""
        return np.clip(self._rows[start:stop] @ self._rows.T, -1.0, 1.0)


class PearsonOfColumns:
    """Pearson r of the columns of a dense matrix over rows that are not all zero; 0 with a constant column.

    The matrix may be large: it is read block by block and never copied as a whole.
    """

    def __init__(self, matrix: np.ndarray) -> None:
        self._matrix = matrix
        self._n = max(int(matrix.any(axis=1).sum()), 1)
        self._mean = matrix.sum(axis=0, dtype=np.float64) / self._n
        second = np.einsum("gf,gf->f", matrix, matrix, dtype=np.float64) / self._n
        variance = second - self._mean**2
        self._spread = np.sqrt(np.where(variance > 1e-6 * second, variance, 0.0))

    def __call__(self, start: int, stop: int) -> np.ndarray:
        """Block x features."""
        products = (self._matrix[:, start:stop].T @ self._matrix).astype(np.float64) / self._n
        products -= np.outer(self._mean[start:stop], self._mean)
        spread = np.outer(self._spread[start:stop], self._spread)
        return np.clip(np.divide(products, spread, out=np.zeros_like(products), where=spread > 0), -1.0, 1.0)


def neighbors(
    activity: CoActivation, similarity: Similarity | None, *, n_top: int, threshold: float, max_bytes: float
) -> Neighbors:
    """The most similar features of each feature, itself excluded, and groups at a threshold.

    Parameters
    ----------
    activity
        Where features are active.
    similarity
        What to compare; ``None``: Pearson r of activations.
    n_top
        Neighbors to keep for each feature. Only positive similarities count.
    threshold
        Features at least as similar as this are redundant. Where activations are compared, they must also be active
        in the same cells more often than by chance (adjusted p below 0.05): one strong cell in common is not enough.
    max_bytes
        Memory, one half for blocks of features x all features, one for p-values.
    """
    alive = activity.sizes > 0
    pool = PValuePool(activity.n_pairs, max_bytes=max_bytes / 2)
    parts: list[tuple[np.ndarray, ...]] = []
    edges: list[tuple[np.ndarray, ...]] = []
    for start, stop in activity.blocks(max_bytes / 2):
        both = activity.overlap(start, stop)
        pool.add(activity.log_p_later(start, both))
        r = activity.pearson(start, stop)
        score = r if similarity is None else similarity(start, stop)
        itself = np.arange(stop - start)
        score = np.where(alive, score, -np.inf)  # a copy: r is still needed
        score[~alive[start:stop]] = -np.inf
        score[itself, start + itself] = -np.inf
        rows, columns, rank = largest_in_rows(score, n_top, "up")
        parts.append((start + rows, columns, rank, score[rows, columns], r[rows, columns], both[rows, columns]))
        rows, columns = np.nonzero(score >= threshold)
        edges.append(((start + rows).astype(np.int32), columns.astype(np.int32), both[rows, columns]))
    feature, neighbor, rank, score, r, both = (np.concatenate(p) for p in zip(*parts, strict=True))
    log_p = overlap_test(activity.n, activity.sizes[feature], activity.sizes[neighbor], both)
    padj = pool.adjust(log_p)
    similar = score >= threshold
    sources, targets, common = (np.concatenate(e) for e in zip(*edges, strict=True))
    if similarity is None:
        sizes = activity.sizes
        kept = pool.adjust(overlap_test(activity.n, sizes[sources], sizes[targets], common)) < _ALPHA
        sources, targets, similar = sources[kept], targets[kept], similar & (padj < _ALPHA)
    graph = sparse.csr_matrix((np.ones(len(sources), bool), (sources, targets)), shape=(len(alive), len(alive)))
    leader = np.where(alive, leaders(graph, activity.sizes), -1)
    return Neighbors(feature, neighbor, rank, score, r, both, np.exp(log_p), padj, activity.n_pairs, similar, leader)


def leaders(graph: sparse.csr_matrix, weight: np.ndarray) -> np.ndarray:
    """Groups of nodes around leaders: everyone in a group is a neighbor of its leader.

    Nodes take turns, those with most neighbors first (then the heavier, then the earlier one); each that is still free
    becomes a leader and takes its free neighbors. Unlike connected components, no chain of similar pairs joins nodes
    that have nothing in common.

    Parameters
    ----------
    graph
        Symmetric adjacency without loops.
    weight
        Decides between nodes with as many neighbors.

    Returns
    -------
    Position of the leader of each node; that of a leader is itself.
    """
    degree = np.diff(graph.indptr)
    out = np.full(len(degree), -1)
    for node in np.lexsort((np.arange(len(degree)), -weight, -degree)):
        if out[node] < 0:
            near = graph.indices[graph.indptr[node] : graph.indptr[node + 1]]
            out[near[out[near] < 0]] = node
            out[node] = node
    return out
