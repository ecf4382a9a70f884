from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc import _logging
from sparsesc import _random as random
from sparsesc._values import check_positive_int, check_share
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._obs_columns import read_groups
from sparsesc.door._slots import record
from sparsesc.stats.core._holdout import stratified_holdout
from sparsesc.stats.core._multiple import benjamini_hochberg
from sparsesc.stats.core._ranks import rank_columns
from sparsesc.stats.features._coactivation import overlap_test
from sparsesc.stats.features._splitting import Detector, best_detector, find_absorbers

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sparsesc._random import RNGLike, SeedLike


def feature_absorption(
    adata: AnnData | MuData,
    groupby: str,
    *,
    key: str = "sae",
    max_features: int = 5,
    min_gain: float = 0.03,
    min_precision: float = 0.5,
    min_cells: int = 20,
    holdout: float = 0.5,
    rng: SeedLike | RNGLike | None = 0,
    copy: bool = False,
) -> AnnData | MuData | None:
    r"""Find cell types that are split over several features, or lose cells to a finer feature.

    In a wide dictionary, the feature of a cell type may be silent in some of its cells, because a more specific
    feature absorbs them. Features are chosen on one part of the cells, and all scores are of the others.

    Parameters
    ----------
    adata
        Cells with a fitted sparse autoencoder.
    groupby
        Column of ``obs`` with labels, for example cell types. Cells without a label are left out.
    key
        Name of the sparse autoencoder.
    max_features
        The most features that may share a category, and the most that may absorb its cells.
    min_gain
        A further feature belongs to the detector when, in the choosing cells, it raises F1 by more than this and
        is active in remaining cells of the category more often than the best of all features would be by chance.
    min_precision
        The smallest share of an absorbing feature's active cells that belong to the category.
    min_cells
        Categories with fewer cells are left out.
    holdout
        Share of the cells on which scores are computed.
    rng
        Draws the cells that are held out, stratified by label.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy when ``copy=True``, with

    ``uns[key]["absorption"]``
        One row for each category with `min_cells` cells: `category`, `n_cells` (held out), `feature` (the single best
        detector), `f1`, `recall`, `precision` (of that feature), `split` (features that the detector takes),
        `split_features`, `f1_split` (of all together), `missed` (share of the cells that none of them calls),
        `absorbed` (share of the cells that are missed and in which an absorbing feature is active),
        `absorbed_expected` (if absorbing features were active in missed cells no more often than in the others),
        `absorbers`, `pval` (of that difference among held-out cells, exact, two-sided; 1 without an absorber), `padj`
        (Benjamini-Hochberg over the categories). Lists of features are joined by ``"; "``.
    ``uns[key]["params"]["feature_absorption"]``
        The options of the call.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, or no such column.
    TypeError
        If the column holds numbers.
    ValueError
        If no category has enough cells, or an option is out of its range.

    See Also
    --------
    sparsesc.tl.feature_association : test features against labels, one by one.
    sparsesc.tl.feature_similarity : pairs of features with the same label.
    sparsesc.tl.feature_locality : features of one category, or of several.

    Notes
    -----
    A feature can absorb when it is active in missed cells more often than in the others of the category (adjusted for
    all features), mostly active in the category, but in at most half of its cells, and points into the same half of the
    embedding as the category does from the mean of all cells. With :math:`M` the cells of a category :math:`C` that its
    detector misses, and :math:`A` the cells in which an absorbing feature is active,

    .. math:: \mathrm{absorbed} = \frac{|M \cap A \cap C|}{|C|}, \qquad
        \mathrm{expected} = \frac{|M \cap C|}{|C|} \cdot \frac{|A \cap C|}{|C|} .

    When not to trust it: a label that mixes two kinds of cells looks split or absorbed although nothing is wrong with
    the features. A detector with poor F1 misses cells for many reasons; trust absorption only where `f1_split` is high.

    References
    ----------
    Chanin et al. (2024), A is for Absorption, arXiv:2409.14507: splitting and absorption of first letters of words,
    adapted to cells.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.feature_absorption(adata, "bulk_labels")
    >>> table = adata.uns["sae"]["absorption"].set_index("category")
    >>> bool(table.loc["CD19+ B", "f1"] > 0.7)
    True
    """
    max_features = check_positive_int(max_features, name="max_features")
    if check_positive_int(min_cells, name="min_cells") < 4:
        msg = f"min_cells must be at least 4, so that both parts have cells, found {min_cells}."
        raise ValueError(msg)
    holdout = check_share(holdout, name="holdout")
    min_precision = check_share(min_precision, name="min_precision")
    min_gain = check_share(min_gain, name="min_gain")
    codes = check.get_codes(adata, key)
    table = check.get_feature_table(adata, key)
    labels = read_groups(adata, groupby)
    wanted = np.flatnonzero(labels.sizes >= min_cells)
    if not len(wanted):
        msg = (
            f"No category of adata.obs[{groupby!r}] has at least min_cells={min_cells} cells (the largest has "
            f"{labels.sizes.max()}). Lower min_cells, or use coarser labels."
        )
        raise ValueError(msg)
    groups = labels.codes[labels.known]
    codes = codes[labels.known]
    held = stratified_holdout([groups], holdout, random.as_generator(rng))
    parts = _SplitCodes(codes, held, np.asarray(check.get_sae_slot(adata, key)[_keys.WEIGHTS]["W_dec"]))
    names = table.index.astype(str).to_numpy(dtype=object)
    rows = []
    for group in wanted:
        member = groups == group
        detector = best_detector(parts.ranked, member[~held], max_features=max_features, min_gain=min_gain)
        absorbers = parts.absorbers(detector, member[~held], min_precision=min_precision, max_features=max_features)
        rows.append({"category": labels.categories[group]} | parts.score(detector, absorbers, member[held], names))
    out = pd.DataFrame(rows).astype(dict.fromkeys(("category", "feature", "split_features", "absorbers"), str))
    out["padj"] = benjamini_hochberg(out["pval"].to_numpy())
    options = {
        "groupby": groupby,
        "max_features": max_features,
        "min_gain": min_gain,
        "min_precision": min_precision,
        "min_cells": min_cells,
        "holdout": holdout,
        "rng": random.describe(rng),
    }
    result = record(adata, key, "feature_absorption", {_keys.ABSORPTION: out}, options, copy=copy)
    skipped = len(labels.categories) - len(wanted)
    _logging.info(
        f"feature_absorption: {int((out['split'] > 1).sum())} of {len(out)} categories split, "
        f"{int((out['padj'] < 0.05).sum())} with absorbed cells (padj < .05); added uns['{key}']['{_keys.ABSORPTION}']"
        + (f". {skipped} categories with fewer than min_cells={min_cells} cells were left out" if skipped else "")
    )
    return result


