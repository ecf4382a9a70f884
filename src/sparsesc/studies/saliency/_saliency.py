from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc import _logging
from sparsesc._random import as_generator
from sparsesc._values import check_choice, check_memory, check_positive_int, listing
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._saliency_slots import CellSaliency
from sparsesc.door._slots import check_slots_free, record

from ._attribution import METHODS, TIMES_INPUT, node_gradients
from ._encoders import Encoder, as_encoder, compose

if TYPE_CHECKING:
    from anndata import AnnData

    from sparsesc._random import RNGLike, SeedLike

_WRITER = "ssc.tl.saliency"
_SILENT = 1e-3  # of the largest standard deviation of a unit
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
    r"""Find the genes that drive a unit of a model, or a feature of a sparse autoencoder behind it.

    Parameters
    ----------
    adata
        Cells x genes.
    model
        The model that encoded the cells: an :class:`~sparsesc.models.OrthogonalAE`, or scvi-tools' SCVI, SCANVI,
        LinearSCVI or DRVI, which must hold these cells (by name); or ``"pca"`` for ``obsm["X_pca"]`` with
        ``varm["PCs"]``.
    sae
        Name of a sparse autoencoder that was fitted on this model's embedding: explain its features, through both
        encoders. ``None``: explain the dimensions of the embedding itself.
    units
        Units (or features) to explain, by name or position. ``None``: all; of features, those that are active
        in a cell.
    method
        ``"guided"``: guided backpropagation, as published. Backward passes let only positive derivatives through each
        activation, so that a gene counts by the ways in which it switches the unit on: compare it with the cells in
        which the unit is larger, not with those in which it is smaller. ``"gradient"``: the derivative.
        ``"gradient_x_input"``: the derivative times the value of the gene, which is 0 for a gene that a cell does not
        express. ``"integrated_gradients"``: the derivative averaged along the line from a cell that expresses nothing,
        times the value (by captum); summed over genes, it is the difference in activation from such a cell.
    layer
        For ``"pca"``: layer that the components were computed from, instead of ``X``.
    cells
        Cells to explain: a mask, or names. ``None``: all.
    max_cells
        At most this many cells for each unit, drawn at random; of a feature, among the cells in which it is active.
        ``None``: all of them. Storage and time grow with their number.
    n_steps
        Points on the line, for integrated gradients.
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
        0 for units that were not requested.
    ``uns[key_added]["units"]``
        One row per unit: `n_cells` explained, `mean` and `sd` of its value in them, `silent` (it hardly varies: its sd
        is below a thousandth of the largest; gene sets are not tested for such units), `top_genes`.
    ``uns[key_added]["genes"]``
        The genes of each unit, largest first: `unit`, `gene`, `saliency` (mean of the absolute value), `signed` (mean).
    ``uns[key_added]["inputs"]``
        One row per gene of the model: `mean` and `detected` (share of cells) of the values that the model sees.
    ``uns[key_added]["pairs"]``, ``["node_weights"]``, ``["values"]``
        The saliency of single cells, in factors that :func:`sparsesc.get.saliency` multiplies.
    ``uns[key_added]["params"]``
        The options.

    Raises
    ------
    KeyError
        If the model does not hold the cells; if there is no such unit, sparse autoencoder or layer.
    TypeError
        If `model` is of an unsupported kind.
    ValueError
        If the model was not trained or is minified, `sae` was fitted on another embedding, no cell or active feature is
        left, an option is out of its range, or `key_added` is taken.

    See Also
    --------
    sparsesc.get.saliency : Reads the genes of a unit, or its saliency in single cells.
    sparsesc.tl.geneset_impact : Tests which gene sets drive a unit.
    sparsesc.tl.feature_genes : Genes that differ between cells with and without a feature.

    Notes
    -----
    The saliency of gene :math:`g` for unit :math:`u` in cell :math:`i` is the derivative of the unit by the input of
    the gene. All networks here start with a linear layer of weights :math:`W` (nodes x genes), so that

    .. math:: s_{iug} = \frac{\partial f_u}{\partial x_g}(x_i) = \sum_n \frac{\partial f_u}{\partial h_n}(x_i)\, W_{ng},

    with the nodes :math:`h = W x + b`. The methods ``"gradient_x_input"`` and ``"integrated_gradients"`` multiply it by
    :math:`x_{ig}`, the latter with the mean of the derivative along the line,
    :math:`\int_0^1 \partial f_u / \partial x_g\,(t x_i)\, dt`. Stored are the mean over cells of :math:`|s_{iug}|`, and
    its factors for single cells.

    Inputs are what the network sees, logarithms of scaled counts; the scaling itself is not part of the derivative. Of
    features, the value before the threshold is explained, in the cells in which it exceeds the threshold. For
    ``"pca"``, derivatives are the loadings (times the encoder): the same in all cells, and exact.

    The published softplus networks have a derivative everywhere. With ``"guided"``, what comes back through a softplus
    is multiplied by its derivative, a smooth step, and cut at 0; where units are rectifiers (scVI) this is the rule of
    Springenberg et al. Between the first layer and the genes nothing is cut, so saliency has signs. Gene sets are
    tested on absolute values.

    When not to trust it: saliency says what the network looks at, not what regulates a cell. Guided backpropagation in
    particular resembles the result for an untrained network (Adebayo et al. 2018): compare with one, and with the other
    methods. Two genes that always go together share a saliency in an arbitrary way.

    References
    ----------
    Kinalis et al. (2019), BMC Bioinformatics 20:379. Springenberg et al. (2015), Striving for simplicity, ICLR
    (guided backpropagation). Simonyan et al. (2014), ICLR (gradients). Sundararajan et al. (2017), Axiomatic
    attribution for deep networks, ICML (integrated gradients). Kokhlikyan et al. (2020), arXiv 2009.07896 (captum).
    Adebayo et al. (2018), Sanity checks for saliency maps, NeurIPS.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.saliency(adata, "pca", sae="sae", max_cells=20)
    >>> adata.uns["saliency"]["genes"].columns.tolist()
    ['unit', 'gene', 'saliency', 'signed']

    The genes of a principal component:

    >>> ssc.tl.saliency(adata, "pca", units="PC1", n_top=5, key_added="pca_saliency")
    >>> adata.uns["pca_saliency"]["genes"]["gene"].tolist()
    ['PTPRCAP', 'LST1', 'SPI1', 'TYROBP', 'AIF1']
    """
    check.check_adata(adata)
    check_choice(method, METHODS, name="method")
    for name, value in (("n_steps", n_steps), ("n_top", n_top)):
        check_positive_int(value, name=name)
    if max_cells is not None:
        check_positive_int(max_cells, name="max_cells")
    max_bytes = check_memory(max_memory)
    slots = _keys.saliency_keys(key_added)
    check_slots_free(adata, key_added, _WRITER, {"varm": [slots.genes]})
    generator = as_generator(rng)
    encoder = as_encoder(adata, model, layer=layer)
    if sae is not None:
        encoder = compose(adata, encoder, sae)
    wanted = np.arange(len(encoder.units))
    if units is not None:
        names = check.pick_names(encoder.units, units, sae or "the model", what="unit")
        wanted = np.sort(encoder.units.get_indexer(names))
    pairs = _choose_pairs(adata, wanted, _chosen_cells(adata, cells), sae, max_cells, generator)
    rows, cell = np.unique(pairs[:, 0], return_inverse=True)

    nodes, active, values, inputs = _derivatives(
        encoder, rows, cell, pairs[:, 1], method=method, n_steps=n_steps, progress_bar=progress_bar
    )
    table = _unit_table(encoder.units[wanted], wanted, pairs[:, 1], active)
    result = CellSaliency(
        units=table,
        inputs=inputs,
        cells=adata.obs_names[rows].to_numpy().astype(str),
        cell=cell,
        unit=np.searchsorted(wanted, pairs[:, 1]),
        nodes=nodes,
        weights=encoder.weight,
        values=values,
    )
    mean, signed = _summarize(result, max_bytes=max_bytes)
    top = _top_table(mean, signed, result, n_top)
    leading = top.groupby("unit", observed=True, sort=False)["gene"].agg(lambda g: ",".join(g.head(10)))
    table["top_genes"] = leading.reindex(table.index).fillna("").to_numpy(dtype=object)

    by_gene = np.full((adata.n_vars, len(encoder.units)), np.nan, np.float32)
    here = encoder.genes.get_indexer(adata.var_names.astype(str))
    by_gene[here >= 0] = 0
    by_gene[np.ix_(here >= 0, wanted)] = mean.T[here[here >= 0]]
    options: dict[str, Any] = {"model": model if isinstance(model, str) else type(model).__name__}
    options |= {"method": method, "sae": sae, "use_rep": encoder.use_rep, "max_cells": max_cells, "n_cells": len(rows)}
    options |= {"n_steps": n_steps if method == "integrated_gradients" else None}
    tables, varm = {_keys.GENES: top} | result.entry(), {slots.genes: by_gene}
    written = record(adata, key_added, _WRITER, tables, options, copy=copy, fresh=True, varm=varm)
    _report(result, slots, method, (here >= 0).sum())
    return written


