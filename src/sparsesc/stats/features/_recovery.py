"""How well do features recover known variables, chosen on some cells and scored on others?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from scipy import optimize, sparse

from sparsesc._values import check_choice
from sparsesc.stats.core._correlate import correlate
from sparsesc.stats.core._ranks import RankedColumns, rank_columns


@dataclass(frozen=True)
class RecoveryScores:
    """How well features recover known variables: one value a variable, in the order of the columns of the truth.

    See Also
    --------
    sparsesc.stats.recovery : work these out

    Examples
    --------
    >>> import numpy as np
    >>> import sparsesc as ssc
    >>> truth = np.random.default_rng(0).normal(size=(100, 3))
    >>> scores = ssc.stats.recovery(truth[:, [2, 0, 1]], truth, train=np.arange(100) < 50)
    >>> scores.feature.tolist()
    [1, 2, 0]
    """

    measure: str
    """``"pearson"`` or ``"auroc"``: what the scores are."""
    feature: np.ndarray
    """The feature that fits best on the training cells; -1 where a half has only one value of the variable."""
    sign: np.ndarray
    """-1 where the feature falls when the variable rises (training cells), otherwise 1."""
    train_score: np.ndarray
    """Score of that feature on the training cells: too high by the choice, and more so the more features there are."""
    score: np.ndarray
    """Score of that feature on the held-out cells; NaN where `feature` is -1."""
    matched: np.ndarray
    """The feature under one-to-one matching; -1 without one."""
    matched_r: np.ndarray
    """Absolute r of the matched feature on the held-out cells: 0 without one, NaN where `feature` is -1."""

    @property
    def mean(self) -> float:
        """Mean held-out score of the variables that can be judged."""
        return _over(self.score, np.mean)

    @property
    def max(self) -> float:
        """Largest held-out score."""
        return _over(self.score, np.max)

    @property
    def mcc(self) -> float:
        """Mean correlation coefficient: the mean of `matched_r`, whatever the measure."""
        return _over(self.matched_r, np.mean)


def recovery(
    codes: np.ndarray | sparse.spmatrix,
    truth: np.ndarray,
    *,
    train: np.ndarray,
    measure: Literal["auto", "pearson", "auroc"] = "auto",
) -> RecoveryScores:
    r"""How well the best feature recovers each known variable, on cells that did not choose it.

    Parameters
    ----------
    codes
        Cells x features: a dense embedding, or a sparse code (never made dense).
    truth
        Cells x variables (or one variable), dense: numbers, or the 0/1 columns of groups, which may overlap.
    train
        Boolean, one a cell: the cells that choose features. All others score them.
    measure
        ``"pearson"``: \|r\|. ``"auroc"``: area under the ROC curve of the feature as a score for the group, in the
        direction that the training cells show, so that 0.5 is chance. ``"auto"``: AUROC when `truth` holds nothing but
        0 and 1, otherwise Pearson.

    Returns
    -------
    Scores of all variables, with their `mean`, `max` and the one-to-one matching's `mcc`. The matching (Hungarian, each
    feature for at most one variable) has the largest sum of \|r\| on the training cells. With fewer features than
    variables, those left over count 0. Variables with a single value in one of the halves are left out.

    Raises
    ------
    ValueError
        If shapes do not fit, values are not finite, a half has fewer than three cells, or AUROC is requested for
        variables that are not 0/1.

    See Also
    --------
    sparsesc.stats.correlate : all correlations, with p-values
    sparsesc.stats.auroc : areas for groups that do not overlap
    sparsesc.datasets.simulate_programs : cells with a known truth

    Notes ----- With :math:`r_v` the correlation of variable v with its partner in the one-to-one matching, on the
    held-out cells, the mean correlation coefficient over :math:`V` variables is

    .. math::
        \mathrm{MCC} = \frac{1}{V} \sum_v \lvert r_v \rvert .

    The best of many features looks good on the cells that chose it, even if all are noise: compare codes of different
    widths by the held-out score only. The halves must be independent: split by donors where cells of a donor are alike.

    A high score of one feature does not say that the feature is about nothing else.

    References
    ----------
    Hyvärinen and Morioka (2016), Unsupervised feature extraction by time-contrastive learning and nonlinear ICA, NIPS
    (mean correlation coefficient). Kuhn (1955), Nav Res Logist Q 2:83 (matching).

    Examples
    --------
    >>> import numpy as np
    >>> import sparsesc as ssc
    >>> truth = np.random.default_rng(0).normal(size=(100, 3))
    >>> round(ssc.stats.recovery(truth[:, [2, 0, 1]], truth, train=np.arange(100) < 50).mcc, 6)
    1.0
    """
    codes, truth, train = _checked(codes, truth, train)
    binary = bool(((truth == 0) | (truth == 1)).all())
    check_choice(measure, ("auto", "pearson", "auroc"), name="measure")
    if measure == "auroc" and not binary:
        msg = "measure='auroc' needs a truth of 0 and 1 (or booleans), found other values. Use measure='pearson'."
        raise ValueError(msg)
    measure = ("auroc" if binary else "pearson") if measure == "auto" else measure
    halves = [rank_columns(sparse.csr_matrix(codes[rows])) for rows in (train, ~train)]
    values = [truth[train], truth[~train]]
    judged = np.flatnonzero((np.ptp(values[0], axis=0) > 0) & (np.ptp(values[1], axis=0) > 0))
    values = [part[:, judged] for part in values]
    r = [correlate(half, part, method="asymptotic")[0] for half, part in zip(halves, values, strict=True)]
    # centered at chance, so that either direction counts
    fit = r if measure == "pearson" else [_auroc(h, v) - 0.5 for h, v in zip(halves, values, strict=True)]
    columns = np.arange(len(judged))
    best = np.abs(fit[0]).argmax(axis=0)
    sign = np.where(fit[0][best, columns] < 0, -1, 1)
    chosen, score = fit[0][best, columns] * sign, fit[1][best, columns]
    score = np.abs(score) if measure == "pearson" else 0.5 + sign * score
    rows, matched = optimize.linear_sum_assignment(-np.abs(r[0]))
    matched_feature, matched_r = np.full(len(judged), -1), np.zeros(len(judged))
    matched_feature[matched], matched_r[matched] = rows, np.abs(r[1][rows, matched])

    def whole(part: np.ndarray, missing: float) -> np.ndarray:
        out = np.full(truth.shape[1], missing, dtype=part.dtype)
        out[judged] = part
        return out

    return RecoveryScores(
        measure=measure,
        feature=whole(best, -1),
        sign=whole(sign, 1),
        train_score=whole(chosen + (0.5 if measure == "auroc" else 0.0), np.nan),
        score=whole(score, np.nan),
        matched=whole(matched_feature, -1),
        matched_r=whole(matched_r, np.nan),
    )


def _auroc(ranked: RankedColumns, members: np.ndarray) -> np.ndarray:
    """AUROC of every feature for every 0/1 column, features x columns; columns may overlap."""
    n = members.sum(axis=0)
    rank_sums = ranked.with_data(ranked.deviation).T @ members + np.outer(ranked.zero_rank, n)
    return (rank_sums - n * (n + 1.0) / 2.0) / (n * (len(members) - n))


def _checked(codes: Any, truth: Any, train: Any) -> tuple[Any, np.ndarray, np.ndarray]:
    codes = codes.tocsr() if sparse.issparse(codes) else np.asarray(codes)
    if codes.ndim != 2 or not codes.shape[1]:
        msg = f"codes must be cells x features with at least one feature, found shape {codes.shape}."
        raise ValueError(msg)
    truth = np.asarray(truth, dtype=np.float64)
    truth = truth[:, None] if truth.ndim == 1 else truth
    if truth.ndim != 2 or len(truth) != codes.shape[0] or not truth.shape[1]:
        msg = f"truth must have one row for each of {codes.shape[0]} cells, found shape {truth.shape}."
        raise ValueError(msg)
    for name, values in (("codes", codes.data if sparse.issparse(codes) else codes), ("truth", truth)):
        n_bad = int((~np.isfinite(values)).sum())
        if n_bad:
            msg = f"{name} holds {n_bad} NaN or infinite values. Remove these cells."
            raise ValueError(msg)
    train = np.asarray(train)
    if train.dtype != bool or train.shape != (len(truth),):
        msg = (
            f"train must be boolean, one for each of {len(truth)} cells, "
            f"found {train.dtype} of shape {train.shape}. Positions become a mask by np.isin(np.arange(n), positions)."
        )
        raise ValueError(msg)
    sizes = int(train.sum()), int((~train).sum())
    if min(sizes) < 3:
        msg = f"train must leave three cells or more in both halves, found {sizes[0]} and {sizes[1]}."
        raise ValueError(msg)
    return codes, truth, train


def _over(values: np.ndarray, summary: Any) -> float:
    values = values[~np.isnan(values)]
    return float(summary(values)) if len(values) else float("nan")
