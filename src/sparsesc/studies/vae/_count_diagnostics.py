from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc._values import as_list, check_positive_int
from sparsesc.door import _checks as check
from sparsesc.door._counts import cell_sizes, whole_counts
from sparsesc.door._obs_columns import read_labels
from sparsesc.door._slots import check_slots_free, record
from sparsesc.stats.core._moments import group_moments
from sparsesc.stats.core._multiple import benjamini_hochberg

from ._families import FAMILIES, CountFits, fit_families, join_fits

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
    r"""Find which distribution the counts of each gene follow, as a basis for the choice of a likelihood.

    Four families are fitted to every gene by maximum likelihood, with the total count of the cell as exposure: Poisson;
    negative binomial; zero-inflated negative binomial; and a normal variable on the scale log1p(count / size), rounded
    to counts, which is what a Gaussian likelihood on log-normalized values assumes. All four are distributions of
    counts, so their likelihoods can be compared.

    Parameters
    ----------
    adata
        Cells x genes, counts.
    layer
        Layer of counts to read instead of ``X``.
    batch_key
        Column of ``obs`` with batches: each gene gets a rate in each batch.
    groupby
        Column or columns of ``obs`` with kinds of cells (types, conditions), which get rates as well. Without them,
        differences between kinds of cells count as overdispersion and as excess zeros.
    size_key
        Column of ``obs`` with the total count of each cell, for matrices that hold a selection of genes. ``None``: the
        sum over the genes.
    min_cells
        Genes with counts in fewer cells are left out.
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
        One row per gene (index): `n_cells` with a count, `mean`, `variance`, `zeros` (share of cells), `zeros_poisson`,
        `zeros_nb`, `zeros_zinb`, `zeros_lognormal` (what each fit expects), `overdispersion` (of the negative binomial:
        variance mean + overdispersion x mean squared), `overdispersion_zinb` and `zero_inflation` (share of cells) of
        the zero-inflated one, `loglik_*`, `bic_*`, `family` (the lowest BIC), `margin` (BIC of the second best minus
        that of the best), `pval_nb`, `padj_nb` (Poisson against negative binomial), `pval_zinb`, `padj_zinb` (negative
        binomial against the zero-inflated one; likelihood-ratio tests, Benjamini-Hochberg over genes).
    ``uns[key_added]["families"]``
        One row per family: `n_genes` and `share` of the genes with the lowest BIC, `loglik` (per cell, summed over
        genes), `bic` (summed), `zeros` (expected share over genes) and `zeros_error` (mean absolute difference from the
        observed share).
    ``uns[key_added]["summary"]``
        `statistic` and `value`: cells, genes, zeros in the matrix, `median_size`, `size_cv2` (squared coefficient of
        variation of sizes), `overdispersion` (median over genes with a mean count of at least 0.1), and the shares of
        genes that are overdispersed and zero-inflated (adjusted p below .05).
    ``uns[key_added]["params"]``
        The options, and the number of groups.

    Raises
    ------
    KeyError
        If a layer or a column does not exist.
    TypeError
        If a column does not hold labels.
    ValueError
        If values are not counts, there are too few cells, no gene is left, or `key_added` cannot be stored.

    See Also
    --------
    sparsesc.get.count_diagnostics : Reads the tables.
    sparsesc.pl.count_diagnostics : Draws them.
    sparsesc.tl.vae_study : Compares autoencoders with these likelihoods on held-out donors.

    Notes
    -----
    The count :math:`x_i` of a gene in cell :math:`i` of group :math:`g(i)` and relative size :math:`s_i` has the mean
    :math:`\mu_i = s_i \lambda_{g(i)}`. The families are

    .. math::

        \text{Poisson:} \quad & \mathrm{Var}(x_i) = \mu_i \\
        \text{nb:} \quad & \mathrm{Var}(x_i) = \mu_i + \phi \mu_i^2 \\
        \text{zinb:} \quad & P(x_i) = \pi\, [x_i = 0] + (1 - \pi)\, P_\mathrm{nb}(x_i) \\
        \text{lognormal:} \quad & P(x_i) = \Phi(u(x_i + \tfrac{1}{2})) - \Phi(u(x_i - \tfrac{1}{2})),
        \quad u(x) = \frac{\log(1 + x / s_i) - m_{g(i)}}{\sigma}

    with the overdispersion :math:`\phi`, the zero inflation :math:`\pi`, and for the log-normal means
    :math:`m` of groups and one standard deviation :math:`\sigma` (its lower limit for a zero is minus infinity). The
    BIC is :math:`k \log n - 2 \ell` with :math:`k` parameters, :math:`n` cells and the log-likelihood :math:`\ell`.

    The hypotheses of no overdispersion and of no inflation both lie on the boundary of the parameters, so twice the
    gain in log-likelihood is 0 in half of the cases and chi-squared with one degree of freedom in the others; the
    p-values are of that mixture (the test of inflation with a small correction where few cells have three counts or
    more). They hold where counts are independent given the sizes, and are conservative for genes with few counts.

    Whether a gene is zero-inflated depends on what counts as one kind of cell. In a mixture of types, a gene that only
    some of them express has more zeros than one negative binomial allows: name the types in `groupby` before concluding
    that the technique drops genes. With labels from a clustering of the same counts, the tests are too liberal.

    When not to use it: for values that are not counts (normalized, scaled, corrected for ambient RNA); to select
    variable genes (the overdispersion over all cells is a by-product, not made for that). The best of four families can
    still be wrong.

    References
    ----------
    Self and Liang (1987), Asymptotic properties of maximum likelihood estimators and likelihood ratio tests under
    nonstandard conditions, J Am Stat Assoc 82:605 (the mixture). Svensson (2020), Droplet scRNA-seq is not
    zero-inflated, Nature Biotechnology 38:147. Schwarz (1978), Estimating the dimension of a model, Annals of
    Statistics 6:461 (BIC). Benjamini and Hochberg (1995), J R Stat Soc B 57:289.

    Examples
    --------
    >>> import sparsesc as ssc
    >>> adata = ssc.datasets.simulate_programs(n_cells=300, n_genes=60, count_noise="nb", dispersion=0.5)
    >>> ssc.tl.count_diagnostics(adata, groupby="type")
    >>> families = adata.uns["count_diagnostics"]["families"]
    >>> families.index.tolist()
    ['poisson', 'nb', 'zinb', 'lognormal']
    >>> families["n_genes"].idxmax()  # the family that was simulated
    'nb'
    """
    check.check_adata(adata)
    check_slots_free(adata, key_added, _WRITER, {})
    min_cells = check_positive_int(min_cells, name="min_cells")
    counts = whole_counts(adata, layer, only="counts can be fitted by these families")
    sizes = cell_sizes(adata, counts, size_key)
    kinds = [] if groupby is None else as_list(groupby)
    groups, known = _groups(adata, kinds if batch_key is None else [batch_key, *kinds])
    empty = ~(sizes > 0)
    if empty.any():
        _logging.warning(f"{int(empty.sum())} cells without a single count are left out.")
    kept = known & ~empty
    if kept.sum() < _FEWEST_CELLS:
        msg = f"{int(kept.sum())} cells are left, but at least {_FEWEST_CELLS} are needed to compare families."
        raise ValueError(msg)
    counts, sizes, groups = counts[kept], sizes[kept], np.unique(groups[kept], return_inverse=True)[1]
    chosen = np.bincount(counts.indices, minlength=counts.shape[1]) >= min_cells
    if not chosen.any():
        msg = f"No gene has a count in at least min_cells={min_cells} cells. Lower min_cells, or check the matrix."
        raise ValueError(msg)
    part = counts if chosen.all() else counts[:, chosen]
    blocks = []
    with _logging.progress(total=int(chosen.sum()), desc="Fitting counts of genes", enabled=progress_bar) as bar:
        for genes, fits in fit_families(part, sizes / sizes.mean(), groups):
            blocks.append(fits)
            bar.update(genes.stop - genes.start)
    fits = join_fits(blocks)
    genes_table = _describe_genes(part, fits, adata.var_names[chosen].astype(str))
    families = _describe_families(genes_table, fits)
    tables = {"genes": genes_table, "families": families, "summary": _summarize(genes_table, counts, sizes)}
    options: dict[str, Any] = {"layer": layer, "batch_key": batch_key, "groupby": kinds, "size_key": size_key}
    options |= {"min_cells": min_cells, "n_groups": fits.n_groups}
    result = record(adata, key_added, _WRITER, tables, options, copy=copy, fresh=True)
    shares = ", ".join(f"{name} {share:.0%}" for name, share in families["share"].items())
    _logging.info(f"count_diagnostics: {len(genes_table)} genes in {len(sizes)} cells; lowest BIC: {shares}")
    return result


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


