"""The parts of the study of rank encodings: cells by type, distances between them, and tables of their separation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
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
from ._order import order_rows, rank_of_zeros, rank_rows, with_data
from ._separation import Separation, interval, outlier_scores, separation

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
    given: np.ndarray | None
    """Medians of genes, if the user gave them."""

    @property
    def medians(self) -> np.ndarray:
        """Median of each gene: as given, or from these cells."""
        return gene_medians(self.counts, self.totals, TARGET_SUM) if self.given is None else self.given

    @property
    def sizes(self) -> np.ndarray:
        """Compared cells of each type."""
        return np.bincount(self.groups[: self.n_compared], minlength=len(self.names))

    def take(self, cells: np.ndarray, n_compared: int | None = None) -> TypedCells:
        """Cells at these positions, the first `n_compared` of them (``None``: all) compared."""
        n = len(cells) if n_compared is None else n_compared
        batches = None if self.batches is None else self.batches[cells]
        return TypedCells(
            self.counts[cells], self.totals[cells], self.groups[cells], batches, n, self.names, self.given
        )


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
    ranks = with_data(scaled, rank_rows(scaled, order, ties=ties))
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
    return with_data(counts, np.log1p(counts.data * factor).astype(np.float32))


def compare_types(
    cells: TypedCells, distances: Mapping[str, Distances], weights: np.ndarray, n_outliers: int
) -> dict[str, pd.DataFrame]:
    """How well each distance separates types, all pairs of types, and the most unusual pairs.

    All distances share one bootstrap of types, so that they can be compared with the first one, that of ranks.
    """
    a, b = np.triu_indices(len(cells.names))
    pairs, summary, outliers = [], [], []
    separations: dict[str, Separation] = {}
    for name, distance in distances.items():
        median, n_pairs = group_medians(distance, cells.sizes)
        alike, loose = outlier_scores(median)
        table = pd.DataFrame(
            {
                "measure": name,
                "group_a": cells.names[a],
                "group_b": cells.names[b],
                "within": a == b,
                "distance": median[a, b],
                "n_pairs": n_pairs[a, b],
                "score": np.where(a == b, loose[a], alike[a, b]),
            }
        )
        pairs.append(table)
        separations[name] = result = separation(median, weights)
        row: dict[str, Any] = {"measure": name, "n_within": int((a == b).sum()), "n_between": int((a != b).sum())}
        summary.append(row | result.columns() | result.against(separations[RANK], RANK))
        table = table.assign(within_a=median[a, a], within_b=median[b, b])
        for within, kind in ((False, "different types alike"), (True, "type unlike itself")):
            unusual = table[(table["within"] == within) & (table["score"] > 0)]
            unusual = unusual.sort_values("score", ascending=False, kind="stable")[:n_outliers]
            outliers.append(unusual.assign(kind=kind))
    columns = ["measure", "kind", "group_a", "group_b", "distance", "within_a", "within_b", "score"]
    return {
        "summary": pd.DataFrame(summary),
        "pairs": _with_categories(pairs, ["measure", "group_a", "group_b"]),
        "outliers": pd.concat(outliers, ignore_index=True)[columns],
    }


def compare_neighbors(
    cells: TypedCells, distances: Mapping[str, Distances], n_neighbors: int, weights: np.ndarray
) -> dict[str, pd.DataFrame]:
    """Shares of neighbors of the same type and batch: one row per distance, and one per distance and type."""
    queries = np.arange(cells.n_compared)
    groups = cells.groups[queries]
    overall, by_group = [], []
    for name, distance in distances.items():
        neighbors = nearest(distance, queries, n_neighbors)
        shares = {"same_group": same_group(neighbors, queries, cells.groups)}
        if cells.batches is not None:
            shares["same_batch"] = same_batch(neighbors, queries, cells.batches, cells.groups)
        means = {
            column: group_means(values, groups, len(cells.names))
            for share, pair in shares.items()
            for column, values in zip((share, f"{share}_expected"), pair, strict=True)
        }
        by_group.append(pd.DataFrame({"measure": name, "group": cells.names, "n_cells": cells.sizes} | means))
        row: dict[str, Any] = {"measure": name}
        for column, values in means.items():
            mean = interval(weighted_means(values, weights))
            row |= {column: mean.value} if column.endswith("expected") else mean.columns(column)
        overall.append(row)
    return {"neighbors": pd.DataFrame(overall), "neighbor_groups": _with_categories(by_group, ["measure", "group"])}


def compare_rules(cells: TypedCells, weights: np.ndarray, rng: np.random.Generator) -> pd.DataFrame:
    """How well types are separated under each rule for ties and zeros."""
    median = cells.medians
    ones = np.where(np.isfinite(median), 1.0, np.nan)
    rows = []
    for name, ties, zeros, scaled in RULES:
        distance = rank_distances(cells.counts, median if scaled else ones, ties, zeros, rng)
        row: dict[str, Any] = {"rule": name, "ties": ties, "zeros": zeros, "over_medians": scaled}
        rows.append(row | separation(group_medians(distance, cells.sizes)[0], weights).columns())
    return pd.DataFrame(rows)


@dataclass(frozen=True)
class SparsityStudy:
    """How well types are separated in cells with few and with many detected genes, and when counts are thinned."""

    rule: tuple[str, str]
    """Rules for ties and zeros."""
    weights: np.ndarray
    """From :func:`~sparsesc.studies.ranks._separation.group_weights`."""
    rng: np.random.Generator
    """Draws ties and counts."""

    def of_bins(
        self, cells: TypedCells, bins: list[np.ndarray], maps: Mapping[str, np.ndarray]
    ) -> Iterator[dict[str, Any]]:
        """Rows for bins of cells (positions, those with the fewest genes first), also by coordinates of all cells."""
        for level, chosen in enumerate(bins, start=1):
            chosen = chosen[np.argsort(cells.groups[chosen], kind="stable")]
            part = cells.take(chosen)
            distances = self._distances(part.counts, cells.medians, log_normalized(part.counts, part.totals))
            distances |= {name: Euclidean(map_[chosen]) for name, map_ in maps.items()}
            yield from self._rows("detected genes", float(level), part, distances, {})

    def of_thinned(
        self, whole: TypedCells, median: np.ndarray, fractions: tuple[float, ...]
    ) -> Iterator[dict[str, Any]]:
        """Rows for shares of the counts to keep; `median`, of each gene, is that before thinning."""
        for fraction in fractions:
            counts = whole.counts if fraction == 1 else thin_counts(whole.counts, fraction=fraction, rng=self.rng)[0]
            totals = _totals(counts)
            kept = totals > 0
            part = replace(whole.take(np.flatnonzero(kept)), counts=counts[kept], totals=totals[kept])
            # a cell before and after thinning, on the genes that have a median in both
            here = part.medians
            known = np.isfinite(here) & np.isfinite(median)
            before, after = whole.counts[kept][:, known], part.counts[:, known]
            scaled = [over_median(before, median[known]), over_median(after, here[known])]
            logs = [log_normalized(before, np.maximum(_totals(before), 1.0)), log_normalized(after, part.totals)]
            pairs = self._distances(
                sparse.vstack(scaled, format="csr"), np.ones(known.sum()), sparse.vstack(logs, format="csr")
            )
            itself = {name: _self_correlation(distance, part.n_compared) for name, distance in pairs.items()}
            distances = self._distances(part.counts, here, log_normalized(part.counts, part.totals))
            yield from self._rows("thinning", fraction, part, distances, itself)

    def _distances(
        self, counts: sparse.csr_matrix, median: np.ndarray, logs: sparse.csr_matrix
    ) -> dict[str, Distances]:
        """Distances of the same cells by ranks, by ranks with arbitrary order, and by expression."""
        return {
            RANK: rank_distances(counts, median, *self.rule, self.rng),
            ARBITRARY: rank_distances(counts, median, "random", "ordered", self.rng),
            EXPRESSION: RowCorrelation(logs),
        }

    def _rows(
        self, by: str, level: float, part: TypedCells, distances: dict[str, Distances], itself: dict[str, float]
    ) -> Iterator[dict[str, Any]]:
        detected = float(np.median(np.diff(part.counts.indptr)))
        for name, distance in distances.items():
            row: dict[str, Any] = {"by": by, "level": level, "n_genes": detected, "measure": name}
            row["self_correlation"] = itself.get(name, np.nan)
            yield row | separation(group_medians(distance, part.sizes)[0], self.weights).columns()


def _totals(counts: sparse.csr_matrix) -> np.ndarray:
    return np.asarray(counts.sum(1), dtype=np.float64).ravel()


def _self_correlation(distance: Distances, n: int) -> float:
    """Median correlation of each of the first `n` rows with the one `n` rows below."""
    # the diagonal of blocks of these
    values = [
        np.diag(distance.between(slice(start, min(start + 64, n)), slice(n + start, n + min(start + 64, n))))
        for start in range(0, n, 64)
    ]
    return float(1 - np.nanmedian(np.concatenate(values)))


def _with_categories(parts: list[pd.DataFrame], columns: list[str]) -> pd.DataFrame:
    """One table, with columns of repeated names as categories, in the order in which the names appear."""
    table = pd.concat(parts, ignore_index=True)
    for column in columns:
        table[column] = pd.Categorical(table[column], categories=list(dict.fromkeys(table[column])))
    return table
