"""One training of scVI's autoencoder on some donors, scored on others."""

from __future__ import annotations

import hashlib
import json
import logging
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse, stats

from sparsesc import _logging
from sparsesc.stats.genes._thinning import overdispersion, thin_counts

from ._inputs import Fold, Scale, choose_genes
from ._latent_diagnostics import describe_dimensions
from ._scores import label_transfer, rounded_log_prob, spearman_of_genes
from ._terms import batches, read_terms

if TYPE_CHECKING:
    from anndata import AnnData

NORMAL = "normal"
_SIZE, _BATCH = "size", "batch"
_LEAST_SD, _LEAST_SIZE, _LARGEST_SIZE = 1e-2, 0.05, 50.0
_LEAST_MEAN = 1e-4


@dataclass(frozen=True)
class Setting:
    """All options of one training."""

    architecture: str
    options: dict[str, Any]
    preprocessing: str
    likelihood: str
    seed: int
    max_epochs: int
    kl_warmup: float
    batch_size: int
    lr: float
    n_draws: int


@dataclass(frozen=True)
class Counted:
    """Counts of some cells, with their labels; of a split, only those of the genes in use."""

    counts: sparse.csr_matrix
    totals: np.ndarray
    """Counts over all genes."""
    labels: np.ndarray | None
    batches: np.ndarray | None

    def take(self, rows: np.ndarray) -> Counted:
        """Some of the cells."""
        columns = [None if column is None else column[rows] for column in (self.labels, self.batches)]
        return Counted(self.counts[rows], self.totals[rows], *columns)

    def overdispersion(self) -> np.ndarray:
        """Of each gene, by moments."""
        return overdispersion(self.counts, sizes=self.totals / self.totals.mean())


@dataclass(frozen=True)
class Split:
    """Training cells, held-out cells, and two halves of the molecules of these: one to encode, one to score on."""

    fold: Fold
    genes: np.ndarray
    train: Counted
    test: Counted
    encoded: Counted
    scored: Counted
    fingerprint: str

    @classmethod
    def of(cls, cells: Counted, fold: Fold, n_top_genes: int | None, seed: int) -> Split:
        """Genes are chosen on the training cells."""
        train, test = cells.take(fold.train), cells.take(fold.test)
        genes = choose_genes(train.counts, train.totals, n_top_genes)
        halves = thin_counts(test.counts, rng=np.random.default_rng([seed, 1]))
        encoded, scored = (
            replace(test, counts=half, totals=np.maximum(np.asarray(half.sum(axis=1), float).ravel(), 1.0))
            for half in halves
        )
        train, test, encoded, scored = (
            replace(part, counts=sparse.csr_matrix(part.counts[:, genes])) for part in (train, test, encoded, scored)
        )
        sides = (train, test, encoded)
        arrays = [a for side in sides for a in (side.totals, side.labels, side.batches)]
        return cls(fold, genes, train, test, encoded, scored, digest([side.counts for side in sides], arrays))

    def describe(self, seed: int) -> dict[str, Any]:
        """Columns of a row that describe the cells."""
        sizes = {"n_train": len(self.train.totals), "n_test": len(self.test.totals), "n_genes": len(self.genes)}
        return {"fold": self.fold.name, "rng": seed} | sizes

    def label_transfer(self, train: np.ndarray, test: np.ndarray) -> dict[str, float]:
        """The score of embeddings of both sides as a column, if cells have labels."""
        if self.train.labels is None or self.test.labels is None:
            return {}
        return {"label_transfer": label_transfer(train, self.train.labels, test, self.test.labels)}

    def spearman(self, expected: np.ndarray) -> float:
        """The score of expression that was decoded from the encoded half of the molecules."""
        return spearman_of_genes(expected, self.scored.counts, self.scored.totals)


def digest(matrices: Sequence[sparse.csr_matrix], columns: Sequence[np.ndarray | None]) -> str:
    """A hash of data by their content."""
    content = hashlib.sha256()
    arrays = [a for matrix in matrices for a in (matrix.data, matrix.indices, matrix.indptr)]
    for array in [*arrays, *columns]:
        values = np.zeros(0) if array is None else np.ascontiguousarray(array)
        content.update((values.astype("U") if values.dtype == object else values).tobytes())
    return content.hexdigest()


type Outcome = dict[str, Any]
"""``run``: one row; ``dimensions``: rows."""


