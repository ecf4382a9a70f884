from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc import _logging
from sparsesc._random import RNGLike, SeedLike, as_generator, describe
from sparsesc._values import check_choice, check_positive_int, listing

if TYPE_CHECKING:
    from anndata import AnnData

_LARGE = {
    "n_cells": 10_000,
    "n_genes": 20_000,
    "n_programs": 100,
    "n_types": 40,
    "n_covariates": 3,
    "type_density": 0.3,
    "gene_density": 0.1,
}
_KINDS: dict[str, dict[str, float]] = {
    "large": _LARGE,
    "easy": {**_LARGE, "n_types": 10, "n_covariates": 1, "type_density": 0.7},
    "small": {"n_cells": 12_000},
}
_SMALL_PROGRAMS = np.array([[0, 1, 1, 0, 0], [1, 1, 0, 1, 0], [0, 0, 0, 1, 1]], np.float32)
_SMALL_ACTIVITY = 2.0
_SMALL_ACCESSIBLE = np.array([0.5, 0.1, 0.9])
_SHIFT_SD = 0.1
_COUNT_BLOCK = 4_000_000  # entries of the dense means that are drawn from at once


def simulate_programs(
    kind: Literal["large", "easy", "small"] = "large",
    *,
    n_cells: int | None = None,
    n_genes: int | None = None,
    n_programs: int | None = None,
    n_types: int | None = None,
    n_covariates: int | None = None,
    type_density: float | None = None,
    gene_density: float | None = None,
    count_noise: Literal["poisson", "nb"] | None = None,
    library_size: float = 5_000.0,
    library_sd: float = 0.3,
    dispersion: float = 0.1,
    batch_effect: float = 0.0,
    n_batches: int = 1,
    imbalance: float = 1.0,
    rng: SeedLike | RNGLike | None = 0,
) -> AnnData:
    """Simulated cells with known gene programs, so that features can be compared with the truth.

    A cell of ``"large"`` and ``"easy"`` has a basal activity of each program, `X0`; a covariate that shifts all its
    programs, `X1`; and a type that switches programs on or off, `X2`. Genes sum the programs that they belong to::

        X0[i, j] ~ Poisson(1 + 0.1 j)
        X1[i, j] = X0[i, j] + Normal(covariate[i], 0.1)      # covariate 0, 1, ...; 0.1 is the standard deviation
        X2[i, j] = X1[i, j] * C[type[i], j]                  # C ~ Bernoulli(type_density)
        Y = X2 @ A                                           # A ~ Bernoulli(gene_density), programs x genes

    In ``"small"`` three programs have an activity `X0`, Poisson(2), and are accessible with probability 0.5, 0.1 and
    0.9, `X1`; their product `X2` makes five genes by fixed loadings.

    Parameters
    ----------
    kind
        ``"large"``: 40 types, 3 covariates, a type uses 0.3 of the programs. ``"easy"``: 10 types, 1 covariate (0 for
        every cell), 0.7 of the programs. ``"small"``: three factors and five genes, without types and covariates.
    n_cells
        Number of cells; ``None``: 10,000 (``"small"``: 12,000, in the paper 10,000 to train on and 2,000 to test on).
    n_genes
        Number of genes; ``None``: 20,000. With 2,000, time and memory are a tenth.
    n_programs
        Number of programs; ``None``: 100.
    n_types
        Number of types; ``None``: 40 (``"easy"``: 10).
    n_covariates
        Number of values of the covariate, ``0 ... n_covariates - 1``; ``None``: 3 (``"easy"``: 1).
    type_density
        Probability that a type uses a program; ``None``: 0.3 (``"easy"``: 0.7).
    gene_density
        Probability that a gene belongs to a program; ``None``: 0.1.
    count_noise
        ``None``: expression is `Y` itself, as in the paper. ``"poisson"``, ``"nb"``: counts whose mean is `Y`, scaled
        by the size factor of the cell.
    library_size
        Counts of an average cell. A cell with twice the expression has twice the counts.
    library_sd
        Standard deviation of the logarithm of the cells' size factors, which are log-normal with mean 1.
    dispersion
        Of ``"nb"``: the variance is ``mean + dispersion * mean ** 2``.
    batch_effect
        Standard deviation of the logarithm of the factor (mean 1) by which a batch changes a gene.
    n_batches
        Number of batches; cells belong to one at random.
    imbalance
        Expected size of the largest type over that of the smallest; sizes in between are geometric. 1: all are equal.
    rng
        Seed or generator. One seed gives the same cells whatever the genes, batches and noise.

    Returns
    -------
    Cells x genes.

    ``X``
        Expression, float32: dense `Y` without count noise, otherwise the counts in CSR.
    ``layers["counts"]``
        With count noise: the counts as integers (int32), CSR.
    ``obs["type"]``, ``obs["covariate"]``, ``obs["batch"]``
        Categories (``"small"``: only the batch).
    ``obs["size_factor"]``
        With count noise: what the means of the cell were multiplied by.
    ``obsm["X0"]``, ``obsm["X1"]``, ``obsm["X2"]``
        The programs of each cell, cells x programs, float32.
    ``varm["programs"]``
        Loadings, genes x programs: ``A`` transposed. Without count noise and batch effect
        ``X = obsm["X2"] @ varm["programs"].T``.
    ``varm["batch_effect"]``
        With a batch effect: logarithm of the factors, genes x batches.
    ``uns["simulation"]``
        Parameters as used, and ``type_programs``: ``C``, types x programs (not for ``"small"``).

    Raises
    ------
    ValueError
        If a parameter is out of range, or is not one of ``"small"``.

    See Also
    --------
    sparsesc.stats.recovery : How well features recover known programs.

    Notes
    -----
    Dense expression of 10,000 cells and 20,000 genes takes 800 MB. Counts are drawn in blocks and kept sparse.

    Programs here are independent, additive and many times stronger than their noise: a method that fails here fails on
    real cells, but not the reverse. Where a shift makes expression negative, the mean of the counts is 0.

    References
    ----------
    Schuster (2025), Can sparse autoencoders make sense of gene expression latent variable models?
    *Proceedings of Machine Learning Research* 311, 81-94. arXiv:2410.11468.

    Examples
    --------
    >>> import sparsesc as ssc
    >>> adata = ssc.datasets.simulate_programs(n_cells=500, n_genes=200)
    >>> adata.obsm["X2"].shape
    (500, 100)
    """
    check_choice(kind, _KINDS, name="kind")
    given = {
        "n_cells": n_cells,
        "n_genes": n_genes,
        "n_programs": n_programs,
        "n_types": n_types,
        "n_covariates": n_covariates,
        "type_density": type_density,
        "gene_density": gene_density,
    }
    used = _used(kind, given, imbalance)
    noise = {"library_size": library_size, "library_sd": library_sd, "dispersion": dispersion}
    _check_ranges(used, noise, count_noise, batch_effect, imbalance)
    n_batches = check_positive_int(n_batches, name="n_batches")

    # one stream for each part, so that a change of one leaves the others unchanged
    draw_cells, draw_genes, draw_batches, draw_counts = as_generator(rng).spawn(4)
    n = int(used["n_cells"])
    obs: dict[str, Any] = {}
    uns: dict[str, Any] = {"kind": kind, **used, **noise, "count_noise": count_noise or "none", "rng": describe(rng)}
    uns |= {"batch_effect": batch_effect, "n_batches": n_batches, "imbalance": imbalance}
    if kind == "small":
        X0 = draw_cells.poisson(_SMALL_ACTIVITY, size=(n, 3)).astype(np.float32)
        X1 = (draw_cells.random((n, 3)) < _SMALL_ACCESSIBLE).astype(np.float32)
        X2, A = X0 * X1, _SMALL_PROGRAMS
    else:
        types, covariate, C, X0, X1 = _large(used, imbalance, draw_cells)
        X2 = X1 * C[types]
        A = (draw_genes.random((X0.shape[1], int(used["n_genes"]))) < used["gene_density"]).astype(np.float32)
        obs["type"] = _categories(types, int(used["n_types"]), "type_")
        obs["covariate"] = _categories(covariate, int(used["n_covariates"]), "")
        uns["type_programs"] = C
    batches = draw_batches.integers(n_batches, size=n)
    obs["batch"] = _categories(batches, n_batches, "batch_")
    log_factor = None
    if batch_effect > 0:
        normal = draw_batches.normal(size=(n_batches, A.shape[1]))
        log_factor = (batch_effect * normal - batch_effect**2 / 2).astype(np.float32)

    import anndata

    layers: dict[str, Any] = {}
    obsm: dict[str, Any] = {"X0": X0, "X1": X1, "X2": X2}
    varm: dict[str, Any] = {"programs": np.ascontiguousarray(A.T)}
    if log_factor is not None:
        varm["batch_effect"] = np.ascontiguousarray(log_factor.T)
    if count_noise is None:
        X: Any = X2 @ A
        if log_factor is not None:
            for b in range(n_batches):
                X[batches == b] *= np.exp(log_factor[b])
    else:
        size = draw_counts.lognormal(-(library_sd**2) / 2, library_sd, size=n)
        obs["size_factor"] = size
        counts = _counts(X2, A, size, batches, log_factor, library_size, dispersion, count_noise, draw_counts)
        layers["counts"] = counts
        X = counts.astype(np.float32)
    adata = anndata.AnnData(
        X,
        obs=pd.DataFrame(obs, index=[f"cell_{i}" for i in range(n)]),
        var=pd.DataFrame(index=[f"gene_{i}" for i in range(A.shape[1])]),
        obsm=obsm,
        varm=varm,
        layers=layers,
        uns={"simulation": uns},
    )
    _logging.info(f"simulated {n} cells x {A.shape[1]} genes from {A.shape[0]} programs")
    return adata


