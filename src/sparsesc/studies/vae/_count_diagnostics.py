from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc._values import as_list, check_positive_int
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._counts import cell_sizes, whole_counts
from sparsesc.door._obs_columns import read_labels
from sparsesc.door._slots import WRITTEN_BY, check_slots_free
from sparsesc.stats.core._moments import group_moments
from sparsesc.stats.core._multiple import benjamini_hochberg

from ._count_fits import FAMILIES, CountFits, fit_families, join_fits

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData
    from scipy import sparse

_WRITER = "ssc.tl.count_diagnostics"
_ALPHA = 0.05
_FEWEST_CELLS = 20


def count_diagnostics(
    adata: AnnData,
    *,
    layer: str | None = None,
    batch_key: str | None = None,
    groupby: str | Sequence[str] | None = None,
    size_key: str | None = None,
    min_cells: int = 10,
    key_added: str = "count_diagnostics",
    progress_bar: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Which distribution the counts of each gene follow: facts on which to choose a likelihood.

    Four families are fitted to every gene by maximum likelihood, with the total count of the cell as exposure: Poisson;
    negative binomial; zero-inflated negative binomial; and a normal variable on the scale log1p(count / size), rounded
    to counts, which is what a Gaussian likelihood on log-normalised values assumes. As all four are distributions of
    counts, their likelihoods can be compared.

    Parameters
    ----------
    adata
        Cells x genes, counts.
    layer
        Layer of counts to read instead of ``X``.
    batch_key
        Column of ``obs`` with batches: each gene has a rate of its own in each.
    groupby
        Column or columns of ``obs`` with kinds of cells (types, conditions) that have rates of their own, too. Without
        it, differences between kinds of cells count as overdispersion and as excess zeros.
    size_key
        Column of ``obs`` with the total count of each cell, for matrices that hold a selection of genes. ``None``: the
        sum over the genes.
    min_cells
        Genes with a count in fewer cells are left out.
    key_added
        Entry of ``uns``.
    progress_bar
        Show progress over genes. Default: unless ``sc.settings.verbosity`` is 0.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy when ``copy=True``, with

    ``uns[key_added]["genes"]``
        One row a gene (index): `n_cells` with a count, `mean`, `variance`, `zeros` (share of cells), `zeros_poisson`,
        `zeros_nb`, `zeros_zinb`, `zeros_lognormal` (what each fit expects), `overdispersion` (of the negative binomial:
        variance mean + overdispersion x mean squared), `overdispersion_zinb` and `zero_inflation` (share of cells) of
        the zero-inflated one, `loglik_*`, `bic_*`, `family` (the lowest BIC), `margin` (BIC of the second best less
        that of the best), `pval_nb`, `padj_nb` (Poisson against negative binomial), `pval_zinb`, `padj_zinb` (negative
        binomial against the zero-inflated one; likelihood-ratio tests, Benjamini-Hochberg over genes).
    ``uns[key_added]["families"]``
        One row a family: `n_genes` and `share` of the genes with the lowest BIC, `loglik` (a cell, summed over genes),
        `bic` (summed), `zeros` (expected share over genes) and `zeros_error` (mean distance from what was observed).
    ``uns[key_added]["summary"]``
        `statistic` and `value`: cells, genes, zeros in the matrix, `median_size`, `size_cv2` (squared coefficient of
        variation of sizes), `overdispersion` (median over genes with a mean count of at least 0.1), and the shares of
        genes that are overdispersed and zero-inflated (adjusted p below .05).
    ``uns[key_added]["params"]``
        What was asked.

    Raises
    ------
    KeyError
        If a layer or a column does not exist.
    TypeError
        If a column does not hold labels.
    ValueError
        If values are not counts, there are too few cells or no gene is left, or `key_added` cannot be stored.

    Notes
    -----
    Both hypotheses of no overdispersion and of no inflation lie on the edge of what is possible, so twice the gain in
    log-likelihood is 0 in half of the cases and chi-squared with one degree of freedom in the others; the p-values are
    of that mixture (the test of inflation with a small correction where few cells have three counts or more). They hold
    where counts are independent given the sizes, and are conservative for genes with few counts.

    What is zero-inflated depends on what counts as one kind of cell. Of a mixture of types, a gene that only some of
    them express has more zeros than one negative binomial allows: name the types by `groupby` before concluding that
    the technique drops genes. With labels that were found in the same counts the tests are too liberal.

    When not to use it: for values that are not counts (normalised, scaled, corrected for ambient RNA); to find variable
    genes (the overdispersion over all cells is a by-product, not made for that). A family that is best of four can
    still be wrong.

    References
    ----------
    Self and Liang (1987), Asymptotic properties of maximum likelihood estimators and likelihood ratio tests under
    nonstandard conditions, J Am Stat Assoc 82:605 (the mixture). Svensson (2020), Droplet scRNA-seq is not
    zero-inflated, Nature Biotechnology 38:147. Schwarz (1978), Estimating the dimension of a model, Annals of
    Statistics 6:461 (BIC). Benjamini and Hochberg (1995), J R Stat Soc B 57:289.

    Examples
    --------
    >>> adata = ssc.datasets.simulate_programs(n_cells=500, count_noise="poisson")
    >>> ssc.tl.count_diagnostics(adata)
    >>> ssc.get.count_diagnostics(adata, table="families")
    """
    check.check_adata(adata)
    check_slots_free(adata, key_added, _WRITER, {})
    min_cells = check_positive_int(min_cells, name="min_cells")
    counts = whole_counts(adata, layer, only="counts can be fitted by these families")
    sizes = cell_sizes(adata, counts, size_key)
    groupings = ([] if batch_key is None else [batch_key]) + ([] if groupby is None else as_list(groupby))
    groups, known = _groups(adata, groupings)
    empty = ~(sizes > 0)
    if empty.any():
        _logging.warning(f"{int(empty.sum())} cells without a single count are left out.")
    kept = known & ~empty
    if kept.sum() < _FEWEST_CELLS:
        msg = f"{int(kept.sum())} cells are left, but at least {_FEWEST_CELLS} are needed to tell families apart."
        raise ValueError(msg)
    counts, sizes, groups = counts[kept], sizes[kept], np.unique(groups[kept], return_inverse=True)[1]
    n_cells = np.bincount(counts.indices, minlength=counts.shape[1])
    chosen = n_cells >= min_cells
    if not chosen.any():
        msg = f"No gene has a count in at least min_cells={min_cells} cells. Lower min_cells, or check the matrix."
        raise ValueError(msg)
    part = counts if chosen.all() else counts[:, chosen]
    with _logging.progress(total=int(chosen.sum()), desc="Fitting counts of genes", enabled=progress_bar) as bar:
        blocks = []
        for genes, fits in fit_families(part, sizes / sizes.mean(), groups):
            blocks.append(fits)
            bar.update(genes.stop - genes.start)
    fits = join_fits(blocks)
    genes_table = _genes(part, fits, adata.var_names[chosen].astype(str))
    families = _families(genes_table, fits)
    tables = (genes_table, families, _summary(genes_table, counts, sizes))
    asked = {
        WRITTEN_BY: _WRITER,
        "layer": layer or "",
        "batch_key": batch_key or "",
        "groupby": np.array([] if groupby is None else as_list(groupby), dtype=object),
        "size_key": size_key or "",
        "min_cells": min_cells,
        "n_groups": int(groups.max()) + 1,
    }

    adata = check.writable(adata, copy=copy)
    adata.uns[key_added] = dict(zip(_keys.tables_of("count_diagnostics"), tables, strict=True)) | {_keys.PARAMS: asked}
    shares = ", ".join(f"{name} {share:.0%}" for name, share in families["share"].items())
    _logging.info(f"count_diagnostics: {len(genes_table)} genes in {len(sizes)} cells; lowest BIC: {shares}")
    return adata if copy else None


def _groups(adata: AnnData, keys: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """One code for each combination of the labels, and the cells that have all of them."""
    groups, known = np.zeros(adata.n_obs, np.int64), np.ones(adata.n_obs, bool)
    for key in keys:
        labels = read_labels(adata, key, integers=True)
        if not labels.known.all():
            _logging.warning(f"{int((~labels.known).sum())} cells have no adata.obs[{key!r}] and are left out.")
        groups = groups * (len(labels.categories) + 1) + labels.codes
        known &= labels.known
    return groups, known


def _genes(counts: sparse.csr_matrix, fits: CountFits, names: pd.Index) -> pd.DataFrame:
    """One row a gene."""
    n = counts.shape[0]
    moments = group_moments(counts, np.zeros(n, np.int64), 1)
    n_cells = np.bincount(counts.indices, minlength=counts.shape[1])
    bic = fits.bic
    ordered = np.sort(bic, axis=1)
    table: dict[str, np.ndarray] = {
        "n_cells": n_cells,
        "mean": moments.mean[:, 0],
        "variance": moments.variance[:, 0],
        "zeros": 1 - n_cells / n,
    }
    table |= {f"zeros_{name}": fits.zeros[:, i] for i, name in enumerate(FAMILIES)}
    table |= {
        "overdispersion": fits.overdispersion,
        "overdispersion_zinb": fits.overdispersion_zinb,
        "zero_inflation": fits.zero_inflation,
    }
    table |= {f"loglik_{name}": fits.loglik[:, i] for i, name in enumerate(FAMILIES)}
    table |= {f"bic_{name}": bic[:, i] for i, name in enumerate(FAMILIES)}
    table |= {"family": np.array(FAMILIES, dtype=object)[bic.argmin(1)], "margin": ordered[:, 1] - ordered[:, 0]}
    for name, pval in (("nb", fits.pval_overdispersion), ("zinb", fits.pval_inflation)):
        table |= {f"pval_{name}": pval, f"padj_{name}": benjamini_hochberg(pval)}
    return pd.DataFrame(table, index=pd.Index(names, name="gene"))


def _families(table: pd.DataFrame, fits: CountFits) -> pd.DataFrame:
    best = table["family"].value_counts().reindex(FAMILIES, fill_value=0)
    return pd.DataFrame(
        {
            "n_genes": best.to_numpy(),
            "share": best.to_numpy() / len(table),
            "loglik": fits.loglik.sum(0) / fits.n_cells,
            "bic": fits.bic.sum(0),
            "zeros": fits.zeros.mean(0),
            "zeros_error": np.abs(fits.zeros - table["zeros"].to_numpy()[:, None]).mean(0),
        },
        index=pd.Index(FAMILIES, name="family"),
    )


def _summary(table: pd.DataFrame, counts: sparse.csr_matrix, sizes: np.ndarray) -> pd.DataFrame:
    told = table.loc[table["mean"] >= 0.1, "overdispersion"]
    values = {
        "n_cells": counts.shape[0],
        "n_genes": len(table),
        "n_genes_left_out": counts.shape[1] - len(table),
        "zeros": 1 - counts.nnz / np.prod(counts.shape, dtype=np.float64),
        "zeros_fitted_genes": table["zeros"].mean(),
        "median_size": np.median(sizes),
        "size_cv2": sizes.var() / sizes.mean() ** 2,
        "overdispersion": told.median(),
        "overdispersed": (table["padj_nb"] < _ALPHA).mean(),
        "zero_inflated": (table["padj_zinb"] < _ALPHA).mean(),
    }
    return pd.DataFrame({"statistic": list(values), "value": np.array(list(values.values()), dtype=np.float64)})