def _describe_genes(counts: sparse.csr_matrix, fits: CountFits, names: pd.Index) -> pd.DataFrame:
    """One row per gene."""
    n = counts.shape[0]
    moments = group_moments(counts, np.zeros(n, np.int64), 1)
    n_cells = np.bincount(counts.indices, minlength=counts.shape[1])
    bic = fits.bic
    ordered = np.sort(bic, axis=1)
    table: dict[str, np.ndarray] = {"n_cells": n_cells, "mean": moments.mean[:, 0], "variance": moments.variance[:, 0]}
    table |= {"zeros": 1 - n_cells / n} | _by_family("zeros", fits.zeros)
    table |= {name: getattr(fits, name) for name in ("overdispersion", "overdispersion_zinb", "zero_inflation")}
    table |= _by_family("loglik", fits.loglik) | _by_family("bic", bic)
    table |= {"family": np.array(FAMILIES, dtype=object)[bic.argmin(1)], "margin": ordered[:, 1] - ordered[:, 0]}
    for name, pval in (("nb", fits.pval_overdispersion), ("zinb", fits.pval_inflation)):
        table |= {f"pval_{name}": pval, f"padj_{name}": benjamini_hochberg(pval)}
    return pd.DataFrame(table, index=pd.Index(names, name="gene"))


def _by_family(what: str, values: np.ndarray) -> dict[str, np.ndarray]:
    return {f"{what}_{name}": column for name, column in zip(FAMILIES, values.T, strict=True)}


def _describe_families(table: pd.DataFrame, fits: CountFits) -> pd.DataFrame:
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


def _summarize(table: pd.DataFrame, counts: sparse.csr_matrix, sizes: np.ndarray) -> pd.DataFrame:
    values = {
        "n_cells": counts.shape[0],
        "n_genes": len(table),
        "n_genes_left_out": counts.shape[1] - len(table),
        "zeros": 1 - counts.nnz / np.prod(counts.shape, dtype=np.float64),
        "zeros_fitted_genes": table["zeros"].mean(),
        "median_size": np.median(sizes),
        "size_cv2": sizes.var() / sizes.mean() ** 2,
        "overdispersion": table.loc[table["mean"] >= 0.1, "overdispersion"].median(),
        "overdispersed": (table["padj_nb"] < _ALPHA).mean(),
        "zero_inflated": (table["padj_zinb"] < _ALPHA).mean(),
    }
    return pd.DataFrame({"statistic": list(values), "value": np.array(list(values.values()), dtype=np.float64)})