def _used(kind: str, given: dict[str, float | None], imbalance: float) -> dict[str, float]:
    """The parameters of the kind, replaced by those that were given."""
    defaults = _KINDS[kind]
    chosen = {name: value for name, value in given.items() if value is not None}
    fixed = [name for name in chosen if name not in defaults]
    if kind == "small" and imbalance != 1:
        fixed.append("imbalance")
    if fixed:
        msg = f"kind='small' has three fixed factors, five genes and no types: remove {listing(fixed)}."
        raise ValueError(msg)
    return {**defaults, **chosen}


def _check_ranges(
    used: dict[str, float], noise: dict[str, float], count_noise: str | None, batch_effect: float, imbalance: float
) -> None:
    for name, value in used.items():
        if name.startswith("n_"):
            check_positive_int(value, name=name)
        elif not 0 < value <= 1:
            msg = f"{name} must be a probability above 0 and at most 1, found {value!r}."
            raise ValueError(msg)
    if count_noise is not None:
        check_choice(count_noise, ("poisson", "nb"), name="count_noise")
    for name in ("library_size", "dispersion"):
        if not 0 < noise[name] < np.inf:
            msg = f"{name} must be above 0 and finite, found {noise[name]!r}."
            raise ValueError(msg)
    for name, value in {"library_sd": noise["library_sd"], "batch_effect": batch_effect}.items():
        if not 0 <= value < np.inf:
            msg = f"{name} must be 0 or more and finite, found {value!r}."
            raise ValueError(msg)
    if not 1 <= imbalance < np.inf:
        msg = f"imbalance is the largest type over the smallest: it must be at least 1, found {imbalance!r}."
        raise ValueError(msg)


