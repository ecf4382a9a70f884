"""Which genes differ between two sets of cells, for many pairs of sets at once?"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from sparsesc.stats.core._largest import largest_in_rows
from sparsesc.stats.core._multiple import log_choose
from sparsesc.stats.core._pearson3 import log_p_skewed
from sparsesc.stats.core._pvalue_pool import PValuePool
from sparsesc.stats.core._row_blocks import RowBlocks


def pair_genes(
    first: sparse.csr_matrix, second: sparse.csr_matrix, blocks: RowBlocks, *, n_top: int, max_bytes: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The genes that differ most between two sets of cells, by a permutation test of the difference of means.

    Parameters
    ----------
    first, second
        Pairs x cells, 0 and 1, without common cells within a pair.
    blocks
        Cells x genes.
    n_top
        Genes to keep for each pair and direction.
    max_bytes
        Memory for sums.

    Returns
    -------
    Pair, gene, z (positive: higher in the first set; in units of the standard deviation when the cells of both sets
    are shuffled) and p adjusted for all pairs x genes that vary in the matrix.
    """
    varies = np.flatnonzero(blocks.totals.varies)
    n_pairs, n_genes = first.shape[0], len(varies)
    pool = PValuePool(n_pairs * n_genes, max_bytes=max_bytes)
    best: list[tuple[np.ndarray, ...]] = []
    step = max(1, int(max_bytes / (80.0 * max(blocks.shape[1], 1))))
    for start in range(0, n_pairs, step):
        z, log_p = _test(first[start : start + step], second[start : start + step], blocks)
        z, log_p = z[:, varies], log_p[:, varies]
        pool.add(log_p)
        for direction in ("up", "down"):
            pair, gene, _ = largest_in_rows(z, n_top, direction)
            best.append((start + pair, varies[gene], z[pair, gene], log_p[pair, gene]))
    pair, gene, z, log_p = (np.concatenate(part) for part in zip(*best, strict=True))
    return pair, gene, z, pool.adjust(log_p)


def _test(first: sparse.csr_matrix, second: sparse.csr_matrix, blocks: RowBlocks) -> tuple[np.ndarray, np.ndarray]:
    shape = (first.shape[0], blocks.shape[1])
    one, two, squares, cubes = (np.zeros(shape) for _ in range(4))
    union = first + second
    for start, block in blocks:
        cells = slice(start, start + block.shape[0])
        values = block.astype(np.float64)
        one += (first[:, cells] @ values).toarray()
        two += (second[:, cells] @ values).toarray()
        for power, sums in ((2, squares), (3, cubes)):
            sums += (union[:, cells] @ values.power(power)).toarray()
    n1, n2 = (np.asarray(m.sum(axis=1), dtype=np.float64).reshape(-1, 1) for m in (first, second))
    n = n1 + n2
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, second_moment = (one + two) / n, squares / n
        variance = second_moment - mean**2
        variance = np.where(variance > 1e-12 * second_moment, variance, 0.0)
        third = (cubes / n - 3 * mean * second_moment + 2 * mean**3) / variance**1.5
        share = n1 / n
        z = (one / n1 - two / n2) * np.sqrt(share * (1 - share) * (n - 1.0) / variance)
        skewness = third * (1.0 - 2.0 * share) / np.sqrt(share * (1 - share)) * np.sqrt(n - 1.0) / (n - 2.0)
    tested = (variance > 0) & (n1 > 0) & (n2 > 0) & (n > 2)
    z, skewness = np.where(tested, z, 0.0), np.where(tested, skewness, 0.0)
    # no p is below that of one arrangement of the cells
    log_p = np.where(tested, np.maximum(log_p_skewed(z, skewness), -log_choose(n, n1)), 0.0)
    return z, log_p
