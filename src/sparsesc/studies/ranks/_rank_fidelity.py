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
from sparsesc.door import _keys
from sparsesc.door._counts import cell_sizes, count_rows, gene_names
from sparsesc.door._slots import WRITTEN_BY, check_slots_free

from . import _study as study
from ._cell_distances import Correlation, Distances, Euclidean
from ._medians import match_medians
from ._row_ranks import TIES
from ._separation import group_weights

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy import sparse

    from sparsesc._random import RNGLike, SeedLike

ZEROS = ("last", "ordered", "drop")
_FEWEST_CELLS = 10  # of a type
_FEWEST_TYPES = 3
_RULE_CELLS = 50  # of a type, for tables that repeat the comparison many times
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
    """What is left of cell types when cells become ranks of genes: distances within and between types, and neighbours.

    Compares the ranks of :func:`sparsesc.pp.rank_value_encode` with log-normalised expression, its principal
    components and their UMAP, and with any embedding, by the same cells.

    Parameters
    ----------
    adata
        Cells x genes, counts.
    groupby
        Column of ``obs`` with the types of the cells. Cells without one are left out, and so are types with fewer than
        ten cells.
    batch_key
        Column of ``obs`` with batches, for the share of neighbours from the same batch.
    use_reps
        Entries of ``obsm`` to compare as well, for example Geneformer's embedding. One with up to three dimensions is
        taken as a map; of the others a UMAP is compared beside the embedding.
    layer
        Layer of counts to read instead of ``X``.
    mask_var
        Column of ``var`` with the genes to use, for example ``"highly_variable"``; ``None``: all.
    medians
        What counts are divided by, see :func:`sparsesc.pp.rank_value_encode`; ``None``: from these cells.
    gene_key
        Column of ``var`` with the names that `medians` uses; ``None``: ``var_names``.
    size_key
        Column of ``obs`` with the total counts of each cell, for data that hold only some of the genes; ``None``: the
        sum over all genes that are there.
    ties
        Rank of equal values. With the default and ``zeros="last"`` the distance is one minus Spearman's coefficient.
    zeros
        ``"last"``: genes without counts share the mean of the last ranks. ``"ordered"``: they are numbered like other
        ties by ``ties="first"`` or ``"random"``. ``"drop"``: only genes that both cells express are correlated.
    n_cells
        Cells to draw of each type, the study's cells; ``None``: all.
    n_compared
        Of these, cells of each type whose pairs are compared and whose neighbours (among all of the study's) are found.
        Two types give ``n_compared**2`` pairs.
    n_neighbors
        Neighbours of a cell.
    n_bins
        Bins of detected genes, of equal size within each type.
    thinning
        Shares of the counts to keep in thinned cells, beside 1.
    n_pcs
        Principal components of expression.
    rank_map
        Also compare a UMAP of the ranks (of their principal components), which tells what the map does from what the
        encoding does.
    n_outliers
        Outliers of each kind and measure to list.
    n_boot
        Bootstrap samples of types for intervals.
    rng
        Draws cells, ties, thinned counts, maps and bootstrap samples.
    key_added
        Entry of ``uns``.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy when ``copy=True``, with the following in ``uns[key_added]``. A `measure` is ``"rank"`` (one
    minus the correlation of ranks), ``"expression"`` (one minus Pearson's correlation of log-normalised expression),
    ``"expression_pca"``, ``"expression_umap"``, ``"rank_umap"``, an entry of `use_reps`, or its ``"_umap"`` (all
    Euclidean).

    ``"summary"``
        One row a measure: `n_within` (types), `n_between` (pairs of types), `within` and `between` (medians over these
        of the median distance), and three effect sizes with the ends of their 95 % intervals over types (`_low`,
        `_high`): `auroc` (a type's own median against those between types), `cohen_d`, `ratio` (`within` over
        `between`); and the same less those of ``"rank"`` (`auroc_vs_rank`, ...).
    ``"pairs"``
        One row a measure and pair of types: `group_a`, `group_b`, `within`, `distance` (median), `n_pairs` (of cells),
        `score` (robust z: how much nearer two types are than others, or how much looser one type is).
    ``"outliers"``
        The largest scores, by `measure` and `kind`: ``"different types alike"`` and ``"type unlike itself"``, with
        `distance`, and `within_a` and `within_b`, the distances within either type.
    ``"neighbors"``, ``"neighbor_groups"``
        Share of neighbours of the same type (`same_group`) and of the same batch (`same_batch`), as means over types
        with intervals, and by `group`; `same_group_expected` is the share among all cells, `same_batch_expected`
        that if batches were mixed within types. For ranks, expression, components and embeddings; not for maps.
    ``"rules"``
        Effect sizes under ten rules for ties, zeros and medians, in up to 50 cells of each type.
    ``"sparsity"``
        Effect sizes by bins of detected genes (`level` 1: fewest) and by thinning (`level`: share kept), `n_genes`
        (detected in the median cell), and `self_correlation` (a thinned cell with itself before). Beside ``"rank"``
        and ``"expression"``: ``"rank, zeros at random"``.
    ``"params"``
        What was asked, and how many cells there were.

    Raises
    ------
    KeyError
        If a column, layer or embedding does not exist.
    ValueError
        If the values are no counts, there are fewer than three types with ten cells, an option is out of its range, or
        the slot holds what this function did not write.

    Notes
    -----
    Effect sizes compare the shape of distances, not their units. A UMAP pulls neighbours together, so that any measure
    looks better as a map: compare maps with maps (`rank_map`), and ``"rank"`` with ``"expression"``.

    When not to trust it: types that were called from expression favour expression; where types and batches coincide, no
    measure can tell them apart. Intervals are over types: with fewer than ten they are rough. Thinning takes counts
    at random, while real shallow cells also differ in quality.

    References
    ----------
    Theodoris et al. (2023), *Nature* 618, 616-624 (the encoding). McInnes, Healy and Melville (2018), UMAP,
    arXiv:1802.03426.
    """
    check_choice(ties, TIES, name="ties")
    check_choice(zeros, ZEROS, name="zeros")
    n_cells = n_cells if n_cells is None else check_positive_int(n_cells, name="n_cells")
    counted = {"n_compared": n_compared, "n_neighbors": n_neighbors, "n_bins": n_bins, "n_pcs": n_pcs}
    for name, value in (counted | {"n_outliers": n_outliers, "n_boot": n_boot}).items():
        check_positive_int(value, name=name)
    fractions = _fractions(thinning)
    generator = as_generator(rng)
    check.check_adata(adata)
    check_slots_free(adata, key_added, "ssc.tl.rank_fidelity", {})
    embeddings = {name: check.get_rep(adata, name) for name in as_list(use_reps)}
    taken = {study.RANK, study.EXPRESSION, "rank_umap", "expression_pca", "expression_umap"} & set(embeddings)
    if taken:
        msg = f"use_reps {listing(taken)} have names of measures: rename these entries of obsm."
        raise ValueError(msg)
    chosen, n_first, names = _draw(check.get_obs_column(adata, groupby), groupby, n_cells, n_compared, generator)
    cells, given, chosen = _read(
        adata, chosen, n_first, names, groupby, batch_key, layer, mask_var, medians, gene_key, size_key, n_neighbors
    )
    median = study.medians_of(cells, given)

    logs = study.log_normalised(cells.counts, cells.totals)
    pca = _pca(logs, n_pcs, generator)
    rank = study.rank_distances(cells.counts, median, ties, zeros, generator)
    direct: dict[str, Distances] = {
        study.RANK: rank,
        study.EXPRESSION: Correlation(logs),
        "expression_pca": Euclidean(pca),
    }
    maps = {"expression_umap": _umap(pca, generator)}
    if rank_map:
        ranked = rank.standard_rows() if isinstance(rank, Correlation) else None
        if ranked is None:
            msg = "rank_map needs ranks for all genes: zeros='last' or 'ordered', not 'drop'."
            raise ValueError(msg)
        maps["rank_umap"] = _umap(_pca(ranked, n_pcs, generator), generator)
        del ranked
    for name, rep in embeddings.items():
        if rep.shape[1] <= _MAP_DIMENSIONS:
            maps[name] = rep[chosen]
        else:
            direct[name] = Euclidean(rep[chosen])
            maps[f"{name}_umap"] = _umap(rep[chosen], generator)

    weights = group_weights(len(cells.names), n_boot, generator)
    effects = study.Effects(weights)
    everything = direct | {name: Euclidean(map_[: cells.n_compared]) for name, map_ in maps.items()}
    tables = dict.fromkeys(_keys.tables_of("rank_fidelity"), pd.DataFrame())
    tables["pairs"], tables["summary"], tables["outliers"] = study.compare_types(cells, everything, effects, n_outliers)
    tables["neighbors"], tables["neighbor_groups"] = study.compare_neighbors(cells, direct, n_neighbors, weights)
    del direct, everything, rank, logs
    few = _first_of_each(cells.groups[: cells.n_compared], _RULE_CELLS)
    tables["rules"] = study.compare_rules(cells.take(few), given, effects, generator)
    tables["sparsity"] = study.compare_sparsity(
        cells,
        _bins(cells, n_bins),
        {"expression_pca": pca} | maps,
        given,
        (ties, zeros),
        fractions if _whole(cells.counts) else (),
        few,
        effects,
        generator,
    )

    adata = check.writable(adata, copy=copy)
    asked: dict[str, Any] = {WRITTEN_BY: "ssc.tl.rank_fidelity", "groupby": groupby, "batch_key": batch_key or ""}
    asked |= {"use_reps": np.array(list(embeddings), dtype=object), "layer": layer or "", "mask_var": mask_var or ""}
    asked |= {"medians": "given" if given is not None else "data", "gene_key": gene_key or ""}
    asked |= {"size_key": size_key or ""}
    asked |= {"ties": ties, "zeros": zeros, "n_cells": -1 if n_cells is None else n_cells} | counted
    asked |= {"thinning": np.array(fractions), "rank_map": bool(rank_map), "n_boot": n_boot, "rng": describe(rng)}
    asked |= {
        "n_used": len(cells.groups),
        "n_used_compared": cells.n_compared,
        "n_genes": int(np.isfinite(median).sum()),
    }
    adata.uns[key_added] = tables | {_keys.PARAMS: asked}
    _report(tables, cells, key_added)
    return adata if copy else None


