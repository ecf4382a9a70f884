from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc import _logging
from sparsesc import _random as random
from sparsesc._values import as_list, check_choice, check_positive_int, check_share, listing
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._obs_columns import Labels, read_columns
from sparsesc.stats.core._holdout import stratified_holdout
from sparsesc.stats.features._duplicates import distinct_columns
from sparsesc.stats.groups._representation import METRICS, RepresentationScores, shuffled

from ._controls import CONTROLS, control_representations, random_sizes

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sparsesc._random import RNGLike, SeedLike

type Representation = str | np.ndarray | sparse.spmatrix | sparse.sparray | pd.DataFrame


def compare_representations(
    adata: AnnData | MuData,
    use_reps: str | Sequence[str] | Mapping[str, Representation],
    label_keys: str | Sequence[str],
    *,
    controls: str | Sequence[str] = (),
    use_rep: str | None = None,
    n_components: int | None = None,
    n_permutations: int = 100,
    holdout: float = 0.5,
    min_r: float = 0.5,
    duplicates: float = 0.9,
    min_cells: int = 10,
    rng: SeedLike | RNGLike | None = 0,
    progress_bar: bool | None = None,
) -> pd.DataFrame:
    r"""Compare how well single features of several embeddings match known labels, on held-out cells, with nulls.

    Features are chosen on one part of the cells and scored on the other, for a code of thousands of features just as
    for ten dimensions, and every score is repeated with shuffled labels.

    Parameters
    ----------
    adata
        Cells with representations in ``obsm`` and labels in ``obs``.
    use_reps
        Entries of ``obsm``, dense or sparse (kept sparse); or a dictionary from names to entries of ``obsm`` or arrays
        (cells x features). ``"X"`` is the expression matrix.
    label_keys
        Columns of ``obs`` with labels. Cells without a label are left out of that column's scores.
    controls
        Representations to add for comparison, fitted without labels to `use_rep`: any of ``"pca"``, ``"ica"``,
        ``"nmf"`` (of positive and negative parts side by side, where there are negative values) and ``"random_sae"``,
        an untrained code as wide and as sparse as each sparse one in `use_reps`.
    use_rep
        Entry of ``obsm`` that controls are fitted to. ``None``: the first of `use_reps`, or, if that is the code of
        an autoencoder, the embedding it was fitted to.
    n_components
        Dimensions of PCA, ICA and NMF. ``None``: those of the embedding, at most 100.
    n_permutations
        How often labels are shuffled; 0: no null. The smallest p is ``1 / (n_permutations + 1)``.
    holdout
        Share of the cells on which features are scored, the same from every category.
    min_r
        Absolute Pearson r above which a feature is strongly correlated with a category.
    duplicates
        Absolute Pearson r from which two features of a representation count as copies of each other.
    min_cells
        Categories with fewer cells are not scored; their cells count as others.
    rng
        Draws the held-out cells, the shuffled labels and the controls. All representations get the same cells and the
        same shuffled labels.
    progress_bar
        Show a progress bar. ``None``: unless verbosity is 0.

    Returns
    -------
    One row for each representation, label key and metric, in the order of the arguments: `representation`,
    `label_key`, `metric`, `value`, `null_mean` and `null_sd` (over shuffled labels), `pval` (one-sided: the share of
    shuffled labels that score as high or higher, the observed ones included), `n_features` (that could be chosen),
    `n_labels` (categories scored), `n_cells` (with a label). `adata` stays as it is. The metrics:

    ``singular``, ``singular_share``, ``singular_labels``
        Features correlated beyond `min_r` with exactly one category, over all cells, as in sparseSC: their number,
        their share of all features, and how many different categories they mark. Of a column with two categories the
        positive side counts.
    ``auroc``, ``coverage``
        AUROC of the best feature of each category, in the direction of the training cells: the mean, and the
        share of categories where it is at least 0.9.
    ``f1``
        Mean over categories of the F1 of the best feature, direction and threshold.
    ``probe_1``, ``probe_2``, ``probe_5``
        Mean AUROC of logistic regressions on so many features, chosen one after the other.
    ``lms_smi``, ``msas_smi``, ``msgs_smi``, ``lms_spn``, ``msas_spn``, ``msgs_spn``
        DRVI's aggregates (:func:`sparsesc.stats.lms`, :func:`sparsesc.stats.msas`, :func:`sparsesc.stats.msgs`) of
        scaled mutual information (:func:`sparsesc.stats.smi`) and same-process neighbors
        (:func:`sparsesc.stats.spn`).
    ``lms_smi_distinct``, ...
        The same six without `duplicates`.

    Raises
    ------
    KeyError
        If an entry of ``obsm`` or a column of ``obs`` does not exist (lists what there is).
    TypeError
        If a column holds numbers, or a representation does not.
    ValueError
        If nothing is requested, a name is taken twice, a representation does not have one row a cell or holds NaN, no
        category has `min_cells` cells, or an option is unknown or out of its range.

    See Also
    --------
    sparsesc.pl.representations : draw the table.
    sparsesc.tl.feature_association : the features of one code, tested against labels.
    sparsesc.stats.lms : one of the aggregates.

    Notes
    -----
    With :math:`v` the observed score and :math:`v_1, \dots, v_B` the scores of :math:`B` shuffled labels,

    .. math:: p = \frac{1 + |\{b : v_b \ge v\}|}{1 + B} .

    Look at ``"random_sae"`` first: an untrained code of the same size already has many strong singular correlations,
    and any wide sparse code detects well separated types. A code is informative where it beats that control, the
    dimensions of the embedding and ICA.

    The p-value says that a representation knows something about the labels, which nearly every one does; it does not
    say that one is better than another. For that, compare values over several `rng` (fits and splits).

    When not to use it: labels that were derived from one of the representations (clusters of it) favor that one.
    Cells of one donor are alike, so held-out cells are easier than held-out donors. ``msgs`` punishes codes that split
    a category over several features: read it together with ``msgs_smi_distinct``.

    References
    ----------
    Moinfar and Theis (2024), Unsupervised deep disentangled representation of single-cell omics, bioRxiv (DRVI).
    Gurnee et al. (2023), Finding Neurons in a Haystack, TMLR (sparse probing). Phipson and Smyth (2010), Stat Appl
    Genet Mol Biol 9:39 (p-values of permutations are never 0).

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> table = ssc.tl.compare_representations(adata, "X_pca", "bulk_labels", n_permutations=0)
    >>> bool(table.set_index("metric").loc["auroc", "value"] > 0.85)
    True
    """
    check.check_adata(adata)
    wanted = as_list(controls)
    for name in wanted:
        check_choice(name, CONTROLS, name="control")
    if isinstance(n_permutations, bool) or not isinstance(n_permutations, int | np.integer) or n_permutations < 0:
        msg = f"n_permutations must be a whole number of at least 0, found {n_permutations!r}."
        raise ValueError(msg)
    if n_components is not None:
        check_positive_int(n_components, name="n_components")
    for value, name in ((holdout, "holdout"), (min_r, "min_r"), (duplicates, "duplicates")):
        check_share(value, name=name)
    min_cells = check_positive_int(min_cells, name="min_cells")
    labels = _label_columns(adata, label_keys, min_cells=min_cells)
    given = _representations(adata, use_reps)
    seeds = random.as_generator(rng).integers(2**63 - 1, size=len(labels) + 1)

    made: list[tuple[str, Any]] = []
    if wanted:
        X = check.get_rep(adata, _embedding_of(adata, use_reps) if use_rep is None else use_rep)
        codes = {name: code for name, code in given.items() if sparse.issparse(code)}
        names = [name for name in wanted if name != "random_sae"]
        names += [size[0] for size in random_sizes(X, codes)] if "random_sae" in wanted else []
        taken = [name for name in names if name in given]
        if taken:
            msg = f"Representations and controls share names: {listing(taken)}. Rename yours: use_reps={{name: ...}}."
            raise ValueError(msg)
        draws = np.random.default_rng(seeds[-1])
        made = list(control_representations(wanted, X, codes, n_components=n_components, rng=draws))

    everything = [*given.items(), *made]
    tables = []
    total = len(everything) * len(labels) * (n_permutations + 1)
    with _logging.progress(total=total, desc="compare_representations", enabled=progress_bar) as bar:
        for name, values in everything:
            matrix = sparse.csr_matrix(values)
            distinct = distinct_columns(matrix, duplicates)
            for column, seed in zip(labels, seeds, strict=False):
                rows = column.known
                draws = np.random.default_rng(seed)
                held = stratified_holdout([column.codes[rows]], holdout, draws)
                judged = _scored_categories(column, held, min_cells)
                cells = matrix if rows.all() else matrix[rows]
                scorer = RepresentationScores(cells, ~held, distinct, threshold=min_r)
                block = _all_metrics(scorer, column.codes[rows], judged, n_permutations, rng=draws, update=bar.update)
                tables.append(block.assign(representation=name, label_key=column.name))
    out = pd.concat(tables, ignore_index=True)
    names = [name for name, _ in everything]
    orders = {"representation": names, "label_key": [c.name for c in labels], "metric": list(METRICS)}
    for name, order in orders.items():  # so that tables and plots keep the order
        out[name] = pd.Categorical(out[name], categories=order)
    _logging.info(
        f"compare_representations: {len(names)} representations ({listing(names)}) against "
        f"{listing(c.name for c in labels)}; {n_permutations} shuffled labels each"
    )
    return out[list(_keys.REPRESENTATION_COLUMNS)]


