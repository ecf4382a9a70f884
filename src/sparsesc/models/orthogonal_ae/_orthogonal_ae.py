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
    r"""An autoencoder whose representation units are pushed to be orthogonal, so that each can stand for one module.

    Genes go through softplus layers to the representation and back (by default G, 128, 64, 128, G). The loss is the
    negative log likelihood of the counts, per gene, plus :math:`\lambda \|I - W W^T\|_F`, where W are the weights into
    the representation (units x hidden nodes).

    Parameters
    ----------
    adata
        Cells that :meth:`setup_anndata` registered.
    n_latent
        Units of the representation. No more than `n_hidden`: more rows than columns cannot be orthogonal.
    n_hidden
        Nodes of the layers before and behind it.
    orthogonality
        The weight :math:`\lambda`. The paper took .05 (blood, mouse marrow) and 1 (human marrow). 0 switches it off.
    gene_likelihood
        ``"poisson"``, as published, or ``"nb"``: negative binomial with a dispersion for each gene.

    Raises
    ------
    ValueError
        If an option is out of its range, or cells have no counts.

    Notes
    -----
    The encoder sees logarithms of 1 + counts scaled to the median depth of the training cells. The scaling is part of
    the model: new cells go through the same one. With `batch_key`, the decoder is told the batch, so that the
    representation need not hold it; the encoder is not, so that cells of a new batch can be encoded.

    Units have no order and no fixed sign, other seeds give other units, and orthogonal weights do not make activations
    independent. What a unit stands for is asked by :func:`sparsesc.tl.saliency` and
    :func:`sparsesc.tl.geneset_impact`. When not to use it: for an embedding to cluster or integrate, take scVI.

    References
    ----------
    Kinalis et al. (2019), Deconvolution of autoencoders to learn biological regulatory modules from single cell mRNA
    sequencing data, BMC Bioinformatics 20:379.

    Examples
    --------
    >>> ssc.models.OrthogonalAE.setup_anndata(adata, layer="counts")
    >>> model = ssc.models.OrthogonalAE(adata)
    >>> model.train()
    >>> adata.obsm["X_oae"] = model.get_latent_representation()
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
        """Say where the counts and the batches are.

        Parameters
        ----------
        adata
            Cells x genes.
        layer
            Layer with counts. ``None``: ``X``.
        batch_key
            Column of ``obs`` with the batch, which the decoder is told.
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
        """Train until the likelihood of held-out cells stops to improve.

        Parameters
        ----------
        max_epochs
            Most epochs to train. ``None``: scvi-tools' rule, 400 and fewer for many cells.
        accelerator, devices
            Where to train, as in Lightning.
        train_size, validation_size
            Shares of the cells. ``None``: nine tenths, and the rest.
        batch_size
            Cells in a step.
        early_stopping
            Stop when held-out cells have not improved for `early_stopping_patience` epochs.
        early_stopping_patience
            See above.
        lr
            Learning rate of Adam.
        plan_kwargs
            More options of scvi-tools' training plan.
        **trainer_kwargs
            Options of scvi-tools' trainer.
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
        """Activations of the units.

        Parameters
        ----------
        adata
            Cells set up as those of the training. ``None``: these.
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
        """Encode new cells: one forward pass, with the preprocessing of the training. They need not be set up.

        Parameters
        ----------
        adata
            New cells with all genes of the model, in any order and among others. Their batch does not matter.
        layer
            Layer with their counts. ``None``: where the counts of the training cells were.
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
        """Median depth of cells, and the mean of every gene at this depth: where the decoder starts."""
        counts = self.adata_manager.get_from_registry(REGISTRY_KEYS.X_KEY)
        depths = np.asarray(counts.sum(axis=1), dtype=np.float64).ravel()
        depth = float(np.median(depths))
        if depth == 0:
            msg = "Most cells have no counts at all in the genes given. Filter cells first."
            raise ValueError(msg)
        return depth, np.asarray(counts.sum(axis=0), dtype=np.float64).ravel() * depth / depths.sum()
