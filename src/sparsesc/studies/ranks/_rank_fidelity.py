from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc._random import as_generator, describe
from sparsesc._values import as_list, check_choice, check_positive_int, listing
from sparsesc.door import _checks as check
from sparsesc.door._counts import cell_sizes, count_rows, gene_names
from sparsesc.door._slots import check_slots_free, record

from . import _study as study
from ._distances import Distances, Euclidean, RowCorrelation
from ._medians import match_medians
from ._order import TIES
from ._separation import group_weights

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy import sparse

    from sparsesc._random import RNGLike, SeedLike

ZEROS = ("last", "ordered", "drop")
_WRITER = "ssc.tl.rank_fidelity"
_FEWEST_CELLS = 10  # of a type
_FEWEST_TYPES = 3
_RULE_CELLS = 50  # per type, for tables that repeat the comparison many times
_MAP_DIMENSIONS = 3
_NEIGHBORS_OF_MAP = 15


def rank_fidelity(
    adata: AnnData,
    groupby: str,
    *,
    batch_key: str | None = None,
    use_reps: str | Sequence[str] = (),
    layer: str | None = None,
    mask_var: str | None = None,
    medians: Mapping[str, float] | pd.Series | str | Path | None = None,
    gene_key: str | None = None,
    size_key: str | None = None,
    ties: Literal["average", "min", "first", "random"] = "average",
    zeros: Literal["last", "ordered", "drop"] = "last",
    n_cells: int | None = 500,
    n_compared: int = 100,
    n_neighbors: int = 10,
    n_bins: int = 4,
    thinning: Sequence[float] = (0.5, 0.25, 0.1),
    n_pcs: int = 50,
    rank_map: bool = False,
    n_outliers: int = 10,
    n_boot: int = 500,
    rng: SeedLike | RNGLike | None = 0,
    key_added: str = "rank_fidelity",
    copy: bool = False,
) -> AnnData | None:
    r"""Measure how well cell types stay separate when cells become ranks of genes, by distances and neighbors.

    Compares the ranks of :func:`sparsesc.pp.rank_value_encode` with log-normalized expression, its principal
    components and their UMAP, and with any embedding, on the same cells.

    Parameters
    ----------
    adata
        Cells x genes, counts.
    groupby
        Column of ``obs`` with the types of the cells. Cells without a type and types with fewer than ten cells are left
        out.
    batch_key
        Column of ``obs`` with batches, for the share of neighbors from the same batch.
    use_reps
        Entries of ``obsm`` to compare as well, for example Geneformer's embedding. An entry with up to three dimensions
        counts as a map; of the others, a UMAP is compared as well.
    layer
        Layer of counts to read instead of ``X``.
    mask_var
        Column of ``var`` with the genes to use, for example ``"highly_variable"``; ``None``: all.
    medians
        Medians to divide counts by, see :func:`sparsesc.pp.rank_value_encode`; ``None``: from these cells.
    gene_key
        Column of ``var`` with the names that `medians` uses; ``None``: ``var_names``.
    size_key
        Column of ``obs`` with the total counts of each cell, for data that hold only some of the genes; ``None``: the
        sum over all genes in `adata`.
    ties
        Rank of equal values. With the default and ``zeros="last"`` the distance is one minus Spearman's coefficient.
    zeros
        ``"last"``: genes without counts share the mean of the last ranks. ``"ordered"``: they are numbered one by one,
        like other ties, with ``ties="first"`` or ``"random"``. ``"drop"``: the correlation is over genes that both
        cells express.
    n_cells
        Cells to draw of each type; these are the cells of the study. ``None``: all.
    n_compared
        How many of these, per type, enter pairs and get neighbors (among all cells of the study). Two types give
        ``n_compared**2`` pairs.
    n_neighbors
        Neighbors of a cell.
    n_bins
        Bins of detected genes, of equal size within each type.
    thinning
        Shares of the counts to keep in thinned cells, in addition to 1.
    n_pcs
        Principal components of expression.
    rank_map
        Also compare a UMAP of the ranks (of their principal components), to separate the effect of the map from that of
        the encoding.
    n_outliers
        How many outliers of each kind and measure to list.
    n_boot
        Bootstrap samples of types, for the intervals.
    rng
        Draws cells, ties, thinned counts, maps and bootstrap samples.
    key_added
        Entry of ``uns``.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy when ``copy=True``, with the following in ``uns[key_added]``. A `measure` is ``"rank"`` (one
    minus the correlation of ranks), ``"expression"`` (one minus Pearson's correlation of log-normalized expression),
    ``"expression_pca"``, ``"expression_umap"``, ``"rank_umap"``, an entry of `use_reps`, or its ``"_umap"`` (all
    Euclidean).

    ``"summary"``
        One row per measure: `n_within` (types), `n_between` (pairs of types), `within` and `between` (medians of
        the median distance over these), and three effect sizes with the ends of their 95 % intervals over types
        (`_low`, `_high`): `auroc` (medians within types against those between types), `cohen_d`, `ratio` (`within` over
        `between`); and their differences from those of ``"rank"`` (`auroc_vs_rank`, ...).
    ``"pairs"``
        One row per measure and pair of types: `group_a`, `group_b`, `within`, `distance` (median), `n_pairs` (of
        cells), `score` (robust z: how much closer two types are than other
        pairs, or how much wider one type is than others).
    ``"outliers"``
        The largest scores, by `measure` and `kind`: ``"different types alike"`` and ``"type unlike itself"``, with
        `distance`, and `within_a` and `within_b`, the distances within the two types.
    ``"neighbors"``, ``"neighbor_groups"``
        Share of neighbors of the same type (`same_group`) and of the same batch (`same_batch`), as means over types
        with intervals, and by `group`; `same_group_expected` is the share among all cells, `same_batch_expected`
        that if batches were mixed within types. For ranks, expression, components and embeddings; not for maps.
    ``"rules"``
        Effect sizes under ten rules for ties, zeros and medians, on up to 50 cells of each type.
    ``"sparsity"``
        Effect sizes by bins of detected genes (`level` 1: fewest) and by thinning (`level`: share kept), `n_genes`
        (detected in the median cell), and `self_correlation` (of a cell before and after thinning). Its measures are
        ``"rank"``, ``"expression"`` and ``"rank, zeros at random"``; by bins also components and maps.
    ``"params"``
        The options, and the numbers of cells and genes.

    Raises
    ------
    KeyError
        If a column, layer or embedding does not exist.
    ValueError
        If the values are not counts, there are fewer than three types with ten cells, an option is out of its range, or
        the slot holds what this function did not write.

    See Also
    --------
    sparsesc.pp.rank_value_encode : Makes the ranks.
    sparsesc.get.rank_fidelity : Reads the tables.
    sparsesc.pl.rank_fidelity : Draws them.
    sparsesc.tl.compare_representations : Compares embeddings by other scores.

    Notes
    -----
    With :math:`w_a`, the median distance between cells of type :math:`a`, and :math:`b_{ab}`, that between cells of two
    types, the effect sizes are

    .. math::

        \mathrm{auroc} = P(w < b) + \tfrac{1}{2} P(w = b), \qquad
        d = \frac{\bar b - \bar w}{s}, \qquad
        \mathrm{ratio} = \frac{\mathrm{median}(w)}{\mathrm{median}(b)},

    where :math:`s` is the pooled standard deviation (`cohen_d`). Well separated types have a large `auroc` and
    `cohen_d`, and a small `ratio`.

    Effect sizes compare the shape of distances, not their units. A UMAP pulls neighbors together, so that any measure
    looks better as a map: compare maps with maps (`rank_map`), and ``"rank"`` with ``"expression"``.

    When not to trust it: types that were called from expression favor expression; where types and batches coincide, no
    measure can separate the two. Intervals are over types: with fewer than ten they are rough. Thinning removes counts
    at random, while real shallow cells also differ in quality.

    References
    ----------
    Theodoris et al. (2023), *Nature* 618, 616-624 (the encoding). McInnes, Healy and Melville (2018), UMAP,
    arXiv:1802.03426.

    Examples
    --------
    >>> import sparsesc as ssc
    >>> adata = ssc.datasets.simulate_programs(n_cells=200, n_genes=100, n_types=4, count_noise="poisson")
    >>> ssc.tl.rank_fidelity(adata, "type", n_compared=20, n_pcs=10, n_boot=50)
    >>> summary = adata.uns["rank_fidelity"]["summary"].set_index("measure")
    >>> summary.index.tolist()
    ['rank', 'expression', 'expression_pca', 'expression_umap']
    >>> bool(summary.loc["rank", "ratio"] < 1)  # cells of one type are closer than cells of two
    True
    """
    check_choice(ties, TIES, name="ties")
    check_choice(zeros, ZEROS, name="zeros")
    n_cells = n_cells if n_cells is None else check_positive_int(n_cells, name="n_cells")
    counted = {"n_compared": n_compared, "n_neighbors": n_neighbors, "n_bins": n_bins, "n_pcs": n_pcs}
    counted |= {"n_outliers": n_outliers, "n_boot": n_boot}
    for name, value in counted.items():
        check_positive_int(value, name=name)
    fractions = _fractions(thinning)
    generator = as_generator(rng)
    check.check_adata(adata)
    check_slots_free(adata, key_added, _WRITER, {})
    embeddings = {name: check.get_rep(adata, name) for name in as_list(use_reps)}
    taken = {study.RANK, study.EXPRESSION, "rank_umap", "expression_pca", "expression_umap"} & set(embeddings)
    if taken:
        msg = f"use_reps {listing(taken)} have names of measures: rename these entries of obsm."
        raise ValueError(msg)
    column = check.get_obs_column(adata, groupby)
    chosen, n_first, names = _choose_cells(column, groupby, n_cells, n_compared, generator)
    if batch_key is not None and check.get_obs_column(adata, batch_key).isna().any():
        n_missing = int(adata.obs[batch_key].isna().sum())
        msg = f"adata.obs[{batch_key!r}] has no value for {n_missing} cells. Drop them first."
        raise ValueError(msg)
    genes = _masked_genes(adata, mask_var)
    given = None if medians is None else match_medians(medians, gene_names(adata, gene_key))[0][genes]
    counts = count_rows(adata[chosen], layer)
    totals = cell_sizes(adata[chosen], counts, size_key)
    counts = counts if genes.all() else counts[:, genes]
    labels = np.asarray(adata.obs[groupby].astype(str), dtype=object)[chosen]
    groups = pd.Categorical(labels, categories=names).codes.astype(np.int64)
    batches = None if batch_key is None else pd.factorize(adata.obs[batch_key].to_numpy()[chosen])[0].astype(np.int64)
    cells, chosen = _drop_empty(study.TypedCells(counts, totals, groups, batches, n_first, names, given), chosen)
    if n_neighbors >= len(chosen):
        msg = f"n_neighbors={n_neighbors} must be below the number of cells ({len(chosen)})."
        raise ValueError(msg)
    median = cells.medians

    logs = study.log_normalized(cells.counts, cells.totals)
    pca = _pca(logs, n_pcs, generator)
    rank = study.rank_distances(cells.counts, median, ties, zeros, generator)
    direct: dict[str, Distances] = {
        study.RANK: rank,
        study.EXPRESSION: RowCorrelation(logs),
        "expression_pca": Euclidean(pca),
    }
    maps = {"expression_umap": _umap(pca, generator)}
    if rank_map:
        if not isinstance(rank, RowCorrelation):
            msg = "rank_map needs ranks for all genes: zeros='last' or 'ordered', not 'drop'."
            raise ValueError(msg)
        maps["rank_umap"] = _umap(_pca(rank.standard_rows(), n_pcs, generator), generator)
    for name, rep in embeddings.items():
        if rep.shape[1] <= _MAP_DIMENSIONS:
            maps[name] = rep[chosen]
        else:
            direct[name] = Euclidean(rep[chosen])
            maps[f"{name}_umap"] = _umap(rep[chosen], generator)

    weights = group_weights(len(cells.names), n_boot, generator)
    everything = direct | {name: Euclidean(map_[: cells.n_compared]) for name, map_ in maps.items()}
    tables = study.compare_types(cells, everything, weights, n_outliers)
    tables |= study.compare_neighbors(cells, direct, n_neighbors, weights)
    del direct, everything, rank, logs
    few = cells.take(_first_of_each(cells.groups[: cells.n_compared], _RULE_CELLS))
    tables["rules"] = study.compare_rules(few, weights, generator)
    sparsity = study.SparsityStudy((ties, zeros), weights, generator)
    rows = [*sparsity.of_bins(cells, _bins(cells, n_bins), {"expression_pca": pca} | maps)]
    if _whole(cells.counts):
        rows += sparsity.of_thinned(few, median, fractions)
    tables["sparsity"] = pd.DataFrame(rows)

    options: dict[str, Any] = counted | {"groupby": groupby, "batch_key": batch_key, "use_reps": list(embeddings)}
    options |= {"layer": layer, "mask_var": mask_var, "medians": "data" if given is None else "given"}
    options |= {"gene_key": gene_key, "size_key": size_key, "ties": ties, "zeros": zeros, "n_cells": n_cells}
    options |= {"thinning": list(fractions), "rank_map": bool(rank_map), "rng": describe(rng)}
    options |= {"n_used": len(cells.groups), "n_used_compared": cells.n_compared}
    options |= {"n_genes": int(np.isfinite(median).sum())}
    result = record(adata, key_added, _WRITER, tables, options, copy=copy, fresh=True)
    summary = tables["summary"]
    shown = ", ".join(
        f"{name} {auroc:.3f} ({ratio:.2f})"
        for name, auroc, ratio in summary[["measure", "auroc", "ratio"]].itertuples(index=False)
    )
    _logging.info(
        f"rank_fidelity: {len(cells.groups)} cells of {len(cells.names)} types; AUROC of types (distance within over "
        f"between): {shown}; added uns['{key_added}']"
    )
    return result


