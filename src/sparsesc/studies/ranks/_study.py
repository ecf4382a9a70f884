"""The parts of the study of rank encodings: cells by type, distances between them, and tables of their separation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc.stats.genes._thinning import thin_counts

from ._distances import (
    COLUMN_ORDER,
    CONSTANT,
    RANDOM_ORDER,
    Distances,
    Euclidean,
    RowCorrelation,
    SharedCorrelation,
    group_medians,
    nearest,
)
from ._medians import gene_medians, over_median
from ._neighbors import group_means, same_batch, same_group, weighted_means
from ._order import order_rows, rank_of_zeros, rank_rows
from ._separation import EFFECTS, Separation, interval, outlier_scores, separation

TARGET_SUM = 1e4
RANK, EXPRESSION = "rank", "expression"
# (name, ties, zeros, divided by the median of the gene)
RULES = (
    ("Spearman of values over medians", "average", "last", True),
    ("smallest rank for ties", "min", "last", True),
    ("ties in the order of genes", "first", "last", True),
    ("ties at random", "random", "last", True),
    ("ties and zeros in the order of genes", "first", "ordered", True),
    ("ties and zeros at random", "random", "ordered", True),
    ("Geneformer: expressed genes", "first", "drop", True),
    ("expressed genes, mean rank for ties", "average", "drop", True),
    ("Spearman of counts", "average", "last", False),
    ("Cell2Sentence: expressed genes of counts", "random", "drop", False),
)
# the control in the table of sparsity: arbitrary order, beside the requested rule
ARBITRARY = "rank, zeros at random"


@dataclass(frozen=True)
class TypedCells:
    """The cells of the study: those whose pairs are compared come first, sorted by type."""

    counts: sparse.csr_matrix
    """Cells x genes."""
    totals: np.ndarray
    """Counts of each cell over all measured genes."""
    groups: np.ndarray
    """Type of each cell."""
    batches: np.ndarray | None
    """Batch of each cell."""
    n_compared: int
    """How many cells, from the first on, are compared."""
    names: np.ndarray
    """Names of the types."""

    @property
    def sizes(self) -> np.ndarray:
        """Compared cells of each type."""
        return np.bincount(self.groups[: self.n_compared], minlength=len(self.names))

    def take(self, cells: np.ndarray) -> TypedCells:
        """Some cells, sorted by type, all of them compared."""
        cells = cells[np.argsort(self.groups[cells], kind="stable")]
        return TypedCells(self.counts[cells], self.totals[cells], self.groups[cells], None, len(cells), self.names)


def rank_distances(
    counts: sparse.csr_matrix, median: np.ndarray, ties: str, zeros: str, rng: np.random.Generator
) -> Distances:
    """One minus the correlation of ranks, under a rule for ties and one for zeros.

    Genes without a median are left out.
    """
    scaled = over_median(counts, median)
    known = np.isfinite(median)
    scaled = scaled if known.all() else scaled[:, known]
    order = order_rows(scaled, rng=rng if ties == "random" else None)
    ranks = sparse.csr_matrix((rank_rows(scaled, order, ties=ties), scaled.indices, scaled.indptr), shape=scaled.shape)
    if zeros == "drop":
        return SharedCorrelation(ranks)
    n_ranked = np.diff(scaled.indptr)
    if zeros == "ordered" and ties in ("first", "random"):
        seeds = rng.integers(2**63 - 1, size=scaled.shape[0]) if ties == "random" else None
        rule = RANDOM_ORDER if ties == "random" else COLUMN_ORDER
        return RowCorrelation(ranks, fill=n_ranked + 1.0, zero_rule=rule, seeds=seeds)
    return RowCorrelation(ranks, fill=rank_of_zeros(n_ranked, scaled.shape[1], ties=ties), zero_rule=CONSTANT)


def log_normalized(counts: sparse.csr_matrix, totals: np.ndarray) -> sparse.csr_matrix:
    """log(1 + counts per 10,000), float32."""
    factor = np.repeat(TARGET_SUM / totals, np.diff(counts.indptr))
    return sparse.csr_matrix(
        (np.log1p(counts.data * factor).astype(np.float32), counts.indices, counts.indptr), shape=counts.shape
    )


def medians_for(cells: TypedCells, given: np.ndarray | None) -> np.ndarray:
    """Median of each gene: as given, or from these cells."""
    return gene_medians(cells.counts, cells.totals, TARGET_SUM) if given is None else given


class Effects:
    """How each distance separates types. All share one bootstrap of types, so that they can be compared."""

    def __init__(self, weights: np.ndarray) -> None:
        self._weights = weights
        self._separations: dict[Any, Separation] = {}

    def add(self, name: Any, median: np.ndarray) -> dict[str, float]:
        """Columns of the row of a distance, from its medians."""
        self._separations[name] = result = separation(median, self._weights)
        row: dict[str, float] = {"within": result.within, "between": result.between}
        for effect in EFFECTS:
            row |= result.effects[effect].columns(effect)
        return row

    def against(self, name: Any, reference: Any) -> dict[str, float]:
        """Columns of the difference between two distances, over the same bootstrap samples."""
        draws, base = self._separations[name].draws, self._separations[reference].draws
        row: dict[str, float] = {}
        for effect in EFFECTS:
            row |= interval(draws[effect] - base[effect]).columns(f"{effect}_vs_{reference}")
        return row


def compare_types(
    cells: TypedCells, distances: Mapping[str, Distances], effects: Effects, n_outliers: int
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """All pairs of types, how well each distance separates them, and the most unusual pairs."""
    a, b = np.triu_indices(len(cells.names))
    pairs, summary, outliers = [], [], []
    for name, distance in distances.items():
        median, n_pairs = group_medians(distance, cells.sizes)
        alike, loose = outlier_scores(median)
        score = np.where(a == b, loose[a], alike[a, b])
        table = pd.DataFrame(
            {
                "measure": name,
                "group_a": cells.names[a],
                "group_b": cells.names[b],
                "within": a == b,
                "distance": median[a, b],
                "n_pairs": n_pairs[a, b],
                "score": score,
            }
        )
        pairs.append(table)
        row: dict[str, Any] = dict(effects.add(name, median))
        summary.append({"measure": name, "n_within": int((a == b).sum()), "n_between": int((a != b).sum())} | row)
        table = table.assign(within_a=median[a, a], within_b=median[b, b])
        for within, kind in ((False, "different types alike"), (True, "type unlike itself")):
            chosen = table[(table["within"] == within) & (table["score"] > 0)].sort_values(
                "score", ascending=False, kind="stable"
            )[:n_outliers]
            outliers.append(chosen.assign(kind=kind))
    for row in summary:
        row |= effects.against(row["measure"], RANK)
    columns = ["measure", "kind", "group_a", "group_b", "distance", "within_a", "within_b", "score"]
    return (
        _with_categories(pd.concat(pairs, ignore_index=True), ["measure", "group_a", "group_b"]),
        pd.DataFrame(summary),
        pd.concat(outliers, ignore_index=True)[columns],
    )


def compare_neighbors(
    cells: TypedCells, distances: Mapping[str, Distances], n_neighbors: int, weights: np.ndarray
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Shares of neighbors of the same type and batch: one row per distance, and one per distance and type."""
    queries = np.arange(cells.n_compared)
    groups = cells.groups[queries]
    overall, by_group = [], []
    for name, distance in distances.items():
        neighbors = nearest(distance, queries, n_neighbors)
        shares = {}
        shares["same_group"], shares["same_group_expected"] = same_group(neighbors, queries, cells.groups)
        if cells.batches is not None:
            shares["same_batch"], shares["same_batch_expected"] = same_batch(
                neighbors, queries, cells.batches, cells.groups
            )
        means = {column: group_means(values, groups, len(cells.names)) for column, values in shares.items()}
        by_group.append(pd.DataFrame({"measure": name, "group": cells.names, "n_cells": cells.sizes} | means))
        row: dict[str, Any] = {"measure": name}
        for column, values in means.items():
            mean = interval(weighted_means(values, weights))
            row |= {column: mean.value} if column.endswith("expected") else mean.columns(column)
        overall.append(row)
    return pd.DataFrame(overall), _with_categories(pd.concat(by_group, ignore_index=True), ["measure", "group"])


