"""Do single features stand for single groups? DRVI's scores of features, and their summaries over all groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, sparse

from sparsesc._compiled import compiled
from sparsesc.stats.core._moments import check_groups, group_sizes
from sparsesc.stats.core._ranks import RankedColumns, rank_columns


@dataclass(frozen=True)
class BinnedColumns:
    """Columns cut into bins of equal width between their smallest and their largest value."""

    shape: tuple[int, int]
    indptr: np.ndarray
    rows: np.ndarray
    bins: np.ndarray
    """Bin of every stored entry."""
    zero_bin: np.ndarray
    """Bin of the zeros, by column; -1 for a column without spread."""
    n_bins: int


@compiled
def _bin(indptr: np.ndarray, values: np.ndarray, n: int, edges: np.ndarray, bins: np.ndarray, zero: np.ndarray) -> None:
    n_bins = edges.shape[1] - 1
    for f in range(len(indptr) - 1):
        start, stop = indptr[f], indptr[f + 1]
        low, high = edges[f, 0], edges[f, n_bins]
        if high <= low:
            zero[f] = -1
            continue
        b = n_bins - 1
        for i in range(start, stop):  # descending, so the bin only falls
            while b > 0 and values[i] < edges[f, b]:
                b -= 1
            bins[i] = b
        zero[f] = 0
        while zero[f] < n_bins - 1 and edges[f, zero[f] + 1] <= 0.0:
            zero[f] += 1


def bin_columns(codes: sparse.spmatrix | RankedColumns, n_bins: int = 10) -> BinnedColumns:
    """Cut every column into `n_bins` of equal width; a value on an edge belongs to the upper bin."""
    ranked = rank_columns(codes)
    n, n_columns = ranked.shape
    stored = np.diff(ranked.indptr)
    high, low = np.zeros(n_columns), np.zeros(n_columns)
    filled = stored > 0
    high[filled] = ranked.values[ranked.indptr[:-1][filled]]
    low[filled] = ranked.values[ranked.indptr[1:][filled] - 1]
    has_zero = stored < n
    high[has_zero], low[has_zero] = np.maximum(high[has_zero], 0.0), np.minimum(low[has_zero], 0.0)
    edges = np.ascontiguousarray(np.linspace(low, high, n_bins + 1).T)
    bins, zero_bin = np.zeros(len(ranked.values), np.int16), np.zeros(n_columns, np.int16)
    _bin(ranked.indptr, ranked.values, n, edges, bins, zero_bin)
    return BinnedColumns(ranked.shape, ranked.indptr, ranked.rows, bins, zero_bin, n_bins)


@compiled
def _membership_information(
    indptr: np.ndarray,
    rows: np.ndarray,
    bins: np.ndarray,
    zero_bin: np.ndarray,
    groups: np.ndarray,
    sizes: np.ndarray,
    n_bins: int,
    xlogx: np.ndarray,
    out: np.ndarray,
) -> None:
    n, n_groups = len(groups), len(sizes)
    joint = np.zeros((n_bins, n_groups), np.int64)
    marginal = np.zeros(n_bins, np.int64)
    for f in range(len(indptr) - 1):
        if zero_bin[f] < 0:
            continue
        joint[:] = 0
        joint[zero_bin[f]] = sizes
        for i in range(indptr[f], indptr[f + 1]):
            g = groups[rows[i]]
            joint[zero_bin[f], g] -= 1
            joint[bins[i], g] += 1
        base = xlogx[n]
        for b in range(n_bins):
            marginal[b] = joint[b].sum()
            base -= xlogx[marginal[b]]
        for c in range(n_groups):
            total = base - xlogx[sizes[c]] - xlogx[n - sizes[c]]
            for b in range(n_bins):
                if marginal[b]:
                    total += xlogx[joint[b, c]] + xlogx[marginal[b] - joint[b, c]]
            out[f, c] = max(total, 0.0)


def smi(
    codes: sparse.spmatrix | RankedColumns | BinnedColumns,
    groups: np.ndarray,
    n_groups: int | None = None,
    *,
    n_bins: int = 10,
) -> np.ndarray:
    r"""How much every feature tells about membership in every group (scaled mutual information).

    Parameters
    ----------
    codes
        Cells x features, sparse (or ranked or binned already).
    groups
        Group of each cell, ``0 ... n_groups - 1``.
    n_groups
        Number of groups; ``None``: the largest code plus one.
    n_bins
        Bins of equal width, from the smallest to the largest value of a feature.

    Returns
    -------
    Mutual information of bin and membership over the entropy of membership, features x groups: 0 to 1; 0 for a feature
    without spread, NaN for a group that is empty or holds all cells.

    Raises
    ------
    ValueError
        If `groups` does not fit the codes.

    See Also
    --------
    sparsesc.stats.spn : a score of the order of cells, without bins
    sparsesc.stats.lms : one score for all groups
    sparsesc.stats.mutual_information : information about all groups together, judged on held-out rows

    Notes
    -----
    With :math:`B` the bin of a cell and :math:`M` its membership in the group,

    .. math::
        \mathrm{SMI} = \frac{I(B; M)}{H(M)} = \frac{H(M) - H(M \mid B)}{H(M)} .

    Bins depend on the largest value, so a single outlier can hide a feature. With few cells the information of
    independent variables is above 0, by about ``(n_bins - 1) / (2 n)`` over the entropy: compare with shuffled labels.

    References
    ----------
    Moinfar and Theis (2024), Unsupervised deep disentangled representation of single-cell omics, bioRxiv (DRVI).

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> import sparsesc as ssc
    >>> codes = sparse.csr_matrix([[2.0], [2.0], [0.0], [0.0]])
    >>> groups = np.array([0, 0, 1, 1])
    >>> ssc.stats.smi(codes, groups).round(6).tolist()
    [[1.0, 1.0]]
    """
    binned = codes if isinstance(codes, BinnedColumns) else bin_columns(codes, n_bins)
    groups, n_groups = check_groups(groups, binned.shape[0], n_groups)
    n = binned.shape[0]
    counts = np.arange(n + 1.0)
    xlogx = counts * np.log(np.maximum(counts, 1.0))
    sizes = np.bincount(groups, minlength=n_groups)
    out = np.zeros((binned.shape[1], n_groups))
    parts = (binned.indptr, binned.rows, binned.bins, binned.zero_bin, groups, sizes, binned.n_bins)
    _membership_information(*parts, xlogx, out)
    entropy = xlogx[n] - xlogx[sizes] - xlogx[n - sizes]
    judged = (sizes > 0) & (sizes < n)
    return np.divide(out, entropy, out=np.full(out.shape, np.nan), where=np.broadcast_to(judged, out.shape))


@compiled
def _neighbors(
    indptr: np.ndarray, rows: np.ndarray, values: np.ndarray, groups: np.ndarray, sizes: np.ndarray, pairs: np.ndarray
) -> None:
    n, n_groups = len(groups), len(sizes)
    before, inside, zeros = np.zeros(n_groups), np.zeros(n_groups), np.zeros(n_groups)
    for f in range(len(indptr) - 1):
        start, stop = indptr[f], indptr[f + 1]
        n_zeros = n - (stop - start)
        zeros[:] = sizes
        for i in range(start, stop):
            zeros[groups[rows[i]]] -= 1.0
        before[:] = 0.0
        single = -1  # the only group in the block before, or -1 where it may hold several
        zeros_due = n_zeros > 0
        i = start
        while i < stop or zeros_due:
            if zeros_due and (i == stop or values[i] < 0):
                zeros_due = False
                size = float(n_zeros)
                inside[:] = zeros
            else:
                j = i + 1
                while j < stop and values[j] == values[i]:
                    j += 1
                if j == i + 1:  # one cell: most blocks of a dense column
                    g = groups[rows[i]]
                    pairs[f, g] += before[g]
                    if single >= 0:
                        before[single] = 0.0
                    else:
                        before[:] = 0.0
                    before[g] = 1.0
                    single = g
                    i = j
                    continue
                size = float(j - i)
                inside[:] = 0.0
                for k in range(i, j):
                    inside[groups[rows[k]]] += 1.0
                i = j
            # cells of a block stand in any order: the number of pairs that is expected over all of them
            for c in range(n_groups):
                share = inside[c] / size
                pairs[f, c] += share * (before[c] + inside[c] - 1.0) if inside[c] > 0 else 0.0
                before[c] = share
            single = -1


def spn(codes: sparse.spmatrix | RankedColumns, groups: np.ndarray, n_groups: int | None = None) -> np.ndarray:
    r"""Whether the cells of a group stand side by side when cells are sorted by a feature (same-process neighbors).

    Parameters
    ----------
    codes
        Cells x features, sparse (or ranked already).
    groups
        Group of each cell, ``0 ... n_groups - 1``.
    n_groups
        Number of groups; ``None``: the largest code plus one.

    Returns
    -------
    Pairs of neighbors within the group over the most there can be, less the group's share of all cells (0 where that
    is negative), over one less that share, features x groups: 0 to 1. NaN for a group of fewer than two cells, or of
    all.

    Raises
    ------
    ValueError
        If `groups` does not fit the codes.

    See Also
    --------
    sparsesc.stats.smi : a score of bins rather than of the order
    sparsesc.stats.lms : one score for all groups

    Notes
    -----
    Of a group of :math:`n_1` cells, a share :math:`\pi` of all, with :math:`k` expected pairs of neighbors inside it,

    .. math::
        \mathrm{SPN} = \frac{\max\left(\frac{k}{n_1 - 1} - \pi,\, 0\right)}{1 - \pi} .

    Cells with equal values, such as the silent cells of a sparse feature, have no order. Pairs are those expected over
    all their orders, which is what shuffling the cells first, as DRVI does, gives on average, without its chance.

    References
    ----------
    Moinfar and Theis (2024), Unsupervised deep disentangled representation of single-cell omics, bioRxiv (DRVI).

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> import sparsesc as ssc
    >>> codes = sparse.csr_matrix([[2.0], [2.0], [0.0], [0.0]])
    >>> groups = np.array([0, 0, 1, 1])
    >>> ssc.stats.spn(codes, groups).round(6).tolist()
    [[1.0, 1.0]]
    """
    ranked = rank_columns(codes)
    groups, n_groups = check_groups(groups, ranked.shape[0], n_groups)
    n = ranked.shape[0]
    sizes = group_sizes(groups, n_groups)
    pairs = np.zeros((ranked.shape[1], n_groups))
    _neighbors(ranked.indptr, ranked.rows, ranked.values, groups, sizes, pairs)
    judged = np.broadcast_to((sizes > 1) & (sizes < n), pairs.shape)
    share = sizes / n
    shares = np.divide(pairs, sizes - 1.0, out=np.zeros_like(pairs), where=judged)
    return np.divide(np.maximum(shares - share, 0.0), 1.0 - share, out=np.full(pairs.shape, np.nan), where=judged)


def lms(scores: np.ndarray, *, train: np.ndarray | None = None) -> float:
    r"""How well features match groups one to one (latent matching score).

    Parameters
    ----------
    scores
        Features x groups, for example from :func:`smi` or :func:`spn`.
    train
        The same scores in other cells, which choose the features. ``None``: `scores` choose, and look too good.

    Returns
    -------
    Sum of the matched scores over the number of groups; groups that no feature is left for count 0.

    Raises
    ------
    ValueError
        If `scores` and `train` are not tables of the same shape, or hold NaN.

    See Also
    --------
    sparsesc.stats.msas : the best feature of every group, which may be the same
    sparsesc.stats.msgs : the gap to the second best
    sparsesc.stats.smi : scores to start from

    Notes
    -----
    Over matchings :math:`\phi` that give each of :math:`G` groups a different feature, with scores :math:`s`,

    .. math::
        \mathrm{LMS} = \max_\phi \frac{1}{G} \sum_g s_{\phi(g), g} .

    References
    ----------
    Moinfar and Theis (2024), Unsupervised deep disentangled representation of single-cell omics, bioRxiv (DRVI).

    Examples
    --------
    >>> import numpy as np
    >>> import sparsesc as ssc
    >>> scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.0]])
    >>> round(ssc.stats.lms(scores), 2)
    0.85
    """
    scores, train = _checked(scores, train)
    features, groups = optimize.linear_sum_assignment(train, maximize=True)
    return float(scores[features, groups].sum() / scores.shape[1])


def msas(scores: np.ndarray, *, train: np.ndarray | None = None) -> float:
    r"""How well the best feature of each group does, on average (most similar averaging score).

    Parameters
    ----------
    scores
        Features x groups, for example from :func:`smi` or :func:`spn`.
    train
        The same scores in other cells, which choose the features. ``None``: `scores` choose, and look too good.

    Returns
    -------
    The mean; one feature may be the best of several groups.

    Raises
    ------
    ValueError
        If `scores` and `train` are not tables of the same shape, or hold NaN.

    See Also
    --------
    sparsesc.stats.lms : every group with a different feature
    sparsesc.stats.msgs : the gap to the second best
    sparsesc.stats.spn : scores to start from

    Notes
    -----
    Of features :math:`f` and :math:`G` groups, with scores :math:`s`,

    .. math::
        \mathrm{MSAS} = \frac{1}{G} \sum_g \max_f s_{f, g} .

    References
    ----------
    Moinfar and Theis (2024), Unsupervised deep disentangled representation of single-cell omics, bioRxiv (DRVI).

    Examples
    --------
    >>> import numpy as np
    >>> import sparsesc as ssc
    >>> scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.0]])
    >>> round(ssc.stats.msas(scores), 2)
    0.85
    """
    scores, train = _checked(scores, train)
    return float(scores[train.argmax(axis=0), np.arange(scores.shape[1])].mean())


def msgs(scores: np.ndarray, *, train: np.ndarray | None = None) -> float:
    r"""By how much the best feature of a group beats the second best, on average (most similar gap score).

    Parameters
    ----------
    scores
        Features x groups, for example from :func:`smi` or :func:`spn`.
    train
        The same scores in other cells, which choose the two features. ``None``: `scores` choose.

    Returns
    -------
    The mean gap (with `train` it can be negative); NaN with a single feature.

    Raises
    ------
    ValueError
        If `scores` and `train` are not tables of the same shape, or hold NaN.

    See Also
    --------
    sparsesc.stats.msas : the score of the best feature
    sparsesc.stats.lms : every group with a different feature

    Notes
    -----
    With :math:`s_{(1), g}` and :math:`s_{(2), g}` the largest and second largest score of group g,

    .. math::
        \mathrm{MSGS} = \frac{1}{G} \sum_g \left(s_{(1), g} - s_{(2), g}\right) .

    Two features for one group make a gap of nearly 0, however good both are: not a score for codes that split groups,
    unless duplicates were removed before.

    References
    ----------
    Moinfar and Theis (2024), Unsupervised deep disentangled representation of single-cell omics, bioRxiv (DRVI).

    Examples
    --------
    >>> import numpy as np
    >>> import sparsesc as ssc
    >>> scores = np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.0]])
    >>> round(ssc.stats.msgs(scores), 2)
    0.45
    """
    scores, train = _checked(scores, train)
    if len(scores) < 2:
        return float("nan")
    columns = np.arange(scores.shape[1])
    first = train.argmax(axis=0)
    rest = train.copy()
    rest[first, columns] = -np.inf
    return float((scores[first, columns] - scores[rest.argmax(axis=0), columns]).mean())


def _checked(scores: np.ndarray, train: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    scores = np.asarray(scores, dtype=np.float64)
    train = scores if train is None else np.asarray(train, dtype=np.float64)
    if scores.ndim != 2 or not scores.size or train.shape != scores.shape:
        msg = f"scores and train must be features x groups of one shape, found {scores.shape} and {train.shape}."
        raise ValueError(msg)
    if np.isnan(scores).any() or np.isnan(train).any():
        msg = "scores hold NaN: leave out groups that are too small, or that hold all cells."
        raise ValueError(msg)
    return scores, train
