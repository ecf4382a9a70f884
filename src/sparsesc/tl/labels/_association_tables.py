"""Results of `feature_association` as tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from sparsesc.door._obs_columns import Labels, Numbers
from sparsesc.stats.core._multiple import benjamini_hochberg
from sparsesc.stats.groups._association import GroupAssociation


def adjust(pvals: list[np.ndarray]) -> list[np.ndarray]:
    """Adjusted for all tests together, in the shapes they came in."""
    adjusted = benjamini_hochberg(np.concatenate([p.ravel() for p in pvals]))
    ends = np.cumsum([p.size for p in pvals])[:-1]
    return [q.reshape(p.shape) for q, p in zip(np.split(adjusted, ends), pvals, strict=True)]


def category_table(
    columns: list[Labels],
    whole: list[GroupAssociation],
    tests: list[dict[str, np.ndarray]],
    padj: list[np.ndarray],
    features: pd.Index,
) -> pd.DataFrame:
    """One row for each column, feature and category; `tests` may hold more columns."""
    n_features = len(features)
    n_groups = np.array([len(c.categories) for c in columns])
    categories = list(dict.fromkeys(category for c in columns for category in c.categories))
    place = {category: i for i, category in enumerate(categories)}
    positions = [np.tile([place[category] for category in c.categories], n_features) for c in columns]

    def stack(values: list[np.ndarray]) -> np.ndarray:
        return np.concatenate([v.ravel() for v in values])

    def test(name: str) -> np.ndarray:
        return stack([t[name] for t in tests])

    # categoricals: names repeat for every pair, of which there may be millions
    feature = np.concatenate([np.repeat(np.arange(n_features), n) for n in n_groups])
    data: dict[str, Any] = {
        "feature": pd.Categorical.from_codes(feature, categories=features.astype(str)),
        "key": pd.Categorical.from_codes(
            np.repeat(np.arange(len(columns)), n_groups * n_features), categories=[c.name for c in columns]
        ),
        "category": pd.Categorical.from_codes(np.concatenate(positions), categories=categories),
        "pearson_r": stack([a.pearson_r for a in whole]),
        "auroc": stack([a.auroc for a in whole]),
        "f1": stack([a.f1 for a in whole]),
        "mean_in": stack([a.mean_in for a in whole]),
        "mean_out": stack([a.mean_out for a in whole]),
        "pval": test("pval"),
        "padj": stack(padj),
        "n_cells": np.concatenate([np.tile(c.sizes, n_features) for c in columns]),
        "threshold": stack([a.threshold for a in whole]),
    }
    return pd.DataFrame(data | {name: test(name) for name in tests[0] if name not in data})


def number_table(
    columns: list[Numbers], tests: list[dict[str, np.ndarray]], padj: list[np.ndarray], features: pd.Index
) -> pd.DataFrame:
    """One row for each column of numbers and feature; `tests` may hold more columns."""
    names = [c.name for c in columns]
    feature = pd.Categorical(features.astype(str), categories=features.astype(str))
    tables = []
    for position, (column, test, adjusted) in enumerate(zip(columns, tests, padj, strict=True)):
        data: dict[str, Any] = {
            "feature": feature,
            "key": pd.Categorical.from_codes(np.full(len(features), position), categories=names),
        }
        data |= {name: test[name] for name in ("pearson_r", "spearman_r", "pval")}
        data |= {"padj": adjusted, "n_cells": np.full(len(features), int(column.known.sum()))}
        tables.append(pd.DataFrame(data | {name: values for name, values in test.items() if name not in data}))
    return pd.concat(tables, ignore_index=True)