def compare_rules(
    cells: TypedCells, given: np.ndarray | None, effects: Effects, rng: np.random.Generator
) -> pd.DataFrame:
    """How well types are separated under each rule for ties and zeros."""
    median = medians_for(cells, given)
    ones = np.where(np.isfinite(median), 1.0, np.nan)
    rows = []
    for name, ties, zeros, scaled in RULES:
        distance = rank_distances(cells.counts, median if scaled else ones, ties, zeros, rng)
        row: dict[str, Any] = {"rule": name, "ties": ties, "zeros": zeros, "over_medians": scaled}
        rows.append(row | effects.add(("rule", name), group_medians(distance, cells.sizes)[0]))
    return pd.DataFrame(rows)


def compare_sparsity(
    cells: TypedCells,
    bins: list[np.ndarray],
    maps: Mapping[str, np.ndarray],
    given: np.ndarray | None,
    rule: tuple[str, str],
    fractions: tuple[float, ...],
    thinned_cells: np.ndarray,
    effects: Effects,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """How well types are separated in cells with few and with many detected genes, and when counts are thinned.

    Parameters
    ----------
    cells
        The cells of the study.
    bins
        Positions of cells in each bin of detected genes, fewest first.
    maps
        Coordinates of all cells, to compare within bins as well.
    given
        Medians of genes, if the user gave them.
    rule
        Rules for ties and zeros.
    fractions
        Shares of the counts to keep; empty if the values are not counts.
    thinned_cells
        Positions of the cells to thin.
    effects
        Collects effect sizes.
    rng
        Draws ties and counts.
    """
    median = medians_for(cells, given)
    rows: list[dict[str, Any]] = []

    def add(
        by: str, level: float, part: TypedCells, distances: Mapping[str, Distances], itself: Mapping[str, float]
    ) -> None:
        detected = float(np.median(np.diff(part.counts.indptr)))
        for name, distance in distances.items():
            row: dict[str, Any] = {"by": by, "level": level, "n_genes": detected, "measure": name}
            row["self_correlation"] = itself.get(name, np.nan)
            rows.append(row | effects.add((by, level, name), group_medians(distance, part.sizes)[0]))

    for number, chosen in enumerate(bins):
        part = cells.take(chosen)
        distances = _encode(part.counts, median, log_normalized(part.counts, part.totals), rule, rng)
        in_order = chosen[np.argsort(cells.groups[chosen], kind="stable")]
        distances |= {name: Euclidean(map_[in_order]) for name, map_ in maps.items()}
        add("detected genes", float(number + 1), part, distances, {})

    whole = cells.take(thinned_cells)
    for fraction in fractions:
        counts = whole.counts if fraction == 1 else thin_counts(whole.counts, fraction=fraction, rng=rng)[0]
        totals = np.asarray(counts.sum(1), dtype=np.float64).ravel()
        kept = totals > 0
        part = TypedCells(counts[kept], totals[kept], whole.groups[kept], None, int(kept.sum()), whole.names)
        here = medians_for(part, given)
        known = np.isfinite(here) & np.isfinite(median)
        full = TypedCells(whole.counts[kept][:, known], totals[kept], part.groups, None, part.n_compared, part.names)
        itself = _self_correlation(part, full, here, median, known, rule, rng)
        distances = _encode(part.counts, here, log_normalized(part.counts, part.totals), rule, rng)
        add("thinning", fraction, part, distances, itself)
    return pd.DataFrame(rows)


def _encode(
    counts: sparse.csr_matrix,
    median: np.ndarray,
    logs: sparse.csr_matrix,
    rule: tuple[str, str],
    rng: np.random.Generator,
) -> dict[str, Distances]:
    """Distances of the same cells by ranks, by ranks with arbitrary order, and by expression."""
    return {
        RANK: rank_distances(counts, median, *rule, rng),
        ARBITRARY: rank_distances(counts, median, "random", "ordered", rng),
        EXPRESSION: RowCorrelation(logs),
    }


def _self_correlation(
    part: TypedCells,
    full: TypedCells,
    median: np.ndarray,
    full_median: np.ndarray,
    known: np.ndarray,
    rule: tuple[str, str],
    rng: np.random.Generator,
) -> dict[str, float]:
    """Median correlation of a cell before and after thinning, on the genes that both have."""
    before, after = full.counts, part.counts[:, known]
    full_totals = np.asarray(full.counts.sum(1), dtype=np.float64).ravel()
    scaled = sparse.vstack([over_median(before, full_median[known]), over_median(after, median[known])], format="csr")
    logs = sparse.vstack(
        [log_normalized(before, np.maximum(full_totals, 1.0)), log_normalized(after, part.totals)], format="csr"
    )
    n = part.n_compared
    out = {}
    for name, distance in _encode(scaled, np.ones(scaled.shape[1]), logs, rule, rng).items():
        # each cell against itself is the diagonal of blocks of these
        values = [
            np.diag(distance.between(slice(start, min(start + 64, n)), slice(n + start, n + min(start + 64, n))))
            for start in range(0, n, 64)
        ]
        out[name] = float(1 - np.nanmedian(np.concatenate(values)))
    return out


def _with_categories(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Columns of repeated names as categories, in the order in which the names appear."""
    for column in columns:
        table[column] = pd.Categorical(table[column], categories=list(dict.fromkeys(table[column])))
    return table
