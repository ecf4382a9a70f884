"""Which feature of one dictionary is which of another?"""

from __future__ import annotations

import numpy as np
from scipy import optimize


def match_features(first: np.ndarray, second: np.ndarray, *, absolute: bool = False) -> tuple[np.ndarray, np.ndarray]:
    r"""Find which feature of one dictionary is which of another, one to one.

    Parameters
    ----------
    first
        Decoder rows, (F1, d), of any length but zero: leave dead features out.
    second
        Decoder rows over the same d dimensions, (F2, d).
    absolute
        Take \|cos\|: a direction and its opposite count as one feature. Codes here are non-negative, so by default they
        are two.

    Returns
    -------
    For each row of `first` the number of its row in `second`, and their cosine. Where `second` has fewer rows, those
    left over have partner -1 and cosine 0.

    Raises
    ------
    ValueError
        If shapes do not fit, a row is zero, or values are not finite.

    See Also
    --------
    sparsesc.stats.dictionary_stability : how much comes back, beside chance
    sparsesc.tl.stability : the same for a fit

    Notes ----- Over one-to-one matchings :math:`\phi` of the rows :math:`w_i` of the first dictionary to the rows
    :math:`v_j` of the second, the sum of cosines is largest:

    .. math::
        \max_\phi \sum_i \frac{w_i^\top v_{\phi(i)}}{\lVert w_i \rVert \lVert v_{\phi(i)} \rVert} .

    In few dimensions, or with many features, random directions match well: compare with
    :func:`dictionary_stability`'s baselines. The time grows with the cube of the number of features in the worst case;
    thousands take seconds.

    References
    ----------
    Kuhn (1955), The Hungarian method for the assignment problem, Nav Res Logist Q 2:83.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsesc as ssc
    >>> rows = np.random.default_rng(0).normal(size=(5, 8))
    >>> partner, cosine = ssc.stats.match_features(rows, 3 * rows[[2, 0, 1, 4, 3]])
    >>> partner.tolist()
    [1, 2, 0, 4, 3]
    >>> cosine.round(6).tolist()
    [1.0, 1.0, 1.0, 1.0, 1.0]
    """
    A, B = unit_rows(first, name="first"), unit_rows(second, name="second")
    if A.shape[1] != B.shape[1]:
        msg = f"Dictionaries must share their dimensions, found {A.shape[1]} and {B.shape[1]}."
        raise ValueError(msg)
    cosines = np.clip(A @ B.T, -1, 1)
    if absolute:
        np.abs(cosines, out=cosines)
    rows, columns = optimize.linear_sum_assignment(cosines, maximize=True)
    partner, cosine = np.full(len(A), -1), np.zeros(len(A))
    partner[rows], cosine[rows] = columns, cosines[rows, columns]
    return partner, cosine


def unit_rows(rows: np.ndarray, *, name: str) -> np.ndarray:
    """Rows of length one, float64.

    Raises
    ------
    ValueError
        If they are not a matrix, a row is zero, or values are not finite.
    """
    rows = np.asarray(rows, dtype=np.float64)
    if rows.ndim != 2 or not rows.size:
        msg = f"{name} must be features x dimensions with at least one feature, found shape {rows.shape}."
        raise ValueError(msg)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    bad = int((~(np.isfinite(length) & (length > 0))).sum())
    if bad:
        msg = f"{name} has {bad} rows that are zero or not finite: leave them out."
        raise ValueError(msg)
    return rows / length
