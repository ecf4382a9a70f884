"""The parts of the study of rank encodings: cells by type, their distances, and tables of what these separate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc.stats.genes._thinning import thin_counts

from ._cell_distances import (
    COLUMN_ORDER,
    CONSTANT,
    RANDOM_ORDER,
    Correlation,
    Distances,
    Euclidean,
    SharedCorrelation,
    group_medians,
    nearest,
)
from ._medians import over_median, own_medians
from ._neighbor_shares import group_means, same_batch, same_group, weighted_means
from ._row_ranks import order_rows, rank_rows
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
# what is followed over sparsity: arbitrary order beside the rule that was asked for
ARBITRARY = "rank, zeros at random"


@dataclass(frozen=True)
class Cells:
    """The cells of the study: those whose pairs are compared come first, sorted by type."""

    counts: sparse.csr_matrix
    """Cells x genes."""
    totals: np.ndarray
    """Counts of each cell over all genes that were measured."""
    groups: np.ndarray
    """Type of each cell."""
    batches: np.ndarray | None
    """Batch of each cell."""
    n_compared: int
    """The first so many cells are compared."""
    names: np.ndarray
    """Names of the types."""

    @property
    def sizes(self) -> np.ndarray:
        """Compared cells of each type."""
        return np.bincount(self.groups[: self.n_compared], minlength=len(self.names))

    def take(self, cells: np.ndarray) -> Cells:
        """Some cells, sorted by type, all of them compared."""
        cells = cells[np.argsort(self.groups[cells], kind="stable")]
        return Cells(self.counts[cells], self.totals[cells], self.groups[cells], None, len(cells), self.names)


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
        return Correlation(ranks, fill=n_ranked + 1.0, zero_rule=rule, seeds=seeds)
    shared = n_ranked + (1.0 if ties == "min" else 0.5 * (scaled.shape[1] - n_ranked + 1))
    return Correlation(ranks, fill=shared, zero_rule=CONSTANT)


def log_normalised(counts: sparse.csr_matrix, totals: np.ndarray) -> sparse.csr_matrix:
    """log(1 + counts per 10,000), float32."""
    factor = np.repeat(TARGET_SUM / totals, np.diff(counts.indptr))
    return sparse.csr_matrix(
        (np.log1p(counts.data * factor).astype(np.float32), counts.indices, counts.indptr), shape=counts.shape
    )


def medians_of(cells: Cells, given: np.ndarray | None) -> np.ndarray:
    """Median of each gene: those given, or from these cells."""
    return own_medians(cells.counts, cells.totals, TARGET_SUM) if given is None else given


class Effects:
    """Separation of types by each distance, with one bootstrap of types for all, so that distances can be compared."""

    def __init__(self, weights: np.ndarray) -> None:
        self._weights = weights
        self.found: dict[Any, Separation] = {}

    def add(self, name: Any, median: np.ndarray) -> dict[str, float]:
        """Columns of a row for medians of a distance."""
        self.found[name] = result = separation(median, self._weights)
        row: dict[str, float] = {"within": result.within, "between": result.between}
        for effect in EFFECTS:
            at = result.effects[effect]
            row |= {effect: at.value, f"{effect}_low": at.low, f"{effect}_high": at.high}
        return row

    def against(self, name: Any, reference: Any) -> dict[str, float]:
        """Columns for what a distance has more of than another, over the same bootstrap samples."""
        row: dict[str, float] = {}
        for effect in EFFECTS:
            at = interval(self.found[name].draws[effect] - self.found[reference].draws[effect])
            row |= {f"{effect}_vs_{RANK}": at.value}
            row |= {f"{effect}_vs_{RANK}_low": at.low, f"{effect}_vs_{RANK}_high": at.high}
        return row


def compare_types(
    cells: Cells, distances: Mapping[str, Distances], effects: Effects, n_outliers: int
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """All pairs of types, what each distance separates, and the strangest pairs."""
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
        for own, kind in ((False, "different types alike"), (True, "type unlike itself")):
            chosen = table[(table["within"] == own) & (table["score"] > 0)].sort_values(
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
    cells: Cells, distances: Mapping[str, Distances], n_neighbors: int, weights: np.ndarray
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What the neighbours of the compared cells share with them: one row a distance, and one a distance and type."""
    queries = np.arange(cells.n_compared)
    groups = cells.groups[queries]
    overall, by_group = [], []
    for name, distance in distances.items():
        found = nearest(distance, queries, n_neighbors)
        shares = {}
        shares["same_group"], shares["same_group_expected"] = same_group(found, queries, cells.groups)
        if cells.batches is not None:
            shares["same_batch"], shares["same_batch_expected"] = same_batch(
                found, queries, cells.batches, cells.groups
            )
        means = {column: group_means(values, groups, len(cells.names)) for column, values in shares.items()}
        by_group.append(pd.DataFrame({"measure": name, "group": cells.names, "n_cells": cells.sizes} | means))
        row: dict[str, Any] = {"measure": name}
        for column, values in means.items():
            at = interval(weighted_means(values, weights))
            row[column] = at.value
            if not column.endswith("expected"):
                row |= {f"{column}_low": at.low, f"{column}_high": at.high}
        overall.append(row)
    return pd.DataFrame(overall), _with_categories(pd.concat(by_group, ignore_index=True), ["measure", "group"])


