from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc._random import as_generator, describe
from sparsesc._values import as_list, check_choice, check_positive_int, listing
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._obs_columns import read_labels
from sparsesc.door._slots import WRITTEN_BY, check_slots_free

from ._latent_dependence import dependence
from ._latent_terms import LatentTerms, check_model, read_terms, trained_cells, trained_labels

if TYPE_CHECKING:
    from anndata import AnnData

    from sparsesc._random import RNGLike, SeedLike

_WRITER = "ssc.tl.latent_diagnostics"
_FEWEST_CELLS = 20
_SILENT = 0.01  # nats; a posterior that is closer to the prior than this says nothing about its cell
_ALL = "all"


def latent_diagnostics(
    adata: AnnData,
    model: Any,
    label_keys: str | Sequence[str] | None = None,
    *,
    mask: str | np.ndarray | None = None,
    sample_key: str | None = None,
    decode_as: str | None = None,
    seen: Literal["refuse", "warn"] = "refuse",
    min_variance: float = 0.01,
    n_draws: int = 10,
    n_permutations: int = 999,
    rng: SeedLike | RNGLike | None = 0,
    key_added: str = "latent_diagnostics",
    progress_bar: bool | None = None,
    copy: bool = False,
) -> AnnData | None:
    """What a latent space is worth on cells that it was not trained on: objective, dimensions in use, what they hold.

    Parameters
    ----------
    adata
        Cells with the counts (and covariates) that the model takes; they need not be set up.
    model
        A trained SCVI, SCANVI or LinearSCVI of scvi-tools, or one of :mod:`sparsesc.models`. Or an object with two
        methods: ``project(adata)``, which gives positions (cells x dimensions), and ``get_log_likelihood(adata,
        latent=)``, which gives one number a cell.
    label_keys
        Columns of ``obs`` (batch, donor, cell type: labels; depth, age: numbers) whose share of each dimension's
        variance is tested.
    mask
        The cells to judge on: a column of ``obs`` or an array of True and False. ``None``: all of `adata`.
    sample_key
        Column of ``obs`` with donors, samples or sites. Those of the training are refused, the objective is given for
        each of them as well, and permutations respect them. Without it, cells count as independent.
    decode_as
        A batch that the model knows, for cells of batches that it does not: they are decoded as if they were of it.
        Their reconstruction then includes what the batches differ by.
    seen
        ``"refuse"``: cells or donors of the training are an error. ``"warn"``: they are judged with the others.
    min_variance
        A dimension is active if the variance of its posterior mean over cells exceeds this (Burda et al.: 0.01 of the
        prior's variance). For models without a posterior: 0.01 of the mean variance of dimensions.
    n_draws
        Draws from the posterior of each cell, over which the reconstruction is averaged.
    n_permutations
        Shufflings of each key.
    rng
        Draws.
    key_added
        Entry of ``uns``.
    progress_bar
        Show progress over columns. Default: unless ``sc.settings.verbosity`` is 0.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy when ``copy=True``, with

    ``uns[key_added]["elbo"]``
        One row for all cells (``"all"``) and one a donor: `donor`, `n_cells`, `elbo`, `reconstruction` (minus
        log-likelihood given the latent) and `kl` (divergence from the prior; for positions minus the log density of the
        prior), in nats a cell, so that elbo = -(reconstruction + kl), and `elbo_sd` over cells. Without a prior `kl` is
        NaN, and `elbo` is minus the reconstruction.
    ``uns[key_added]["dimensions"]``
        One row a dimension (index): `kl` (mean divergence of its posterior from a standard normal variable),
        `kl_share`, `variance` (of the posterior mean over cells), `posterior_variance` (mean), `active`, `silent_cells`
        (share of cells whose divergence is below 0.01) and `collapsed` (silent in at least 99 % of cells). Without a
        posterior only `variance` and `active` are known.
    ``uns[key_added]["dependence"]``
        One row a dimension and key: `dimension`, `key`, `share` of the variance explained (eta squared of labels,
        squared correlation of numbers), `null_mean` and `null_sd` under shuffling, `pval`, `padj` (Benjamini-Hochberg
        over all tests of the call), `unit` (what was shuffled: ``"cell"``, ``"cell within sample"`` or ``"sample"``)
        and `n_units`.
    ``uns[key_added]["params"]``
        What was asked, with `n_active`, `n_collapsed` and `n_seen`.

    Raises
    ------
    KeyError
        If a column or genes of the model do not exist.
    TypeError
        If the model is of a kind that is not known, or a column holds neither labels nor numbers.
    ValueError
        If the model was not trained, cells or donors were in its training, their batch is unknown to it, too few cells
        are left, or an option is out of its range.

    Notes
    -----
    Whether a cell was in the training is told by its name and its total count in the AnnData that the model holds. A
    model that was loaded with other cells has forgotten them: there is a warning then, and it is on you.

    Likelihoods of different values (counts, logarithms, residuals) or gene sets cannot be compared; neither can a
    variational bound with the density at a point. Of SCANVI the divergence is that of its whole hierarchy, while that
    of dimensions is from a standard normal variable, so that the two do not add up.

    The permutations know samples as follows. A key that is the same within every sample (condition, batch) is shuffled
    over samples, on means over their cells: a handful of samples cannot give a small p. A key that varies within
    samples (cell type) is shuffled within them, and what samples differ by is taken out first. A key that names the
    samples themselves cannot be tested without replicates: its share is given, p is NaN.

    When not to use it: an active dimension need not be a good one, and a small divergence is no fault by itself: a
    model with more dimensions than the cells have to say should leave some idle. Labels that were found in the same
    latent space depend on it by construction.

    References
    ----------
    Burda et al. (2016), Importance weighted autoencoders, ICLR (active units). Lucas et al. (2019), Don't blame the
    ELBO! A linear VAE perspective on posterior collapse, NeurIPS (collapsed dimensions). Phipson and Smyth (2010),
    Permutation p-values should never be zero, Stat Appl Genet Mol Biol 9:39.

    Examples
    --------
    >>> scvi.model.SCVI.setup_anndata(train)
    >>> model = scvi.model.SCVI(train)
    >>> model.train()
    >>> ssc.tl.latent_diagnostics(held_out, model, ["cell_type", "site"], sample_key="donor", sample_key="library")
    """
    check.check_adata(adata)
    check_slots_free(adata, key_added, _WRITER, {})
    check_choice(seen, ("refuse", "warn"), name="seen")
    n_draws = check_positive_int(n_draws, name="n_draws")
    n_permutations = check_positive_int(n_permutations, name="n_permutations")
    if isinstance(min_variance, bool) or not isinstance(min_variance, int | float | np.number) or not min_variance > 0:
        msg = f"min_variance must be a positive variance, found {min_variance!r}."
        raise ValueError(msg)
    check_model(model)
    names = [] if label_keys is None else as_list(label_keys)
    rows = _judged(adata, mask)
    for name in (*names, sample_key):
        if name is not None:
            check.get_obs_column(adata, name)
    part = adata[rows].copy()
    n_seen = _check_unseen(model, part, sample_key, refuse=seen == "refuse")
    generator = as_generator(rng)
    seed = int(generator.integers(2**63 - 1))
    described = part.copy() if decode_as is not None else part  # the batch may be rewritten for decoding
    terms = read_terms(model, part, n_draws=n_draws, seed=seed, decode_as=decode_as)
    dimensions = describe_dimensions(terms, float(min_variance))
    donors = None if sample_key is None else read_labels(described, sample_key, integers=True)
    tables = (
        _elbo(terms, donors),
        dimensions,
        dependence(
            described, terms.mean, list(dimensions.index), names, sample_key, n_permutations=n_permutations,
            rng=generator, progress_bar=progress_bar,
        ),
    )  # fmt: skip
    n_active, n_collapsed = int(dimensions["active"].sum()), int(dimensions["collapsed"].sum())
    asked = {
        WRITTEN_BY: _WRITER,
        "model": type(model).__name__,
        "label_keys": np.array(names, dtype=object),
        "mask": mask if isinstance(mask, str) else "" if mask is None else "given",
        "sample_key": sample_key or "",
        "decode_as": decode_as or "",
        "seen": seen,
        "min_variance": float(min_variance),
        "n_draws": n_draws,
        "n_permutations": n_permutations,
        "rng": describe(rng),
        "n_cells": part.n_obs,
        "n_seen": n_seen,
        "n_active": n_active,
        "n_collapsed": n_collapsed,
    }

    adata = check.writable(adata, copy=copy)
    adata.uns[key_added] = dict(zip(_keys.tables_of("latent_diagnostics"), tables, strict=True)) | {_keys.PARAMS: asked}
    _logging.info(
        f"latent_diagnostics: {part.n_obs} cells, ELBO {tables[0]['elbo'].iloc[0]:.1f}; {n_active} of "
        f"{len(dimensions)} dimensions active, {n_collapsed} collapsed; added uns['{key_added}']"
    )
    return adata if copy else None


