"""Random labels that are as smooth over the graph of cells as given ones: what labels of no meaning would look like."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from sparsesc._compiled import compiled

N_NEIGHBORS = 15
_STEPS = (*np.arange(0, 3, 0.25), 3, 3.5, 4, 5, 6, 8, 10, 12, 16, 20, 26, 32, 40, 50, 64, 80)
_N_TRIED = 6  # draws at every number of steps
_STRETCH = 4 / 3  # largest ratio of sizes to those asked for


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


def smoothness(graph: CellGraph, groups: np.ndarray, n_groups: int, rng: np.random.Generator) -> float:
    """Steps of the walk after which random labels agree between neighbors as often as these do.

    Labels that are smoother than any random ones get the largest number that is tried.
    """
    target = graph.agreement(groups)
    sizes = np.bincount(groups, minlength=n_groups)
    noise = rng.normal(size=(len(groups), n_groups * _N_TRIED)).astype(np.float32)
    best, distance = 0.0, np.inf
    for steps, fields in _walked(graph, noise, _STEPS):
        agreement = np.mean([graph.agreement(labels) for labels in _cut(fields, sizes, graph, rng)])
        if abs(agreement - target) < distance:
            best, distance = steps, abs(agreement - target)
        if agreement > target:
            break
    return best


def label_fields(
    graph: CellGraph, sizes: np.ndarray, steps: float, n_draws: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Random labels with about the same number of cells each, one array a draw.

    Each label has a field of normal noise, averaged over `steps` steps of the walk (between whole numbers, the fields
    before and after a step are mixed). In random order the labels take the cells in which their field is largest, of
    those that are left. How many is up to a third more or fewer than asked for: as many as leave the fewest neighbors
    apart, because labels that mean something, and regions in general, end between clusters rather than inside.
    """
    at_once = max(1, 2**26 // max(1, graph.walk.shape[0] * len(sizes)))
    for start in range(0, n_draws, at_once):
        n = min(at_once, n_draws - start)
        noise = rng.normal(size=(graph.walk.shape[0], len(sizes) * n)).astype(np.float32)
        for _, fields in _walked(graph, noise, [steps]):
            yield from _cut(fields, sizes, graph, rng)


def _walked(graph: CellGraph, fields: np.ndarray, numbers: Iterable[float]) -> Iterator[tuple[float, np.ndarray]]:
    """Fields after so many steps, given in ascending order; all have a variance of one after whole steps."""
    taken = 0
    for steps in numbers:
        for _ in range(int(steps) - taken):
            fields = _step(graph, fields)
        taken, part = int(steps), np.float32(steps - int(steps))
        yield float(steps), (1 - part) * fields + part * _step(graph, fields) if part else fields


def _step(graph: CellGraph, fields: np.ndarray) -> np.ndarray:
    fields = graph.walk @ fields
    return fields / fields.std(axis=0)


def _cut(fields: np.ndarray, sizes: np.ndarray, graph: CellGraph, rng: np.random.Generator) -> Iterator[np.ndarray]:
    n_groups = len(sizes)
    wanted = np.flatnonzero(sizes > 0)
    first, second = graph.pairs
    once = first < second
    first, second = first[once], second[once]
    for start in range(0, fields.shape[1], n_groups):
        order = rng.permutation(wanted)
        yield _divide(fields[:, start : start + n_groups], sizes, order, first, second)


@compiled
def _divide(
    fields: np.ndarray, sizes: np.ndarray, order: np.ndarray, first: np.ndarray, second: np.ndarray
) -> np.ndarray:
    """Labels that take cells by their field, one after the other, each as many as leave the fewest pairs apart."""
    n = len(fields)
    labels = np.full(n, order[-1])
    free = np.ones(n, np.bool_)
    rank = np.zeros(n, np.int64)
    n_free = n
    for group in order[:-1]:
        cells = np.flatnonzero(free)
        if n_free < 2:
            break
        cells = cells[np.argsort(-fields[cells, group])]
        rank[cells] = np.arange(n_free)
        apart = np.zeros(n_free + 1, np.int64)  # pairs apart when so many cells are taken, as differences
        for pair in range(len(first)):
            a, b = first[pair], second[pair]
            if free[a] and free[b]:
                low, high = min(rank[a], rank[b]), max(rank[a], rank[b])
                apart[low + 1] += 1
                apart[high + 1] -= 1
        apart = np.cumsum(apart)
        most = min(int(sizes[group] * _STRETCH), n_free - 1)
        taken = fewest = min(max(int(np.ceil(sizes[group] / _STRETCH)), 1), most)
        for count in range(fewest, most + 1):
            if apart[count] < apart[taken]:
                taken = count
        labels[cells[:taken]] = group
        free[cells[:taken]] = False
        n_free -= taken
    return labels
