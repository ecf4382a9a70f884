"""Inputs of a variational autoencoder: held-out donors, and genes and scales that the training cells decide."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from sparsesc._values import as_list, check_positive_int, listing

if TYPE_CHECKING:
    from sparsesc.door._obs_columns import Labels

PREPROCESSING = ("counts", "log1p", "pearson")
_MOST_FOLDS = 5
_FEWEST_TEST, _FEWEST_TRAIN = 20, 50
_THETA = 100.0  # of Pearson residuals (Lause et al. 2021)


@dataclass(frozen=True)
class Fold:
    """Donors that are held out together."""

    name: str
    train: np.ndarray
    test: np.ndarray


def make_folds(
    donors: Labels, sample_key: str, *, test_donors: Sequence[str] | None, n_folds: int | None
) -> list[Fold]:
    """Every donor held out once, or the named donors held out together; cells without a donor are left out.

    Raises
    ------
    ValueError
        If a donor does not exist, there are too few donors, or too few cells on a side.
    """
    names = donors.categories
    if len(names) < 2:
        msg = f"adata.obs[{sample_key!r}] has {len(names)} donors ({listing(names)}): none can be held out."
        raise ValueError(msg)
    if test_donors is not None:
        if n_folds is not None:
            msg = "test_donors and n_folds exclude each other: name the donors, or give the number of parts."
            raise ValueError(msg)
        held_out = as_list(test_donors)
        unknown = [name for name in held_out if name not in names]
        if unknown or not held_out or len(held_out) == len(names):
            msg = (
                f"test_donors must be some, not all, of {listing(names)}, found {listing(held_out)}. The "
                "others are trained on."
            )
            raise ValueError(msg)
        parts = [[names.index(name) for name in held_out]]
    else:
        n_folds = min(len(names), _MOST_FOLDS) if n_folds is None else check_positive_int(n_folds, name="n_folds")
        if not 2 <= n_folds <= len(names):
            msg = f"n_folds must lie between 2 and the number of donors ({len(names)}), found {n_folds}."
            raise ValueError(msg)
        parts = _even_parts(donors.sizes, n_folds)
    folds = []
    for part in parts:
        test = np.isin(donors.codes, part)
        train = donors.known & ~test
        name = ", ".join(names[i] for i in sorted(part))
        if test.sum() < _FEWEST_TEST or train.sum() < _FEWEST_TRAIN:
            n_test, n_train = int(test.sum()), int(train.sum())
            msg = (
                f"With {name} held out there are {n_test} cells to test on and {n_train} to train on; at least "
                f"{_FEWEST_TEST} and {_FEWEST_TRAIN} are needed. Ask for fewer folds, or leave small donors out."
            )
            raise ValueError(msg)
        folds.append(Fold(name, np.flatnonzero(train), np.flatnonzero(test)))
    return folds


def _even_parts(sizes: np.ndarray, n_parts: int) -> list[list[int]]:
    """Donors in parts of similar size: the largest first, each goes to the part with the fewest cells."""
    parts: list[list[int]] = [[] for _ in range(n_parts)]
    filled = np.zeros(n_parts)
    for donor in np.argsort(-sizes, kind="stable"):
        place = int(filled.argmin())
        parts[place].append(int(donor))
        filled[place] += sizes[donor]
    return parts


def choose_genes(counts: sparse.csr_matrix, totals: np.ndarray, n_top_genes: int | None) -> np.ndarray:
    """Positions of the genes that vary most among training cells (scanpy's default flavor), in order; all if ``None``.

    Genes that no training cell expresses are never among them.
    """
    import scanpy as sc
    from anndata import AnnData

    seen = np.flatnonzero(np.bincount(counts.indices, minlength=counts.shape[1]))
    if n_top_genes is None or n_top_genes >= len(seen):
        return seen
    scaled = sparse.diags_array(np.median(totals) / totals) @ counts[:, seen]
    held = AnnData(sparse.csr_matrix(scaled).log1p().astype(np.float32))
    sc.pp.highly_variable_genes(held, n_top_genes=n_top_genes, flavor="seurat")
    return seen[held.var["highly_variable"].to_numpy()]


@dataclass(frozen=True)
class Scale:
    """A scale on which a model sees counts, fitted to the training cells; increasing in the count of each gene."""

    name: str
    median: float
    """Total of the median training cell: what sizes are relative to."""
    share: np.ndarray
    """Of each gene in all counts of the training cells."""
    clip: float
    shift: np.ndarray | float = 0.0
    """Subtracted, so that no training value is negative: a decoder with positive outputs must reach all of them."""

    @classmethod
    def fit(cls, name: str, counts: sparse.csr_matrix, totals: np.ndarray) -> Scale:
        """From training cells: counts of the genes in use, and totals over all genes."""
        share = np.asarray(counts.sum(axis=0), dtype=np.float64).ravel() / totals.sum()
        scale = cls(name, float(np.median(totals)), share, np.sqrt(counts.shape[0]))
        return scale if name != "pearson" else replace(scale, shift=scale.values(counts, totals).min(axis=0))

    def place(self, x: np.ndarray, totals: np.ndarray) -> np.ndarray:
        """Positions of counts on the scale, cells x genes; also of half counts, the limits between two counts."""
        if self.name == "counts":
            return x
        if self.name == "log1p":
            return np.log1p(x * (self.median / totals)[:, None])
        mu = totals[:, None] * self.share
        return (x - mu) / np.sqrt(mu + mu**2 / _THETA) - self.shift

    def values(self, counts: sparse.csr_matrix, totals: np.ndarray) -> sparse.csr_matrix | np.ndarray:
        """Values for the model: sparse if zeros stay zeros; residuals are clipped at the root of the cell number."""
        if self.name == "pearson":
            return np.clip(self.place(counts.toarray(), totals) + self.shift, -self.clip, self.clip) - self.shift
        out = counts.astype(np.float64)
        if self.name == "log1p":
            out.data = np.log1p(out.data * np.repeat(self.median / totals, np.diff(out.indptr)))
        return out

    def rate(self, decoded: np.ndarray, totals: np.ndarray) -> np.ndarray:
        """Expression relative to the depth of the cell, up to an increasing function for each gene."""
        if self.name != "pearson":
            return decoded
        # the same residual is a smaller part of the mean in deeper cells
        deviation = np.sqrt(self.share / totals[:, None] + self.share**2 / _THETA)
        return self.share + (decoded + self.shift) * deviation
