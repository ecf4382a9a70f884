from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc._random import as_generator, describe
from sparsesc._values import as_list, check_choice, check_positive_int, listing
from sparsesc.door import _checks as check
from sparsesc.door._obs_columns import Labels, read_labels
from sparsesc.door._slots import check_slots_free, record

from ._dependence import dependence
from ._terms import ElboTerms, check_model, read_terms, trained_cells, trained_labels

if TYPE_CHECKING:
    from anndata import AnnData

    from sparsesc._random import RNGLike, SeedLike

_WRITER = "ssc.tl.latent_diagnostics"
_FEWEST_CELLS = 20
_SILENT = 0.01  # nats; a posterior closer to the prior than this says nothing about its cell
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
    r"""Evaluate a latent space on cells that it was not trained on: objective, dimensions in use, and what they hold.

    Parameters
    ----------
    adata
        Cells with the counts (and covariates) that the model takes; they need not be set up.
    model
        A trained SCVI, SCANVI or LinearSCVI of scvi-tools, or one of :mod:`sparsesc.models`. Or an object with two
        methods: ``project(adata)``, which returns positions (cells x dimensions), and ``get_log_likelihood(adata,
        latent=)``, which returns one number per cell.
    label_keys
        Columns of ``obs`` (batch, donor, cell type: labels; depth, age: numbers) whose share of each dimension's
        variance is tested.
    mask
        The cells to evaluate: a column of ``obs`` or an array of True and False. ``None``: all of `adata`.
    sample_key
        Column of ``obs`` with donors, samples or sites. Donors of the training are refused, the objective is also given
        by donor, and permutations respect donors. Without it, cells count as independent.
    decode_as
        A batch that the model knows, for cells of unknown batches: they are decoded as if they were of that batch.
        Their reconstruction then includes the difference between the batches.
    seen
        ``"refuse"``: cells or donors of the training are an error. ``"warn"``: they are evaluated with the others.
    min_variance
        A dimension is active if the variance of its posterior mean over cells exceeds this (Burda et al.: 0.01 of the
        prior's variance). For models without a posterior: 0.01 of the mean variance of dimensions.
    n_draws
        Draws from the posterior of each cell; the reconstruction is averaged over them.
    n_permutations
        Permutations of each key.
    rng
        Draws from posteriors, and permutations.
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
        One row for all cells (``"all"``) and one per donor: `donor`, `n_cells`, `elbo`, `reconstruction` (minus
        log-likelihood given the latent) and `kl` (divergence from the prior; for positions minus the log density of the
        prior), in nats per cell, so that elbo = -(reconstruction + kl), and `elbo_sd` over cells. Without a prior `kl`
        is NaN, and `elbo` is minus the reconstruction.
    ``uns[key_added]["dimensions"]``
        One row per dimension (index): `kl` (mean divergence of its posterior from a standard normal variable),
        `kl_share`, `variance` (of the posterior mean over cells), `posterior_variance` (mean), `active`, `silent_cells`
        (share of cells whose divergence is below 0.01) and `collapsed` (silent in at least 99 % of cells). Without a
        posterior only `variance` and `active` are known.
    ``uns[key_added]["dependence"]``
        One row per dimension and key: `dimension`, `key`, `share` of the variance explained (eta squared of labels,
        squared correlation of numbers), `null_mean` and `null_sd` under shuffling, `pval`, `padj` (Benjamini-Hochberg
        over all tests of the call), `unit` (what was shuffled: ``"cell"``, ``"cell within sample"`` or ``"sample"``)
        and `n_units`.
    ``uns[key_added]["params"]``
        The options, with `n_active`, `n_collapsed` and `n_seen` (if it is known).

    Raises
    ------
    KeyError
        If a column or genes of the model do not exist.
    TypeError
        If the model is of an unsupported kind, or a column holds neither labels nor numbers.
    ValueError
        If the model was not trained, cells or donors were in its training, their batch is unknown to it, too few cells
        are left, or an option is out of its range.

    See Also
    --------
    sparsesc.get.latent_diagnostics : Reads the tables.
    sparsesc.pl.latent_diagnostics : Draws them.
    sparsesc.tl.vae_study : Compares architectures by these scores.

    Notes
    -----
    The objective of cell :math:`x` is the evidence lower bound,

    .. math:: \mathrm{elbo}(x) = \mathbb{E}_{q(z \mid x)} \log p(x \mid z) - \mathrm{KL}(q(z \mid x) \,\|\, p(z)),

    whose first term is minus the `reconstruction`, with the posterior :math:`q` and the prior :math:`p(z)`. A dimension
    whose posterior is normal with mean :math:`\mu` and variance :math:`\sigma^2` has the divergence
    :math:`\tfrac{1}{2} (\mu^2 + \sigma^2 - \log \sigma^2 - 1)`.

    A cell counts as one of the training if its name and its total count are those of a training cell in the AnnData
    that the model holds. A model that was loaded with other cells no longer knows them: there is a warning then, and
    you have to check.

    Likelihoods of different values (counts, logarithms, residuals) or gene sets cannot be compared; neither can a
    variational bound and the density at a point. The divergence of SCANVI is that of its whole hierarchy, while that of
    dimensions is from a standard normal variable, so that the two do not add up.

    Permutations respect samples as follows. A key that is the same within every sample (condition, batch) is shuffled
    over samples, on means over their cells: a handful of samples cannot give a small p. A key that varies within
    samples (cell type) is shuffled within them, after the differences between samples are removed. A key that names the
    samples themselves cannot be tested without replicates: its share is given, p is NaN.

    When not to use it: an active dimension need not be a useful one, and a small divergence is not a fault in itself: a
    model with more dimensions than the cells need should leave some idle. Labels from a clustering of the same latent
    space depend on it by construction.

    References
    ----------
    Burda et al. (2016), Importance weighted autoencoders, ICLR (active units). Lucas et al. (2019), Don't blame the
    ELBO! A linear VAE perspective on posterior collapse, NeurIPS (collapsed dimensions). Phipson and Smyth (2010),
    Permutation p-values should never be zero, Stat Appl Genet Mol Biol 9:39.

    Examples
    --------
    >>> import sparsesc as ssc
    >>> adata = ssc.datasets.simulate_programs(n_cells=120, n_genes=30, count_noise="poisson")
    >>> train, held_out = adata[:60].copy(), adata[60:].copy()
    >>> ssc.models.DGD.setup_anndata(train)
    >>> model = ssc.models.DGD(train, n_latent=4, n_components=3)
    >>> model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
    >>> ssc.tl.latent_diagnostics(held_out, model, "type", n_permutations=20)
    >>> held_out.uns["latent_diagnostics"]["elbo"].columns.tolist()
    ['donor', 'n_cells', 'elbo', 'reconstruction', 'kl', 'elbo_sd']
    >>> held_out.uns["latent_diagnostics"]["params"]["n_seen"]  # cells that were in the training
    0
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
    rows = _masked(adata, mask)
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
    tests = dependence(
        described, terms.mean, list(dimensions.index), names, sample_key, n_permutations=n_permutations,
        rng=generator, progress_bar=progress_bar,
    )  # fmt: skip
    elbo = _elbo(terms, donors)
    n_active, n_collapsed = int(dimensions["active"].sum()), int(dimensions["collapsed"].sum())
    tables = {"elbo": elbo, "dimensions": dimensions, "dependence": tests}
    options: dict[str, Any] = {"model": type(model).__name__, "label_keys": names}
    options |= {"mask": mask if mask is None or isinstance(mask, str) else "given", "sample_key": sample_key}
    options |= {"decode_as": decode_as, "seen": seen, "min_variance": min_variance, "n_draws": n_draws}
    options |= {"n_permutations": n_permutations, "rng": describe(rng), "n_cells": part.n_obs, "n_seen": n_seen}
    options |= {"n_active": n_active, "n_collapsed": n_collapsed}
    result = record(adata, key_added, _WRITER, tables, options, copy=copy, fresh=True)
    _logging.info(
        f"latent_diagnostics: {part.n_obs} cells, ELBO {elbo['elbo'].iloc[0]:.1f}; {n_active} of "
        f"{len(dimensions)} dimensions active, {n_collapsed} collapsed; added uns['{key_added}']"
    )
    return result


def _masked(adata: AnnData, mask: str | np.ndarray | None) -> np.ndarray:
    """Positions of the cells to evaluate."""
    if mask is None:
        values: np.ndarray = np.ones(adata.n_obs, bool)
    else:
        values = np.asarray(check.get_obs_column(adata, mask) if isinstance(mask, str) else mask)
    if values.dtype != bool or values.shape != (adata.n_obs,):
        what = f"adata.obs[{mask!r}]" if isinstance(mask, str) else "mask"
        msg = (
            f"{what} must be True or False for each of {adata.n_obs} cells, found {values.dtype} of shape "
            f"{values.shape}."
        )
        raise ValueError(msg)
    if values.sum() < _FEWEST_CELLS:
        msg = f"There are {int(values.sum())} cells to evaluate, but at least {_FEWEST_CELLS} are needed."
        raise ValueError(msg)
    return np.flatnonzero(values)


def _check_unseen(model: Any, part: AnnData, sample_key: str | None, *, refuse: bool) -> int | None:
    """How many of the cells were in the training, if known; an error, or a warning, if cells or donors were."""
    known = trained_cells(model, part)
    if known is None:
        _logging.warning(
            "The model does not hold its training cells, so it is unknown whether these cells were among them: make "
            "sure that they, and their donors, were not."
        )
        return None
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
        text = f"{text[0].upper()}{text[1:]}"
        if refuse:
            msg = (
                f"{text}: they say nothing about new ones. Pass cells of held-out donors (or select them by mask), or "
                "use seen='warn' to evaluate these cells all the same."
            )
            raise ValueError(msg)
        _logging.warning(f"{text}: the results do not hold for new ones.")
    return int(known.sum())


def _elbo(terms: ElboTerms, donors: Labels | None) -> pd.DataFrame:
    """Means over all cells and over those of each donor."""
    prior = np.full(len(terms.reconstruction), np.nan) if terms.prior is None else terms.prior
    values = {"elbo": -terms.reconstruction - np.nan_to_num(prior), "reconstruction": terms.reconstruction, "kl": prior}
    groups = [(_ALL, np.ones(len(prior), bool))]
    if donors is not None:
        groups += [(name, donors.codes == i) for i, name in enumerate(donors.categories)]
    rows = []
    for name, cells in groups:
        means = {what: value[cells].mean() for what, value in values.items()}
        rows.append({"donor": name, "n_cells": int(cells.sum())} | means | {"elbo_sd": values["elbo"][cells].std()})
    return pd.DataFrame(rows)


def describe_dimensions(terms: ElboTerms, threshold: float = 0.01) -> pd.DataFrame:
    """One row per dimension; what needs a posterior is NaN without one."""
    variance = terms.mean.var(axis=0)
    names = pd.Index([f"z_{i}" for i in range(len(variance))], name="dimension")
    columns = ["kl", "kl_share", "variance", "posterior_variance", "active", "silent_cells"]
    table = pd.DataFrame(np.nan, index=names, columns=columns).assign(variance=variance)
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