def _fractions(thinning: Sequence[float]) -> tuple[float, ...]:
    values = np.atleast_1d(np.asarray(thinning, dtype=np.float64))
    if not ((values > 0) & (values <= 1)).all():
        msg = f"thinning must hold shares of the counts, above 0 and up to 1, found {listing(values)}."
        raise ValueError(msg)
    return tuple(sorted({1.0, *values.tolist()}, reverse=True))


def _choose_cells(
    column: pd.Series, groupby: str, n_cells: int | None, n_compared: int, rng: np.random.Generator
) -> tuple[np.ndarray, int, np.ndarray]:
    """Positions of the cells of the study (those to compare first, by type), how many are compared, and the types."""
    labels = column.astype(object).where(column.notna(), None).map(str, na_action="ignore")
    sizes = labels.value_counts()
    small = sizes.index[sizes < _FEWEST_CELLS]
    names = np.array(sorted(sizes.index[sizes >= _FEWEST_CELLS]), dtype=object)
    if len(names) < _FEWEST_TYPES:
        msg = (
            f"adata.obs[{groupby!r}] has {len(names)} types with at least {_FEWEST_CELLS} cells, but {_FEWEST_TYPES} "
            f"are needed to compare pairs of types. Types here: {listing(sizes.index)}."
        )
        raise ValueError(msg)
    if len(small):
        _logging.warning(f"Types with fewer than {_FEWEST_CELLS} cells are left out: {listing(small)}.")
    if labels.isna().any():
        _logging.warning(f"{int(labels.isna().sum())} cells have no adata.obs[{groupby!r}] and are left out.")
    compared, others = [], []
    values = np.asarray(labels, dtype=object)
    for name in names:
        cells = rng.permutation(np.flatnonzero(values == name))[:n_cells]
        compared.append(np.sort(cells[:n_compared]))
        others.append(np.sort(cells[n_compared:]))
    first = np.concatenate(compared)
    return np.concatenate([first, *others]), len(first), names


