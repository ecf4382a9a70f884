"""Which features to suppress, what that is compared with, and how well labels are handed over between batches."""

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

from ._moves import move, plan

BEFORE, AFTER = "before", "after"
RANDOM, MATCHED, MEANS = "random_features", "matched_features", "batch_means"
_BLOCK_VALUES = 4_000_000
_EACH = 20  # numbers of features that are all tried
_ALIKE = 5  # features among which a match is drawn


@dataclass(frozen=True)
class State:
    """An embedding to judge."""

    name: str
    draw: int
    X: np.ndarray


@dataclass(frozen=True)
class Cells:
    """Cells whose batch and biology are known, and which of them judge."""

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
    def read(cls, batch: Labels, bio: Sequence[Labels], holdout: float, rng: np.random.Generator) -> Cells:
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
    cells: Cells,
    *,
    labelled: bool,
    bio_margin: float,
    alpha: float,
    n_levels: int,
    min_cells: int,
    n_permutations: int,
    rng: np.random.Generator,
) -> tuple[pd.DataFrame, np.ndarray]:
    """What each feature knows of batch and of biology, one row a feature; and positions of those that may go."""
    known = codes[cells.rows]
    chooses, judges = known[~cells.held], known[cells.held]
    options: dict[str, Any] = {"n_levels": n_levels, "n_permutations": n_permutations}
    options |= {"min_active": min_cells, "rng": rng}
    of = {part: (cells.batches[rows], cells.strata[rows]) for part, rows in ((0, ~cells.held), (1, cells.held))}
    batch = information_test(chooses, of[0][0], strata=of[0][1], **options)
    again = information_test(judges, of[1][0], strata=of[1][1], **options)
    share = _share(batch)
    biology, bio_share = np.full((2, codes.shape[1]), np.nan)
    spared = np.zeros(codes.shape[1], bool)
    if labelled:
        about = information_test(chooses, of[0][1], strata=of[0][0], **options)
        biology, bio_share = about.information, _share(about)
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
    """Of the entropy that there is; 0 where there is none."""
    return test.information / test.entropy if test.entropy > 0 else np.zeros(len(test.information))