def _fractions(thinning: Sequence[float]) -> tuple[float, ...]:
    values = np.atleast_1d(np.asarray(thinning, dtype=np.float64))
    if not ((values > 0) & (values <= 1)).all():
        msg = f"thinning must hold shares of the counts, above 0 and up to 1, found {listing(values)}."
        raise ValueError(msg)
    return tuple(sorted({1.0, *values.tolist()}, reverse=True))


def _draw(
    column: pd.Series, groupby: str, n_cells: int | None, n_compared: int, rng: np.random.Generator
) -> tuple[np.ndarray, int, np.ndarray]:
    """Positions of the study's cells, those to compare first and sorted by type; their number; names of the types."""
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


def _read(
    adata: AnnData,
    chosen: np.ndarray,
    n_first: int,
    names: np.ndarray,
    groupby: str,
    batch_key: str | None,
    layer: str | None,
    mask_var: str | None,
    medians: Any,
    gene_key: str | None,
    size_key: str | None,
    n_neighbors: int,
) -> tuple[study.Cells, np.ndarray | None, np.ndarray]:
    """The study's cells, the medians that were given, and the positions of the cells in `adata`."""
    batches = None if batch_key is None else check.get_obs_column(adata, batch_key)
    if batches is not None and batches.isna().any():
        msg = f"adata.obs[{batch_key!r}] has no value for {int(batches.isna().sum())} cells. Drop them first."
        raise ValueError(msg)
    genes = np.ones(adata.n_vars, bool)
    if mask_var is not None:
        if mask_var not in adata.var.columns:
            msg = f"Did not find adata.var[{mask_var!r}]. Available: {listing(adata.var.columns)}."
            raise KeyError(msg)
        if adata.var[mask_var].dtype != bool:
            msg = f"adata.var[{mask_var!r}] must be True or False for each gene, found {adata.var[mask_var].dtype}."
            raise ValueError(msg)
        genes = adata.var[mask_var].to_numpy()
    given = None
    if medians is not None:
        given = match_medians(medians, gene_names(adata, gene_key))[0][genes]
    counts = count_rows(adata[chosen], layer)
    totals = cell_sizes(adata[chosen], counts, size_key)
    if not genes.all():
        counts = counts[:, genes]
    known = counts if given is None else counts[:, np.isfinite(given)]
    usable = np.diff(known.indptr) > 1
    if not usable.all():
        _logging.warning(f"{int((~usable).sum())} cells express fewer than two of the genes and are left out.")
        counts, totals, chosen, n_first = counts[usable], totals[usable], chosen[usable], int(usable[:n_first].sum())
    label = np.asarray(adata.obs[groupby].astype(str), dtype=object)[chosen]
    groups = pd.Categorical(label, categories=names).codes.astype(np.int64)
    left = np.bincount(groups[:n_first], minlength=len(names))
    if (left < 2).any():
        msg = f"Too few cells express any of the genes in {listing(names[left < 2])}. Leave these types out."
        raise ValueError(msg)
    if n_neighbors >= len(groups):
        msg = f"n_neighbors={n_neighbors} must be below the number of cells ({len(groups)})."
        raise ValueError(msg)
    codes = None if batches is None else pd.factorize(batches.to_numpy()[chosen])[0].astype(np.int64)
    return study.Cells(counts, totals, groups, codes, n_first, names), given, chosen


