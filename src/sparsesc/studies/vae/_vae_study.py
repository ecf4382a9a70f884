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
from sparsesc.door._keys import tables_of
from sparsesc.door._obs_columns import read_labels

from ._autotune import check_autotune, search_values, tuned_options
from ._count_diagnostics import count_diagnostics
from ._inputs import PREPROCESSING, Fold, make_folds
from ._runs import NORMAL, Outcome, Setting, Split, Store, digest, principal_components, train_and_score

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
    """Which architecture, preprocessing and likelihood of a variational autoencoder holds on donors it has not seen.

    Trains scVI's autoencoder for every combination on some donors and judges it on the others: the objective with its
    two parts, the dimensions in use, and scores that can be compared over preprocessings and likelihoods.

    Parameters
    ----------
    adata
        Cells x genes, counts; stays as it is.
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
        Column of ``obs`` with batches that the decoder is told. Held-out donors must not have batches of their own.
    test_donors
        Donors to hold out, together. ``None``: all in turn.
    n_folds
        Parts that donors are dealt to, each held out once. ``None``: every donor by itself, five parts at most.
    n_top_genes
        Genes that vary most among the training cells, chosen anew for each fold. ``None``: all that they express.
    max_epochs
        Of the training. All training cells are trained on; nothing stops early.
    kl_warmup
        Share of the epochs in which the weight of the divergence rises from 0 to 1. 0: it counts in full at once, which
        is when posteriors collapse.
    batch_size, lr
        Cells per step and learning rate of the training.
    n_draws
        Draws from the posterior of each held-out cell.
    search
        ``"grid"``: train all architectures. ``"autotune"``: let :mod:`scvi.autotune` search among the values of their
        options, on the training cells, and judge what it finds; needs ray.
    n_trials
        Trainings of that search.
    rng
        One seed or several, each a training of every combination.
    path
        A folder for finished trainings. A study that is called again with it goes on where it was stopped: a training
        is taken from there if its settings, the counts and the version of the packages are the same.
    accelerator
        Where to train, as in Lightning.
    progress_bar
        Show progress over trainings. Default: unless ``sc.settings.verbosity`` is 0.

    Returns
    -------
    Three tables. After Ctrl-C, with the trainings that were finished.

    ``"runs"``
        One row a training: `architecture`, `n_hidden`, `n_layers`, `n_latent`, `preprocessing`, `likelihood`, `fold`
        (the donors held out), `rng`, `n_train`, `n_test`, `n_genes`; on held-out cells `elbo`, `reconstruction`, `kl`
        (nats a cell, elbo = -(reconstruction + kl)), `elbo_train`, `n_active`, `n_collapsed`; to be compared over all
        rows of a fold `loglik_counts` (log probability of the counts given the latent), `elbo_counts` (less `kl`),
        `elbo_counts_null` (each gene negative binomial at its share of the training counts, no latent), `spearman`
        (expected expression decoded from half of a cell's molecules against the other half, over cells, mean over
        genes) and `label_transfer` (15 nearest training cells, mean over labels); `seconds`, `diverged`. Rows with
        architecture ``"PCA"`` are a control: as many components as the largest latent has dimensions.
    ``"dimensions"``
        One row a training and dimension, as in :func:`latent_diagnostics`.
    ``"counts"``
        `statistic` and `value`: the summary of :func:`count_diagnostics` over all cells, rates by donor and label, with
        `share_*` of the genes that each family fits best and `loglik_*` of the families (nats a cell).

    Raises
    ------
    ImportError
        If ``search="autotune"`` and ray is not installed.
    KeyError
        If a layer or a column does not exist.
    TypeError
        If a column does not hold labels, or an option is of the wrong kind.
    ValueError
        If values are not counts, there are too few donors or cells, a held-out donor has a batch of its own, or options
        do not go together.

    Notes
    -----
    The `elbo` of a preprocessing cannot be compared with that of another: densities of logarithms or residuals are in
    units of these, and a normal density on values of which most are zero grows without bound as its spread shrinks. So
    the normal likelihoods are also read as distributions of counts: the probability that the variable falls between the
    limits of the count on that scale (half a count below and above). `elbo_counts` is then a lower bound on the
    log-probability of the same held-out counts for every row of a fold, and may be compared. It judges a normal model
    by something that it was not trained for; what it keeps of cells is judged by `spearman` and `label_transfer`.

    Where this differs from scVI's defaults: the decoder is told the total over all genes as size factor, and gives
    positive numbers instead of shares. Otherwise models of counts would know the total over the chosen genes, a part of
    what they are judged on. Outputs start at the mean training cell and dispersions at their moments, so that short
    trainings are not decided by a random start; they favour small models all the same.

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
    >>> study = ssc.tl.vae_study(adata, sample_key="donor", label_key="cell_type", path="study/")
    >>> study["runs"].groupby(["architecture", "preprocessing", "likelihood"])["elbo_counts"].mean()
    """
    check.check_adata(adata)
    check_choice(search, ("grid", "autotune"), name="search")
    if search == "autotune":
        check_autotune()
    shapes = _architectures(architectures)
    scales, families = (
        _choices(preprocessing, PREPROCESSING, "preprocessing"),
        _choices(likelihoods, LIKELIHOODS, "likelihoods"),
    )
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
    counts = whole_counts(adata, layer, only="counts can be compared over preprocessings")
    donors = replace(donors, codes=np.where(np.diff(counts.indptr) > 0, donors.codes, -1))  # no count, no cell
    asked = None if test_donors is None else [str(name) for name in as_list(test_donors)]
    folds = make_folds(donors, sample_key, test_donors=asked, n_folds=n_folds)
    if batches is not None:
        _check_batches(folds, batches.codes, batches.categories, batch_key)
    store = Store(path)

    names = ["autotuned"] if search == "autotune" else list(shapes)
    outcomes: list[Outcome] = []
    controls: list[dict[str, Any]] = []
    width = max(int(shape.get("n_latent", 10)) for shape in shapes.values())
    total = len(folds) * len(seeds) * len(pairs) * len(names)
    with _logging.progress(total=total, desc="Training autoencoders", enabled=progress_bar) as bar:
        try:
            for fold in folds:
                split = Split.of(
                    counts, fold, None if labels is None else labels.codes,
                    None if batches is None else np.array(batches.categories, dtype=object)[batches.codes],
                    n_top_genes, seeds[0],
                )  # fmt: skip
                controls.append(principal_components(split, width, seeds[0]))
                for name, (scale, family), seed in product(names, pairs, seeds):
                    setting = Setting(name, dict(shapes.get(name, {})), scale, family, seed, **fixed)
                    if search == "autotune":
                        setting = _tuned(split, setting, shapes, n_trials, path)
                    train = partial(train_and_score, split, setting, accelerator)
                    outcomes.append(store.remember([asdict(setting), split.fingerprint], train))
                    bar.update(1)
        except KeyboardInterrupt:
            if not outcomes:
                raise
            _logging.warning(f"Interrupted: {len(outcomes)} of {total} trainings are in the tables.")
    runs = pd.DataFrame([outcome["run"] for outcome in outcomes] + controls)
    dimensions = pd.DataFrame([row for outcome in outcomes for row in outcome["dimensions"]])
    codes = [donors.codes, None if labels is None else labels.codes]
    describe = partial(_facts, adata, layer, sample_key, label_key)
    facts = store.remember(["counts", digest([counts], codes)], describe)
    _logging.info(f"vae_study: {len(outcomes)} trainings over {len(folds)} folds of {sample_key!r}.")
    return {
        "runs": runs,
        "dimensions": dimensions,
        "counts": pd.DataFrame({"statistic": list(facts), "value": np.array(list(facts.values()))}),
    }


