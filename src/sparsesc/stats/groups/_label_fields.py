"""Random labels that are as smooth over the graph of cells as given ones: what labels of no meaning would look like."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

N_NEIGHBORS = 15
_STEPS = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 26, 32, 40, 50, 64, 80)
_N_TRIED = 6  # draws at every number of steps


@dataclass(frozen=True)
class CellGraph:
    """The nearest neighbors of cells, as pairs and as steps of a random walk."""

    pairs: tuple[np.ndarray, np.ndarray]
    walk: sparse.csr_matrix

    @classmethod
    def of(cls, X: np.ndarray) -> CellGraph:
        """The graph of an embedding, cells x dimensions, of `N_NEIGHBORS` neighbors; both sides of a pair count."""
        from sklearn.neighbors import NearestNeighbors

        n = len(X)
        k = min(N_NEIGHBORS, n - 1)
        nearest = NearestNeighbors(n_neighbors=k).fit(X).kneighbors(return_distance=False)
        rows = np.repeat(np.arange(n), k)
        links = sparse.csr_matrix((np.ones(n * k, np.float32), (rows, nearest.ravel())), shape=(n, n))
        links = ((links + links.T) > 0).astype(np.float32)
        pairs = links.tocoo()
        staying = links + sparse.identity(n, dtype=np.float32, format="csr")
        degree = np.asarray(staying.sum(axis=1)).ravel()
        return cls((pairs.row, pairs.col), sparse.csr_matrix(sparse.diags(1 / degree) @ staying, dtype=np.float32))

    def agreement(self, groups: np.ndarray) -> float:
        """Share of the pairs of neighbors with one label."""
        first, second = self.pairs
        return float((groups[first] == groups[second]).mean())


def smoothness(graph: CellGraph, groups: np.ndarray, n_groups: int, rng: np.random.Generator) -> int:
    """Steps of the walk after which random labels agree between neighbors as often as these do.

    Labels that are smoother than any random ones get the largest number that is tried.
    """
    target = graph.agreement(groups)
    sizes = np.bincount(groups, minlength=n_groups)
    fields = rng.normal(size=(len(groups), n_groups * _N_TRIED)).astype(np.float32)
    taken, distance = 0, np.inf
    best = 0
    for steps in _STEPS:
        for _ in range(steps - taken):
            fields = graph.walk @ fields
        taken = steps
        agreement = np.mean([graph.agreement(labels) for labels in _cut(fields, sizes, rng)])
        if abs(agreement - target) < distance:
            best, distance = steps, abs(agreement - target)
        if agreement > target:
            break
    return best


def label_fields(
    graph: CellGraph, sizes: np.ndarray, steps: int, n_draws: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Random labels with the same number of cells each, one array a draw.

    Each label has a field of normal noise, averaged over `steps` steps of the walk. In random order the labels take the
    cells in which their field is largest, of those that are left.
    """
    at_once = max(1, 2**26 // max(1, graph.walk.shape[0] * len(sizes)))
    for start in range(0, n_draws, at_once):
        n = min(at_once, n_draws - start)
        fields = rng.normal(size=(graph.walk.shape[0], len(sizes) * n)).astype(np.float32)
        for _ in range(steps):
            fields = graph.walk @ fields
        yield from _cut(fields, sizes, rng)


def _cut(fields: np.ndarray, sizes: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    n_groups = len(sizes)
    wanted = np.flatnonzero(sizes > 0)
    for start in range(0, fields.shape[1], n_groups):
        order = rng.permutation(wanted)
        labels = np.full(len(fields), order[-1])
        free = np.arange(len(fields))
        for group in order[:-1]:
            values = fields[free, start + group]
            largest = np.argpartition(-values, sizes[group] - 1)[: sizes[group]]
            labels[free[largest]] = group
            free = np.delete(free, largest)
        yield labels