class _SplitCodes:
    """Codes of the cells that choose, and of those that score."""

    def __init__(self, codes: sparse.csr_matrix, held: np.ndarray, decoder: np.ndarray) -> None:
        self._train, self._test = codes[~held], codes[held]
        self.ranked = rank_columns(self._train)
        self._active = _indicator(self._train)
        self._n_active = np.diff(self.ranked.indptr)
        self._decoder = decoder.astype(np.float64)
        self._mean = np.asarray(self._train.mean(axis=0), dtype=np.float64).ravel()

    def absorbers(
        self, detector: Detector, member: np.ndarray, *, min_precision: float, max_features: int
    ) -> np.ndarray:
        """Features that take cells of a group from its detector, by the choosing cells."""
        rows = np.flatnonzero(member)
        missed = ~detector.called(self._train)[rows]
        # where the group lies from the mean of all cells, as the code sees it
        shift = np.asarray(self._train[rows].mean(axis=0), dtype=np.float64).ravel() - self._mean
        allowed = self._decoder @ (shift @ self._decoder) > 0
        allowed[detector.features] = False
        return find_absorbers(
            self._active[rows],
            missed,
            self._n_active,
            allowed=allowed,
            min_precision=min_precision,
            max_features=max_features,
        )

    def score(self, detector: Detector, absorbers: np.ndarray, member: np.ndarray, names: np.ndarray) -> dict[str, Any]:
        """One row of the table, from the held-out cells."""
        first, called = detector.called(self._test, 1), detector.called(self._test)
        n, hits = int(member.sum()), int((first & member).sum())
        rows = np.flatnonzero(member)
        missed = ~called[rows]
        taken = np.diff(self._test[rows][:, absorbers].tocsr().indptr) > 0
        n_both = int((missed & taken).sum())
        log_p = overlap_test(n, int(missed.sum()), int(taken.sum()), n_both)
        return {
            "n_cells": n,
            "feature": names[detector.features[0]],
            "f1": _f1(first, member),
            "recall": hits / n,
            "precision": hits / max(int(first.sum()), 1),
            "split": len(detector.features),
            "split_features": "; ".join(names[detector.features]),
            "f1_split": _f1(called, member),
            "missed": float(missed.mean()),
            "absorbed": n_both / n,
            "absorbed_expected": float(missed.mean() * taken.mean()),
            "absorbers": "; ".join(names[absorbers]),
            "pval": float(np.exp(log_p[0])),
        }


def _f1(called: np.ndarray, member: np.ndarray) -> float:
    return 2.0 * int((called & member).sum()) / max(int(called.sum()) + int(member.sum()), 1)


def _indicator(codes: sparse.csr_matrix) -> sparse.csr_matrix:
    out = sparse.csr_matrix((np.ones(codes.nnz, np.int64), codes.indices, codes.indptr), codes.shape)
    out.eliminate_zeros()
    return out
