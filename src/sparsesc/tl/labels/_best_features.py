"""Labels of features and features of labels: chosen on one part of the cells, scored on the other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from sparsesc.door._obs_columns import Labels
from sparsesc.stats.core._ranks import RankedColumns
from sparsesc.stats.groups._association import GroupAssociation, group_association
from sparsesc.stats.groups._f1 import f1_at
from sparsesc.stats.groups._singular import singular_groups

from ._association_scope import Scope, effects_within

# Columns of the feature table that are written here, and replaced by each call.
COLUMNS = (
    "label",
    "label_r",
    "label_auroc",
    "label_f1",
    "label_r_heldout",
    "label_auroc_heldout",
    "label_f1_heldout",
    "singular",
    "singular_label",
    "singular_r",
)


@dataclass(frozen=True)
class HeldOut:
    """One column of labels on both parts of the cells."""

    train: GroupAssociation
    test: GroupAssociation
    ranked: RankedColumns
    """Codes of the held-out cells, and their groups."""
    groups: np.ndarray
    eligible: np.ndarray
    """Categories with enough cells, and cells on both sides."""

    @classmethod
    def score(cls, labels: Labels, held: np.ndarray, scope: Scope, *, min_cells: int) -> HeldOut:
        """Associations on both parts; `held` marks the cells to score on."""
        masks = labels.known & ~held, labels.known & held
        ranked = [scope.ranked(mask) for mask in masks]
        inside, outside = (
            effects_within(
                group_association(part, labels.codes[mask], len(labels.categories)), scope.within(mask, labels)
            )
            for mask, part in zip(masks, ranked, strict=True)
        )
        eligible = labels.sizes >= min_cells
        for part in (inside, outside):
            eligible &= (part.n > 0) & (part.n < part.n.sum()) & ~np.isnan(part.auroc).any(axis=0)
        return cls(inside, outside, ranked[1], labels.codes[masks[1]], eligible)

    def f1(self, features: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """F1 on the held-out cells, at the threshold that was best on the others."""
        thresholds = self.train.threshold[features, wanted]
        n_groups = len(self.eligible)
        return f1_at(
            self.ranked, self.groups, features=features, wanted=wanted, thresholds=thresholds, n_groups=n_groups
        )


def best_labels(
    columns: list[Labels], whole: list[GroupAssociation], parts: list[HeldOut], index: pd.Index
) -> pd.DataFrame:
    """The category that each feature marks best, by Pearson r in the choosing cells; empty where r is not positive."""
    r = np.concatenate([np.where(part.eligible, part.train.pearson_r, -np.inf) for part in parts], axis=1)
    best = r.argmax(axis=1)
    named = r[np.arange(len(r)), best] > 0
    label = np.where(named, np.array(category_titles(columns), dtype=object)[best], "")
    out = pd.DataFrame({"label": label}, index=index, dtype=str)
    scores = {name: np.full(len(r), np.nan) for name in COLUMNS[1:7]}
    start = 0
    for column, stats, part in zip(columns, whole, parts, strict=True):
        stop = start + len(column.categories)
        features = np.flatnonzero(named & (best >= start) & (best < stop))
        wanted = best[features] - start
        scores["label_r"][features] = stats.pearson_r[features, wanted]
        scores["label_auroc"][features] = stats.auroc[features, wanted]
        scores["label_f1"][features] = stats.f1[features, wanted]
        scores["label_r_heldout"][features] = part.test.pearson_r[features, wanted]
        scores["label_auroc_heldout"][features] = part.test.auroc[features, wanted]
        scores["label_f1_heldout"][features] = part.f1(features, wanted)
        start = stop
    return out.assign(**scores)


def mark_singular(
    columns: list[Labels], whole: list[GroupAssociation], threshold: float, index: pd.Index
) -> pd.DataFrame:
    """Features with ``|r| > threshold`` for exactly one category of all columns."""
    r = [stats.pearson_r for stats in whole]
    which = singular_groups(r, threshold)
    singular = which >= 0
    names = np.array(category_titles(columns), dtype=object)
    return pd.DataFrame(
        {
            "singular": singular,
            "singular_label": pd.Series(np.where(singular, names[which], ""), index=index, dtype=str),
            "singular_r": np.where(singular, np.concatenate(r, axis=1)[np.arange(len(which)), which], np.nan),
        },
        index=index,
    )


def best_features(
    columns: list[Labels],
    whole: list[GroupAssociation],
    padj: list[np.ndarray],
    parts: list[HeldOut],
    features: pd.Index,
) -> pd.DataFrame:
    """The best feature of each category with enough cells, by AUROC in the choosing cells."""
    tables = []
    for column, stats, adjusted, part in zip(columns, whole, padj, parts, strict=True):
        wanted = np.flatnonzero(part.eligible)
        best = part.train.auroc[:, wanted].argmax(axis=0)
        data = {
            "key": np.full(len(wanted), column.name, dtype=object),
            "category": np.array(column.categories, dtype=object)[wanted],
            "feature": features.astype(str).to_numpy(dtype=object)[best],
            "n_cells": column.sizes[wanted],
            "auroc_heldout": part.test.auroc[best, wanted],
            "f1_heldout": part.f1(best, wanted),
            "pearson_r_heldout": part.test.pearson_r[best, wanted],
            "auroc": stats.auroc[best, wanted],
            "f1": stats.f1[best, wanted],
            "pearson_r": stats.pearson_r[best, wanted],
            "padj": adjusted[best, wanted],
        }
        tables.append(pd.DataFrame(data))
    return pd.concat(tables, ignore_index=True).astype({"key": str, "category": str, "feature": str})


def category_titles(columns: list[Labels]) -> list[str]:
    """All categories in order; with the name of their column where there are several."""
    if len(columns) == 1:
        return columns[0].categories
    return [f"{column.name}: {category}" for column in columns for category in column.categories]
