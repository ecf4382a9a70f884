"""How well does one representation capture groups of cells? All scores, ready to be repeated with shuffled groups."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy import sparse

from sparsesc.stats.core._ranks import RankedColumns, rank_columns
from sparsesc.stats.core._shuffle import shuffled_within

from ._association import auroc, pearson_one_hot
from ._disentanglement import BinnedColumns, bin_columns, lms, msas, msgs, smi, spn
from ._probing import sparse_probe
from ._rules import best_rules
from ._singular import singular_groups

PROBES = (1, 2, 5)
_CLEAR = 0.9
_AGGREGATES = {"lms": lms, "msas": msas, "msgs": msgs}
METRICS = (
    "singular",
    "singular_share",
    "singular_labels",
    "auroc",
    "coverage",
    "f1",
    *(f"probe_{size}" for size in PROBES),
    *(f"{name}_{score}{kind}" for kind in ("", "_distinct") for score in ("smi", "spn") for name in _AGGREGATES),
)


class _Half:
    """Some of the cells, sorted and binned once."""

    def __init__(self, codes: sparse.csr_matrix) -> None:
        self.codes = codes

    @cached_property
    def ranked(self) -> RankedColumns:
        return rank_columns(self.codes)

    @cached_property
    def binned(self) -> BinnedColumns:
        return bin_columns(self.ranked)

    @cached_property
    def csc(self) -> sparse.csc_matrix:
        return sparse.csc_matrix(self.codes, dtype=np.float64)


class RepresentationScores:
    """Scores of features for groups: features are chosen on the training cells and scored on the others.

    Parameters
    ----------
    codes
        Cells x features, sparse, with values of any sign.
    train
        Boolean, one a cell: the cells that choose.
    distinct
        Boolean, one a feature: those that stay when copies are removed.
    threshold
        Absolute Pearson r above which a feature is strongly correlated with a group.
    """

    def __init__(
        self, codes: sparse.spmatrix, train: np.ndarray, distinct: np.ndarray, *, threshold: float = 0.5
    ) -> None:
        codes = sparse.csr_matrix(codes)
        self.train = np.asarray(train, dtype=bool)
        self.distinct = np.asarray(distinct, dtype=bool)
        self._codes = codes
        self._threshold = threshold
        self._halves = _Half(codes[self.train]), _Half(codes[~self.train])

    def scores(self, groups: np.ndarray, judged: np.ndarray) -> dict[str, float]:
        """One value for each of `METRICS`.

        Parameters
        ----------
        groups
            Group of each cell, ``0 ... len(judged) - 1``.
        judged
            Boolean, one a group: those that count. Each needs two members and an outsider in either half. Cells of the
            others are outsiders of all.
        """
        n_groups = len(judged)
        parts = groups[self.train], groups[~self.train]
        r = pearson_one_hot(self._codes, groups, n_groups)[:, judged]
        singular = singular_groups([r], self._threshold)
        n_singular = float((singular >= 0).sum())
        areas = self._auroc(parts, judged)
        calls = best_rules(self._halves[0].ranked, parts[0], n_groups)
        members = [part[:, None] == np.flatnonzero(judged) for part in parts]
        probes = sparse_probe(self._halves[0].csc, members[0], self._halves[1].csc, members[1], sizes=PROBES)
        out = {
            "singular": n_singular,
            "singular_share": n_singular / len(singular),
            "singular_labels": float(len(np.unique(singular[singular >= 0]))),
            "auroc": float(areas.mean()),
            "coverage": float((areas >= _CLEAR).mean()),
            "f1": float(calls.apply(self._halves[1].csc, parts[1])[judged].mean()),
        }
        out |= {f"probe_{size}": float(row.mean()) for size, row in zip(PROBES, probes, strict=True)}
        tables = {
            "smi": [smi(h.binned, g, n_groups)[:, judged] for h, g in zip(self._halves, parts, strict=True)],
            "spn": [spn(h.ranked, g, n_groups)[:, judged] for h, g in zip(self._halves, parts, strict=True)],
        }
        for kind, kept in (("", slice(None)), ("_distinct", self.distinct)):
            for score, (inside, outside) in tables.items():
                for name, aggregate in _AGGREGATES.items():
                    out[f"{name}_{score}{kind}"] = aggregate(outside[kept], train=inside[kept])
        return {name: out[name] for name in METRICS}

    def _auroc(self, parts: tuple[np.ndarray, np.ndarray], judged: np.ndarray) -> np.ndarray:
        """Held-out AUROC of the feature, and direction, that is best for each judged group on the training cells."""
        inside, outside = (
            auroc(half.ranked, part, len(judged))[:, judged] - 0.5
            for half, part in zip(self._halves, parts, strict=True)
        )
        columns = np.arange(inside.shape[1])
        best = np.abs(inside).argmax(axis=0)
        return 0.5 + np.where(inside[best, columns] < 0, -1.0, 1.0) * outside[best, columns]


def shuffled(groups: np.ndarray, train: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Shuffle groups among the training cells, and among the others: their sizes stay the same in both."""
    return shuffled_within(groups, (np.flatnonzero(train), np.flatnonzero(~train)), rng)
