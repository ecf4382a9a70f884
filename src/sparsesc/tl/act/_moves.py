"""What steering changes: codes, the moves of cells, and the moves they are compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc import _logging
from sparsesc._values import listing
from sparsesc.door import _checks as check
from sparsesc.stats.features._manifold import Manifold, same_length

MODES = ("set", "scale", "add", "ablate")
STEERED = "steered"
DIRECTIONS, FEATURES = "random_direction", "random_features"
DIFFERENCE, DIFFERENCE_WITHIN = "difference_of_means", "difference_of_means_within"
_FEWEST = 5  # cells on each side of a stratum whose means are compared
_FAR = 0.95


@dataclass(frozen=True)
class Groups:
    """Cells to move and cells to imitate, in strata."""

    source: np.ndarray
    target: np.ndarray
    stratum: np.ndarray
    """Code of each cell's stratum; -1: compared with all cells."""
    names: list[str]

    @classmethod
    def read(
        cls,
        adata: Any,
        groupby: str | None,
        from_group: str | None,
        to_group: str | None,
        within: str | None,
        reference: np.ndarray,
    ) -> Groups | None:
        """From columns of ``obs``; ``None`` without `groupby`."""
        if groupby is None:
            options = {"from_group": from_group, "to_group": to_group, "within": within}
            given = [f"{name}={value!r}" for name, value in options.items() if value is not None]
            if given:
                msg = f"{' and '.join(given)} needs groupby, the column of adata.obs that holds the groups."
                raise ValueError(msg)
            return None
        column = check.get_obs_column(adata, groupby).astype(object)
        labels = column.where(column.notna(), "").astype(str).to_numpy()
        known = listing(np.unique(labels[labels != ""]))
        if to_group is None:
            msg = f"groupby={groupby!r} needs to_group, the group to imitate. There are {known}."
            raise ValueError(msg)
        for name, group in (("from_group", from_group), ("to_group", to_group)):
            if group is not None and str(group) not in labels:
                msg = f"{name}={group!r} is not in adata.obs[{groupby!r}]: there are {known}."
                raise ValueError(msg)
        target = labels == str(to_group)
        source = (labels != "") & ~target if from_group is None else labels == str(from_group)
        if (source & target).any():
            msg = f"from_group and to_group are both {to_group!r}: there is nothing to change."
            raise ValueError(msg)
        names, stratum = [""], np.full(len(labels), -1)
        if within is not None:
            strata = pd.Categorical(check.get_obs_column(adata, within).astype(object))
            names, stratum = [str(name) for name in strata.categories], strata.codes.astype(int)
            n = [np.bincount(stratum[(stratum >= 0) & g & reference], minlength=len(names)) for g in (source, target)]
            few = np.flatnonzero(np.minimum(*n) < _FEWEST)
            if len(few):
                _logging.warning(
                    f"Fewer than {_FEWEST} cells on one side in {listing(names[i] for i in few)} of {within!r}: "
                    "these are compared with all cells."
                )
                stratum = np.where(np.isin(stratum, few), -1, stratum)
        groups = cls(source, target, stratum, names)
        for name, cells in (("from", source), ("to", target)):
            if not (cells & reference).any():
                msg = f"No cell of {name}_group is among the reference_cells: there is no mean to take."
                raise ValueError(msg)
        return groups


@dataclass(frozen=True)
class Change:
    """New activations of some features in the cells of one stratum."""

    name: str
    rows: np.ndarray
    features: np.ndarray
    before: np.ndarray
    """Cells x features."""
    after: np.ndarray
    share: np.ndarray
    """Share of the difference between the groups that each feature carries; NaN without groups."""


def plan_changes(
    codes: sparse.csr_matrix,
    X: np.ndarray,
    W: np.ndarray,
    *,
    rows: np.ndarray,
    features: np.ndarray | None,
    values: np.ndarray | None,
    n_steered: int,
    mode: str,
    groups: Groups | None,
    reference: np.ndarray,
) -> list[Change]:
    """New activations, stratum by stratum.

    Parameters
    ----------
    codes, X, W
        Cells x features, cells x dimensions, features x dimensions.
    rows
        Cells to move.
    features
        Features to change. ``None``: the `n_steered` that carry most of the difference between the groups of a stratum.
    values
        One for each feature. ``None``: from the groups.
    mode
        One of `MODES`.
    reference
        Cells that means are taken from.
    """
    changes = []
    stratum = np.full(len(X), -1) if groups is None else groups.stratum
    for s in np.unique(stratum[rows]):
        cells = rows[stratum[rows] == s]
        chosen = features
        mean = rise = share = np.full(codes.shape[1], np.nan)
        if groups is not None:
            inside = reference if s < 0 else reference & (stratum == s)
            source, target = np.flatnonzero(groups.source & inside), np.flatnonzero(groups.target & inside)
            mean = np.asarray(codes[target].mean(0)).ravel()
            rise = mean - np.asarray(codes[source].mean(0)).ravel()
            gap = _difference_of_means(X, groups, inside)
            share = rise * (W @ gap) / max(float(gap @ gap), 1e-30)
            if chosen is None:
                chosen = np.argsort(-share, kind="stable")[:n_steered]
        assert chosen is not None  # checked before: without features there are groups
        before = codes[cells][:, chosen].toarray().astype(np.float64)
        if mode == "ablate":
            after = np.zeros_like(before)
        elif mode == "scale":
            after = before * values
        elif mode == "add":
            after = before + (rise[chosen] if values is None else values)
        else:
            after = np.broadcast_to(mean[chosen] if values is None else values, before.shape)
        name = groups.names[s] if groups is not None and s >= 0 else ""
        changes.append(Change(name, cells, chosen, before, np.maximum(after, 0), share[chosen]))
    return changes


