"""The saliency of single cells, as it is stored: small, and exact.

The derivative of a unit by all genes, in one cell, is a product of the derivative by the nodes of the model's first
layer (a hundred numbers a cell and unit) with the weights of that layer (nodes x genes, for all cells). Stored are the
two factors; the product is a hundred times larger and is made when it is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc._values import listing

from . import _checks as check
from . import _keys

if TYPE_CHECKING:
    from anndata import AnnData

_PARTS = (_keys.PARAMS, _keys.UNITS, _keys.INPUTS, _keys.PAIRS, _keys.NODE_WEIGHTS)


@dataclass(frozen=True)
class CellSaliency:
    """Pairs of a cell and a unit, sorted by unit, with what the unit's derivative is made of."""

    units: pd.DataFrame
    """One row a unit."""
    inputs: pd.DataFrame
    """One row a gene of the model: `mean` and `detected` (share of cells) of what the model sees."""
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
    """Cells x genes: what derivatives are multiplied with, if they are."""

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
        """As it goes to ``uns``."""
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


def get_saliency_slot(adata: AnnData, key: str) -> Mapping[str, Any]:
    """``uns[key]`` of a saliency.

    Raises
    ------
    KeyError
        If nothing, or something else, is stored under `key`.
    """
    check.check_adata(adata)
    slot = adata.uns.get(key)
    if not is_saliency_slot(slot):
        found = [name for name in adata.uns if is_saliency_slot(adata.uns[name])]
        what = f"adata.uns[{key!r}] holds something else" if key in adata.uns else f"did not find adata.uns[{key!r}]"
        msg = f"No saliency under key={key!r}: {what}. Computed here: {listing(found)}. Run ssc.tl.saliency first."
        raise KeyError(msg)
    return slot  # type: ignore[return-value]


def is_saliency_slot(value: Any) -> bool:
    """Whether an entry of ``uns`` was written by ``tl.saliency``."""
    return isinstance(value, Mapping) and all(part in value for part in _PARTS)


def read_saliency(adata: AnnData, key: str) -> CellSaliency:
    """What ``tl.saliency`` stored.

    Raises
    ------
    KeyError
        If nothing, or something else, is stored under `key`.
    """
    slot = get_saliency_slot(adata, key)
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


def saliency_table(adata: AnnData, key: str, name: str) -> pd.DataFrame:
    """A copy of the table ``uns[key][name]``.

    Raises
    ------
    KeyError
        If there is no saliency, or the table was not computed.
    """
    slot = get_saliency_slot(adata, key)
    if name not in slot:
        writer = "ssc.tl.geneset_impact(adata, net"
        writer += ", groupby=...)" if name == _keys.IMPACT_CONTRAST else ")"
        msg = f"Did not find adata.uns[{key!r}][{name!r}]. Run {writer} first."
        raise KeyError(msg)
    return pd.DataFrame(slot[name]).copy()


def unit_names(units: pd.Index, asked: Any, key: str) -> list[str]:
    """Names of the units asked for, by name or position, in that order, without repeats.

    Raises
    ------
    KeyError
        If there is none of that name or at that position.
    """
    names = units.astype(str)
    wanted = [asked] if isinstance(asked, str | int | np.integer) else list(asked)
    found = []
    for unit in wanted:
        if isinstance(unit, int | np.integer) and not isinstance(unit, bool) and 0 <= unit < len(names):
            found.append(str(names[unit]))
        elif isinstance(unit, str) and unit in names:
            found.append(unit)
        else:
            msg = f"Did not find unit {unit!r} of {key!r}. There are {listing(names)}."
            raise KeyError(msg)
    if not found:
        msg = f"No units asked for. Name some of {listing(names)}."
        raise ValueError(msg)
    return list(dict.fromkeys(found))