class Store:
    """Results of earlier calls in a folder, each under a hash of its inputs."""

    def __init__(self, path: str | Path | None) -> None:
        self._folder = None if path is None else Path(path)
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)

    def remember(self, made_from: Sequence[Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The stored result, or a new one, which is then stored: whole or not at all."""
        if self._folder is None:
            return make()
        versions = [version("sparsesc"), version("scvi-tools")]
        text = json.dumps([*made_from, versions], sort_keys=True)
        file = self._folder / f"{hashlib.sha256(text.encode()).hexdigest()[:24]}.json"
        if file.is_file():
            return json.loads(file.read_text())
        result = make()
        draft = file.with_suffix(".draft")
        draft.write_text(json.dumps(result))
        draft.replace(file)
        return result


def train_and_score(split: Split, setting: Setting, accelerator: str) -> Outcome:
    """Train on the training cells, score on the others."""
    import torch
    from scvi.model import SCVI

    scale = Scale.fit(setting.preprocessing, split.train.counts, split.train.totals)
    cells = {name: as_cells(getattr(split, name), scale) for name in ("train", "test", "encoded")}
    begun = time.perf_counter()
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(setting.seed)
        register(cells["train"])
        model = SCVI(cells["train"], **model_options(setting))
        _start_at_the_mean(model, cells["train"], split.train, setting.likelihood)
        try:
            _train(model, setting, accelerator)
        except ValueError:  # torch's distributions refuse NaN, which is a result of the study; other errors are not
            if not _diverged(model):
                raise
    seconds = time.perf_counter() - begun
    row = describe(split, setting) | {"seconds": seconds, "diverged": _diverged(model)}
    dimensions: list[dict[str, Any]] = []
    if row["diverged"]:
        _logging.warning(
            f"The training of {setting.architecture} on {setting.preprocessing} ({setting.likelihood}) diverged: its "
            "scores are missing. A lower lr may help."
        )
    else:
        with quiet():
            scores, dimensions = _score(model, cells, split, scale, setting)
        row |= scores
    model.deregister_manager(cells["train"])  # scvi-tools keeps every AnnData that was set up
    return {"run": row, "dimensions": dimensions}


def describe(split: Split, setting: Setting) -> dict[str, Any]:
    """Columns of a row that describe the training."""
    shape = {name: setting.options.get(name, default) for name, default in DEFAULT_SHAPE.items()}
    made = {"preprocessing": setting.preprocessing, "likelihood": setting.likelihood}
    return {"architecture": setting.architecture} | shape | made | split.describe(setting.seed)


DEFAULT_SHAPE = {"n_hidden": 128, "n_layers": 1, "n_latent": 10}
"""Of SCVI, for options that an architecture leaves out."""


def as_cells(part: Counted, scale: Scale) -> AnnData:
    """Values as the model sees them, and the factor from a decoded value to that of a cell."""
    from anndata import AnnData

    values = scale.values(part.counts, part.totals)
    obs = {_SIZE: part.totals / scale.median if scale.name == "counts" else np.ones(len(part.totals))}
    if part.batches is not None:
        obs[_BATCH] = part.batches
    names = [str(i) for i in range(values.shape[1])]
    frame = pd.DataFrame(obs, index=[str(i) for i in range(len(part.totals))])
    return AnnData(values.astype(np.float32), obs=frame, var=pd.DataFrame(index=names))


def register(cells: AnnData) -> None:
    """Set up cells for SCVI.

    The decoder gets a size factor from the total over all genes. By default it would get the total over the chosen
    genes, a part of the values that it is scored on, and return shares of it, which are meaningless for logarithms or
    residuals.
    """
    from scvi.model import SCVI

    SCVI.setup_anndata(cells, size_factor_key=_SIZE, **({"batch_key": _BATCH} if _BATCH in cells.obs else {}))


def model_options(setting: Setting) -> dict[str, Any]:
    """Options of SCVI: only counts are logged before they are encoded."""
    fixed = {"gene_likelihood": setting.likelihood, "log_variational": setting.preprocessing == "counts"}
    return fixed | setting.options


def plan_options(setting: Setting) -> dict[str, Any]:
    """Options of its training: the divergence has its full weight after a part of the epochs."""
    return {"lr": setting.lr, "n_epochs_kl_warmup": round(setting.kl_warmup * setting.max_epochs) or None}


def _start_at_the_mean(model: Any, cells: AnnData, part: Counted, likelihood: str) -> None:
    """Start outputs at the mean cell and spreads at their moments, so that short trainings can be compared."""
    import torch

    stored: Any = cells.X
    matrix: np.ndarray = stored.toarray() if sparse.issparse(stored) else stored
    relative = matrix / cells.obs[_SIZE].to_numpy()[:, None]
    mean = np.maximum(relative.mean(axis=0, dtype=np.float64), _LEAST_MEAN)
    bias = mean + np.log(-np.expm1(-mean))  # softplus undone
    if likelihood == NORMAL:
        spread = np.log(np.maximum(matrix.std(axis=0, dtype=np.float64), _LEAST_SD))
    else:
        spread = -np.log(np.clip(part.overdispersion(), 1 / _LARGEST_SIZE, 1 / _LEAST_SIZE))
    with torch.no_grad():
        model.module.decoder.px_scale_decoder[0].bias.copy_(torch.as_tensor(bias, dtype=torch.float32))
        if model.module.dispersion == "gene":
            model.module.px_r.copy_(torch.as_tensor(spread, dtype=torch.float32))


def _train(model: Any, setting: Setting, accelerator: str) -> None:
    n_cells = model.adata.n_obs
    model.train(
        max_epochs=setting.max_epochs,
        train_size=1.0,
        validation_size=0.0,
        shuffle_set_split=False,
        batch_size=setting.batch_size,
        # a last batch of one or two cells has no spread to normalize by
        datasplitter_kwargs={"drop_last": n_cells > setting.batch_size and n_cells % setting.batch_size < 3},
        plan_kwargs=plan_options(setting),
        accelerator=accelerator,
        enable_progress_bar=False,
        enable_checkpointing=False,
        logger=False,
    )


def _diverged(model: Any) -> bool:
    return not all(bool(p.isfinite().all()) for p in model.module.parameters())


def _score(
    model: Any, cells: dict[str, AnnData], split: Split, scale: Scale, setting: Setting
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Scores, and one row a dimension."""
    import torch

    limits = _limits(split.test, scale) if setting.likelihood == NORMAL else None

    def of_counts(px: Any, rows: slice) -> torch.Tensor:
        assert limits is not None
        low, high = (torch.as_tensor(part[rows], device=px.loc.device) for part in limits)
        return rounded_log_prob(px.loc.double(), px.scale.double(), low, high).sum(-1)

    also = None if limits is None else of_counts
    test = read_terms(model, cells["test"], n_draws=setting.n_draws, seed=setting.seed, also=also)
    train = read_terms(model, cells["train"], n_draws=1, seed=setting.seed)
    assert test.prior is not None and train.prior is not None
    loglik = -test.reconstruction if test.also is None else test.also
    dimensions = describe_dimensions(test)
    scores: dict[str, Any] = {
        "elbo": float(-(test.reconstruction + test.prior).mean()),
        "reconstruction": float(test.reconstruction.mean()),
        "kl": float(test.prior.mean()),
        "elbo_train": float(-(train.reconstruction + train.prior).mean()),
        "n_active": int(dimensions["active"].sum()),
        "n_collapsed": int(dimensions["collapsed"].sum()),
        "loglik_counts": float(loglik.mean()),
        "elbo_counts": float((loglik - test.prior).mean()),
        "elbo_counts_null": null_loglik(split),
        "spearman": split.spearman(scale.rate(_expected(model, cells["encoded"]), split.encoded.totals)),
    }
    row = describe(split, setting)
    about = {name: row[name] for name in ("architecture", "preprocessing", "likelihood", "fold", "rng")}
    listed = dimensions.drop(columns="kl_share").reset_index().to_dict("records")
    return scores | split.label_transfer(train.mean, test.mean), [about | record for record in listed]


def _limits(part: Counted, scale: Scale) -> tuple[np.ndarray, np.ndarray]:
    """Limits of each count on the scale of the model: half a count up and down; those of zeros start at -inf."""
    x = part.counts.toarray().astype(np.float64)
    below = scale.place(np.maximum(x - 0.5, 0.0), part.totals)
    return np.where(x > 0, below, -np.inf), scale.place(x + 0.5, part.totals)


def _expected(model: Any, cells: AnnData) -> np.ndarray:
    """Expected expression at the posterior mean, without the size of the cell: cells x genes."""
    import torch

    module = model.module
    parts = []
    with torch.random.fork_rng(), batches(model, cells) as loader:
        for tensors in loader:
            inferred = module.inference(**module._get_inference_input(tensors))
            inputs = module._get_generative_input(tensors, inferred | {"z": inferred["qz"].loc})
            parts.append(module.generative(**inputs)["px"].get_normalized("scale").double().cpu().numpy())
    return np.concatenate(parts)


def null_loglik(split: Split) -> float:
    """Log-likelihood of held-out counts without a latent: every gene at its share of the training counts.

    Negative binomial, overdispersion by moments on the training cells.
    """
    train, test = split.train, split.test
    share = np.asarray(train.counts.sum(axis=0), dtype=np.float64).ravel() / train.totals.sum()
    excess = np.maximum(train.overdispersion(), 1e-6)
    mu = test.totals[:, None] * share
    return float(stats.nbinom.logpmf(test.counts.toarray(), 1 / excess, 1 / (1 + excess * mu)).sum(axis=1).mean())


def principal_components(split: Split, n_components: int, seed: int) -> dict[str, Any]:
    """The control: principal components of log-normalized values of the training cells, with the same scores."""
    from sklearn.decomposition import PCA

    scale = Scale.fit("log1p", split.train.counts, split.train.totals)
    train, test, encoded = (
        sparse.csr_matrix(scale.values(part.counts, part.totals)).toarray()
        for part in (split.train, split.test, split.encoded)
    )
    n_components = min(n_components, *(n - 1 for n in train.shape))
    pca = PCA(n_components, svd_solver="arpack", random_state=seed).fit(train)
    expected = pca.inverse_transform(pca.transform(encoded))
    row: dict[str, Any] = {"architecture": "PCA", "n_latent": n_components, "preprocessing": "log1p"}
    row |= {"likelihood": "none", "diverged": False, "spearman": split.spearman(expected)} | split.describe(seed)
    return row | split.label_transfer(pca.transform(train), pca.transform(test))


@contextmanager
def quiet() -> Iterator[None]:
    """Silence messages of lightning and scvi-tools about devices, workers and the values of counts."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "scvi")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
