"""Whether the best genes of each feature vary together, in the cells and counts that genes were tested on."""

from __future__ import annotations

import numpy as np

from sparsesc.stats.genes._coherence import Coherence, coherence, free_of_depth
from sparsesc.stats.genes._like_expressed import BIN, ExpressionBins
from sparsesc.stats.genes._top_genes import TopGenes

from ._gene_job import GeneJob

N_GENES = 10
_MOST_CELLS = 4000
_MOST_LIKE = 2000


def gene_coherence(job: GeneJob, best: TopGenes, *, n_features: int, seed: int) -> Coherence:
    """Coherence of the ten best genes of each feature, of those that are higher with it.

    Parameters
    ----------
    job
        The matrix and the cells.
    best
        Genes of each feature.
    n_features
        How many features there are.
    seed
        Draws cells (at most 4,000), and genes to compare with.
    """
    rng = np.random.default_rng([seed, N_GENES])
    up = best.columns["score"] > 0
    of_feature = [best.gene[up & (best.feature == f)][:N_GENES] for f in range(n_features)]
    varies = job.varies
    # enough of every bin to draw from
    order = varies[np.argsort(job.expression[varies], kind="stable")]
    like = order if len(order) <= _MOST_LIKE else order[np.linspace(0, len(order) - 1, _MOST_LIKE).astype(np.int64)]
    used = np.unique(np.concatenate([like, *of_feature]).astype(np.int64))
    used = used[np.argsort(-job.expression[used], kind="stable")]
    rows = np.sort(rng.permutation(job.blocks.shape[0])[:_MOST_CELLS])
    values, depth = _read(job, rows, used)
    z = free_of_depth(values, depth, None if job.samples is None else job.samples[rows])
    column = np.full(len(job.genes), -1)
    column[used] = np.arange(len(used))
    return coherence(
        z,
        [column[genes] for genes in of_feature],
        column[like],
        ExpressionBins(job.expression[used], size=BIN),
        n_choices=len(varies),
        rng=rng,
    )


def _read(job: GeneJob, rows: np.ndarray, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of these cells and genes, and the depth of the cells: log of their counts, or of their detected genes."""
    parts, detected = [], []
    for row0, block in job.blocks:
        here = rows[(rows >= row0) & (rows < row0 + block.shape[0])] - row0
        some = block[here]
        parts.append(some[:, columns].toarray().astype(np.float32))
        detected.append(np.diff(some.indptr).astype(np.float64))
    n = np.concatenate(detected)
    values = np.concatenate(parts)
    if job.counts is not None:
        return values, np.log1p(job.counts.of_cell[rows])
    # without zeros, as after scaling, the mean of all genes stands for depth
    return values, np.log1p(n) if np.ptp(n) > 0 else values.mean(1, dtype=np.float64)
