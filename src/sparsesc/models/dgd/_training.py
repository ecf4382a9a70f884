"""Training of a deep generative decoder: three optimizers, one of them for the vectors of cells."""

from __future__ import annotations

from copy import deepcopy
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from scvi import REGISTRY_KEYS
from torch import nn

from ._module import DGDModule

TRAIN_LOSS, VALIDATION_LOSS = "train_loss", "validation_loss"


class DGDTrainingPlan(LightningModule):
    """Decoder and mixtures take one step per batch; the vectors of all cells take one step per epoch.

    Vectors of the validation cells are trained as well, with a decoder and mixtures that have not seen these cells.

    Parameters
    ----------
    module
        The module to train.
    rates
        Learning rates by group of parameters, the vectors (``"latent"``) last.
    betas, weight_decay
        Of all three.
    """

    def __init__(
        self, module: DGDModule, rates: dict[str, float], *, betas: tuple[float, float], weight_decay: float
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.module = module
        self.rates = rates
        self.adam: dict[str, Any] = {"betas": tuple(betas), "weight_decay": weight_decay}
        self.gradients: list[torch.Tensor] = []  # not in .grad: Lightning clears that before a validation
        self.n_obs_training: int | None = None  # set by scvi-tools
        self.n_obs_validation: int | None = None

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam for the decoder, for the mixtures (where there are any) and, last, for the vectors."""
        parts = parameter_groups(self.module)
        return [torch.optim.Adam(parts[name], lr=rate, **self.adam) for name, rate in self.rates.items() if parts[name]]

    def on_train_epoch_start(self) -> None:
        """Forget the gradients of the vectors."""
        self.gradients = [torch.zeros_like(vectors) for vectors in parameter_groups(self.module)["latent"]]

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        """A step of decoder and mixtures; gradients of the vectors are stored."""
        *shared, _ = cast(list, self.optimizers())
        for optimizer in shared:
            optimizer.zero_grad()
        index, vectors = self._vectors(batch)
        loss = self._loss(batch, vectors, "train")
        self.manual_backward(loss)
        for optimizer in shared:
            optimizer.step()
        self._keep(index, [leaf.grad for leaf in vectors])

    def validation_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> None:
        """Gradients of the vectors of validation cells only."""
        with torch.enable_grad():
            index, vectors = self._vectors(batch)
            loss = self._loss(batch, vectors, "validation")
            self._keep(index, torch.autograd.grad(loss, vectors, allow_unused=True))

    def on_train_epoch_end(self) -> None:
        """A step of the vectors: at this point, Lightning has finished the validation."""
        *_, optimizer = cast(list, self.optimizers())
        for vectors, gradient in zip(parameter_groups(self.module)["latent"], self.gradients, strict=True):
            vectors.grad = gradient
        optimizer.step()

    def _vectors(self, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Vectors of the cells of a batch, as leaves: a gradient for all cells would be mostly zeros."""
        index = batch[REGISTRY_KEYS.INDICES_KEY].long().ravel()
        return index, [vectors.detach()[index].requires_grad_() for vectors in parameter_groups(self.module)["latent"]]

    def _keep(self, index: torch.Tensor, gradients: Any) -> None:
        for kept, gradient in zip(self.gradients, gradients, strict=True):
            if gradient is not None:  # of a model without covariates
                kept[index] = gradient

    def _loss(self, batch: dict[str, torch.Tensor], vectors: list[torch.Tensor], stage: str) -> torch.Tensor:
        """Negative log joint density, summed over the cells of a batch."""
        inferred = dict(zip(("z", "z_covariate"), map(self.module.blur, vectors), strict=True))
        result = self.module.loss(batch, inferred, {})
        options: dict[str, Any] = {"on_step": False, "on_epoch": True, "batch_size": len(vectors[0])}
        self.log(f"{stage}_loss", result.loss.detach(), prog_bar=True, **options)
        misfit, latent = result.reconstruction_loss_sum, result.kl_local_sum
        self.log(f"reconstruction_loss_{stage}", misfit.detach() / len(vectors[0]), **options)
        self.log(f"latent_loss_{stage}", latent.detach() / len(vectors[0]), **options)
        return result.loss * len(vectors[0])


class KeepBest(Callback):
    """At the end, return to the epoch with the lowest loss."""

    def __init__(self, monitor: str) -> None:
        self.monitor = monitor
        self.lowest = float("inf")
        self.state: dict[str, torch.Tensor] | None = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the parameters if the epoch is the best so far."""
        loss = float(trainer.callback_metrics.get(self.monitor, float("nan")))
        if loss < self.lowest:
            self.lowest, self.state = loss, deepcopy(cast(nn.Module, pl_module.module).state_dict())

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Restore them."""
        if self.state is not None:
            cast(nn.Module, pl_module.module).load_state_dict(self.state)


def parameter_groups(module: DGDModule) -> dict[str, list[nn.Parameter]]:
    """Parameters of each of the three optimizers."""
    mixtures = [*module.label_mixtures, *([] if module.mixture is None else [module.mixture])]
    return {
        "decoder": [*module.trunk.parameters(), *module.head_list.parameters()],
        "mixture": [parameter for mixture in mixtures for parameter in mixture.parameters()],
        "latent": [module.latent, module.covariate_latent],
    }
