"""The saliency of single cells, as it is stored: small, and exact.

The derivative of a unit by all genes, in one cell, is the product of its derivative by the nodes of the model's first
layer (a hundred numbers per cell and unit) and the weights of that layer (nodes x genes, for all cells). The two
factors are stored; the product is a hundred times larger and is computed on demand.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from . import _checks as check
from . import _keys

if TYPE_CHECKING:
    from anndata import AnnData


@dataclass(frozen=True)
class CellSaliency:
    """Pairs of a cell and a unit, sorted by unit, with what the unit's derivative is made of."""

    units: pd.DataFrame
    """One row per unit."""
    inputs: pd.DataFrame
    """One row per gene of the model: `mean` and `detected` (share of cells) of what the model sees."""
    cells: np.ndarray
    """Names of cells."""
    cell: np.ndarray
    """Position in `cells` of each pair."""
    unit: np.ndarray
    """Position in `units` of each pair, ascending."""
    nodes: np.ndarray
    """Pairs x nodes."""
    weights: np.ndarray
    """Nodes x genes."""
    values: sparse.csr_matrix | None = None
    """Cells x genes: what derivatives are multiplied by, if by anything."""

    def pairs_of(self, unit: int) -> slice:
        """The pairs of a unit."""
        first, stop = np.searchsorted(self.unit, [unit, unit + 1])
        return slice(int(first), int(stop))

    def saliency(self, pairs: slice | np.ndarray) -> np.ndarray:
        """Pairs x genes, float32, signed."""
        out = self.nodes[pairs] @ self.weights
        if self.values is not None:
            out *= self.values[self.cell[pairs]].toarray()
        return out

    def entry(self) -> dict[str, Any]:
        """Its entries of ``uns[key]``."""
        out: dict[str, Any] = {
            _keys.UNITS: self.units,
            _keys.INPUTS: self.inputs,
            _keys.PAIRS: {
                _keys.SALIENT_CELLS: self.cells.astype(object),
                "cell": self.cell.astype(np.int32),
                "unit": self.unit.astype(np.int32),
                "nodes": self.nodes,
            },
            _keys.NODE_WEIGHTS: self.weights,
        }
        if self.values is not None:
            out[_keys.INPUT_VALUES] = self.values
        return out


def read_saliency(adata: AnnData, key: str) -> CellSaliency:
    """What ``tl.saliency`` stored.

    Raises
    ------
    KeyError
        If nothing, or something else, is stored under `key`.
    """
    slot = check.get_saliency_slot(adata, key)
    pairs = slot[_keys.PAIRS]
    values = slot.get(_keys.INPUT_VALUES)
    return CellSaliency(
        units=pd.DataFrame(slot[_keys.UNITS]).copy(),
        inputs=pd.DataFrame(slot[_keys.INPUTS]),
        cells=np.asarray(pairs[_keys.SALIENT_CELLS]).astype(object).astype(str),  # files give text of another kind
        cell=np.asarray(pairs["cell"]),
        unit=np.asarray(pairs["unit"]),
        nodes=np.asarray(pairs["nodes"]),
        weights=np.asarray(slot[_keys.NODE_WEIGHTS]),
        values=None if values is None else sparse.csr_matrix(values),
    )
