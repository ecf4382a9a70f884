"""Gene sets from a table, mapping, file or name, matched with the measured genes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc import _logging
from sparsesc._values import listing

from ._gene_names import check_coverage, near_misses

_DECOUPLER = ("collectri", "dorothea", "progeny")
_WEIGHTS = ("weight", "mor")  # mode of regulation: what the field called weights before
_NAMED = 3


@dataclass(frozen=True)
class MatchedSets:
    """Gene sets within the tested genes."""

    names: np.ndarray
    sets: sparse.csr_matrix
    """Sets x genes of the universe: weights."""
    size: np.ndarray
    """Genes of each set in the universe."""
    report: dict[str, Any]
    """How many genes and sets were matched and dropped."""


def read_net(net: Any) -> pd.DataFrame:
    """A table of `source`, `target` and `weight`.

    Raises
    ------
    TypeError, ValueError, KeyError
        If `net` is not a table, a mapping, a path or a known name, or lacks what it needs.
    """
    if isinstance(net, str | Path):
        net = _by_name(net)
    if isinstance(net, Mapping):
        net = _from_mapping(net)
    if not isinstance(net, pd.DataFrame):
        msg = (
            "net must be a DataFrame with the columns 'source' and 'target' (and perhaps 'weight'), a dict of gene "
            f"lists, the path of a GMT file or a name such as 'immune_markers', found {type(net).__name__}."
        )
        raise TypeError(msg)
    missing = [c for c in ("source", "target") if c not in net.columns]
    if missing:
        rename = " Rename them: net.rename(columns={'geneset': 'source', 'genesymbol': 'target'})."
        msg = f"net lacks the columns {listing(missing)}; it has {listing(net.columns)}." + (
            rename if "genesymbol" in net.columns else " Name the set 'source' and the gene 'target'."
        )
        raise KeyError(msg)
    out = net[["source", "target"]].copy()
    column = next((name for name in _WEIGHTS if name in net.columns), None)
    out["weight"] = 1.0 if column is None else net[column]
    empty = out["source"].isna() | out["target"].isna()
    if empty.any():
        _logging.warning(f"net has {int(empty.sum())} rows without source or target: they are ignored.")
        out = out[~empty]
    if not len(out):
        msg = "net is empty: it holds no gene sets."
        raise ValueError(msg)
    out["source"], out["target"] = out["source"].astype(str), out["target"].astype(str)
    if not pd.api.types.is_numeric_dtype(out["weight"]) or not np.isfinite(out["weight"]).all():
        msg = f"net[{column!r}] must hold finite numbers."
        raise ValueError(msg)
    out = out.drop_duplicates()
    repeated = out.duplicated(["source", "target"])
    if repeated.any():
        first = out[repeated].iloc[0]
        msg = (
            f"net gives {int(repeated.sum())} genes two different weights in one set, for example {first['target']!r} "
            f"in {first['source']!r}. Keep one of them."
        )
        raise ValueError(msg)
    return out[out["weight"] != 0].reset_index(drop=True)


def _by_name(name: str | Path) -> pd.DataFrame:
    from sparsesc.datasets._gene_sets import gene_sets

    if name in _DECOUPLER:
        import decoupler

        return getattr(decoupler.op, str(name))()
    return gene_sets(name)


def _from_mapping(net: Mapping[Any, Any]) -> pd.DataFrame:
    rows: list[tuple[str, str, float]] = []
    for source, targets in net.items():
        if isinstance(targets, str):
            msg = f"The gene set {source!r} must be a list of genes, found the string {targets!r}."
            raise TypeError(msg)
        weights = targets if isinstance(targets, Mapping) else dict.fromkeys(targets, 1.0)
        rows += [(str(source), str(target), float(weight)) for target, weight in weights.items()]
    return pd.DataFrame(rows, columns=["source", "target", "weight"])


def match_net(
    net: pd.DataFrame,
    genes: pd.Index,
    universe: np.ndarray,
    *,
    min_size: int,
    max_size: int,
    owner: str = "adata",
    others: pd.Index | None = None,
) -> MatchedSets:
    """Keep the sets that have enough tested genes, and say which have too few.

    Parameters
    ----------
    net
        Table of source, target and weight.
    genes
        All measured genes.
    universe
        Positions of the genes that were tested: set sizes count these.
    min_size, max_size
        Sizes of the sets to keep.
    owner, others
        What has these genes, and other names that the user may have meant, for errors.

    Raises
    ------
    ValueError
        If less than a tenth of the genes of `net` were measured (and less than a tenth of the
        measured genes are in `net`), or no set is left.
    """
    targets = pd.unique(net["target"])
    measured = np.isin(targets, genes)
    check_coverage(targets, genes, name="net", owner=owner, others=others)
    column = pd.Series(np.arange(len(universe)), index=genes[universe]).reindex(net["target"]).to_numpy()
    inside = ~np.isnan(column)
    names, source = np.unique(net["source"].to_numpy(dtype=object)[inside].astype(str), return_inverse=True)
    size = np.bincount(source, minlength=len(names))
    kept = (size >= min_size) & (size <= max_size)
    n_sets = net["source"].nunique()
    if not kept.any():
        msg = (
            f"None of the {n_sets} gene sets has between min_size={min_size} and max_size={max_size} of its genes "
            f"among the {len(universe)} genes that were tested (the largest has {int(size.max(initial=0))}). "
            "Change these bounds, or use a matrix with more genes."
        )
        raise ValueError(msg)
    sets = sparse.csr_matrix(
        (net["weight"].to_numpy(dtype=np.float64)[inside], (source, column[inside].astype(np.int64))),
        shape=(len(names), len(universe)),
    )
    sets.sort_indices()
    sets = sets[np.flatnonzero(kept)]
    unmatched = np.sort(targets[~measured].astype(str))
    whole = net["source"].value_counts()
    small = pd.Series(size, index=names).reindex(np.sort(whole.index.to_numpy(dtype=object)), fill_value=0)
    small = small[small < min_size]
    misses = near_misses(targets, genes)
    _warn_of_dropped(small, whole, n_sets, min_size)
    _warn_of_near_misses(misses)
    report = {
        "n_targets": len(targets),
        "n_targets_measured": int(measured.sum()),
        "coverage": float(measured.mean()),
        "n_sets": n_sets,
        "n_sets_tested": int(kept.sum()),
        "n_sets_too_small": len(small),
        "n_sets_too_large": int((size > max_size).sum()),
        "n_genes_universe": len(universe),
        "unmatched": unmatched.astype(object),
        "sets_too_small": small.index.to_numpy(dtype=object),
        "near_misses": np.array([f"{theirs} ({ours})" for theirs, ours in sorted(misses.items())], dtype=object),
    }
    return MatchedSets(names[kept], sets, size[kept], report)


def _warn_of_dropped(small: pd.Series, whole: pd.Series, n_sets: int, min_size: int) -> None:
    """Name the sets that nearly were tested first: these are the ones that are missed."""
    if small.empty:
        return
    nearest = small.sort_values(ascending=False, kind="stable")[:_NAMED]
    named = ", ".join(f"{name!r} ({n} of {whole[name]})" for name, n in nearest.items())
    more = f" and {len(small) - len(nearest)} more" if len(small) > len(nearest) else ""
    _logging.warning(
        f"{len(small)} of {n_sets} gene sets have fewer than min_size={min_size} tested genes and are left out: "
        f"{named}{more}."
    )


def _warn_of_near_misses(misses: dict[str, str]) -> None:
    if not misses:
        return
    named = ", ".join(f"{theirs!r} (measured: {ours!r})" for theirs, ours in sorted(misses.items())[:_NAMED])
    more = f" and {len(misses) - _NAMED} more" if len(misses) > _NAMED else ""
    _logging.warning(
        f"{len(misses)} genes of net are not among the measured ones, but differ from one in case or punctuation "
        f"alone: {named}{more}. They do not count; rename them, or the genes of the data, if they are the same."
    )