def _chosen_cells(adata: AnnData, cells: np.ndarray | Sequence[str] | None) -> np.ndarray:
    """Positions of the cells to explain."""
    if cells is None:
        return np.arange(adata.n_obs)
    names = np.asarray(cells)
    if names.dtype == bool:
        if names.shape != (adata.n_obs,):
            msg = f"A mask of cells needs one value for each of {adata.n_obs} cells, found shape {names.shape}."
            raise ValueError(msg)
        rows = np.flatnonzero(names)
    else:
        rows = adata.obs_names.get_indexer(names.astype(str))
        if (rows < 0).any():
            msg = f"Did not find the cells {listing(names[rows < 0])} in adata.obs_names."
            raise KeyError(msg)
        rows = np.unique(rows)
    if not len(rows):
        msg = "cells is empty: there is no cell to explain."
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
        msg = f"None of the {len(wanted)} features of {sae!r} is active in any of the {len(rows)} cells."
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
    """Derivatives and values of all pairs, inputs to multiply with, and a table of the inputs."""
    nodes = np.empty((len(unit), len(encoder.weight)), np.float32)
    active = np.empty(len(unit))
    kept: list[sparse.csr_matrix] = []
    total, detected = np.zeros(len(encoder.genes)), np.zeros(len(encoder.genes))
    by_cell = np.argsort(cell, kind="stable")
    done = 0
    with _logging.progress(total=len(rows), desc="saliency", enabled=progress_bar) as bar:
        for part, cells in encoder.blocks(rows):
            first, stop = np.searchsorted(cell[by_cell], [done, done + len(part)])
            here = by_cell[first:stop]
            where = cell[here] - done
            at, rest = cells.take(where)
            start = encoder.empty(cells)[where] if method == "integrated_gradients" else None
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
    genes = pd.Index(encoder.genes, name="gene")
    inputs = pd.DataFrame({"mean": total / len(rows), "detected": detected / len(rows)}, index=genes)
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


