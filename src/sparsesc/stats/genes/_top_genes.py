"""Which genes are the best of every feature? With p-values adjusted for all pairs, or tested in other cells."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sparsesc.stats.core._largest import largest_in_rows
from sparsesc.stats.core._multiple import benjamini_hochberg
from sparsesc.stats.core._pvalue_pool import PValuePool
from sparsesc.stats.core._row_blocks import RowBlocks

from ._gene_tests import GeneBlock, GeneTest, map_gene_blocks

DIRECTIONS = ("up", "down", "both")


@dataclass(frozen=True)
class TopGenes:
    """Pairs of feature and gene, best first within each feature."""

    feature: np.ndarray
    """Positions of features."""
    gene: np.ndarray
    """Positions of genes."""
    rank: np.ndarray
    """1 is the best gene of its feature."""
    columns: dict[str, np.ndarray]
    """``score``, ``pval``, ``padj`` and what the statistic describes."""
    n_tests: int
    """Pairs that `padj` is adjusted for: tested features x genes that vary."""
    scores: np.ndarray | None
    """Features x chosen genes, float32; 0 where nothing was tested."""


def top_genes(
    statistic: GeneTest,
    blocks: RowBlocks,
    *,
    n_top: int | None,
    direction: str = "up",
    keep_genes: np.ndarray | None = None,
    max_bytes: float,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> TopGenes:
    """Test every feature against every gene, and keep the best pairs.

    Parameters
    ----------
    statistic
        How to compare.
    blocks
        Cells x genes.
    n_top
        Pairs to keep for each feature; ``None`` keeps all.
    direction
        ``"up"`` keeps positive scores, largest first; ``"down"`` negative ones; ``"both"`` the largest absolute ones.
    keep_genes
        Positions of genes whose scores are kept for all features (-1 gives zeros); ``None`` keeps none.
    max_bytes
        Memory for running sums, and as much again for p-values.
    progress
        Wraps the iteration over blocks of features.
    """
    varies = np.flatnonzero(blocks.totals.varies)
    n_features = len(statistic.tested)
    n_tests = int(statistic.tested.sum()) * len(varies)
    pool = PValuePool(n_tests, max_bytes=max_bytes)
    scores = None if keep_genes is None else np.zeros((n_features, len(keep_genes)), np.float32)

    def reduce(block: GeneBlock) -> dict[str, np.ndarray]:
        rows = np.flatnonzero(statistic.tested[block.start : block.stop])
        pool.add(block.log_p[np.ix_(rows, varies)])
        if scores is not None and keep_genes is not None:
            scores[block.start + rows] = np.where(keep_genes >= 0, block.score[np.ix_(rows, keep_genes)], 0)
        feature, gene, rank = largest_in_rows(block.score[np.ix_(rows, varies)], n_top, direction)
        feature, gene = rows[feature], varies[gene]
        columns = {"feature": block.start + feature, "gene": gene, "rank": rank}
        columns |= {"score": block.score[feature, gene], "log_p": block.log_p[feature, gene]}
        return columns | block.describe(feature, gene)

    parts = list(progress(map_gene_blocks(statistic, blocks, reduce, max_bytes=max_bytes)))
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    log_p = joined.pop("log_p")
    score = joined.pop("score")
    pvalues = {"score": score, "pval": np.exp(log_p), "padj": pool.adjust(log_p)}
    feature, gene, rank = (joined.pop(name) for name in ("feature", "gene", "rank"))
    return TopGenes(feature, gene, rank, pvalues | joined, n_tests, scores)


def confirm_genes(
    chosen: TopGenes,
    statistic: GeneTest,
    blocks: RowBlocks,
    *,
    keep_genes: np.ndarray | None = None,
    max_bytes: float,
    progress: Callable[[Iterable[Any]], Iterable[Any]] = iter,
) -> TopGenes:
    """Test pairs of feature and gene that were chosen in other cells.

    As the cells of the tests did not choose, p-values need to be adjusted for the chosen pairs only.

    Parameters
    ----------
    chosen
        Pairs, sorted by feature; their order is kept, and their score becomes the column ``score_chosen``.
    statistic, blocks, keep_genes, max_bytes, progress
        As in :func:`top_genes`, of the cells to test on. Pairs whose feature cannot be tested there are dropped.
    """
    scores = None if keep_genes is None else np.zeros((len(statistic.tested), len(keep_genes)), np.float32)
    kept = np.flatnonzero(statistic.tested[chosen.feature])
    features, genes = chosen.feature[kept], chosen.gene[kept]

    def reduce(block: GeneBlock) -> dict[str, np.ndarray]:
        rows = np.flatnonzero(statistic.tested[block.start : block.stop])
        if scores is not None and keep_genes is not None:
            scores[block.start + rows] = np.where(keep_genes >= 0, block.score[np.ix_(rows, keep_genes)], 0)
        here = slice(*np.searchsorted(features, [block.start, block.stop]))
        feature, gene = features[here] - block.start, genes[here]
        columns = {"score": block.score[feature, gene], "pval": np.exp(block.log_p[feature, gene])}
        return columns | block.describe(feature, gene)

    parts = list(progress(map_gene_blocks(statistic, blocks, reduce, max_bytes=max_bytes)))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    first = {"score": columns.pop("score"), "pval": columns.pop("pval")}
    first |= {"padj": benjamini_hochberg(first["pval"])}
    columns["score_chosen"] = chosen.columns["score"][kept]
    return TopGenes(features, genes, chosen.rank[kept], first | columns, len(kept), scores)


def describe_again(
    pairs: TopGenes, statistic: GeneTest, blocks: RowBlocks, names: tuple[str, ...], *, max_bytes: float
) -> TopGenes:
    """Replace columns of pairs, such as means, by those of the same comparison of other values.

    Parameters
    ----------
    pairs
        Sorted by feature.
    statistic, blocks
        Compares the same cells in the other values.
    names
        Columns to replace.
    max_bytes
        Memory for running sums.
    """

    def reduce(block: GeneBlock) -> dict[str, np.ndarray]:
        here = slice(*np.searchsorted(pairs.feature, [block.start, block.stop]))
        columns = block.describe(pairs.feature[here] - block.start, pairs.gene[here])
        return {name: columns[name] for name in names}

    parts = list(map_gene_blocks(statistic, blocks, reduce, max_bytes=max_bytes))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in names}
    return replace(pairs, columns=pairs.columns | columns)