def _all_metrics(
    scorer: RepresentationScores,
    groups: np.ndarray,
    judged: np.ndarray,
    n_permutations: int,
    *,
    rng: np.random.Generator,
    update: Any,
) -> pd.DataFrame:
    """All metrics of one representation and one column."""
    values = pd.Series(scorer.scores(groups, judged))
    update()
    null = np.empty((n_permutations, len(METRICS)))
    for i in range(n_permutations):
        null[i] = list(scorer.scores(shuffled(groups, scorer.train, rng), judged).values())
        update()
    nothing = np.full(len(METRICS), np.nan)
    # scores that differ by rounding are the same
    reached = (null >= values.to_numpy() - 1e-12).sum(axis=0)
    pval = np.where(values.isna(), np.nan, (1.0 + reached) / (1.0 + n_permutations))
    n_features = [int(scorer.distinct.sum()) if m.endswith("_distinct") else len(scorer.distinct) for m in METRICS]
    return pd.DataFrame(
        {
            "metric": METRICS,
            "value": values.to_numpy(),
            "null_mean": null.mean(axis=0) if n_permutations else nothing,
            "null_sd": null.std(axis=0, ddof=1) if n_permutations > 1 else nothing,
            "pval": pval if n_permutations else nothing,
            "n_features": n_features,
            "n_labels": int(judged.sum()),
            "n_cells": len(groups),
        }
    )