def _tuned(
    split: Split, setting: Setting, shapes: dict[str, dict[str, Any]], n_trials: int, path: str | Path | None
) -> Setting:
    folder = None if path is None else str(Path(path) / "autotune")
    found = tuned_options(split, setting, search_values(shapes), n_trials=n_trials, folder=folder)
    return replace(setting, options=found)


def _architectures(asked: Mapping[str, Mapping[str, Any]] | None) -> dict[str, dict[str, Any]]:
    """Names with options, checked."""
    if asked is None:
        return {name: dict(options) for name, options in ARCHITECTURES.items()}
    if not isinstance(asked, Mapping) or not asked:
        msg = f"architectures must map names to options of SCVI, found {asked!r}."
        raise TypeError(msg)
    out = {}
    for name, options in asked.items():
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


def _choices(asked: str | Sequence[str], known: Sequence[str], name: str) -> list[str]:
    found = as_list(asked)
    for value in found:
        check_choice(value, known, name=name)
    if not found:
        msg = f"{name} is empty. Choose some of {listing(known)}."
        raise ValueError(msg)
    return found


def _number(value: Any, name: str, *, largest: float = np.inf) -> float:
    least = 0.0 if largest < np.inf else np.nextafter(0.0, 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not least <= value <= largest:
        bounds = f"between 0 and {largest:g}" if largest < np.inf else "positive"
        msg = f"{name} must be a number, {bounds}, found {value!r}."
        raise ValueError(msg)
    return float(value)


def _check_batches(folds: list[Fold], codes: np.ndarray, names: list[str], batch_key: str | None) -> None:
    for fold in folds:
        own = sorted({names[c] if c >= 0 else "missing" for c in set(codes[fold.test]) - set(codes[fold.train])})
        if own:
            msg = (
                f"With {fold.name} held out, no training cell is of the batch {listing(own)} of {batch_key!r}: "
                "the decoder would not know it. Leave batch_key out, or name a batch that donors share."
            )
            raise ValueError(msg)


def _facts(adata: AnnData, layer: str | None, sample_key: str, label_key: str | None) -> dict[str, float]:
    """What the counts are like."""
    from anndata import AnnData as Plain

    held = Plain(adata.X if layer is None else adata.layers[layer], obs=adata.obs, var=adata.var[[]])
    count_diagnostics(held, batch_key=sample_key, groupby=label_key, key_added=_KEY, progress_bar=False)
    _, families, summary = (held.uns[_KEY][name] for name in tables_of("count_diagnostics"))
    more = {f"{what}_{name}": families.loc[name, what] for what in ("share", "loglik") for name in families.index}
    return dict(zip(summary["statistic"], summary["value"], strict=True)) | more