def apply_changes(X: np.ndarray, changes: Sequence[Change], W: np.ndarray) -> np.ndarray:
    """Cells moved to ``x + D(f') - D(f)``, float32: what the code does not describe stays as it is.

    Parameters
    ----------
    X
        Embedding, float32.
    W
        Features x dimensions, float64.
    """
    moved = X.copy()
    for change in changes:
        moved[change.rows] += ((change.after - change.before) @ W[change.features]).astype(np.float32)
    return moved


def change_table(changes: Sequence[Change], names: pd.Index) -> pd.DataFrame:
    """What was done to each feature in each stratum."""
    parts = [
        pd.DataFrame(
            {
                "stratum": c.name,
                "feature": names.astype(str).take(c.features),
                "n_cells": len(c.rows),
                "before": c.before.mean(0),
                "after": c.after.mean(0),
                "share_of_difference": c.share,
            }
        )
        for c in changes
    ]
    return pd.concat(parts, ignore_index=True)


def control_moves(
    moves: np.ndarray,
    changes: Sequence[Change],
    scored: np.ndarray,
    *,
    X: np.ndarray,
    W: np.ndarray,
    alive: np.ndarray,
    groups: Groups | None,
    reference: np.ndarray,
    n_controls: int,
    rng: np.random.Generator,
) -> dict[tuple[str, int], np.ndarray]:
    """Moves of the same cells to compare with: random ones of the same length, and the difference of means.

    Parameters
    ----------
    moves
        What steering does to the `scored` cells.
    alive
        Features to draw from.
    """
    out: dict[tuple[str, int], np.ndarray] = {}
    used = np.unique(np.concatenate([c.features for c in changes]))
    others = np.setdiff1d(alive, used)
    count = int(np.median([len(c.features) for c in changes]))
    first = np.concatenate([(c.after - c.before).mean(0) for c in changes])
    upward = (first > 0).mean() >= 0.5
    for draw in range(n_controls):
        # one direction for all cells, as with a feature
        out[DIRECTIONS, draw] = same_length(rng.normal(size=(X.shape[1],)), moves)
        if len(others) >= count:
            taken = rng.choice(others, size=count, replace=False)
            direction = W[taken].sum(0) * (1 if upward else -1)
            out[FEATURES, draw] = same_length(direction, moves)
    if groups is not None:
        gap = _difference_of_means(X, groups, reference)
        out[DIFFERENCE, 0] = np.broadcast_to(gap, moves.shape)
        if (groups.stratum >= 0).any():
            gaps = {
                s: _difference_of_means(X, groups, reference & (groups.stratum == s))
                for s in np.unique(groups.stratum)
                if s >= 0
            }
            out[DIFFERENCE_WITHIN, 0] = np.stack([gaps.get(s, gap) for s in groups.stratum[scored]])
    return out


def _difference_of_means(X: np.ndarray, groups: Groups, cells: np.ndarray) -> np.ndarray:
    """From the source to the target, among some cells."""
    return X[groups.target & cells].mean(0, dtype=np.float64) - X[groups.source & cells].mean(0, dtype=np.float64)


def dose_table(
    manifold: Manifold,
    start: np.ndarray,
    home: np.ndarray,
    moves: Mapping[tuple[str, int], np.ndarray],
    doses: np.ndarray,
    is_target: np.ndarray | None,
) -> pd.DataFrame:
    """How far cells go, how far from real cells they end, and whether these are of the target group.

    `home` is the position of each cell among the real ones, -1 where it is not among them.
    """
    table = []
    for (control, draw), move in moves.items():
        norm = float(np.linalg.norm(move, axis=1).mean())
        for dose in doses:
            distance, index = manifold.neighbors(start + dose * move, home)
            percentile = manifold.percentile(distance)
            row = {
                "control": control,
                "draw": draw,
                "dose": float(dose),
                "n_cells": len(start),
                "norm": norm * float(dose),
                "distance": float(np.median(distance)),
                "percentile": float(np.median(percentile)),
                "off_manifold": float((percentile > _FAR).mean()),
            }
            if is_target is not None:
                share = is_target[index].mean(1)
                row |= {"neighbors": float(share.mean()), "landed": float((share > 0.5).mean())}
            table.append(row)
    return pd.DataFrame(table)


def landing_table(neighbors: Mapping[str, np.ndarray], labels: Mapping[str, pd.Categorical]) -> pd.DataFrame:
    """The label that most neighbors have, before and after: share of the cells for each category.

    Parameters
    ----------
    neighbors
        Cells x neighbors among the real cells, by state.
    labels
        Labels of the real cells, by column.
    """
    table = []
    for state, index in neighbors.items():
        for name, column in labels.items():
            n = len(column.categories)
            near = np.asarray(column.codes)[index]
            votes = np.stack([(near == code).sum(1) for code in range(n)], axis=1)
            share = np.bincount(votes.argmax(1)[votes.max(1) > 0], minlength=n) / len(index)
            table.append(
                pd.DataFrame({"state": state, "key": name, "category": column.categories.astype(str), "share": share})
            )
    return pd.concat(table, ignore_index=True)


def neighbor_table(neighbors: Mapping[str, np.ndarray], cells: pd.Index, real: pd.Index) -> pd.DataFrame:
    """The nearest real cells of moved cells, before and after, by name.

    Parameters
    ----------
    neighbors
        Cells x neighbors among the real cells, by state.
    cells
        Names of the moved cells.
    real
        Names of the real cells.
    """
    table = [
        pd.DataFrame({"state": state, "cell": np.repeat(cells, index.shape[1]), "neighbor": real[index.ravel()]})
        for state, index in neighbors.items()
    ]
    return pd.concat(table, ignore_index=True).astype("category")  # names repeat in many rows
