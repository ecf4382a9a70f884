from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc._random import several_seeds
from sparsesc._values import as_list, check_choice, check_positive_int, listing
from sparsesc.door import _checks as check
from sparsesc.door._counts import whole_counts
from sparsesc.door._obs_columns import read_labels

from ._autotune import check_autotune, search_values, tuned_options
from ._count_diagnostics import count_diagnostics
from ._inputs import PREPROCESSING, Fold, make_folds
from ._runs import NORMAL, Counted, Outcome, Setting, Split, Store, digest, principal_components, train_and_score

if TYPE_CHECKING:
    from anndata import AnnData

LIKELIHOODS = ("poisson", "nb", "zinb", NORMAL)
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "small": {"n_hidden": 128, "n_layers": 1, "n_latent": 10},
    "medium": {"n_hidden": 256, "n_layers": 1, "n_latent": 32},
    "large": {"n_hidden": 512, "n_layers": 3, "n_latent": 64},
}
_KEY = "_vae_study"


def vae_study(
    adata: AnnData,
    *,
    sample_key: str,
    layer: str | None = None,
    architectures: Mapping[str, Mapping[str, Any]] | None = None,
    preprocessing: str | Sequence[str] = PREPROCESSING,
    likelihoods: str | Sequence[str] = LIKELIHOODS,
    label_key: str | None = None,
    batch_key: str | None = None,
    test_donors: str | Sequence[str] | None = None,
    n_folds: int | None = None,
    n_top_genes: int | None = 1000,
    max_epochs: int = 100,
    kl_warmup: float = 0.25,
    batch_size: int = 128,
    lr: float = 1e-3,
    n_draws: int = 5,
    search: Literal["grid", "autotune"] = "grid",
    n_trials: int = 10,
    rng: int | Sequence[int] = 0,
    path: str | Path | None = None,
    accelerator: str = "auto",
    progress_bar: bool | None = None,
) -> dict[str, pd.DataFrame]:
    r"""Compare architectures, preprocessings and likelihoods of a variational autoencoder on held-out donors.

    Trains scVI's autoencoder for every combination on some donors and scores it on the others: the objective with its
    two parts, the dimensions in use, and scores that can be compared across preprocessings and likelihoods.

    Parameters
    ----------
    adata
        Cells x genes, counts; not changed.
    sample_key
        Column of ``obs`` with donors, or sites: whole ones are held out.
    layer
        Layer of counts to read instead of ``X``.
    architectures
        Names with options of ``scvi.model.SCVI`` (``n_hidden``, ``n_layers``, ``n_latent``, ``dropout_rate``, ...).
        ``None``: ``"small"`` (128 nodes, one layer, 10 dimensions), ``"medium"`` (256, one, 32) and ``"large"`` (512,
        three, 64).
    preprocessing
        Any of ``"counts"``, ``"log1p"`` (of counts scaled to the median total) and ``"pearson"`` (residuals, clipped to
        the root of the number of cells).
    likelihoods
        Any of ``"poisson"``, ``"nb"``, ``"zinb"`` and ``"normal"``. Those of counts go with ``"counts"`` only, the
        normal one with all.
    label_key
        Column of ``obs`` with cell types, for the transfer of labels from training to held-out cells.
    batch_key
        Column of ``obs`` with batches, which the decoder takes as input. Every batch of a held-out donor must also be
        in the training.
    test_donors
        Donors to hold out together. ``None``: all in turn.
    n_folds
        Number of groups of donors, each held out once. ``None``: every donor by itself, with at most five groups.
    n_top_genes
        Genes that vary most among the training cells of each fold. ``None``: all expressed genes.
    max_epochs
        Epochs of each training, on all training cells and without early stopping.
    kl_warmup
        Share of the epochs in which the weight of the divergence rises from 0 to 1. 0: it has its full weight from the
        start, which is when posteriors collapse.
    batch_size, lr
        Cells per step and learning rate of the training.
    n_draws
        Draws from the posterior of each held-out cell.
    search
        ``"grid"``: train all architectures. ``"autotune"``: let :mod:`scvi.autotune` search among the values of their
        options, on the training cells, and score the best; needs ray.
    n_trials
        Trainings of that search.
    rng
        One seed or several, each a training of every combination.
    path
        A folder for finished trainings. A study that is called again with this folder continues where it stopped: a
        stored training is used if its options, the counts and the versions of the packages are the same.
    accelerator
        Where to train, as in Lightning.
    progress_bar
        Show progress over trainings. Default: unless ``sc.settings.verbosity`` is 0.

    Returns
    -------
    Three tables. After Ctrl-C, they hold the finished trainings.

    ``"runs"``
        One row per training: `architecture`, `n_hidden`, `n_layers`, `n_latent`, `preprocessing`, `likelihood`, `fold`
        (the donors held out), `rng`, `n_train`, `n_test`, `n_genes`; on held-out cells `elbo`, `reconstruction`, `kl`
        (nats per cell, elbo = -(reconstruction + kl)), `elbo_train`, `n_active`, `n_collapsed`; comparable across all
        rows of a fold `loglik_counts` (log probability of the counts given the latent), `elbo_counts` (minus `kl`),
        `elbo_counts_null` (each gene negative binomial at its share of the training counts, no latent), `spearman`
        (expected expression decoded from half of a cell's molecules against the other half, over cells, mean over
        genes) and `label_transfer` (by the 15 nearest training cells, mean over labels); `seconds`, `diverged`. Rows
        with architecture ``"PCA"`` are a control: as many components as the largest latent has dimensions.
    ``"dimensions"``
        One row per training and dimension, as in :func:`latent_diagnostics`.
    ``"counts"``
        `statistic` and `value`: the summary of :func:`count_diagnostics` over all cells, rates by donor and label, with
        `share_*` of the genes that each family fits best and `loglik_*` of the families (nats per cell).

    Raises
    ------
    ImportError
        If ``search="autotune"`` and ray is not installed.
    KeyError
        If a layer or a column does not exist.
    TypeError
        If a column does not hold labels, or an option is of the wrong kind.
    ValueError
        If values are not counts, there are too few donors or cells, the training lacks a batch of a held-out donor, or
        options exclude each other.

    See Also
    --------
    sparsesc.tl.latent_diagnostics : The scores of one trained model, in more detail.
    sparsesc.tl.count_diagnostics : Which likelihood fits each gene, without a model.

    Notes
    -----
    For a cell :math:`x` with the approximate posterior :math:`q(z \mid x)`,

    .. math:: \mathrm{elbo}(x) = \mathbb{E}_{q(z \mid x)} \log p(x \mid z) - \mathrm{KL}(q(z \mid x) \,\|\, p(z)).

    The `elbo` of one preprocessing cannot be compared with that of another: densities of logarithms or residuals are in
    their units, and a normal density on values that are mostly zero grows without bound as its spread shrinks. So the
    normal likelihoods are also read as distributions of counts: with :math:`t`, the scale of the preprocessing,
    :math:`P(k) = \Phi\left(\frac{t(k + 1/2) - m}{s}\right) - \Phi\left(\frac{t(k - 1/2) - m}{s}\right)` is the
    probability of a count :math:`k` for the decoded mean :math:`m` and standard deviation :math:`s`. `elbo_counts` is
    then a lower bound on the log-probability of the same held-out counts for every row of a fold, and can be compared.
    It scores a normal model by an objective that it was not trained for; `spearman` and `label_transfer` score how much
    of the cells it keeps.

    Differences from scVI's defaults: the decoder gets the total over all genes as size factor, and returns positive
    numbers instead of shares. Otherwise models of counts would know the total over the chosen genes, a part of the
    values that they are scored on. Outputs start at the mean training cell and dispersions at their moments, so that a
    random start does not decide short trainings; short trainings favor small models all the same.

    When not to use it: to compare integration. Donors are held out here, not mixed; a model that keeps donors apart
    can win. Differences smaller than those between folds or seeds say nothing.

    References
    ----------
    Lopez et al. (2018), Deep generative modeling for single-cell transcriptomics, Nature Methods 15:1053 (scVI). Lause
    et al. (2021), Analytic Pearson residuals for normalization of single-cell RNA-seq UMI data, Genome Biology 22:258.
    Batson et al. (2019), Molecular cross-validation for single-cell RNA-seq, bioRxiv 786269 (molecules of a cell in two
    halves). Burda et al. (2016), Importance weighted autoencoders, ICLR (active units).

    Examples
    --------
    >>> import sparsesc as ssc
    >>> adata = ssc.datasets.simulate_programs(n_cells=160, n_genes=30, n_batches=2, count_noise="poisson")
    >>> study = ssc.tl.vae_study(
    ...     adata,
    ...     sample_key="batch",
    ...     architectures={"tiny": {"n_hidden": 8, "n_latent": 2}},
    ...     preprocessing="counts",
    ...     likelihoods="nb",
    ...     max_epochs=2,
    ...     accelerator="cpu",
    ... )
    >>> study["runs"][["architecture", "likelihood", "fold"]]
      architecture likelihood     fold
    0         tiny         nb  batch_1
    1         tiny         nb  batch_0
    2          PCA       none  batch_1
    3          PCA       none  batch_0
    """
    check.check_adata(adata)
    check_choice(search, ("grid", "autotune"), name="search")
    if search == "autotune":
        check_autotune()
    shapes = _architectures(architectures)
    scales = _choices(preprocessing, PREPROCESSING, "preprocessing")
    families = _choices(likelihoods, LIKELIHOODS, "likelihoods")
    pairs = [(s, f) for s, f in product(scales, families) if s == "counts" or f == NORMAL]
    if not pairs:
        msg = f"likelihoods {listing(families)} need preprocessing='counts', found {listing(scales)}."
        raise ValueError(msg)
    seeds = several_seeds(rng)
    fixed: dict[str, Any] = {
        "max_epochs": check_positive_int(max_epochs, name="max_epochs"),
        "batch_size": check_positive_int(batch_size, name="batch_size"),
        "n_draws": check_positive_int(n_draws, name="n_draws"),
        "kl_warmup": _number(kl_warmup, "kl_warmup", largest=1.0),
        "lr": _number(lr, "lr"),
    }
    check_positive_int(n_trials, name="n_trials")
    if n_top_genes is not None:
        check_positive_int(n_top_genes, name="n_top_genes")
    donors = read_labels(adata, sample_key, integers=True)
    labels = None if label_key is None else read_labels(adata, label_key, integers=True)
    batches = None if batch_key is None else read_labels(adata, batch_key, integers=True)
    counts = whole_counts(adata, layer, only="counts can be compared across preprocessings")
    donors = replace(donors, codes=np.where(np.diff(counts.indptr) > 0, donors.codes, -1))  # no count, no cell
    held_out = None if test_donors is None else [str(name) for name in as_list(test_donors)]
    folds = make_folds(donors, sample_key, test_donors=held_out, n_folds=n_folds)
    if batches is not None:
        _check_batches(folds, batches.codes, batches.categories, batch_key)
    totals = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
    batch_names = None if batches is None else np.array(batches.categories, dtype=object)[batches.codes]
    cells = Counted(counts, totals, None if labels is None else labels.codes, batch_names)
    store = Store(path)
    folder = None if path is None else str(Path(path) / "autotune")

    names = ["autotuned"] if search == "autotune" else list(shapes)
    outcomes: list[Outcome] = []
    controls: list[dict[str, Any]] = []
    width = max(int(shape.get("n_latent", 10)) for shape in shapes.values())
    total = len(folds) * len(seeds) * len(pairs) * len(names)
    with _logging.progress(total=total, desc="Training autoencoders", enabled=progress_bar) as bar:
        try:
            for fold in folds:
                split = Split.of(cells, fold, n_top_genes, seeds[0])
                controls.append(principal_components(split, width, seeds[0]))
                for name, (scale, family), seed in product(names, pairs, seeds):
                    setting = Setting(name, dict(shapes.get(name, {})), scale, family, seed, **fixed)
                    if search == "autotune":
                        best = tuned_options(split, setting, search_values(shapes), n_trials=n_trials, folder=folder)
                        setting = replace(setting, options=best)
                    train = partial(train_and_score, split, setting, accelerator)
                    outcomes.append(store.remember([asdict(setting), split.fingerprint], train))
                    bar.update(1)
        except KeyboardInterrupt:
            if not outcomes:
                raise
            _logging.warning(f"Interrupted: {len(outcomes)} of {total} trainings are in the tables.")
    runs = pd.DataFrame([outcome["run"] for outcome in outcomes] + controls)
    dimensions = pd.DataFrame([row for outcome in outcomes for row in outcome["dimensions"]])
    describe = partial(_facts, adata, layer, sample_key, label_key)
    facts = store.remember(["counts", digest([counts], [donors.codes, cells.labels])], describe)
    _logging.info(f"vae_study: {len(outcomes)} trainings over {len(folds)} folds of {sample_key!r}.")
    return {
        "runs": runs,
        "dimensions": dimensions,
        "counts": pd.DataFrame({"statistic": list(facts), "value": np.array(list(facts.values()))}),
    }


