"""Which features repeat another feature?"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from sparsesc.stats.core._row_blocks import column_totals

_BLOCK = 512


def distinct_columns(codes: sparse.spmatrix, threshold: float = 0.9) -> np.ndarray:
    """Which columns stay when near copies are removed.

    Columns are visited from the one with most stored entries on; a column goes when its absolute Pearson r with one
    that stays is at least `threshold`.

    Parameters
    ----------
    codes
        Cells x features.
    threshold
        Absolute r from which two columns count as the same.

    Returns
    -------
    Boolean, one a column. Columns without spread stay: they are copies of nothing.
    """
    csc = sparse.csc_matrix(codes, dtype=np.float64)
    n, n_columns = csc.shape
    totals = column_totals(csc)
    order = np.lexsort((np.arange(n_columns), -np.diff(csc.indptr)))
    csc, mean, scale = csc[:, order], totals.mean[order], totals.inverse_sd[order]
    rows = csc.T.tocsr()
    kept = np.ones(n_columns, bool)
    for first in range(0, n_columns, _BLOCK):
        block = slice(first, min(first + _BLOCK, n_columns))
        products = (rows[: block.stop] @ csc[:, block]).toarray() / n
        r = (products - np.outer(mean[: block.stop], mean[block])) * np.outer(scale[: block.stop], scale[block])
        earlier, later = np.nonzero(np.abs(r) >= threshold)
        later = later + first
        pairs = earlier < later
        # by the later one, so that whether the earlier one stays is known
        for i in np.lexsort((earlier[pairs], later[pairs])):
            a, b = earlier[pairs][i], later[pairs][i]
            kept[b] &= not kept[a]
    out = np.empty(n_columns, bool)
    out[order] = kept
    return out
