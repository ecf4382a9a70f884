"""Do the genes of a feature vary together? More than chance allows after any choice, and more than their like do.

The genes of a feature were chosen for being high in its cells, and these were grouped by an embedding of the same
genes: genes that vary together by chance end up in one feature. Holding out cells does not undo this when the embedding
saw them. What can be said of any choice is how improbable the best of all sets is. Of genes in a fixed order, the
correlations of each with the sum of those before it are independent if the genes are, whatever their distributions;
their p-values combine into one, and that times the number of all sets of as many genes bounds the chance that any of
them does so well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from ._like_expressed import ExpressionBins

_FEWEST = 3
_SMALLEST = 1e-300
_NORMAL = 1e-4  # a skewness below which a gamma distribution is a normal one


@dataclass(frozen=True)
class Coherence:
    """One value for each set; NaN for sets with fewer than three genes that vary."""

    excess: np.ndarray
    """Mean correlation of two genes of the set, less that of sets of like genes."""
    pval: np.ndarray


def free_of_depth(values: np.ndarray, depth: np.ndarray, samples: np.ndarray | None = None) -> np.ndarray:
    """Cells x genes with mean 0 and variance 1, of which a cubic of `depth` and means of samples are taken away.

    Parameters
    ----------
    values
        Cells x genes.
    depth
        Of each cell; any scale on which genes depend on it smoothly.
    samples
        Sample of each cell, ``0 ...``.
    """
    spread = depth.std()
    x = (depth - depth.mean()) / spread if spread > 1e-9 * abs(depth.mean()) else np.zeros_like(depth)
    design = np.column_stack([np.ones_like(x), x, x**2, x**3])
    if samples is not None:
        design = np.column_stack([design, np.eye(int(samples.max()) + 1)[samples][:, 1:]])
    basis, size, _ = np.linalg.svd(design, full_matrices=False)
    basis = basis[:, size > 1e-9 * size[0]].astype(values.dtype)
    rest = values - basis @ (basis.T @ values)
    norm = np.sqrt((rest**2).mean(0))
    small = norm <= 1e-4 * np.sqrt((values**2).mean(0)) + 1e-30
    return np.divide(rest, norm, out=np.zeros_like(rest), where=~small)


def log_tail(z: np.ndarray, skewness: np.ndarray) -> np.ndarray:
    """Log of P(Z >= z) of a gamma (Pearson III) variable of mean 0, variance 1 and this skewness; at least 1e-300."""
    g = np.where(np.abs(skewness) < _NORMAL, 1.0, skewness)
    k = 4.0 / g**2
    at = np.maximum(k + np.sign(g) * z * np.sqrt(k), 0.0)
    tail = np.where(g > 0, special.gammaincc(k, at), special.gammainc(k, at))
    tail = np.where(np.abs(skewness) < _NORMAL, special.ndtr(-z), tail)
    return np.log(np.clip(tail, _SMALLEST, 1.0))


def log_fisher(log_p: np.ndarray) -> float:
    """Log of Fisher's combination of independent p-values, exact however small."""
    x, i = -float(log_p.sum()), np.arange(len(log_p))
    return min(-x + float(special.logsumexp(i * np.log(max(x, 1e-300)) - special.gammaln(i + 1))), 0.0)


def log_p_together(z: np.ndarray) -> float:
    """Log of how rarely independent genes vary together as these do, one-sided.

    Parameters
    ----------
    z
        Cells x genes in a fixed order, mean 0 and variance 1.
    """
    n, m = z.shape
    before = np.cumsum(z, axis=1, dtype=np.float64)[:, : m - 1]
    genes = z[:, 1:].astype(np.float64)
    spread = before.std(0)
    r = (genes * before).mean(0) / np.maximum(spread, 1e-12)
    skewness = (genes**3).mean(0) * ((before - before.mean(0)) ** 3).mean(0) / np.maximum(spread, 1e-12) ** 3
    root = np.sqrt(n - 1.0)
    return log_fisher(log_tail(r * root, skewness * root / (n - 2.0)))


def coherence(
    z: np.ndarray,
    sets: Sequence[np.ndarray],
    pool: np.ndarray,
    bins: ExpressionBins,
    *,
    n_choices: int,
    n_matched: int = 200,
    rng: np.random.Generator,
) -> Coherence:
    """Whether the genes of each set vary together beyond chance, and beyond genes of like expression.

    Parameters
    ----------
    z
        Cells x genes, see :func:`free_of_depth`.
    sets
        Genes of each set, by column.
    pool
        Columns from which like genes are drawn.
    bins
        Of all columns.
    n_choices
        How many genes the sets were chosen from, in these cells; 0: they were chosen without these cells.
    n_matched
        Random sets for each set: every gene is replaced by one of its bin.
    rng
        Draws them.

    Returns
    -------
    The larger of two p-values: that of :func:`log_p_together` times the number of sets that could have been chosen, and
    the share of matched sets, of all sets together in units of their spread, that vary together as much.
    """
    r = (z.T @ z / len(z)).astype(np.float32)
    varies = z.any(0)
    by_bin = [pool[(bins.of_gene[pool] == b) & varies[pool]] for b in range(len(bins.n_genes))]
    excess, log_p, distance, matched = (np.full(len(sets), np.nan) for _ in range(4))
    spread_of: list[np.ndarray] = []
    for i, columns in enumerate(sets):
        genes = np.sort(columns[varies[columns]])  # an order that owes nothing to how genes vary
        m = len(genes)
        if m < _FEWEST or any(len(by_bin[b]) < _FEWEST for b in bins.of_gene[genes]):
            continue
        drawn = np.stack([rng.choice(by_bin[b], n_matched) for b in bins.of_gene[genes]], axis=1)
        like = _mean_pairs(r, drawn)
        excess[i] = _mean_pairs(r, genes[None])[0] - like.mean()
        distance[i] = excess[i] / max(like.std(), 1e-9)
        spread_of.append((like - like.mean()) / max(like.std(), 1e-9))
        choices = special.gammaln(n_choices + 1) - special.gammaln(m + 1) - special.gammaln(n_choices - m + 1)
        log_p[i] = min(log_p_together(z[:, genes]) + (choices if n_choices else 0.0), 0.0)
    if spread_of:
        among = np.sort(np.concatenate(spread_of))
        matched = (len(among) - np.searchsorted(among, distance) + 1.0) / (len(among) + 1.0)
    pval = np.maximum(np.clip(np.exp(log_p), _SMALLEST, 1.0), matched)
    return Coherence(excess, np.where(np.isnan(excess), np.nan, pval))


def _mean_pairs(r: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """Mean correlation of two different genes, for sets x genes; a gene that was drawn twice is no pair."""
    pairs = r[sets[:, :, None], sets[:, None, :]].astype(np.float64)
    different = sets[:, :, None] != sets[:, None, :]
    return (pairs * different).sum((1, 2)) / np.maximum(different.sum((1, 2)), 1)