def _masked_genes(adata: AnnData, mask_var: str | None) -> np.ndarray:
    """The genes to use, as a mask."""
    if mask_var is None:
        return np.ones(adata.n_vars, bool)
    if mask_var not in adata.var.columns:
        msg = f"Did not find adata.var[{mask_var!r}]. Available: {listing(adata.var.columns)}."
        raise KeyError(msg)
    if adata.var[mask_var].dtype != bool:
        msg = f"adata.var[{mask_var!r}] must be True or False for each gene, found {adata.var[mask_var].dtype}."
        raise ValueError(msg)
    return adata.var[mask_var].to_numpy()


def _drop_empty(cells: study.TypedCells, chosen: np.ndarray) -> tuple[study.TypedCells, np.ndarray]:
    """Cells without those that express fewer than two genes, and their positions in the AnnData."""
    known = cells.counts if cells.given is None else cells.counts[:, np.isfinite(cells.given)]
    usable = np.diff(known.indptr) > 1
    if not usable.all():
        _logging.warning(f"{int((~usable).sum())} cells express fewer than two of the genes and are left out.")
        cells = cells.take(np.flatnonzero(usable), int(usable[: cells.n_compared].sum()))
        chosen = chosen[usable]
    if (cells.sizes < 2).any():
        few = cells.names[cells.sizes < 2]
        msg = f"Too few cells express any of the genes in {listing(few)}. Leave these types out."
        raise ValueError(msg)
    return cells, chosen