def _judged(adata: AnnData, mask: str | np.ndarray | None) -> np.ndarray:
    """Positions of the cells to judge on."""
    if mask is None:
        values: np.ndarray = np.ones(adata.n_obs, bool)
    else:
        values = np.asarray(check.get_obs_column(adata, mask) if isinstance(mask, str) else mask)
    if values.dtype != bool or values.shape != (adata.n_obs,):
        what = f"adata.obs[{mask!r}]" if isinstance(mask, str) else "mask"
        found = f"{values.dtype} of shape {values.shape}"
        msg = f"{what} must be True or False for each of {adata.n_obs} cells, found {found}."
        raise ValueError(msg)
    if values.sum() < _FEWEST_CELLS:
        msg = f"There are {int(values.sum())} cells to judge on, but at least {_FEWEST_CELLS} are needed."
        raise ValueError(msg)
    return np.flatnonzero(values)


def _check_unseen(model: Any, part: AnnData, sample_key: str | None, *, refuse: bool) -> int:
    """How many of the cells were in the training; an error, or a warning, where cells or donors were."""
    known = trained_cells(model, part)
    if known is None:
        _logging.warning(
            "The model does not hold the cells that it was trained on, so that nothing tells whether these were among "
            "them: make sure that they, and their donors, were not."
        )
        return -1
    complaints = []
    if known.any():
        complaints.append(f"{int(known.sum())} of {part.n_obs} cells were in the training of the model")
    if sample_key is not None:
        trained = trained_labels(model, sample_key)
        if trained is None:
            _logging.warning(
                f"The model's AnnData has no obs[{sample_key!r}]: which donors it was trained on is unknown."
            )
        else:
            shared = sorted(set(pd.Series(part.obs[sample_key]).dropna().astype(str)) & trained)
            if shared:
                complaints.append(f"the training had cells of the donors {listing(shared)} of {sample_key!r}")
    if complaints:
        text = " and ".join(complaints)
        if refuse:
            msg = (
                f"{text[0].upper()}{text[1:]}: on these nothing can be said about new ones. Pass cells of donors that "
                "were held out (or name them by mask), or say seen='warn' to look at them all the same."
            )
            raise ValueError(msg)
        _logging.warning(f"{text[0].upper()}{text[1:]}: what is found does not hold for new ones.")
    return int(known.sum())


