from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc import _logging
from sparsesc._random import as_generator
from sparsesc._values import check_choice, check_positive_int, listing
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._saliency_slots import CellSaliency

from ._attribution import METHODS, TIMES_INPUT, node_gradients
from ._encoders import Encoder, as_encoder, compose

if TYPE_CHECKING:
    from anndata import AnnData

    from sparsesc._random import RNGLike, SeedLike

_SILENT = 1e-3  # of the spread of the liveliest unit
_LARGE = 2**30


def saliency(
    adata: AnnData,
    model: Any,
    *,
    sae: str | None = None,
    units: str | int | Sequence[str | int] | None = None,
    method: Literal["guided", "gradient", "gradient_x_input", "integrated_gradients"] = "guided",
    layer: str | None = None,
    cells: np.ndarray | Sequence[str] | None = None,
    max_cells: int | None = 200,
    n_steps: int = 32,
    n_top: int = 50,
    max_memory: float = 1.0,
    progress_bar: bool | None = None,
    rng: SeedLike | RNGLike | None = 0,
    key_added: str = "saliency",
    copy: bool = False,
) -> AnnData | None:
    r"""Which input genes drive a unit of a model, or a feature of a sparse autoencoder behind it.

    Parameters
    ----------
    adata
        Cells x genes.
    model
        What encoded the cells: an :class:`~sparsesc.models.OrthogonalAE`, or scvi-tools' SCVI, SCANVI, LinearSCVI or
        DRVI, which must hold these cells (by name); or ``"pca"`` for ``obsm["X_pca"]`` with ``varm["PCs"]``.
    sae
        Name of a sparse autoencoder that was fitted on this model's embedding: explain its features, through both
        encoders. ``None``: explain the dimensions of the embedding itself.
    units
        Units (or features) to explain, by name or position. ``None``: all; of features, those that are active anywhere.
    method
        ``"guided"``: guided backpropagation, as published: backward passes let only positive derivatives through each
        activation, so that a gene counts by the ways in which it switches the unit on: hold it against the cells in
        which the unit is larger, not those in which it is smaller. ``"gradient"``: the derivative.
        ``"gradient_x_input"``: times the value of the gene, 0 for a gene that a cell does not express.
        ``"integrated_gradients"``: the derivative averaged over the way from a cell that expresses nothing, times the
        value (by captum); over genes these sum up to what the cell's activation is above that of such a cell.
    layer
        For ``"pca"``: layer that the components were computed from, instead of ``X``.
    cells
        Cells to look at: a mask, or names. ``None``: all.
    max_cells
        At most so many cells for each unit, drawn at random; of a feature, among the cells in which it is active.
        ``None``: all of them. What is stored, and the time, grow with their number.
    n_steps
        Points on the way, for integrated gradients.
    n_top
        Genes to list for each unit.
    max_memory
        Working memory in GiB, beyond the data and the results.
    progress_bar
        Show progress; ``None``: unless scanpy's verbosity is 0.
    rng
        Draws the cells.
    key_added
        Name under which everything is stored.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy when ``copy=True``, with

    ``varm[key_added]``
        Genes x units, float32: mean of the absolute saliency over cells. NaN for genes that the model does not see,
        0 for units that were not asked for.
    ``uns[key_added]["units"]``
        One row a unit: `n_cells` looked at, `mean` and `sd` of its value in them, `silent` (it hardly varies: sd below
        a thousandth of the largest; such units explain nothing, and gene sets are not tested for them), `top_genes`.
    ``uns[key_added]["genes"]``
        The genes of each unit, largest first: `unit`, `gene`, `saliency` (mean of the absolute value), `signed` (mean).
    ``uns[key_added]["inputs"]``
        One row a gene of the model: `mean` and `detected` (share of cells) of what the model sees.
    ``uns[key_added]["pairs"]``, ``["node_weights"]``, ``["values"]``
        The saliency of every single cell, in factors: :func:`sparsesc.get.saliency` multiplies them.
    ``uns[key_added]["params"]``
        What was asked.

    Raises
    ------
    KeyError
        If the model does not know the cells; if there is no such unit, sparse autoencoder or layer.
    TypeError
        If `model` has no encoder that is known here.
    ValueError
        If the model was not trained or is minified, `sae` was fitted on another embedding, no cell or no active feature
        is left, an option is out of its range, or `key_added` is taken.

    Notes
    -----
    Derivatives are by what the network sees, logarithms of scaled counts; how counts were scaled is not part of it. Of
    features, the value before the threshold is explained, in cells where it is above. For ``"pca"``, derivatives are
    the loadings (times the encoder): the same in all cells, and exact.

    The published softplus networks have a derivative everywhere. What comes back through a softplus is multiplied by
    its derivative, a smooth step, and cut at 0; where units are rectifiers (scVI) this is the rule of Springenberg et
    al. Between the first layer and the genes nothing is cut, so saliency has signs; sets are judged by absolute values.

    When not to trust it: saliency says what the network looks at, not what regulates a cell. Guided backpropagation in
    particular resembles what an untrained network gives (Adebayo et al. 2018): compare with one, and with the other
    methods. Two genes that always go together share a saliency in an arbitrary way.

    References
    ----------
    Kinalis et al. (2019), BMC Bioinformatics 20:379. Springenberg et al. (2015), Striving for simplicity, ICLR
    (guided backpropagation). Simonyan et al. (2014), ICLR (gradients). Sundararajan et al. (2017), Axiomatic
    attribution for deep networks, ICML (integrated gradients). Kokhlikyan et al. (2020), arXiv 2009.07896 (captum).
    Adebayo et al. (2018), Sanity checks for saliency maps, NeurIPS.
    """
    check.check_adata(adata)
    check_choice(method, METHODS, name="method")
    for name, value in (("n_steps", n_steps), ("n_top", n_top)):
        check_positive_int(value, name=name)
    if max_cells is not None:
        check_positive_int(max_cells, name="max_cells")
    if not max_memory > 0:
        msg = f"max_memory must be a positive number of GiB, found {max_memory!r}."
        raise ValueError(msg)
    slots = _check_key(adata, key_added)
    generator = as_generator(rng)
    encoder = as_encoder(adata, model, layer=layer)
    if sae is not None:
        encoder = compose(adata, encoder, sae)
    names = (
        list(encoder.units)
        if units is None
        else check.pick_names(encoder.units, units, sae or "the model", what="unit")
    )
    wanted = np.sort(encoder.units.get_indexer(names))
    pairs = _choose_pairs(adata, wanted, _chosen_cells(adata, cells), sae, max_cells, generator)
    rows, cell = np.unique(pairs[:, 0], return_inverse=True)

    nodes, active, values, inputs = _derivatives(
        encoder, rows, cell, pairs[:, 1], method=method, n_steps=n_steps, progress_bar=progress_bar
    )
    table = _unit_table(encoder.units[wanted], wanted, pairs[:, 1], active)
    found = CellSaliency(
        units=table,
        inputs=inputs,
        cells=adata.obs_names[rows].to_numpy().astype(str),
        cell=cell,
        unit=np.searchsorted(wanted, pairs[:, 1]),
        nodes=nodes,
        weights=encoder.weight,
        values=values,
    )
    mean, signed = _summarise(found, max_bytes=max_memory * 2**30)
    top = _top_table(mean, signed, found, n_top)
    leading = top.groupby("unit", observed=True, sort=False)["gene"].agg(lambda g: ",".join(g.head(10)))
    table["top_genes"] = leading.reindex(table.index).fillna("").to_numpy(dtype=object)

    adata = check.writable(adata, copy=copy)
    asked: dict[str, Any] = {
        "model": model if isinstance(model, str) else type(model).__name__,
        "method": method,
        "sae": sae or "",
        "use_rep": encoder.use_rep,
        "max_cells": -1 if max_cells is None else int(max_cells),
        "n_cells": len(rows),
        "n_steps": n_steps if method == "integrated_gradients" else 0,
    }
    by_gene = np.full((adata.n_vars, len(encoder.units)), np.nan, np.float32)
    here = encoder.genes.get_indexer(adata.var_names.astype(str))
    by_gene[here >= 0] = 0
    by_gene[np.ix_(here >= 0, wanted)] = mean.T[here[here >= 0]]
    adata.varm[slots.genes] = by_gene
    adata.uns[slots.key] = {_keys.PARAMS: asked, _keys.GENES: top} | found.entry()
    _report(found, slots, method, (here >= 0).sum())
    return adata if copy else None


