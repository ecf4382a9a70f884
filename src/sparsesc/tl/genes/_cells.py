"""Which cells, and which counts, genes are tested on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._obs_columns import read_labels
from sparsesc.stats.core._row_blocks import RowBlocks

from ._settings import GeneSettings

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class SelectedCells:
    """Rows to read, and the sample of each."""

    rows: np.ndarray | None
    """Positions; ``None``: all cells in their order."""
    samples: np.ndarray | None
    """Sample of each row, ``0 ...``, ascending; ``None``: cells are the replicates."""

    def take(self, matrix: Any, name: str) -> Any:
        """These rows of a matrix. Rows in another order than stored are taken in memory: files cannot skip about."""
        if self.samples is not None:
            matrix = _in_memory(matrix, name)
        return matrix[self.rows]


def choose_cells(adata: AnnData, key: str, settings: GeneSettings, *, choosing: bool) -> SelectedCells:
    """Cells to test on, or with `choosing` those to choose on, sorted by sample where there are samples."""
    if settings.split != "cells" and settings.sample_key is None:
        return SelectedCells(None, None)
    wanted = np.ones(adata.n_obs, bool)
    if settings.split == "cells":
        held = held_out(adata, key, settings.holdout, settings.seed)
        wanted = ~held if choosing else held
    rows = np.flatnonzero(wanted)
    if settings.sample_key is None:
        return SelectedCells(rows, None)
    codes = read_labels(adata, settings.sample_key, integers=True).codes[rows]
    rows, codes = rows[codes >= 0], codes[codes >= 0]
    order = np.argsort(codes, kind="stable")
    return SelectedCells(rows[order], codes[order])


def held_out(adata: AnnData, key: str, holdout: float | str | None, seed: int) -> np.ndarray:
    """Cells to test on: those that the fit held out, a share drawn by `seed`, or those that a column marks.

    Raises
    ------
    KeyError
        If there is no such column.
    TypeError
        If the column is not boolean.
    ValueError
        If the fit held out no cells that are here, or no cells are left on one side.
    """
    if holdout is None:
        names = check.get_sae_slot(adata, key).get(_keys.VALIDATION)
        held = np.zeros(adata.n_obs, bool) if names is None else np.asarray(adata.obs_names.isin(np.asarray(names)))
        if not held.any():
            msg = (
                f"The fit of {key!r} held out none of these cells. Pass holdout=0.5 to draw half of them, or the name "
                "of a boolean column of adata.obs that marks the cells to test on."
            )
            raise ValueError(msg)
    elif isinstance(holdout, str):
        column = check.get_obs_column(adata, holdout)
        if not pd.api.types.is_bool_dtype(column):
            msg = f"adata.obs[{holdout!r}] must be boolean (True: test on this cell), found {column.dtype}."
            raise TypeError(msg)
        held = column.to_numpy(dtype=bool)
    else:
        held = np.zeros(adata.n_obs, bool)
        held[np.random.default_rng(seed).permutation(adata.n_obs)[: round(holdout * adata.n_obs)]] = True
    if held.all() or not held.any():
        msg = (
            f"All {adata.n_obs} cells are on one side of the split ({int(held.sum())} held out). "
            "Choose another holdout."
        )
        raise ValueError(msg)
    return held


def thinned_layer(adata: AnnData, layer: str | None) -> str:
    """The layer that was kept for tests: `layer`, or what :func:`sparsesc.pp.thin_counts` wrote.

    Raises
    ------
    KeyError
        If there is none.
    """
    check.check_adata(adata)
    name = layer or _keys.thin_keys().test
    if name not in getattr(adata, "layers", {}):
        msg = f"split='counts' needs adata.layers[{name!r}]. Run ssc.pp.thin_counts first and fit on its other part."
        raise KeyError(msg)
    return name


def _in_memory(matrix: Any, name: str) -> sparse.csr_matrix:
    parts = [block for _, block in RowBlocks(matrix, cache_bytes=np.inf, name=name)]
    return parts[0] if len(parts) == 1 else sparse.vstack(parts, format="csr")