def _architectures(shapes: Mapping[str, Mapping[str, Any]] | None) -> dict[str, dict[str, Any]]:
    """Names with options, checked."""
    if shapes is None:
        return {name: dict(options) for name, options in ARCHITECTURES.items()}
    if not isinstance(shapes, Mapping) or not shapes:
        msg = f"architectures must map names to options of SCVI, found {shapes!r}."
        raise TypeError(msg)
    out = {}
    for name, options in shapes.items():
        if not isinstance(options, Mapping):
            msg = f"architectures[{name!r}] must be a mapping such as {{'n_hidden': 128}}, found {options!r}."
            raise TypeError(msg)
        taken = {"gene_likelihood", "log_variational"} & set(options)
        if taken:
            msg = f"architectures[{name!r}] sets {listing(taken)}, which likelihoods and preprocessing decide."
            raise ValueError(msg)
        for size in ("n_hidden", "n_layers", "n_latent"):
            if size in options:
                check_positive_int(options[size], name=f"architectures[{name!r}][{size!r}]")
        out[str(name)] = dict(options)
    return out


def _choices(values: str | Sequence[str], known: Sequence[str], name: str) -> list[str]:
    values = as_list(values)
    for value in values:
        check_choice(value, known, name=name)
    if not values:
        msg = f"{name} is empty. Choose some of {listing(known)}."
        raise ValueError(msg)
    return values