def _check_key(adata: AnnData, key: str) -> _keys.SaliencyKeys:
    if not isinstance(key, str) or not key or "/" in key:
        msg = f"key_added must be a non-empty string without '/', found {key!r}."
        raise ValueError(msg)
    slots = _keys.saliency_keys(key)
    if not check.is_saliency_slot(adata.uns.get(key)):
        taken = [f"uns[{key!r}]"] if key in adata.uns else []
        taken += [f"varm[{slots.genes!r}]"] if slots.genes in adata.varm else []
        if taken:
            msg = (
                f"key_added={key!r} would overwrite {' and '.join(taken)}, which ssc.tl.saliency did not write. Choose "
                "another key_added, or delete that slot."
            )
            raise ValueError(msg)
    return slots


def _chosen_cells(adata: AnnData, cells: np.ndarray | Sequence[str] | None) -> np.ndarray:
    """Positions of the cells asked for."""
    if cells is None:
        return np.arange(adata.n_obs)
    asked = np.asarray(cells)
    if asked.dtype == bool:
        if asked.shape != (adata.n_obs,):
            msg = f"A mask of cells needs one value for each of {adata.n_obs} cells, found shape {asked.shape}."
            raise ValueError(msg)
        rows = np.flatnonzero(asked)
    else:
        rows = adata.obs_names.get_indexer(asked.astype(str))
        if (rows < 0).any():
            msg = f"Did not find the cells {listing(asked[rows < 0])} in adata.obs_names."
            raise KeyError(msg)
        rows = np.unique(rows)
    if not len(rows):
        msg = "No cell is left to look at: cells is empty."
        raise ValueError(msg)
    return rows