def _pca(matrix: sparse.csr_matrix | np.ndarray, n_pcs: int, rng: np.random.Generator) -> np.ndarray:
    """Principal components; of rows x columns by the columns' covariance."""
    import scanpy as sc

    n_pcs = min(n_pcs, min(matrix.shape) - 1)
    return np.asarray(sc.pp.pca(matrix, n_comps=n_pcs, random_state=int(rng.integers(2**31))))


def _umap(coordinates: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """UMAP with scanpy's defaults, on exact neighbours."""
    import scanpy as sc
    from anndata import AnnData

    seed = int(rng.integers(2**31))
    held = AnnData(np.asarray(coordinates, dtype=np.float32))
    # exact neighbours: approximate ones would change from machine to machine
    n_neighbors = min(_NEIGHBORS_OF_MAP, len(coordinates) - 1)
    sc.pp.neighbors(held, n_neighbors=n_neighbors, use_rep="X", transformer="sklearn", random_state=seed)
    sc.tl.umap(held, random_state=seed)
    return np.asarray(held.obsm["X_umap"])


def _first_of_each(groups: np.ndarray, n: int) -> np.ndarray:
    """Positions of up to `n` rows of each group."""
    place = pd.Series(groups).groupby(groups).cumcount().to_numpy()
    return np.flatnonzero(place < n)


def _bins(cells: study.Cells, n_bins: int) -> list[np.ndarray]:
    """Cells of each bin of detected genes, bins being of equal size within a type, so that each bin has all types."""
    detected = np.diff(cells.counts.indptr)
    share = pd.Series(detected).groupby(cells.groups).rank(method="first", pct=True).to_numpy()
    number = np.minimum((share * n_bins - 1e-9).astype(int), n_bins - 1)
    chosen = [np.flatnonzero(number == b) for b in range(n_bins)]
    return [rows[_first_of_each(cells.groups[rows], _RULE_CELLS)] for rows in chosen]


def _whole(counts: sparse.csr_matrix) -> bool:
    if bool((counts.data == np.floor(counts.data)).all()):
        return True
    _logging.warning("The values are not whole numbers, so that they cannot be thinned: only bins are compared.")
    return False


def _report(tables: dict[str, pd.DataFrame], cells: study.Cells, key: str) -> None:
    table = tables["summary"].set_index("measure")
    shown = ", ".join(f"{name} {row['auroc']:.3f} ({row['ratio']:.2f})" for name, row in table.iterrows())
    _logging.info(
        f"rank_fidelity: {len(cells.groups)} cells of {len(cells.names)} types; AUROC of types (distance within over "
        f"between): {shown}; added uns['{key}']"
    )
