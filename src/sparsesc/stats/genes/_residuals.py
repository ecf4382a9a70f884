"""How far is a count from what the depth of its cell leads to expect? Counts free of depth, a block of rows at a time.

The mean of a log-normalized count depends on depth: the logarithm of a noisy number is smaller on average than that of
its mean, the more so the fewer molecules a cell has. A feature that goes with depth then "differs" in half of the
genes. Pearson residuals have mean 0 and about the same variance at any depth. They are dense, so that only the rows
that are asked for are ever made.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from sparsesc.stats.core._row_blocks import RowBlocks

from ._strong_cells import STRONG, Membership

THETA = 100.0
PER_CELL = 1e4


class CountRows:
    """Counts (cells x genes) with the totals of cells and genes.

    Parameters
    ----------
    matrix
        What :class:`RowBlocks` reads.
    name
        What errors call the matrix.
    """

    def __init__(self, matrix: Any, *, name: str = "the matrix") -> None:
        blocks = RowBlocks(matrix, cache_bytes=0, name=name)
        self.shape = blocks.shape
        self.totals = blocks.totals
        self._matrix: Any = next(iter(blocks))[1] if blocks.in_memory else matrix
        totals, whole = [], self.totals.minimum >= 0
        for _, block in blocks:
            totals.append(np.asarray(block.sum(1, dtype=np.float64)).ravel())
            whole = whole and bool((block.data == np.floor(block.data)).all())
        self.of_cell = np.concatenate(totals)
        self.are_counts = whole

    def rows(self, cells: slice) -> sparse.csr_matrix:
        """Counts of these cells."""
        block = self._matrix[cells]
        return sparse.csr_matrix(block.compute() if hasattr(block, "compute") else block)


class PearsonResiduals:
    r"""Analytic Pearson residuals of counts, made when rows are asked for.

    Of a count :math:`x` in a cell with :math:`t` counts, of a gene that has the share :math:`q` of all counts, it is
    :math:`(x - \mu) / \sqrt{\mu + \mu^2 / \theta}` with :math:`\mu = tq`, clipped to :math:`\pm \sqrt{n}` for n cells.

    Parameters
    ----------
    counts
        Cells x genes.

    References
    ----------
    Lause et al. (2021), Genome Biology 22:258.
    """

    def __init__(self, counts: CountRows) -> None:
        self.shape = counts.shape
        self._counts = counts
        self._share = counts.totals.total / max(counts.totals.total.sum(), 1.0)
        self._limit = np.sqrt(counts.shape[0])

    def __getitem__(self, cells: slice) -> np.ndarray:
        """Residuals of these cells, float32."""
        mean = np.outer(self._counts.of_cell[cells], self._share).astype(np.float32)
        residual = self._counts.rows(cells).toarray().astype(np.float32, copy=False) - mean
        mean += mean**2 / np.float32(THETA)
        np.sqrt(mean, out=mean)
        np.divide(residual, mean, out=residual, where=mean > 0)
        return np.clip(residual, -self._limit, self._limit, out=residual)


class PerTenThousand:
    """Counts per ten thousand of their cell, made when rows are asked for; cells without counts keep zeros.

    Parameters
    ----------
    counts
        Cells x genes.
    """

    def __init__(self, counts: CountRows) -> None:
        self.shape = counts.shape
        self._counts = counts

    def __getitem__(self, cells: slice) -> sparse.csr_matrix:
        """These cells, CSR."""
        block = self._counts.rows(cells).astype(np.float64)
        block.data *= PER_CELL / np.repeat(np.maximum(self._counts.of_cell[cells], 1.0), np.diff(block.indptr))
        return block


def depth_slopes(
    members: Membership, depth: np.ndarray, samples: np.ndarray | None = None, n_samples: int = 1
) -> np.ndarray:
    r"""How much mean residuals of the two sides differ because of depth, per unit of their common mean.

    A gene that neither side expresses as all cells do has residuals that are not free of depth: with the share
    :math:`aq` of the counts, rather than :math:`q`, their mean is :math:`(a - 1) \sqrt{tq}` in a cell of depth t.
    With :math:`S` the mean of :math:`\sqrt{t}` on a side and over both, the sides then differ by
    :math:`(S_1 - S_0) / S` times the mean over both, which is to be taken off.

    Parameters
    ----------
    members
        The cells of both sides.
    depth
        Counts of each cell.
    samples
        Sample of each cell: sides are compared within samples.
    n_samples
        How many there are.

    Returns
    -------
    features x samples, 0 where a side is empty
    """
    root = np.sqrt(depth)
    samples = np.zeros(len(depth), np.int64) if samples is None else samples
    shape = len(members.n_strong), n_samples
    feature = np.repeat(np.arange(shape[0]), np.diff(members.indptr))
    place = feature * n_samples + samples[members.rows]
    strong = members.group == STRONG

    def add(kept: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
        values = None if weights is None else weights[kept]
        return np.bincount(place[kept], values, minlength=shape[0] * n_samples).reshape(shape)

    weights = root[members.rows]
    n_strong, in_strong = add(strong, None), add(strong, weights)
    n_other, in_other = add(~strong, None), add(~strong, weights)
    if not members.sampled:
        n_other = np.bincount(samples, minlength=n_samples) - n_strong - n_other
        in_other = np.bincount(samples, root, minlength=n_samples) - in_strong - in_other
    difference = in_strong / np.maximum(n_strong, 1) - in_other / np.maximum(n_other, 1)
    common = (in_strong + in_other) / np.maximum(n_strong + n_other, 1)
    usable = (n_strong > 0) & (n_other > 0) & (common > 0)
    return np.divide(difference, common, out=np.zeros(shape), where=usable)