def _choose_pairs(
    adata: AnnData, wanted: np.ndarray, rows: np.ndarray, sae: str | None, most: int | None, rng: np.random.Generator
) -> np.ndarray:
    """Pairs x 2: position of the cell and of the unit, sorted by unit."""

    def some(of: np.ndarray) -> np.ndarray:
        return of if most is None or len(of) <= most else np.sort(rng.choice(of, most, replace=False))

    if sae is None:
        chosen = some(rows)
        return np.column_stack([np.tile(chosen, len(wanted)), np.repeat(wanted, len(chosen))])
    active = sparse.csc_matrix(check.get_codes(adata, sae)[rows])
    parts = []
    for unit in wanted:
        chosen = some(rows[np.sort(active.indices[active.indptr[unit] : active.indptr[unit + 1]])])
        parts.append(np.column_stack([chosen, np.full(len(chosen), unit)]))
    pairs = np.concatenate(parts)
    if not len(pairs):
        msg = f"None of the {len(wanted)} features of {sae!r} is active in the {len(rows)} cells asked for."
        raise ValueError(msg)
    return pairs


def _derivatives(
    encoder: Encoder,
    rows: np.ndarray,
    cell: np.ndarray,
    unit: np.ndarray,
    *,
    method: str,
    n_steps: int,
    progress_bar: bool | None,
) -> tuple[np.ndarray, np.ndarray, sparse.csr_matrix | None, pd.DataFrame]:
    """Derivatives and values of all pairs, inputs to multiply with, and what the inputs are like."""
    nodes = np.empty((len(unit), len(encoder.weight)), np.float32)
    active = np.empty(len(unit))
    kept: list[sparse.csr_matrix] = []
    total, detected = np.zeros(len(encoder.genes)), np.zeros(len(encoder.genes))
    by_cell = np.argsort(cell, kind="stable")
    bar = _logging.progress(total=len(rows), desc="saliency", enabled=progress_bar)
    done = 0
    with bar:
        for part, cells in encoder.blocks(rows):
            first, stop = np.searchsorted(cell[by_cell], [done, done + len(part)])
            here = by_cell[first:stop]
            where = cell[here] - done
            at, rest = cells.take(where)
            start = None
            if method == "integrated_gradients":
                start = encoder.empty(cells)[where]
            nodes[here] = node_gradients(
                encoder.behind, at, rest, unit[here], method=method, start=start, n_steps=n_steps
            )
            active[here] = encoder.encode(cells)[where, unit[here]]
            total += np.asarray(cells.inputs.sum(axis=0)).ravel()
            detected += np.bincount(cells.inputs.indices, minlength=len(total))
            if method in TIMES_INPUT:
                kept.append(cells.inputs)
            done += len(part)
            bar.update(len(part))
    inputs = pd.DataFrame(
        {"mean": total / len(rows), "detected": detected / len(rows)}, index=pd.Index(encoder.genes, name="gene")
    )
    return nodes, active, sparse.vstack(kept, format="csr") if kept else None, inputs


