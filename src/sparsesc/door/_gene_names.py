"""Names of genes: those that do not match the measured genes become an error, with a guess why."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from sparsesc._values import listing

_ENSEMBL = re.compile(r"^ENS[A-Z]*G\d{6,}")
_LEAST_COVERAGE = 0.10


def check_coverage(
    targets: np.ndarray, genes: pd.Index, *, name: str, owner: str = "adata", others: pd.Index | None = None
) -> None:
    """Refuse gene names if almost none of them was measured, with a guess why.

    Parameters
    ----------
    targets
        Distinct genes, from the user.
    genes
        Measured genes.
    name
        Name of the source of `targets` in errors.
    owner
        What has these `genes`: ``"adata.raw"``, where they were read from there.
    others
        In that case, the names of ``adata.var``, which the user may have meant.

    Raises
    ------
    ValueError
        If less than a tenth of `targets` are in `genes` and less than a tenth of `genes` in `targets`.
    """
    n_measured = int(pd.Index(targets).isin(genes).sum())  # by hash: numpy sorts text, for seconds
    # a matrix of a few hundred genes cannot hold a tenth of a large collection
    if n_measured >= _LEAST_COVERAGE * min(len(targets), len(genes)):
        return
    data = "the data have" if owner == "adata" else f"{owner}, from which genes were read, has"
    msg = (
        f"Only {n_measured} of the {len(targets)} genes in {name} ({n_measured / len(targets):.1%}) are among the "
        f"{len(genes)} measured genes. {name} has {listing(targets[:4])}; {data} {listing(genes[:4])}. "
    )
    if others is not None and pd.Index(targets).isin(others).mean() >= _LEAST_COVERAGE:
        msg += (
            f"adata.var_names, which differ from those of {owner}, do hold genes of {name}: run "
            f"ssc.tl.feature_genes(adata, use_raw=False) to read adata.X, or give {owner} the same names."
        )
    else:
        msg += _name_hint(targets, genes, name, owner)
    raise ValueError(msg)


def near_misses(targets: np.ndarray, genes: pd.Index) -> dict[str, str]:
    """Of `targets` that were not measured: those with the name of a measured gene, but for case and punctuation.

    ``HLA-B`` is ``HLA.B`` after a journey through R. Names that could be two genes are left out.
    """
    spare = genes[~genes.isin(targets)].astype(str)
    plain = pd.Series(spare, index=_plain(spare))
    plain = plain[~plain.index.duplicated(keep=False)]
    missing = pd.Index(targets[~np.isin(targets, genes)].astype(str))
    found = plain.reindex(_plain(missing)).to_numpy(dtype=object)
    return {theirs: ours for theirs, ours in zip(missing, found, strict=True) if isinstance(ours, str)}


def _plain(names: pd.Index) -> pd.Index:
    return names.str.upper().str.replace(r"[-._ ]", "", regex=True)


def _name_hint(targets: np.ndarray, genes: pd.Index, name: str, owner: str) -> str:
    """Why names do not match, judged by the names."""
    theirs = pd.Index(targets.astype(str))
    ours = genes.astype(str)
    ensembl = [np.mean([bool(_ENSEMBL.match(name)) for name in names[:1000]]) > 0.5 for names in (theirs, ours)]
    if ensembl[0] != ensembl[1]:
        which = (name, owner) if ensembl[0] else (owner, name)
        return (
            f"{which[0]} uses Ensembl ids, {which[1]} gene symbols: convert one of them, for example by a column of "
            f"{owner}.var that holds the other kind of name."
        )
    if all(ensembl):
        trimmed = theirs.str.replace(r"\.\d+$", "", regex=True).isin(ours.str.replace(r"\.\d+$", "", regex=True))
        if trimmed.mean() >= _LEAST_COVERAGE:
            return "Both are Ensembl ids, but one has versions ('.12' at the end): cut them off."
        return "Both are Ensembl ids, probably of different species: map them to orthologs first."
    if theirs.str.upper().isin(ours.str.upper()).mean() >= _LEAST_COVERAGE:
        return (
            "The names differ in upper and lower case: mouse symbols are written 'Cd79a', human ones 'CD79A'. If the "
            "species differ, map to orthologs (decoupler.op.translate); otherwise change the case of one of them."
        )
    if ours.str.fullmatch(r"\d+").mean() > 0.5 or theirs.str.fullmatch(r"\d+").mean() > 0.5:
        return "One of them has numbers for names (Entrez ids, or an index instead of gene names): convert it."
    return (
        "Check that both use the same kind of name (symbols, Ensembl ids) and the same species, and that "
        f"{owner}.var_names holds gene names."
    )
