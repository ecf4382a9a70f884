"""Evidence that labels have to give before they name a feature, and how much confidence it carries."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc.door import _keys
from sparsesc.door._obs_columns import Labels
from sparsesc.stats.core._multiple import benjamini_hochberg
from sparsesc.stats.groups._mixed import find_mixed
from sparsesc.stats.groups._smooth_null import SmoothNull, smooth_null
from sparsesc.stats.groups._where import Where, score_where

# Least excess F1 and precision of a label, on cells that did not choose it.
HIGH = (0.5, 0.7)
MEDIUM = (0.2, 0.5)
LEAST_LIFT = 1 / 3  # precision in excess of the share of the label among all cells
SMOOTH_ALPHA = 0.03  # of a whole column of labels: where it is wrong, all names are
LOST = 0.5  # support below which a name never has a high confidence
_FEW = 20  # cells of a label that are told in a name


@dataclass(frozen=True)
class ColumnEvidence:
    """One column of labels, and what it says of every feature."""

    labels: Labels
    where: Where
    null: SmoothNull
    strong: np.ndarray
    weak: np.ndarray


def column_evidence(
    codes: sparse.csr_matrix,
    on: sparse.csr_matrix,
    labels: Labels,
    held: np.ndarray,
    split: np.ndarray,
    *,
    embedding: np.ndarray,
    min_cells: int,
    rng: np.random.Generator,
) -> ColumnEvidence:
    """Score one column of labels; `held` are the cells that score, among those of `split`."""
    known = labels.known & split
    n_groups = len(labels.categories)
    groups, test = labels.codes[known], held[known]
    where = score_where(on[known], groups, test, n_groups=n_groups, eligible=labels.sizes >= min_cells)
    null = smooth_null(embedding[known], on[known], groups, test, n_groups=n_groups, rng=rng)
    mixed = find_mixed(codes[labels.known], labels.codes[labels.known], n_groups=n_groups)
    return ColumnEvidence(labels, where, null, mixed.strong, mixed.weak)


def label_rows(
    columns: list[ColumnEvidence],
    features: pd.Index,
    *,
    alpha: float,
    min_precision: float,
    min_excess: float,
    refuted: dict[str, np.ndarray],
) -> pd.DataFrame:
    """One row for each feature and column that describes it, with whether it may name the feature (`holds`).

    `refuted` marks, for columns that were compared between samples, features that do not differ.
    """
    title = _Titles([c.labels for c in columns])
    parts = []
    for column in columns:
        where, name = column.where, column.labels.name
        texts = [[column.labels.categories[g] for g in row if g >= 0] for row in where.groups]
        notes = [f" (n={n})" if n < _FEW else "" for n in where.n_members]
        found = where.groups[:, 0] >= 0
        above = where.excess > column.null.limit
        smooth_p = column.null.pval
        parts.append(
            pd.DataFrame(
                {
                    "feature": features,
                    "source": "label",
                    "key": name,
                    "evidence": [", ".join(text) for text in texts],
                    "score": where.f1,
                    "null": where.f1_null,
                    "pval": np.exp(where.log_p),
                    "held_out": True,
                    "text": [title(name, text) + note for text, note in zip(texts, notes, strict=True)],
                    "n": where.n_members,
                    "chosen_by": np.where(found, where.chosen_by, -np.inf),
                    "precision": where.precision,
                    "recall": where.recall,
                    "excess": where.excess,
                    "smooth": (not smooth_p >= SMOOTH_ALPHA) | above,
                    "fits": found
                    & ~where.broad
                    & (np.minimum(where.precision, where.precision_all) >= min_precision)
                    & (where.lift >= LEAST_LIFT)
                    & (where.excess >= min_excess)
                    & ~refuted.get(name, np.zeros(len(features), bool)),
                }
            )[found]
        )
    rows = pd.concat(parts, ignore_index=True) if parts else _no_rows()
    rows["padj"] = benjamini_hochberg(rows["pval"].to_numpy()) if len(rows) else 1.0
    rows["fits"] &= rows["padj"] < alpha
    # the column that the choosing cells preferred, of those that describe the feature
    order = rows.sort_values(["fits", "chosen_by"], ascending=False, kind="stable")
    best = order.groupby("feature", sort=False).head(1).index
    rows["holds"] = rows.index.isin(best) & rows["fits"]
    return rows


def confidence_of(rows: pd.DataFrame, support: pd.Series | None) -> pd.Series:
    """Confidence of the labels that hold, by feature."""
    held = rows[rows["holds"]].set_index("feature")
    level = pd.Series("low", index=held.index, dtype=object)
    for name, (excess, precision) in {"medium": MEDIUM, "high": HIGH}.items():
        level[held["smooth"] & (held["excess"] >= excess) & (held["precision"] >= precision)] = name
    if support is not None:
        level[(level == "high") & (support.reindex(level.index) < LOST)] = "medium"
    return level


def mixed_table(columns: list[ColumnEvidence], features: pd.Index) -> pd.DataFrame:
    """`mixed` and `mixed_groups` of every feature, by the first column that tells two groups apart."""
    text = np.full(len(features), "", dtype=object)
    for column in columns:
        names = column.labels.categories
        for f in np.flatnonzero((column.strong >= 0) & (text == "")):
            text[f] = f"strong: {names[column.strong[f]]}; weak: {names[column.weak[f]]}"
    return pd.DataFrame(
        {"mixed": text != "", "mixed_groups": pd.Series(text, index=features, dtype=str)}, index=features
    )


def refuted_by_samples(
    slot: Mapping[str, Any], columns: list[Labels], features: pd.Index, alpha: float
) -> dict[str, np.ndarray]:
    """For a column whose groups were compared between samples: features without an adjusted p-value below `alpha`."""
    if _keys.DIFFERENTIAL not in slot:
        return {}
    asked = slot[_keys.PARAMS].get("differential_features", {})
    table = pd.DataFrame(slot[_keys.DIFFERENTIAL])
    differ = set(table.loc[table["padj"] < alpha, "feature"].astype(str))
    name = str(asked.get("condition_key", ""))
    return {name: ~features.isin(list(differ))} if name in {c.name for c in columns} else {}


class _Titles:
    """Categories as names tell them: with their column in front where they say too little alone."""

    def __init__(self, columns: list[Labels]) -> None:
        self._seen = pd.Series([c for column in columns for c in column.categories]).value_counts()
        self._letters = {c.name for c in columns if all(len(category) < 2 for category in c.categories)}

    def __call__(self, column: str, categories: list[str]) -> str:
        vague = column in self._letters or any(self._seen[c] > 1 or _says_little(c) for c in categories)
        return f"{column}: {', '.join(categories)}" if vague and categories else ", ".join(categories)


def _says_little(category: str) -> bool:
    return category.lower() in ("", "true", "false", "yes", "no") or category.replace(".", "").isdigit()


def _no_rows() -> pd.DataFrame:
    text = ["feature", "source", "key", "evidence", "text"]
    numbers = ["score", "null", "pval", "n", "chosen_by", "precision", "recall", "excess"]
    flags = ["held_out", "smooth", "fits"]
    types = dict.fromkeys(text, str) | dict.fromkeys(numbers, float) | dict.fromkeys(flags, bool)
    return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in types.items()})