def compare_rules(cells: Cells, given: np.ndarray | None, effects: Effects, rng: np.random.Generator) -> pd.DataFrame:
    """What types are worth under each rule for ties and zeros."""
    median = medians_of(cells, given)
    ones = np.where(np.isfinite(median), 1.0, np.nan)
    rows = []
    for name, ties, zeros, scaled in RULES:
        distance = rank_distances(cells.counts, median if scaled else ones, ties, zeros, rng)
        row: dict[str, Any] = {"rule": name, "ties": ties, "zeros": zeros, "over_medians": scaled}
        rows.append(row | effects.add(("rule", name), group_medians(distance, cells.sizes)[0]))
    return pd.DataFrame(rows)


def compare_sparsity(
    cells: Cells,
    bins: list[np.ndarray],
    maps: Mapping[str, np.ndarray],
    given: np.ndarray | None,
    rule: tuple[str, str],
    fractions: tuple[float, ...],
    thinned_cells: np.ndarray,
    effects: Effects,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """What distances separate in cells with few and with many detected genes, and when counts are thinned.

    Parameters
    ----------
    cells
        The cells of the study.
    bins
        Positions of cells in each bin of detected genes, fewest first.
    maps
        Coordinates of all cells, to compare within bins as well.
    given
        Medians of genes, where they were given.
    rule
        Rules for ties and zeros.
    fractions
        Shares of the counts to keep; none when the values are not counts.
    thinned_cells
        Positions of the cells to thin.
    effects
        Collects effect sizes.
    rng
        Draws ties and counts.
    """
    median = medians_of(cells, given)
    rows: list[dict[str, Any]] = []

    def add(by: str, level: float, part: Cells, distances: Mapping[str, Distances], own: Mapping[str, float]) -> None:
        detected = float(np.median(np.diff(part.counts.indptr)))
        for name, distance in distances.items():
            row: dict[str, Any] = {"by": by, "level": level, "n_genes": detected, "measure": name}
            row["self_correlation"] = own.get(name, np.nan)
            rows.append(row | effects.add((by, level, name), group_medians(distance, part.sizes)[0]))

    for number, chosen in enumerate(bins):
        part = cells.take(chosen)
        distances = _encodings(part, median, rule, rng)
        in_order = chosen[np.argsort(cells.groups[chosen], kind="stable")]
        distances |= {name: Euclidean(map_[in_order]) for name, map_ in maps.items()}
        add("detected genes", float(number + 1), part, distances, {})

    whole = cells.take(thinned_cells)
    for fraction in fractions:
        counts = whole.counts if fraction == 1 else thin_counts(whole.counts, fraction=fraction, rng=rng)[0]
        totals = np.asarray(counts.sum(1), dtype=np.float64).ravel()
        kept = totals > 0
        part = Cells(counts[kept], totals[kept], whole.groups[kept], None, int(kept.sum()), whole.names)
        here = medians_of(part, given)
        known = np.isfinite(here) & np.isfinite(median)
        full = Cells(whole.counts[kept][:, known], totals[kept], part.groups, None, part.n_compared, part.names)
        own = _self_correlation(part, full, here, median, known, rule, rng)
        add("thinning", fraction, part, _encodings(part, here, rule, rng), own)
    return pd.DataFrame(rows)


def _encodings(
    cells: Cells, median: np.ndarray, rule: tuple[str, str], rng: np.random.Generator
) -> dict[str, Distances]:
    return {
        RANK: rank_distances(cells.counts, median, *rule, rng),
        ARBITRARY: rank_distances(cells.counts, median, "random", "ordered", rng),
        EXPRESSION: Correlation(log_normalised(cells.counts, cells.totals)),
    }


def _self_correlation(
    part: Cells,
    full: Cells,
    median: np.ndarray,
    full_median: np.ndarray,
    known: np.ndarray,
    rule: tuple[str, str],
    rng: np.random.Generator,
) -> dict[str, float]:
    """Median correlation of a cell before and after thinning, on the genes that both have."""
    shape = (2 * part.n_compared, int(known.sum()))
    before, after = full.counts, part.counts[:, known]
    full_totals = np.asarray(full.counts.sum(1), dtype=np.float64).ravel()
    scaled = sparse.vstack([over_median(before, full_median[known]), over_median(after, median[known])], format="csr")
    ones = np.ones(shape[1])
    logs = sparse.vstack(
        [log_normalised(before, np.maximum(full_totals, 1.0)), log_normalised(after, part.totals)], format="csr"
    )
    distances: dict[str, Distances] = {
        RANK: rank_distances(scaled, ones, *rule, rng),
        ARBITRARY: rank_distances(scaled, ones, "random", "ordered", rng),
        EXPRESSION: Correlation(logs),
    }
    n = part.n_compared
    out = {}
    for name, distance in distances.items():
        # each cell against itself is the diagonal of blocks of these
        values = [
            np.diag(distance.between(slice(start, min(start + 64, n)), slice(n + start, n + min(start + 64, n))))
            for start in range(0, n, 64)
        ]
        out[name] = float(1 - np.nanmedian(np.concatenate(values)))
    return out


def _with_categories(table: pd.DataFrame, columns: list[str]) -> pd.DataFrame:
    """Names that repeat in every row as categories."""
    for column in columns:
        names = list(dict.fromkeys(table[column]))
        table[column] = pd.Categorical(table[column], categories=names)
    return table