def _summarize(result: CellSaliency, *, max_bytes: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the absolute value, and mean, units x genes."""
    n_genes = result.weights.shape[1]
    rows = int(max(max_bytes // (12 * n_genes), 1))
    absolute = np.zeros((len(result.units), n_genes), np.float32)
    signed = np.zeros_like(absolute)
    for unit in range(len(result.units)):
        pairs = result.pairs_of(unit)
        sums = np.zeros((2, n_genes))
        for start in range(pairs.start, pairs.stop, rows):
            values = result.saliency(slice(start, min(start + rows, pairs.stop)))
            sums[1] += values.sum(0, dtype=np.float64)
            sums[0] += np.abs(values, out=values).sum(0, dtype=np.float64)
        absolute[unit], signed[unit] = sums / max(pairs.stop - pairs.start, 1)
    return absolute, signed


def _top_table(mean: np.ndarray, signed: np.ndarray, result: CellSaliency, n_top: int) -> pd.DataFrame:
    genes = result.inputs.index.astype(str)
    n_top = min(n_top, len(genes))
    order = np.argsort(-mean, axis=1, kind="stable")[:, :n_top]
    names = result.units.index.astype(str)
    table = pd.DataFrame(
        {
            "unit": pd.Categorical.from_codes(np.repeat(np.arange(len(names)), n_top), categories=list(names)),
            "gene": genes.to_numpy(dtype=object)[order.ravel()],
            "saliency": np.take_along_axis(mean, order, 1).ravel().astype(np.float64),
            "signed": np.take_along_axis(signed, order, 1).ravel().astype(np.float64),
        }
    )
    return table[np.repeat(result.units["n_cells"].to_numpy() > 0, n_top)].reset_index(drop=True)


def _report(result: CellSaliency, slots: _keys.SaliencyKeys, method: str, n_genes: int) -> None:
    silent = int(result.units["silent"].sum())
    _logging.info(
        f"saliency ({method}): {len(result.units)} units ({silent} silent) in {len(result.cells)} cells, by {n_genes} "
        f"genes; added varm[{slots.genes!r}] and uns[{slots.key!r}]"
    )
    if result.nodes.nbytes > _LARGE:
        _logging.warning(
            f"uns[{slots.key!r}] takes {result.nodes.nbytes / 2**30:.1f} GiB: ask for fewer units, or a smaller "
            "max_cells."
        )
