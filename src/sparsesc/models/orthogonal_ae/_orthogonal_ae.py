from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from scvi import REGISTRY_KEYS
from scvi.data import AnnDataManager
from scvi.data.fields import CategoricalObsField, LayerField
from scvi.model.base import BaseModelClass, UnsupervisedTrainingMixin

from sparsesc._values import check_choice, check_positive_int, listing
from sparsesc.door import _checks as check

from ._module import OrthogonalAEModule

if TYPE_CHECKING:
    from anndata import AnnData

LIKELIHOODS = ("poisson", "nb")
_UNTRAINED = "This OrthogonalAE was not trained: run model.train() first."


class OrthogonalAE(UnsupervisedTrainingMixin, BaseModelClass):
    r"""Autoencoder with nearly orthogonal units, so that each unit can represent one gene module.

    Genes go through softplus layers to the representation and back (by default G, 128, 64, 128, G nodes). A penalty
    pushes the weights of the units to be orthogonal.

    Parameters
    ----------
    adata
        Cells that :meth:`setup_anndata` registered.
    n_latent
        Units of the representation, at most `n_hidden`: more rows than columns cannot be orthogonal.
    n_hidden
        Nodes of the layers before and after it.
    orthogonality
        Weight :math:`\lambda` of the penalty. The paper used .05 (blood, mouse marrow) and 1 (human marrow). 0 switches
        it off.
    gene_likelihood
        ``"poisson"``, as published, or ``"nb"``: negative binomial with a dispersion for each gene.

    Raises
    ------
    ValueError
        If an option is out of its range, or cells have no counts.

    See Also
    --------
    sparsesc.tl.saliency : Genes that drive a unit.
    sparsesc.tl.geneset_impact : Gene sets that drive a unit.
    sparsesc.models.DGD : A latent space with clusters.

    Notes
    -----
    The loss is

    .. math:: L = -\frac{1}{n G} \sum_{i=1}^{n} \sum_{g=1}^{G} \log p(x_{ig}) + \lambda\, \lVert I - W W^\top \rVert_F,

    with the likelihood of the count :math:`x_{ig}` of gene :math:`g` in cell :math:`i` and the weights :math:`W` into
    the representation (units x hidden nodes); it is trained multiplied by :math:`G`.

    The encoder sees log(1 + counts), scaled to the median depth of the training cells. The scaling is part of the
    model and applies to new cells as well. With `batch_key`, the decoder takes the batch, so that the representation
    need not hold it; the encoder does not, so that cells of a new batch can be encoded.

    Units have no order, other seeds give other units, and orthogonal weights do not make activations independent.
    :func:`sparsesc.tl.saliency` and :func:`sparsesc.tl.geneset_impact` show what a unit represents. When not to use it:
    for an embedding to cluster or integrate, use scVI.

    References
    ----------
    Kinalis et al. (2019), Deconvolution of autoencoders to learn biological regulatory modules from single cell mRNA
    sequencing data, BMC Bioinformatics 20:379.

    Examples
    --------
    >>> import sparsesc as ssc
    >>> adata = ssc.datasets.simulate_programs(n_cells=60, n_genes=30, count_noise="poisson")
    >>> ssc.models.OrthogonalAE.setup_anndata(adata)
    >>> model = ssc.models.OrthogonalAE(adata, n_latent=4, n_hidden=8)
    >>> model.train(max_epochs=2, accelerator="cpu", enable_progress_bar=False)
    >>> adata.obsm["X_oae"] = model.get_latent_representation()
    >>> adata.obsm["X_oae"].shape
    (60, 4)

    New cells are encoded without being set up:

    >>> new = ssc.datasets.simulate_programs(n_cells=10, n_genes=30, count_noise="poisson", rng=1)
    >>> model.project(new).shape
    (10, 4)
    """

    _module_cls = OrthogonalAEModule

    def __init__(
        self,
        adata: AnnData,
        n_latent: int = 64,
        *,
        n_hidden: int = 128,
        orthogonality: float = 0.05,
        gene_likelihood: Literal["poisson", "nb"] = "poisson",
    ) -> None:
        n_latent = check_positive_int(n_latent, name="n_latent")
        n_hidden = check_positive_int(n_hidden, name="n_hidden")
        check_choice(gene_likelihood, LIKELIHOODS, name="gene_likelihood")
        if n_latent > n_hidden:
            msg = (
                f"n_latent={n_latent} units cannot have orthogonal weights from n_hidden={n_hidden} nodes: widen these."
            )
            raise ValueError(msg)
        if not orthogonality >= 0:
            msg = f"orthogonality must be 0 or a positive number, found {orthogonality!r}."
            raise ValueError(msg)
        super().__init__(adata)
        depth, mean = self._describe_counts()
        self.module = self._module_cls(
            n_genes=self.summary_stats.n_vars,
            n_batch=self.summary_stats.n_batch,
            n_latent=n_latent,
            n_hidden=n_hidden,
            orthogonality=float(orthogonality),
            gene_likelihood=gene_likelihood,
            depth=depth,
            mean=mean,
        )
        self._model_summary_string = (
            f"OrthogonalAE with n_latent: {n_latent}, n_hidden: {n_hidden}, orthogonality: {orthogonality:g}, "
            f"gene_likelihood: {gene_likelihood}."
        )
        self.init_params_ = self._get_init_params(locals())

    @classmethod
    def setup_anndata(
        cls, adata: AnnData, layer: str | None = None, batch_key: str | None = None, **kwargs: Any
    ) -> None:
        """Register the cells: which layer has the counts, and which column of ``obs`` the batches.

        Parameters
        ----------
        adata
            Cells x genes.
        layer
            Layer with counts. ``None``: ``X``.
        batch_key
            Column of ``obs`` with the batch, an input of the decoder.
        **kwargs
            Passed on by scvi-tools when a saved model is loaded.
        """
        setup_method_args = cls._get_setup_method_args(**locals())
        fields = [
            LayerField(REGISTRY_KEYS.X_KEY, layer, is_count_data=True),
            CategoricalObsField(REGISTRY_KEYS.BATCH_KEY, batch_key),
        ]
        manager = AnnDataManager(fields=fields, setup_method_args=setup_method_args)
        manager.register_fields(adata, **kwargs)
        cls.register_manager(manager)

    def train(
        self,
        max_epochs: int | None = None,
        *,
        accelerator: str = "auto",
        devices: int | list[int] | str = "auto",
        train_size: float | None = None,
        validation_size: float | None = None,
        batch_size: int = 128,
        early_stopping: bool = True,
        early_stopping_patience: int = 15,
        lr: float = 1e-3,
        plan_kwargs: dict[str, Any] | None = None,
        **trainer_kwargs: Any,
    ) -> None:
        """Train until the likelihood of validation cells stops improving.

        Parameters
        ----------
        max_epochs
            Maximum number of epochs. ``None``: the rule of scvi-tools, 400, and fewer for many cells.
        accelerator, devices
            Device to train on, as in Lightning.
        train_size, validation_size
            Shares of the cells for training and validation. ``None``: nine tenths, and the rest.
        batch_size
            Cells per step.
        early_stopping
            Stop when the likelihood of validation cells has not improved for `early_stopping_patience` epochs.
        early_stopping_patience
            Number of epochs for `early_stopping`.
        lr
            Learning rate of Adam.
        plan_kwargs
            Further options of scvi-tools' training plan.
        **trainer_kwargs
            Further options of scvi-tools' trainer.
        """
        super().train(
            max_epochs=max_epochs,
            accelerator=accelerator,
            devices=devices,
            train_size=train_size,
            validation_size=validation_size,
            batch_size=batch_size,
            early_stopping=early_stopping,
            early_stopping_patience=early_stopping_patience,
            plan_kwargs={"lr": lr} | (plan_kwargs or {}),
            **trainer_kwargs,
        )

    @property
    def orthogonality_gap(self) -> float:
        """How far the weights into the representation are from orthogonal: the Frobenius norm of I - W W^T."""
        with torch.no_grad():
            return float(self.module.orthogonality_gap())

    def get_latent_representation(
        self, adata: AnnData | None = None, indices: Sequence[int] | None = None, *, batch_size: int | None = None
    ) -> np.ndarray:
        """Activations of the units in cells, the embedding.

        Parameters
        ----------
        adata
            Cells with the setup of the training cells. ``None``: the training cells.
        indices
            Rows to take. ``None``: all.
        batch_size
            Cells encoded at once.

        Returns
        -------
        Cells x units, float32, positive.

        Raises
        ------
        RuntimeError
            If the model was not trained.
        """
        self._check_if_trained(warn=False, message=_UNTRAINED)
        adata = self._validate_anndata(adata)
        loader = self._make_data_loader(adata=adata, indices=indices, batch_size=batch_size)
        self.module.eval()
        with torch.inference_mode():
            parts = [self.module.inference(**self.module._get_inference_input(t))["z"].cpu() for t in loader]
        return torch.cat(parts).numpy()

    def project(self, adata: AnnData, *, layer: str | None = None, batch_size: int = 1024) -> np.ndarray:
        """Encode new cells, which need not be set up, in one forward pass with the preprocessing of the training.

        Parameters
        ----------
        adata
            New cells with all genes of the model, in any order and among others. Their batch does not matter.
        layer
            Layer with their counts. ``None``: as in the training.
        batch_size
            Cells encoded at once.

        Returns
        -------
        Cells x units, float32.

        Raises
        ------
        KeyError
            If genes of the model, or the layer, are missing.
        RuntimeError
            If the model was not trained.
        """
        self._check_if_trained(warn=False, message=_UNTRAINED)
        layer = layer or self.registry["setup_args"]["layer"]
        matrix, names = check.get_expression(adata, layer=layer, use_raw=False)
        genes = self.get_var_names()
        columns = names.get_indexer(genes)
        if (columns < 0).any():
            missing = np.asarray(genes)[columns < 0]
            msg = (
                f"{len(missing)} of the {len(genes)} genes of the model are not in adata: {listing(missing)}. "
                "Genes that were measured but never seen must be there as zeros."
            )
            raise KeyError(msg)
        self.module.eval()
        parts = []
        with torch.inference_mode():
            for start in range(0, adata.n_obs, batch_size):
                block = matrix[start : start + batch_size][:, columns]
                block = block.toarray() if hasattr(block, "toarray") else np.asarray(block)
                x = torch.as_tensor(np.ascontiguousarray(block, dtype=np.float32), device=self.module.device)
                parts.append(self.module.inference(x)["z"].cpu())
        return torch.cat(parts).numpy()

    def _describe_counts(self) -> tuple[float, np.ndarray]:
        """Median depth of cells, and the mean of every gene at this depth, from which the decoder starts."""
        counts = self.adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY)
        depths = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
        depth = float(np.median(depths))
        if depth == 0:
            msg = "Most cells have no counts in these genes. Filter cells first."
            raise ValueError(msg)
        return depth, np.asarray(counts.sum(axis=0), dtype=np.float64).ravel() * depth / depths.sum()