def _unit_table(names: pd.Index, wanted: np.ndarray, unit: np.ndarray, active: np.ndarray) -> pd.DataFrame:
    place = np.searchsorted(wanted, unit)
    n = np.bincount(place, minlength=len(wanted))
    at_least = np.maximum(n, 1)
    mean = np.bincount(place, weights=active, minlength=len(wanted)) / at_least
    squares = np.bincount(place, weights=(active - mean[place]) ** 2, minlength=len(wanted))
    sd = np.sqrt(squares / at_least)
    return pd.DataFrame(
        {"n_cells": n, "mean": mean, "sd": sd, "silent": (n == 0) | ((n > 1) & (sd < _SILENT * sd.max()))},
        index=pd.Index(names.astype(str), name="unit"),
    )


def _summarise(found: CellSaliency, *, max_bytes: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the absolute value, and mean, units x genes."""
    n_genes = found.weights.shape[1]
    rows = int(max(max_bytes // (12 * n_genes), 1))
    absolute = np.zeros((len(found.units), n_genes), np.float32)
    signed = np.zeros_like(absolute)
    for unit in range(len(found.units)):
        pairs = found.pairs_of(unit)
        sums = np.zeros((2, n_genes))
        for start in range(pairs.start, pairs.stop, rows):
            values = found.saliency(slice(start, min(start + rows, pairs.stop)))
            sums[1] += values.sum(0, dtype=np.float64)
            sums[0] += np.abs(values, out=values).sum(0, dtype=np.float64)
        absolute[unit], signed[unit] = sums / max(pairs.stop - pairs.start, 1)
    return absolute, signed


def _top_table(mean: np.ndarray, signed: np.ndarray, found: CellSaliency, n_top: int) -> pd.DataFrame:
    genes = found.inputs.index.astype(str)
    n_top = min(n_top, len(genes))
    order = np.argsort(-mean, axis=1, kind="stable")[:, :n_top]
    names = found.units.index.astype(str)
    table = pd.DataFrame(
        {
            "unit": pd.Categorical.from_codes(np.repeat(np.arange(len(names)), n_top), categories=list(names)),
            "gene": genes.to_numpy(dtype=object)[order.ravel()],
            "saliency": np.take_along_axis(mean, order, 1).ravel().astype(np.float64),
            "signed": np.take_along_axis(signed, order, 1).ravel().astype(np.float64),
        }
    )
    table = table[np.repeat(found.units["n_cells"].to_numpy() > 0, n_top)].reset_index(drop=True)
    return table[list(_keys.TABLES["saliency/genes"].columns)]


def _report(found: CellSaliency, slots: _keys.SaliencyKeys, method: str, n_genes: int) -> None:
    silent = int(found.units["silent"].sum())
    _logging.info(
        f"saliency ({method}): {len(found.units)} units ({silent} silent) in {len(found.cells)} cells, by {n_genes} "
        f"genes; added varm[{slots.genes!r}] and uns[{slots.key!r}]"
    )
    if found.nodes.nbytes > _LARGE:
        _logging.warning(
            f"uns[{slots.key!r}] takes {found.nodes.nbytes / 2**30:.1f} GiB: ask for fewer units, or a smaller "
            "max_cells."
        )