def _elbo(terms: LatentTerms, donors: Any) -> pd.DataFrame:
    """Means over all cells and over those of each donor."""
    prior = np.full(len(terms.reconstruction), np.nan) if terms.prior is None else terms.prior
    elbo = -terms.reconstruction - np.nan_to_num(prior)
    groups = [(_ALL, np.ones(len(elbo), bool))]
    if donors is not None:
        groups += [(name, donors.codes == i) for i, name in enumerate(donors.categories)]
    rows = [
        {
            "donor": name,
            "n_cells": int(cells.sum()),
            "elbo": elbo[cells].mean(),
            "reconstruction": terms.reconstruction[cells].mean(),
            "kl": prior[cells].mean(),
            "elbo_sd": elbo[cells].std(),
        }
        for name, cells in groups
    ]
    return pd.DataFrame(rows)


def describe_dimensions(terms: LatentTerms, threshold: float = 0.01) -> pd.DataFrame:
    """One row a dimension."""
    n = terms.mean.shape[1]
    variance = terms.mean.var(axis=0)
    table = pd.DataFrame(
        {
            name: np.full(n, np.nan)
            for name in ("kl", "kl_share", "variance", "posterior_variance", "active", "silent_cells")
        },
        index=pd.Index([f"z_{i}" for i in range(n)], name="dimension"),
    )
    table["variance"] = variance
    kl = terms.kl
    if kl is None or terms.variance is None:
        table["active"] = variance > threshold * variance.mean()
        return table.assign(collapsed=False)
    table["kl"] = kl.mean(0)
    table["kl_share"] = table["kl"] / max(table["kl"].sum(), 1e-300)
    table["posterior_variance"] = terms.variance.mean(0)
    table["active"] = variance > threshold
    table["silent_cells"] = (kl < _SILENT).mean(0)
    return table.assign(collapsed=table["silent_cells"] >= 0.99)
