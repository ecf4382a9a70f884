"""Which features to suppress, what to compare the result with, and how well labels transfer between batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc.door._obs_columns import Labels
from sparsesc.stats.core._holdout import stratified_holdout
from sparsesc.stats.groups._information import InformationTest, information_test
from sparsesc.stats.groups._transfer import known_elsewhere, transfer_labels, transfer_scores

BEFORE, AFTER = "before", "after"
RANDOM, MATCHED, MEANS = "random_features", "matched_features", "batch_means"
_BLOCK_VALUES = 4_000_000
_EACH = 20  # up to here, every number of features is tried
_ALIKE = 5  # features among which a match is drawn


@dataclass(frozen=True)
class JudgedEmbedding:
    """An embedding to judge, and what was done to it."""

    state: str
    draw: int
    X: np.ndarray


@dataclass(frozen=True)
class BatchSplit:
    """Cells whose batch and biology are known: some choose the features, the others judge the result."""

    rows: np.ndarray
    """Positions among all cells."""
    batches: np.ndarray
    """Code of the batch of each."""
    names: list[str]
    """Of the batches, by code."""
    strata: np.ndarray
    """Code of the combination of labels of each; all 0 without labels."""
    held: np.ndarray
    """Cells that judge; the others choose."""

    @classmethod
    def read(cls, batch: Labels, bio: Sequence[Labels], holdout: float, rng: np.random.Generator) -> BatchSplit:
        """From columns of ``obs``; the share `holdout` of each batch of each combination of labels judges."""
        rows = np.flatnonzero(np.logical_and.reduce([column.known for column in (batch, *bio)]))
        strata = np.zeros(len(rows), np.int64)
        if bio:
            strata = np.unique(np.stack([c.codes[rows] for c in bio], axis=1), axis=0, return_inverse=True)[1].ravel()
        present, batches = np.unique(batch.codes[rows], return_inverse=True)
        held = stratified_holdout([strata * len(present) + batches], holdout, rng)
        return cls(rows, batches, [batch.categories[code] for code in present], strata, held)

    @property
    def overlap(self) -> float:
        """Share of the choosing cells whose combination of labels several batches have."""
        return float(known_elsewhere(self.strata, self.batches)[~self.held].mean())


def rank_features(
    codes: sparse.csr_matrix,
    split: BatchSplit,
    *,
    labeled: bool,
    bio_margin: float,
    alpha: float,
    n_levels: int,
    min_cells: int,
    n_permutations: int,
    rng: np.random.Generator,
) -> tuple[pd.DataFrame, np.ndarray]:
    """What each feature knows of batch and of biology, one row each; and positions of those that may go, in order."""
    known = codes[split.rows]
    chooses, judges = known[~split.held], known[split.held]
    options: dict[str, Any] = {
        "n_levels": n_levels,
        "n_permutations": n_permutations,
        "min_active": min_cells,
        "rng": rng,
    }
    (batches, strata), held = ((split.batches[rows], split.strata[rows]) for rows in (~split.held, split.held))
    batch = information_test(chooses, batches, strata=strata, **options)
    again = information_test(judges, held[0], strata=held[1], **options)
    share = _share(batch)
    biology, bio_share = np.full((2, codes.shape[1]), np.nan)
    spared = np.zeros(codes.shape[1], bool)
    if labeled:
        label = information_test(chooses, strata, strata=batches, **options)
        biology, bio_share = label.information, _share(label)
        spared = bio_share * bio_margin >= share
    depends = (batch.padj < alpha) & (batch.information > 0)
    table = pd.DataFrame(
        {
            "information": batch.information,
            "share": share,
            "pval": batch.pval,
            "padj": batch.padj,
            "information_heldout": again.information,
            "pval_heldout": again.pval,
            "bio_information": biology,
            "bio_share": bio_share,
            "spared": depends & spared,
        }
    )
    order = np.argsort(-batch.information, kind="stable")
    return table, order[(depends & ~spared)[order]]


def _share(test: InformationTest) -> np.ndarray:
    """Information as a share of the entropy; 0 where there is none."""
    return test.information / test.entropy if test.entropy > 0 else np.zeros(len(test.information))


def weaken(
    codes: sparse.csr_matrix, X: np.ndarray, W: np.ndarray, features: np.ndarray, *, factor: float
) -> np.ndarray:
    """The embedding with some features at `factor` times their activation."""
    out = X.copy()
    if len(features):
        for rows in np.array_split(np.arange(len(X)), 1 + len(X) * len(features) // _BLOCK_VALUES):
            before = codes[rows][:, features].toarray().astype(np.float64)
            out[rows] += ((before * factor - before) @ W[features]).astype(np.float32)
    return out


def helpful_number(
    codes: sparse.csr_matrix,
    X: np.ndarray,
    W: np.ndarray,
    order: np.ndarray,
    split: BatchSplit,
    labels: Sequence[Labels],
    *,
    factor: float,
    n_neighbors: int,
    n_scored: int,
    rng: np.random.Generator,
) -> int:
    """How many of the first features in `order` to suppress for the best label transfer of choosing cells; may be 0."""
    pool = draw_rows(np.flatnonzero(~split.held), n_scored, rng)
    codes, X = codes[split.rows], X[split.rows]
    scores = {}
    for n in _numbers(len(order)):
        after = JudgedEmbedding(AFTER, 0, weaken(codes, X, W, order[:n], factor=factor))
        everyone = np.ones(len(pool), bool)
        rows = list(transfer_rows(after, labels, split, pool, everyone, start=X, n_neighbors=n_neighbors))
        if not rows:  # here, no two batches share a label
            return len(order)
        scores[n] = np.mean([[row["accuracy"], row["macro_f1"]] for row in rows])
    return max(scores, key=lambda n: (scores[n], -n))


def _numbers(most: int) -> np.ndarray:
    """Numbers of features to try: every small one, then wider and wider steps."""
    return np.unique(np.append(np.arange(min(most, _EACH) + 1), np.geomspace(1, max(most, 1), _EACH).astype(int)))


def draw_rows(rows: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """At most this many of the rows, in order."""
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))


def compared_states(
    codes: sparse.csr_matrix,
    X: np.ndarray,
    W: np.ndarray,
    features: np.ndarray,
    split: BatchSplit,
    *,
    alive: np.ndarray,
    factor: float,
    n_controls: int,
    rng: np.random.Generator,
) -> Iterator[JudgedEmbedding]:
    """The embedding of the known cells as it was, without the features, and after each control.

    Controls are the same number of other features, drawn at random or among those whose activations have a similar sum
    of squares; and batches shifted by their mean difference from the others, within combinations of labels, estimated
    from the choosing cells.
    """
    codes, X = codes[split.rows], X[split.rows]
    yield JudgedEmbedding(BEFORE, 0, X)
    yield JudgedEmbedding(AFTER, 0, weaken(codes, X, W, features, factor=factor))
    others = np.setdiff1d(alive, features)
    if len(features) and len(others) >= len(features):
        energy = np.asarray(codes.multiply(codes).sum(axis=0), dtype=np.float64).ravel()
        for draw in range(n_controls):
            taken = rng.choice(others, len(features), replace=False)
            yield JudgedEmbedding(RANDOM, draw, weaken(codes, X, W, taken, factor=factor))
            taken = _matched(features, others, energy, rng)
            yield JudgedEmbedding(MATCHED, draw, weaken(codes, X, W, taken, factor=factor))
    yield JudgedEmbedding(MEANS, 0, X - _offsets(X, split)[split.batches])


def _matched(features: np.ndarray, others: np.ndarray, energy: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each feature another one, drawn among those nearest to it in energy."""
    size = np.log(np.maximum(energy, np.finfo(np.float64).tiny))
    left, taken = others, []
    for feature in features[np.argsort(-energy[features], kind="stable")]:
        near = left[np.argsort(np.abs(size[left] - size[feature]), kind="stable")[:_ALIKE]]
        taken.append(rng.choice(near))
        left = left[left != taken[-1]]
    return np.array(taken)