def _number(value: Any, name: str, *, largest: float = np.inf) -> float:
    least = 0.0 if largest < np.inf else np.nextafter(0.0, 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not least <= value <= largest:
        bounds = f"between 0 and {largest:g}" if largest < np.inf else "positive"
        msg = f"{name} must be a number, {bounds}, found {value!r}."
        raise ValueError(msg)
    return float(value)


def _check_batches(folds: list[Fold], codes: np.ndarray, names: list[str], batch_key: str | None) -> None:
    for fold in folds:
        unseen = sorted({names[c] if c >= 0 else "missing" for c in set(codes[fold.test]) - set(codes[fold.train])})
        if unseen:
            msg = (
                f"With {fold.name} held out, no training cell is of the batch {listing(unseen)} of {batch_key!r}: "
                "the decoder would not know it. Leave batch_key out, or name a batch that donors share."
            )
            raise ValueError(msg)


def _facts(adata: AnnData, layer: str | None, sample_key: str, label_key: str | None) -> dict[str, float]:
    """Summary of the distributions of the counts."""
    from anndata import AnnData as Plain

    plain = Plain(adata.X if layer is None else adata.layers[layer], obs=adata.obs, var=adata.var[[]])
    count_diagnostics(plain, batch_key=sample_key, groupby=label_key, key_added=_KEY, progress_bar=False)
    families, summary = plain.uns[_KEY]["families"], plain.uns[_KEY]["summary"]
    more = {f"{what}_{name}": families.loc[name, what] for what in ("share", "loglik") for name in families.index}
    return dict(zip(summary["statistic"], summary["value"], strict=True)) | more