def suppress(
    codes: sparse.csr_matrix, X: np.ndarray, W: np.ndarray, features: np.ndarray, *, factor: float
) -> np.ndarray:
    """The embedding with some features at `factor` times their activation."""
    out = X.copy()
    if not len(features):
        return out
    for rows in np.array_split(np.arange(len(X)), 1 + len(X) * len(features) // _BLOCK_VALUES):
        values = np.full(len(features), factor)
        changes = plan(
            codes,
            X,
            W,
            rows=rows,
            features=features,
            values=values,
            n_steered=len(features),
            mode="scale",
            groups=None,
            reference=np.ones(len(X), bool),
        )
        move(out, changes, W)
    return out


def helpful_number(
    codes: sparse.csr_matrix,
    X: np.ndarray,
    W: np.ndarray,
    order: np.ndarray,
    cells: Cells,
    labels: Sequence[Labels],
    *,
    factor: float,
    n_neighbors: int,
    n_scored: int,
    rng: np.random.Generator,
) -> int:
    """How many of the first features in `order` to suppress so that choosing cells hand labels over best; may be 0."""
    pool = draw_rows(np.flatnonzero(~cells.held), n_scored, rng)
    codes, X = codes[cells.rows], X[cells.rows]
    scores = {}
    for n in _numbers(len(order)):
        state = State(AFTER, 0, suppress(codes, X, W, order[:n], factor=factor))
        all_ask = np.ones(len(pool), bool)
        rows = list(transfer_rows(state, labels, cells, pool, all_ask, start=X, n_neighbors=n_neighbors))
        if not rows:  # all labels of a batch happen to be its own here
            return len(order)
        scores[n] = np.mean([[row["accuracy"], row["macro_f1"]] for row in rows])
    return max(scores, key=lambda n: (scores[n], -n))


def _numbers(most: int) -> np.ndarray:
    """Numbers of features to try: each of the first, then fewer and fewer."""
    return np.unique(np.append(np.arange(min(most, _EACH) + 1), np.geomspace(1, max(most, 1), _EACH).astype(int)))


def draw_rows(rows: np.ndarray, most: int, rng: np.random.Generator) -> np.ndarray:
    """At most so many of the rows, in order."""
    return rows if len(rows) <= most else np.sort(rng.choice(rows, most, replace=False))


def compared_states(
    codes: sparse.csr_matrix,
    X: np.ndarray,
    W: np.ndarray,
    features: np.ndarray,
    cells: Cells,
    *,
    alive: np.ndarray,
    factor: float,
    n_controls: int,
    rng: np.random.Generator,
) -> Iterator[State]:
    """The embedding of the known cells as it was, without the features, and after what that is compared with.

    Controls are as many other features, drawn at random or among those whose activations have a similar sum of squares,
    and batches shifted by their mean difference from the others, within combinations of labels, as the choosing cells
    have it.
    """
    codes, X = codes[cells.rows], X[cells.rows]
    yield State(BEFORE, 0, X)
    yield State(AFTER, 0, suppress(codes, X, W, features, factor=factor))
    others = np.setdiff1d(alive, features)
    if len(features) and len(others) >= len(features):
        energy = np.asarray(codes.multiply(codes).sum(axis=0), dtype=np.float64).ravel()
        for draw in range(n_controls):
            taken = rng.choice(others, len(features), replace=False)
            yield State(RANDOM, draw, suppress(codes, X, W, taken, factor=factor))
            taken = _matched(features, others, energy, rng)
            yield State(MATCHED, draw, suppress(codes, X, W, taken, factor=factor))
    yield State(MEANS, 0, X - _offsets(X, cells)[cells.batches])


def _matched(features: np.ndarray, others: np.ndarray, energy: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each feature another one, drawn among those nearest to it in energy."""
    size = np.log(np.maximum(energy, np.finfo(np.float64).tiny))
    left, taken = others, []
    for feature in features[np.argsort(-energy[features], kind="stable")]:
        near = left[np.argsort(np.abs(size[left] - size[feature]), kind="stable")[:_ALIKE]]
        taken.append(rng.choice(near))
        left = left[left != taken[-1]]
    return np.array(taken)


def _offsets(X: np.ndarray, cells: Cells) -> np.ndarray:
    """Mean difference of each batch from its strata, batches x dimensions, from strata that several batches have."""
    rows = np.flatnonzero(~cells.held)
    shape = (int(cells.strata.max()) + 1, len(cells.names))
    place = cells.strata[rows] * shape[1] + cells.batches[rows]
    one_hot = sparse.csr_matrix((np.ones(len(rows)), (place, rows)), shape=(shape[0] * shape[1], len(X)))
    n = np.bincount(place, minlength=shape[0] * shape[1]).reshape(*shape, 1)
    n *= (n > 0).sum(axis=1, keepdims=True) > 1
    mean = (one_hot @ X.astype(np.float64)).reshape(*shape, -1) / np.maximum(n, 1)
    middle = (mean * (n > 0)).sum(axis=1, keepdims=True) / np.maximum((n > 0).sum(axis=1, keepdims=True), 1)
    return ((n * (mean - middle)).sum(axis=0) / np.maximum(n.sum(axis=0), 1)).astype(np.float32)


def transfer_rows(
    state: State,
    labels: Sequence[Labels],
    cells: Cells,
    pool: np.ndarray,
    queries: np.ndarray,
    *,
    start: np.ndarray,
    n_neighbors: int,
) -> Iterator[dict[str, object]]:
    """Scores of labels handed to each batch by all others.

    Parameters
    ----------
    pool
        Known cells that take part, as positions among these.
    queries
        Boolean, one for each of the pool.
    start
        Embedding before, for the length of moves.
    """
    X, batches = state.X[pool], cells.batches[pool]
    norm = np.linalg.norm(X - start[pool], axis=1)
    for column in labels:
        codes = column.codes[cells.rows[pool]]
        judged = queries & known_elsewhere(codes, batches)
        predicted = transfer_labels(X, codes, batches, judged, n_neighbors=n_neighbors)
        for batch in np.unique(batches[judged]):
            mine = judged & (batches == batch)
            accuracy, f1 = transfer_scores(predicted[mine], codes[mine])
            yield {
                "label_key": column.name,
                "batch": cells.names[batch],
                "state": state.name,
                "draw": state.draw,
                "n_cells": int(mine.sum()),
                "accuracy": accuracy,
                "macro_f1": f1,
                "norm": float(norm[mine].mean()),
            }
