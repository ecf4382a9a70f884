"""What rank encodings divide counts by: the median of a gene over the cells that express it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc._values import listing
from sparsesc.door._counts import read_mapping
from sparsesc.door._gene_names import check_coverage

from ._order import keep_entries, with_data


def gene_medians(counts: sparse.csr_matrix, sizes: np.ndarray, target_sum: float) -> np.ndarray:
    """Median of the non-zero normalized values of every gene; NaN where there are none."""
    n_per_row = np.diff(counts.indptr)
    factor = np.divide(target_sum, sizes, out=np.ones_like(sizes), where=n_per_row > 0)
    columns = with_data(counts, counts.data * np.repeat(factor, n_per_row)).tocsc()
    median = np.full(counts.shape[1], np.nan)
    for gene in np.flatnonzero(np.diff(columns.indptr)):
        median[gene] = np.median(columns.data[columns.indptr[gene] : columns.indptr[gene + 1]])
    return median


def match_medians(medians: Any, names: pd.Index) -> tuple[np.ndarray, pd.Index]:
    """Given medians in the order of the genes (NaN: none), and the genes without one."""
    given = read_mapping(medians, name="medians").astype(np.float64)
    bad = given.index[~(np.isfinite(given) & (given > 0))]
    if len(bad):
        msg = f"medians must be positive and finite; they are not for {listing(bad)}."
        raise ValueError(msg)
    check_coverage(given.index.to_numpy(dtype=object), names, name="medians")
    median = given.reindex(names).to_numpy()
    return median, names[np.isnan(median)]


def over_median(counts: sparse.csr_matrix, median: np.ndarray) -> sparse.csr_matrix:
    """Counts over medians in float64, without the entries of genes that have no median."""
    values = counts.data / median[counts.indices]
    return keep_entries(counts, values, np.isfinite(values))
