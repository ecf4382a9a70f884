"""How are counts cut into two independent parts, and what overdispersion does that need?"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from sparsesc._values import check_share
from sparsesc.stats.core._moments import check_groups, group_sums

_SMALLEST_SIZE = 1e-3  # of a negative binomial: below, beta draws are 0 or 1 anyway
_LARGEST = 2**31 - 1


def thin_counts(
    counts: sparse.spmatrix,
    *,
    fraction: float = 0.5,
    overdispersion: np.ndarray | float | None = None,
    rng: np.random.Generator | int | None = 0,
) -> tuple[sparse.csr_matrix, sparse.csr_matrix]:
    r"""Cut counts into two parts that add up to them and are independent of each other given their means.

    Every count of a Poisson variable is split by a binomial draw; that of a negative binomial variable with
    overdispersion :math:`\varphi` (variance :math:`\mu + \varphi \mu^2`) by a beta-binomial draw with parameters
    :math:`\epsilon / \varphi` and :math:`(1 - \epsilon) / \varphi`. The parts follow the same family, with means
    :math:`\epsilon \mu` and :math:`(1 - \epsilon) \mu` and overdispersions :math:`\varphi / \epsilon` and
    :math:`\varphi / (1 - \epsilon)`.

    Parameters
    ----------
    counts
        Cells x genes, whole numbers.
    fraction
        Share :math:`\epsilon` of the counts that goes to the first part.
    overdispersion
        One value a gene, or one for all; 0 is a Poisson variable. ``None``: all are.
    rng
        Draws.

    Returns
    -------
    Both parts, CSR float32, without stored zeros.

    Raises
    ------
    ValueError
        If values are not counts, the share does not lie between 0 and 1, or overdispersions are negative or too few.

    See Also
    --------
    sparsesc.stats.overdispersion : estimate what overdispersed counts need
    sparsesc.pp.thin_counts : the same for an AnnData

    Notes
    -----
    When the variance is in truth :math:`\mu + \psi \mu^2` (size :math:`b = 1/\psi`) and another overdispersion
    :math:`1 / b'` was given, the parts of a count have the covariance
    :math:`\epsilon (1 - \epsilon) \mu^2 (b'/b - 1) / (b' + 1)`: positive when too little overdispersion was allowed for
    (Poisson thinning of overdispersed counts), negative when too much.

    References
    ----------
    Neufeld et al. (2024), Inference after latent variable estimation for single-cell RNA sequencing data, Biostatistics
    25:270. Neufeld et al. (2023), Negative binomial count splitting for single-cell RNA sequencing data,
    arXiv:2307.12985.

    Examples
    --------
    >>> from scipy import sparse
    >>> import sparsesc as ssc
    >>> first, second = ssc.stats.thin_counts(sparse.csr_matrix([[4, 0], [9, 2]]))
    >>> (first + second).toarray().tolist()
    [[4.0, 0.0], [9.0, 2.0]]
    """
    check_share(fraction, name="fraction")
    whole = sparse.csr_matrix(counts, copy=True)
    whole.sum_duplicates()
    whole.eliminate_zeros()
    data = whole.data
    if len(data) and not (np.isfinite(data).all() and data.min() >= 0 and (data == np.floor(data)).all()):
        msg = "Only counts (whole numbers that are not negative) can be thinned; found other values."
        raise ValueError(msg)
    if len(data) and data.max() > _LARGEST:
        msg = f"Counts up to {_LARGEST} can be thinned; found {data.max():g}."
        raise ValueError(msg)
    generator = np.random.default_rng(rng)
    share: np.ndarray | float = fraction
    if overdispersion is not None:
        share = _shares(whole, fraction, np.asarray(overdispersion, dtype=np.float64), generator)
    drawn = generator.binomial(data.astype(np.int64), share)
    first, second = (_with_data(whole, values) for values in (drawn, data - drawn))
    return first, second


def _shares(
    counts: sparse.csr_matrix, fraction: float, overdispersion: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """The probability that each stored count is split by: a beta draw, or `fraction` where there is no excess."""
    n_genes = counts.shape[1]
    if overdispersion.shape not in {(), (n_genes,)}:
        msg = f"overdispersion needs one value, or one for each of {n_genes} genes; found shape {overdispersion.shape}."
        raise ValueError(msg)
    if not (np.isfinite(overdispersion).all() and (overdispersion >= 0).all()):
        msg = "overdispersion must not be negative, NaN or infinite (0 is a Poisson variable)."
        raise ValueError(msg)
    excess = np.broadcast_to(overdispersion, (n_genes,))[counts.indices]
    share = np.full(counts.nnz, fraction)
    drawn = excess > 0
    size = np.maximum(1 / excess[drawn], _SMALLEST_SIZE)
    share[drawn] = rng.beta(fraction * size, (1 - fraction) * size)
    return share


def _with_data(like: sparse.csr_matrix, values: np.ndarray) -> sparse.csr_matrix:
    out = sparse.csr_matrix((values.astype(np.float32), like.indices.copy(), like.indptr.copy()), shape=like.shape)
    out.eliminate_zeros()
    return out


def overdispersion(
    counts: sparse.spmatrix, *, sizes: np.ndarray | None = None, groups: np.ndarray | None = None
) -> np.ndarray:
    r"""How much more every gene varies than Poisson counts would (method of moments).

    The mean of a cell is its size times the gene's rate in its group.

    Parameters
    ----------
    counts
        Cells x genes, whole numbers.
    sizes
        Relative depth of each cell, positive; ``None``: its total over the mean total.
    groups
        Codes ``0 ...`` of groups of cells that differ in their rates; ``None``: one group.

    Returns
    -------
    One value a gene, float64, 0 where the variance does not exceed that of Poisson variables.

    Raises
    ------
    ValueError
        If `sizes` are not one positive number a cell with counts.

    See Also
    --------
    sparsesc.stats.thin_counts : cut overdispersed counts
    sparsesc.pp.thin_counts : both for an AnnData

    Notes ----- Of counts :math:`x` in cells of relative depth :math:`s`, with :math:`\mu = s \lambda` at the rate
    :math:`\lambda` of the group of the cell,

    .. math::
        \varphi = \max\left(\frac{\sum (x - \mu)^2 - \sum \mu (1 - h)}{\sum \mu^2},\, 0\right) ,

    where the leverage :math:`h` is the part of the spread that the estimated rate takes up.

    Differences between cells that `groups` do not name count as overdispersion: of mixed cells the value is that of
    the mixture, and too large for any one of its types.

    Examples
    --------
    >>> import numpy as np
    >>> from scipy import sparse
    >>> import sparsesc as ssc
    >>> counts = sparse.csr_matrix(np.random.default_rng(0).poisson(5.0, size=(1000, 3)))
    >>> bool((ssc.stats.overdispersion(counts) < 0.05).all())
    True
    """
    matrix = sparse.csr_matrix(counts).astype(np.float64)
    n_cells, n_genes = matrix.shape
    if sizes is None:
        totals = np.asarray(matrix.sum(1)).ravel()
        sizes = totals / (totals.mean() or 1.0)
    sizes = np.asarray(sizes, dtype=np.float64)
    if sizes.shape != (n_cells,) or not (np.isfinite(sizes).all() and (sizes >= 0).all()):
        msg = f"sizes must hold one number that is not negative for each of {n_cells} cells."
        raise ValueError(msg)
    groups, n_groups = check_groups(np.zeros(n_cells, int) if groups is None else groups, n_cells, None)
    weight = np.bincount(groups, sizes, minlength=n_groups)
    squared = np.bincount(groups, sizes**2, minlength=n_groups)
    sums = group_sums(matrix, groups, n_groups)
    rate = np.divide(sums, weight, out=np.zeros_like(sums), where=weight > 0)  # genes x groups
    squares = sparse.csr_matrix((matrix.data**2, matrix.indices, matrix.indptr), matrix.shape)
    crossed = sparse.diags_array(sizes) @ matrix
    residual = (
        group_sums(squares, groups, n_groups)
        - 2 * rate * group_sums(sparse.csr_matrix(crossed), groups, n_groups)
        + rate**2 * squared
    ).sum(1)
    # the fitted rate takes up a part of the spread, as n - 1 does in a variance: (1 - leverage) of the Poisson part
    leverage = np.divide(squared, weight, out=np.zeros_like(squared), where=weight > 0)
    poisson = (rate * (weight - leverage)).sum(1)
    scale = (rate**2 * squared).sum(1)
    return np.maximum(np.divide(residual - poisson, scale, out=np.zeros(n_genes), where=scale > 0), 0.0)