def _scored_categories(column: Labels, held: np.ndarray, min_cells: int) -> np.ndarray:
    """Categories with enough cells, two of them and two others in either half."""
    groups = column.codes[column.known]
    judged = column.sizes >= min_cells
    for part in (groups[held], groups[~held]):
        sizes = np.bincount(part, minlength=len(judged))
        judged &= (sizes >= 2) & (len(part) - sizes >= 2)
    if not judged.any():
        msg = (
            f"No category of adata.obs[{column.name!r}] can be scored: after holding out {int(held.sum())} of "
            f"{len(held)} cells, none of its {len(judged)} categories with {min_cells} cells or more has two cells, "
            "and two others, on both sides. Change holdout, or lower min_cells."
        )
        raise ValueError(msg)
    return judged


def _label_columns(adata: AnnData | MuData, label_keys: str | Sequence[str], *, min_cells: int) -> list[Labels]:
    names = as_list(label_keys)
    if not names:
        msg = f"label_keys is empty. Name columns of adata.obs with labels: {listing(adata.obs.columns)}."
        raise ValueError(msg)
    labels, numbers = read_columns(adata, names)
    if numbers:
        msg = (
            f"adata.obs[{numbers[0].name!r}] holds numbers, and label_keys need labels. If they are cluster numbers, "
            'convert them by .astype("category"); otherwise leave the column out.'
        )
        raise TypeError(msg)
    for column in labels:
        if column.sizes.max() < min_cells:
            msg = (
                f"No category of adata.obs[{column.name!r}] has min_cells={min_cells} cells: the largest has "
                f"{column.sizes.max()}. Lower min_cells, or leave the column out."
            )
            raise ValueError(msg)
    return labels


def _representations(
    adata: AnnData | MuData, use_reps: str | Sequence[str] | Mapping[str, Representation]
) -> dict[str, np.ndarray | sparse.csr_matrix]:
    if not isinstance(use_reps, Mapping):
        if not isinstance(use_reps, str) and not all(isinstance(name, str) for name in use_reps):
            msg = "use_reps must be names of adata.obsm. Give arrays by name: use_reps={'mine': array, 'pca': 'X_pca'}."
            raise TypeError(msg)
        use_reps = {name: name for name in as_list(use_reps)}
    if not use_reps:
        msg = f"use_reps is empty. Name entries of adata.obsm: {listing(adata.obsm.keys())}."
        raise ValueError(msg)
    return {str(name): _read(adata, value, str(name)) for name, value in use_reps.items()}


def _read(adata: AnnData | MuData, value: Any, name: str) -> np.ndarray | sparse.csr_matrix:
    title = f"use_reps[{name!r}]"
    if isinstance(value, str):
        stored = adata.obsm.get(value, getattr(adata, "X", None) if value == "X" else None)
        if not sparse.issparse(stored):
            return check.get_rep(adata, value)
        value, title = stored, f"adata.obsm[{value!r}]"
    if sparse.issparse(value):
        matrix = sparse.csr_matrix(value, dtype=np.float32)
        n_bad = int((~np.isfinite(matrix.data)).sum())
        if n_bad:
            msg = f"{title} holds {n_bad} NaN or infinite values. Remove these cells or compute it again."
            raise ValueError(msg)
    else:
        matrix = check.to_float_matrix(value, name=title)
    if matrix.shape[0] != adata.n_obs or not matrix.shape[1]:
        msg = f"{title} must have one row for each of {adata.n_obs} cells, and a feature, found shape {matrix.shape}."
        raise ValueError(msg)
    return matrix


def _embedding_of(adata: AnnData | MuData, use_reps: str | Sequence[str] | Mapping[str, Representation]) -> str:
    """The embedding behind the first representation."""
    first = next(iter(use_reps.values())) if isinstance(use_reps, Mapping) else as_list(use_reps)[0]
    if not isinstance(first, str):
        msg = "The first of use_reps is an array: say by use_rep which entry of adata.obsm the controls are fitted to."
        raise ValueError(msg)
    for key in adata.uns:
        if check.is_sae_slot(adata.uns[key]) and _keys.sae_keys(key).codes == first:
            return str(adata.uns[key][_keys.PARAMS]["use_rep"])
    return first