def _pca(matrix: sparse.csr_matrix | np.ndarray, n_pcs: int, rng: np.random.Generator) -> np.ndarray:
    """Principal components of the rows."""
    import scanpy as sc

    n_pcs = min(n_pcs, min(matrix.shape) - 1)
    return np.asarray(sc.pp.pca(matrix, n_comps=n_pcs, random_state=int(rng.integers(2**31))))


def _umap(coordinates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """UMAP with scanpy's defaults, on exact neighbors."""
    import scanpy as sc
    from anndata import AnnData

    seed = int(rng.integers(2**31))
    held = AnnData(np.asarray(coordinates, dtype=np.float32))
    # exact neighbors: approximate ones would differ between machines
    n_neighbors = min(_NEIGHBORS_OF_MAP, len(coordinates) - 1)
    sc.pp.neighbors(held, n_neighbors=n_neighbors, use_rep="X", transformer="sklearn", random_state=seed)
    sc.tl.umap(held, random_state=seed)
    return np.asarray(held.obsm["X_umap"])


def _first_of_each(groups: np.ndarray, n: int) -> np.ndarray:
    """Positions of up to `n` rows of each group."""
    place = pd.Series(groups).groupby(groups).cumcount().to_numpy()
    return np.flatnonzero(place < n)


def _bins(cells: study.TypedCells, n_bins: int) -> list[np.ndarray]:
    """Cells of each bin of detected genes. Bins have equal sizes within a type, so that each has all types."""
    detected = np.diff(cells.counts.indptr)
    share = pd.Series(detected).groupby(cells.groups).rank(method="first", pct=True).to_numpy()
    number = np.minimum((share * n_bins - 1e-9).astype(int), n_bins - 1)
    chosen = [np.flatnonzero(number == b) for b in range(n_bins)]
    return [rows[_first_of_each(cells.groups[rows], _RULE_CELLS)] for rows in chosen]


def _whole(counts: sparse.csr_matrix) -> bool:
    if bool((counts.data == np.floor(counts.data)).all()):
        return True
    _logging.warning("The values are not whole numbers and cannot be thinned: only bins are compared.")
    return False
