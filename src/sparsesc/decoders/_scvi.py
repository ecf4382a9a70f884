from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sparsesc._values import listing

from ._base import check_latent
from ._torch import evaluating, run, run_jvp

if TYPE_CHECKING:
    import torch

SUPPORTED = ("SCVI", "SCANVI", "LinearSCVI", "DRVI")  # DRVI and others derive from SCVI, and keep its output
_ROWS = 1024


class ScviDecoder:
    """The decoder of a model of scvi-tools: SCVI, SCANVI, LinearSCVI or DRVI, also minified.

    Expression is that of ``get_normalized_expression`` at a position in the latent space: the expected share of each
    gene among the counts of a cell, with the batch and the other covariates of the cell unchanged.

    Parameters
    ----------
    model
        A trained model.

    Raises
    ------
    TypeError
        If it is a model of another kind (TOTALVI, PEAKVI, MULTIVI and others decode differently).
    ValueError
        If the model was not trained.

    See Also
    --------
    sparsesc.decoders.as_decoder : Accepts such a model directly.
    sparsesc.tl.steer : Decodes steered cells with it.

    Examples
    --------
    >>> import scvi
    >>> import sparsesc as ssc
    >>> adata = ssc.datasets.simulate_programs(n_cells=100, n_genes=40, count_noise="poisson")
    >>> scvi.model.SCVI.setup_anndata(adata)
    >>> model = scvi.model.SCVI(adata, n_latent=4)
    >>> model.train(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
    >>> decoder = ssc.decoders.ScviDecoder(model)
    >>> latent = model.get_latent_representation()
    >>> decoder.decode(latent, decoder.covariates(adata.obs_names)).shape
    (100, 40)
    """

    scale = "proportions"

    def __init__(self, model: Any) -> None:
        from scvi.model import SCANVI, SCVI, LinearSCVI

        if not isinstance(model, SCVI | SCANVI | LinearSCVI):
            msg = (
                f"Cannot decode with {type(model).__name__}: of scvi-tools' models, {', '.join(SUPPORTED)} are "
                "supported (also minified). Others have several outputs or another kind of latent: wrap the part "
                "that you want as a function of tensors, ssc.decoders.TorchDecoder(function, genes)."
            )
            raise TypeError(msg)
        if not model.is_trained:
            msg = f"This {type(model).__name__} was not trained: run model.train() first."
            raise ValueError(msg)
        self._model = model
        self.genes = pd.Index(model.adata.var_names).astype(str)

    @property
    def n_dimensions(self) -> int:
        """Dimensions of the latent space."""
        return int(self._model.module.n_latent)

    def covariates(self, cells: pd.Index) -> dict[str, torch.Tensor | None]:
        """What the decoder needs besides the latent, for these cells, from the AnnData of the model.

        Raises
        ------
        KeyError
            If the model does not know one of the cells.
        ValueError
            If the names of its cells repeat.
        """
        import torch

        known = self._model.adata.obs_names
        if not known.is_unique:
            msg = "Cell names repeat in the AnnData of the model: make them unique and load it again."
            raise ValueError(msg)
        rows = known.get_indexer(cells)
        if (rows < 0).any():
            missing = cells[rows < 0]
            msg = (
                f"{len(missing)} of {len(cells)} cells are not in the AnnData that the model holds: {listing(missing)}."
                " Load the model with these cells: type(model).load(folder, adata=...)."
            )
            raise KeyError(msg)
        module = self._model.module
        # The encoder draws a latent, which is not used: the user's random numbers must stay unchanged.
        with torch.random.fork_rng(devices=[]), torch.no_grad(), evaluating(module):
            parts = [self._read(module, tensors) for tensors in self._batches(rows)]
        return {
            name: None if first is None else torch.cat([part[name] for part in parts])
            for name, first in parts[0].items()
        }

    def decode(self, Z: np.ndarray, covariates: Any = None) -> np.ndarray:
        """Expected shares of genes, cells x genes."""
        Z = check_latent(Z, self.n_dimensions)
        with evaluating(self._model.module):
            return run(self._function(covariates, len(Z)), Z, self._model.module.device)

    def jvp(self, Z: np.ndarray, V: np.ndarray, covariates: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Expected shares of genes, and their derivative along `V`, cells x genes."""
        Z, V = check_latent(Z, self.n_dimensions), check_latent(V, self.n_dimensions)
        with evaluating(self._model.module):
            return run_jvp(self._function(covariates, len(Z)), Z, V, self._model.module.device)

    def _batches(self, rows: np.ndarray) -> Any:
        return self._model._make_data_loader(adata=self._model.adata, indices=rows, batch_size=_ROWS, shuffle=False)

    @staticmethod
    def _read(module: Any, tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
        given = module._get_generative_input(tensors, module.inference(**module._get_inference_input(tensors)))
        return {name: value for name, value in given.items() if name != "z"}

    def _function(self, covariates: Any, n: int) -> Callable[[torch.Tensor], torch.Tensor]:
        if covariates is None:
            msg = "This decoder needs the covariates of the cells: pass decoder.covariates(cells), one name a row."
            raise ValueError(msg)
        if len(covariates["batch_index"]) != n:
            msg = f"There are covariates of {len(covariates['batch_index'])} cells, but {n} cells to decode."
            raise ValueError(msg)
        module = self._model.module

        def shares(z: torch.Tensor) -> torch.Tensor:
            return module.generative(z=z, **covariates)["px"].get_normalized("scale")

        return shares