def _large(
    used: dict[str, float], imbalance: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Types, covariate, C, X0 and X1."""
    n, n_programs, n_types = int(used["n_cells"]), int(used["n_programs"]), int(used["n_types"])
    C = (rng.random((n_types, n_programs)) < used["type_density"]).astype(np.float32)
    share = imbalance ** -np.linspace(0.0, 1.0, n_types)
    types = rng.choice(n_types, size=n, p=share / share.sum())
    covariate = rng.integers(int(used["n_covariates"]), size=n)
    X0 = rng.poisson(1 + 0.1 * np.arange(n_programs), size=(n, n_programs)).astype(np.float32)
    shift = covariate[:, None] + _SHIFT_SD * rng.standard_normal((n, n_programs), dtype=np.float32)
    return types, covariate, C, X0, (X0 + shift).astype(np.float32)


def _counts(
    X2: np.ndarray,
    A: np.ndarray,
    size: np.ndarray,
    batches: np.ndarray,
    log_factor: np.ndarray | None,
    library_size: float,
    dispersion: float,
    count_noise: str,
    rng: np.random.Generator,
) -> sparse.csr_matrix:
    """Counts in blocks of cells, so that the dense means of all cells never exist together."""
    average = float(X2.mean(axis=0, dtype=np.float64) @ A.sum(axis=1, dtype=np.float64))
    scale = library_size / average if average > 0 else 0.0
    rows = max(1, _COUNT_BLOCK // A.shape[1])
    blocks = []
    for first in range(0, len(X2), rows):
        part = slice(first, first + rows)
        mean = np.maximum((X2[part] @ A).astype(np.float64), 0.0) * (scale * size[part, None])
        if log_factor is not None:
            mean *= np.exp(log_factor)[batches[part]]
        if count_noise == "nb":  # Poisson of a gamma with this mean and the squared coefficient of variation
            mean *= rng.gamma(1.0 / dispersion, dispersion, size=mean.shape)
        blocks.append(sparse.csr_matrix(rng.poisson(mean).astype(np.int32)))
    return sparse.vstack(blocks, format="csr", dtype=np.int32)


def _categories(codes: np.ndarray, n: int, prefix: str) -> pd.Categorical:
    return pd.Categorical.from_codes(codes, categories=[f"{prefix}{i}" for i in range(n)])