def _offsets(X: np.ndarray, split: BatchSplit) -> np.ndarray:
    """Mean difference of each batch from its strata, batches x dimensions, from strata that several batches have."""
    rows = np.flatnonzero(~split.held)
    shape = (int(split.strata.max()) + 1, len(split.names))
    place = split.strata[rows] * shape[1] + split.batches[rows]
    one_hot = sparse.csr_matrix((np.ones(len(rows)), (place, rows)), shape=(shape[0] * shape[1], len(X)))
    n = np.bincount(place, minlength=shape[0] * shape[1]).reshape(*shape, 1)
    n *= (n > 0).sum(axis=1, keepdims=True) > 1
    mean = (one_hot @ X.astype(np.float64)).reshape(*shape, -1) / np.maximum(n, 1)
    center = (mean * (n > 0)).sum(axis=1, keepdims=True) / np.maximum((n > 0).sum(axis=1, keepdims=True), 1)
    return ((n * (mean - center)).sum(axis=0) / np.maximum(n.sum(axis=0), 1)).astype(np.float32)


def transfer_rows(
    judged: JudgedEmbedding,
    labels: Sequence[Labels],
    split: BatchSplit,
    pool: np.ndarray,
    queries: np.ndarray,
    *,
    start: np.ndarray,
    n_neighbors: int,
) -> Iterator[dict[str, object]]:
    """Scores of the label transfer to each batch from all others.

    Parameters
    ----------
    pool
        Positions of the cells that take part, among the known ones.
    queries
        Boolean, one per cell of the pool: the cells to score.
    start
        Embedding before, for the length of the moves.
    """
    X, batches = judged.X[pool], split.batches[pool]
    norm = np.linalg.norm(X - start[pool], axis=1)
    for column in labels:
        codes = column.codes[split.rows[pool]]
        scored = queries & known_elsewhere(codes, batches)
        predicted = transfer_labels(X, codes, batches, scored, n_neighbors=n_neighbors)
        for batch in np.unique(batches[scored]):
            inside = scored & (batches == batch)
            accuracy, f1 = transfer_scores(predicted[inside], codes[inside])
            yield {
                "label_key": column.name,
                "batch": split.names[batch],
                "state": judged.state,
                "draw": judged.draw,
                "n_cells": int(inside.sum()),
                "accuracy": accuracy,
                "macro_f1": f1,
                "norm": float(norm[inside].mean()),
            }
