from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from scvi.dataloaders import DataSplitter
from scvi.train import TrainRunner

from sparsesc._random import as_generator, torch_seed
from sparsesc._values import check_choice, check_positive_int

from ._module import DGDModule, values_key
from ._projection import project
from ._results import DGDResults
from ._setup import INDICES
from ._start import mean_values, principal_start, without_labels
from ._training import TRAIN_LOSS, VALIDATION_LOSS, DGDTrainingPlan, KeepBest

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sparsesc._random import RNGLike, SeedLike

_COMPONENTS = 20
_NOISE = 0.3
_VALUES_AT_ONCE = 2**25  # cells x starts x features in one step of a projection


class DGD(DGDResults):
    r"""Deep generative decoder (DGD): a latent vector for every cell, a decoder, and clusters; there is no encoder.

    The vectors, the decoder and a mixture of Gaussians over the vectors are fitted together. Components of the mixture
    are clusters of cells. New cells are placed by optimizing their vectors alone.

    Parameters
    ----------
    adata
        Cells that :meth:`setup_anndata` or :meth:`setup_mudata` registered.
    n_latent
        Dimensions of the vector of a cell.
    n_components
        Components of the mixture. ``None``: the number of labels in `labels_key` (which are not used otherwise), or 20.
    prior
        ``"gmm"``, or ``None`` for vectors without a prior (Schuster and Krogh 2021), which give no clusters.
    likelihood
        ``"nb"`` (counts), ``"gaussian"`` (real values), ``"bernoulli"`` (open or closed: above zero or not); with a
        MuData, one for each modality, by name.
    n_hidden, n_layers
        Nodes and number of hidden layers of the decoder, which modalities share.
    n_latent_covariate
        Dimensions of another vector of each cell for each covariate (`batch_key`, `categorical_covariate_keys`). Its
        mixture has one component per label, so that the first vector need not hold the covariate.
    sd
        Center of the prior of the components' standard deviations. ``None``: 0.2 x `radius` / `n_components`, as
        published.
    radius, hardness
        Prior of the components' means: nearly uniform in a ball of this radius, with an edge of this sharpness.
    alpha
        Dirichlet parameter of the components' weights. Below 1, components can become empty.
    latent_noise
        Standard deviation of the noise that is added to vectors in every step of the training; ``None``: 0.3, or 0
        without a prior. Without noise, components shrink to points, and the decoder learns the noise of the counts.
        Smaller differences between vectors mean little. New cells are placed under the mixture blurred by it.
    prior_per_cell
        Count the prior of the mixture's parameters once for every cell, as the authors' code does, instead of once.
    init
        Starting vectors: ``"pca"``, principal components (centered for each label of a covariate) with the mixture
        fitted to them, or ``"zeros"``, as published.
    rng
        Draws the start, and the noise and the order of cells in training.
    registry
        For models that are loaded without cells; set by :meth:`load`.

    Raises
    ------
    ValueError
        If an option is out of its range, or values do not fit their likelihood.

    See Also
    --------
    sparsesc.models.OrthogonalAE : An autoencoder, with an encoder for new cells.
    sparsesc.tl.latent_diagnostics : Evaluates the vectors on held-out cells.
    sparsesc.tl.fit_sae : Fits a sparse autoencoder to the vectors.

    Notes
    -----
    The objective is the joint density of counts :math:`x_i`, vectors :math:`z_i` and the parameters
    :math:`\phi = (\pi, \mu, \sigma)` of the mixture,

    .. math::

        \max_{\theta, \phi, z}\ \sum_i \Bigl[\log p(x_i \mid f_\theta(z_i))
        + \log \sum_k \pi_k\, \mathcal{N}(z_i \mid \mu_k, \mathrm{diag}(\sigma_k^2))\Bigr] + \log p(\phi),

    with the decoder :math:`f_\theta`. For ``"nb"``, :math:`p` is a product over genes of negative binomials whose means
    are the total count of the cell times the shares :math:`f_\theta(z_i)`. The prior :math:`p(\phi)` of the mixture
    consists of a Dirichlet distribution of :math:`\pi`, normal distributions of :math:`\log \sigma_k^{-2}`, and the
    "softball" for each mean,

    .. math:: p(\mu_k) \propto \frac{1}{1 + \exp\left(h\,(\lVert \mu_k \rVert / r - 1)\right)},

    which is nearly uniform in a ball with the `radius` :math:`r`, whose edge has the `hardness` :math:`h`.

    When not to use it: the vectors belong to the cells of the training, so memory grows with them, and a new cell needs
    a small optimization instead of one pass through an encoder. For atlases that many new data sets are mapped to, use
    scVI or scANVI.

    Vectors and parameters are the single best point, without their uncertainty: components can be too narrow, and
    responsibilities are nearly always close to 0 or 1.

    References
    ----------
    Schuster and Krogh (2023), The Deep Generative Decoder: MAP estimation of representations improves modeling of
    single-cell RNA data, *Bioinformatics* 39, btad497.

    Schuster and Krogh (2021), A manifold learning perspective on representation learning: learning decoder and
    representations without an encoder, *Entropy* 23, 1403.

    Schuster, Dann, Krogh and Teichmann (2024), multiDGD: a versatile deep generative model for multi-omics data,
    *Nature Communications* 15, 10031.

    Examples
    --------
    >>> import sparsesc as ssc
    >>> adata = ssc.datasets.simulate_programs(n_cells=60, n_genes=30, count_noise="poisson")
    >>> ssc.models.DGD.setup_anndata(adata)
    >>> model = ssc.models.DGD(adata, n_latent=4, n_components=3)
    >>> model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
    >>> adata.obsm["X_dgd"] = model.get_latent_representation()
    >>> adata.obsm["X_dgd"].shape
    (60, 4)
    >>> model.predict_clusters().cat.categories.tolist()
    ['0', '1', '2']

    New cells get vectors without being set up:

    >>> new = ssc.datasets.simulate_programs(n_cells=10, n_genes=30, count_noise="poisson", rng=1)
    >>> model.project(new, n_steps=5, progress_bar=False).shape
    (10, 4)
    """

    def __init__(
        self,
        adata: AnnData | MuData | None = None,
        n_latent: int = 20,
        n_components: int | None = None,
        prior: Literal["gmm"] | None = "gmm",
        *,
        likelihood: str | Mapping[str, str] = "nb",
        n_hidden: int = 128,
        n_layers: int = 1,
        n_latent_covariate: int = 2,
        sd: float | None = None,
        radius: float = 2.0,
        hardness: float = 5.0,
        alpha: float = 1.0,
        latent_noise: float | None = None,
        prior_per_cell: bool = False,
        init: Literal["pca", "zeros"] = "pca",
        rng: SeedLike | RNGLike | None = 0,
        registry: dict | None = None,
    ) -> None:
        sizes = {"n_latent": n_latent, "n_hidden": n_hidden, "n_latent_covariate": n_latent_covariate}
        for name, size in sizes.items():
            check_positive_int(size, name=name)
        if prior is not None:
            check_choice(prior, ["gmm"], name="prior")
        check_choice(init, ["pca", "zeros"], name="init")
        for name, number in {"sd": sd, "radius": radius, "hardness": hardness, "alpha": alpha}.items():
            if number is not None and not number > 0:
                msg = f"{name} must be a positive number, found {number!r}."
                raise ValueError(msg)
        super().__init__(adata, registry)
        self._likelihoods = self._check_likelihoods(likelihood)
        if n_components is None:
            n_components = self.summary_stats.get("n_labels", _COMPONENTS)
        check_positive_int(n_components, name="n_components")
        if latent_noise is None:
            latent_noise = 0.0 if prior is None else _NOISE
        self.rng_ = as_generator(rng)
        states = {name: self._state(values_key(name)) for name in self._layers}
        if adata is not None:
            self._values()  # checked before anything is made
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(torch_seed(self.rng_))
            self.module = DGDModule(
                n_obs=next(iter(states.values()))["n_obs"],
                n_latent=n_latent,
                features={name: state["n_vars"] for name, state in states.items()},
                likelihoods=self._likelihoods,
                n_components=None if prior is None else n_components,
                covariates={key: len(labels) for key, labels in self._covariates.items()},
                n_latent_covariate=n_latent_covariate,
                n_hidden=n_hidden,
                n_layers=n_layers,
                sd=0.2 * radius / n_components if sd is None else sd,
                covariate_sd=0.2 * radius / 2,
                radius=radius,
                hardness=hardness,
                alpha=alpha,
                latent_noise=latent_noise,
                prior_per_cell=prior_per_cell,
            )
        if adata is not None:
            if not adata.obs_names.is_unique:
                msg = "Cell names repeat, but they identify vectors: run adata.obs_names_make_unique() first."
                raise ValueError(msg)
            self.obs_names_ = adata.obs_names.to_numpy(dtype=str)
        self._init = init
        self._model_summary_string = (
            f"DGD with n_latent: {n_latent}, prior: {prior}, n_components: {n_components if prior else 'none'}, "
            f"likelihood: {', '.join(self._likelihoods.values())}."
        )
        self.init_params_ = self._get_init_params(locals())

    def train(
        self,
        max_epochs: int = 500,
        *,
        train_size: float = 0.9,
        batch_size: int = 128,
        early_stopping: bool = True,
        early_stopping_patience: int = 10,
        early_stopping_warmup_epochs: int = 50,
        lr_decoder: float = 1e-3,
        lr_latent: float = 1e-2,
        lr_mixture: float = 1e-2,
        betas: tuple[float, float] = (0.5, 0.7),
        weight_decay: float = 1e-4,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        **trainer_kwargs: Any,
    ) -> None:
        """Train decoder, vectors and mixture until the loss of validation cells stops improving.

        Parameters
        ----------
        max_epochs
            Maximum number of passes over the cells.
        train_size
            Share of the cells that decoder and mixture see. The other cells only get vectors. With 1, the training
            loss is monitored instead.
        batch_size
            Cells per step.
        early_stopping, early_stopping_patience, early_stopping_warmup_epochs
            Stop when the loss has not improved for `early_stopping_patience` epochs, after at least
            `early_stopping_warmup_epochs`. The best epoch is kept.
        lr_decoder, lr_latent, lr_mixture, betas, weight_decay
            Options of the three Adam optimizers.
        accelerator, devices
            Device to train on, as in Lightning.
        **trainer_kwargs
            Further options of scvi-tools' trainer, for example ``enable_progress_bar=False``.
        """
        if self.adata is None:
            msg = "This model was loaded without cells: it can project and decode, but not be trained."
            raise ValueError(msg)
        self.adata.obs[INDICES] = self._rows(self.adata)  # vectors are looked up by position
        if not self.is_trained:
            self._start()
        n_obs = self.adata.n_obs
        order = self.rng_.permutation(n_obs)
        n_train = n_obs if train_size == 1 else round(train_size * n_obs)
        if not 0 < n_train <= n_obs:
            msg = f"train_size must be above 0 and at most 1, found {train_size!r}."
            raise ValueError(msg)
        splitter = DataSplitter(
            self.adata_manager,
            external_indexing=[np.sort(order[:n_train]), np.sort(order[n_train:]), np.array([], dtype=int)],
            batch_size=batch_size,
        )
        rates = {"decoder": lr_decoder, "mixture": lr_mixture, "latent": lr_latent}
        plan = DGDTrainingPlan(self.module, rates, betas=betas, weight_decay=weight_decay)
        monitor = VALIDATION_LOSS if n_train < n_obs else TRAIN_LOSS
        with torch.random.fork_rng():
            torch.manual_seed(torch_seed(self.rng_))
            TrainRunner(
                self,
                training_plan=plan,
                data_splitter=splitter,
                max_epochs=max_epochs,
                accelerator=accelerator,
                devices=devices,
                early_stopping=early_stopping,
                early_stopping_monitor=monitor,
                early_stopping_patience=early_stopping_patience,
                early_stopping_warmup_epochs=early_stopping_warmup_epochs,
                check_val_every_n_epoch=1,
                callbacks=[KeepBest(monitor), *trainer_kwargs.pop("callbacks", [])],
                inference_mode=False,
                **trainer_kwargs,
            )()
        self.module.zero_grad()

    def project(
        self,
        adata: AnnData | MuData,
        *,
        layer: str | Mapping[str, str | None] | None = None,
        n_steps: int = 200,
        lr: float = 5e-2,
        batch_size: int | None = None,
        covariates: bool = False,
        rng: SeedLike | RNGLike | None = 0,
        progress_bar: bool | None = None,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Place new cells in the latent space, without retraining; the training cells are not needed.

        Only the vectors of the new cells are optimized. Every cell starts from the mean of every component, and keeps
        its best vector.

        Parameters
        ----------
        adata
            New cells; they need not be set up and are not changed. Features are matched by name: additional ones are
            ignored, and cells are placed without the missing ones. With a MuData, whole modalities may be missing.
            Labels of covariates that were not in the training get a new mean; missing labels (NaN) are free. If the
            training had few labels, a known label can place cells better than a new mean.
        layer
            Layer with the values; with a MuData, one for each modality. ``None``: as in the training.
        n_steps, lr
            Steps of Adam, and its learning rate.
        batch_size
            Cells at once. ``None``: depends on the size of the model.
        covariates
            Also return the vectors of the covariates.
        rng
            Draws the starts if there is no prior, and the cells that new labels are fitted to.
        progress_bar
            ``None``: shown unless scanpy's verbosity is 0.

        Returns
        -------
        Cells x dimensions, float32; a pair of such arrays with ``covariates=True``.

        Raises
        ------
        KeyError
            If a layer, a modality or a column of ``obs`` is missing.
        ValueError
            If values do not fit their likelihood, or the model knows none of the features.
        """
        self._check_if_trained(message="This DGD was not trained: run model.train() first.")
        for name, size in {"n_steps": n_steps, "batch_size": batch_size or 1}.items():
            check_positive_int(size, name=name)
        reader = self._reader(adata, layer)
        if batch_size is None:
            n_starts = 10 if self.module.mixture is None else len(self.module.mixture.means)
            n_features = sum(len(names) for names in self._features.values())
            batch_size = int(np.clip(_VALUES_AT_ONCE // (n_starts * n_features), 16, 1024))
        latent, covariate_latent = project(
            self.module,
            reader,
            n_steps=n_steps,
            lr=lr,
            batch_size=batch_size,
            rng=as_generator(rng),
            progress_bar=progress_bar,
        )
        return (latent, covariate_latent) if covariates else latent

    def _start(self) -> None:
        """Set offsets of the decoder, vectors and mixtures before training."""
        module, values = self.module, self._values()
        with torch.no_grad():
            for name, x in values.items():
                module.heads[name].start_at(torch.from_numpy(mean_values(x, self._likelihoods[name])))
            codes = self._label_codes(self.adata)
            module.covariate_latent.copy_(module.label_means(torch.from_numpy(codes)))
            if self._init == "pca":
                start = without_labels(principal_start(values, self._likelihoods, module.n_latent, self.rng_), codes)
                module.latent.copy_(torch.from_numpy(start))
                if module.mixture is not None:
                    module.mixture.start_at(start, self.rng_, blur=module.latent_noise)
