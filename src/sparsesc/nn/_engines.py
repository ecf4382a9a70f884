"""Two ways to take a training step: compiled sparse kernels on the CPU, plain torch everywhere else.

Both hold the parameters between steps, take rows of the training cells by index, and return the parameters as
arrays. The torch engine is the reference: the sparse one is tested against it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch

from sparsesc._random import torch_seed

from ._noise import NoisePool
from .architectures import Architecture
from .kernels._processor import bfloat16_is_faster
from .kernels._step import ACTIVE, ALL, BETAS, EPSILON, ERROR, FETCH, REST
from .kernels._workspace import SparseStep

if TYPE_CHECKING:
    from sparsesc._train_config import TrainConfig

_BFLOAT16_ROWS = 512


class Engine(Protocol):
    """The methods that the training loop needs."""

    def run(self, batches: np.ndarray, lr: np.ndarray, progress: np.ndarray) -> None:
        """One optimizer step for each row of ``batches`` (steps, B), which holds indices of training cells."""

    def drain(self) -> tuple[float, float, float]:
        """FVU, L0 and dead fraction of the steps since the last call."""

    def parameters(self) -> dict[str, np.ndarray]:
        """A copy of all parameters."""


def make_engine(
    X: np.ndarray,
    parameters: dict[str, np.ndarray],
    arch: Architecture,
    config: TrainConfig,
    *,
    rng: np.random.Generator,
    device: str,
) -> Engine:
    """The fastest engine for this architecture and device; ``X`` (n, d) are standardized training cells."""
    dead_after = max(len(X), 20 * (config.batch_size or 1))
    if arch.by_batch is not None and device == "cpu":
        return SparseEngine(X, parameters, arch, config, dead_after, rng)
    return TorchEngine(X, parameters, arch, config, dead_after, rng, device)


class SparseEngine:
    """Compiled kernels on the CPU, for codes that keep the largest entries."""

    def __init__(
        self,
        X: np.ndarray,
        parameters: dict[str, np.ndarray],
        arch: Architecture,
        config: TrainConfig,
        dead_after: int,
        rng: np.random.Generator,
    ) -> None:
        B, n_features = config.batch_size or len(X), config.n_features
        self._noise = NoisePool(config.noise, B * X.shape[1], rng) if config.noise > 0 else None
        automatic = config.precision == "auto" and bfloat16_is_faster(X.shape[1])
        self._bfloat16 = automatic or config.precision == "bfloat16"
        self.state = SparseStep(
            X,
            **{name: parameters[name] for name in ("E", "D", "b_enc", "b_dec")},
            k=config.k,
            batch_size=B,
            by_batch=bool(arch.by_batch),
            widths=np.array(config.nested_widths),
            weights=config.width_weights(),
            k_aux=min(config.k_aux or 1, n_features),
            aux_weight=config.aux_weight,
            dead_after=dead_after,
            clip=config.clip,
            tie_strength=config.tie_strength * n_features / len(X),
            noise=self._noise.values if self._noise else None,
            bfloat16=self._bfloat16,
        )
        self._rounded: list[torch.Tensor] | None = None
        self._seen, self._error, self._active = 0, 0.0, 0.0

    def run(self, batches: np.ndarray, lr: np.ndarray, progress: np.ndarray) -> None:
        """Steps in compiled code; for wide embeddings, torch computes the encoder product."""
        noise_at = np.zeros(len(batches), np.int64) if self._noise is None else self._noise.offsets(len(batches))
        if self.state.compiled_product:
            self._add_report(batches, self.state.run(batches, noise_at, lr, ALL))
            return
        for step in range(len(batches)):
            rows, at, step_lr = (values[step : step + 1] for values in (batches, noise_at, lr))
            self.state.run(rows, at, step_lr, FETCH)
            self._multiply()
            self._add_report(rows, self.state.run(rows, at, step_lr, REST))

    def _multiply(self) -> None:
        b = self.state.buffers
        seen, encoder, pre = torch.from_numpy(b.seen_rows), torch.from_numpy(b.E), torch.from_numpy(b.pre)
        if not self._bfloat16:
            torch.mm(seen, encoder.T, out=pre)
            return
        if self._rounded is None:
            shapes = seen.shape, encoder.shape, (min(len(seen), _BFLOAT16_ROWS), len(encoder))
            self._rounded = [torch.empty(shape, dtype=torch.bfloat16) for shape in shapes]
        seen16, encoder16, product = self._rounded
        seen16.copy_(seen)
        encoder16.copy_(encoder)
        # A few rows at a time: their product becomes float32 while it is in the cache.
        for first in range(0, len(seen), _BFLOAT16_ROWS):
            rows = seen16[first : first + _BFLOAT16_ROWS]
            torch.mm(rows, encoder16.T, out=product[: len(rows)])
            pre[first : first + _BFLOAT16_ROWS].copy_(product[: len(rows)])

    def _add_report(self, batches: np.ndarray, report: np.ndarray) -> None:
        self._seen += batches.size
        self._error += float(report[:, ERROR].sum())
        self._active += float(report[:, ACTIVE].sum())

    def drain(self) -> tuple[float, float, float]:
        """FVU, L0 and dead fraction of the steps since the last call."""
        seen, error, active = max(self._seen, 1), self._error, self._active
        self._seen, self._error, self._active = 0, 0.0, 0.0
        return error / (seen * self.state.n_dimensions), active / seen, float(self.state.dead.mean())

    def parameters(self) -> dict[str, np.ndarray]:
        """A copy of all parameters."""
        return self.state.parameters()


class TorchEngine:
    """Dense torch operations with automatic gradients, for every architecture and device."""

    def __init__(
        self,
        X: np.ndarray,
        parameters: dict[str, np.ndarray],
        arch: Architecture,
        config: TrainConfig,
        dead_after: int,
        rng: np.random.Generator,
        device: str,
    ) -> None:
        self.arch, self.config = arch, config
        self._dead_after = dead_after
        widths = config.nested_widths
        self._widths = list(zip(widths, config.width_weights().tolist(), strict=True))
        self._cells = torch.from_numpy(X).to(device)
        self._noise = torch.Generator(device).manual_seed(torch_seed(rng))
        self.p = {name: torch.tensor(value, device=device, requires_grad=True) for name, value in parameters.items()}
        self._optimizer = torch.optim.Adam(list(self.p.values()), betas=BETAS, eps=EPSILON)
        self._silent = torch.zeros(config.n_features, dtype=torch.int64, device=device)
        # Sums stay on the device: to read one would mean to wait for the device at every step.
        self._error = torch.zeros((), dtype=torch.float64, device=device)
        self._active = torch.zeros((), dtype=torch.int64, device=device)
        self._seen = 0

    def loss(
        self, x: torch.Tensor, progress: float, seen: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Training loss of a batch (B, d), its error (B, d) and the code (B, F); ``seen`` is the encoder's input."""
        p, arch, config = self.p, self.arch, self.config
        code = arch.encode(p, x if seen is None else seen)
        D = arch.decoder(p)

        # Reconstruction by each of the nested widths of the dictionary (only matryoshka has more than the full width).
        loss = x.new_zeros(())
        for width, weight in self._widths:
            x_hat = code.active[:, :width] @ D[:width] + p["b_dec"]
            loss = loss + weight * (x_hat - x).square().mean()
        error = (x_hat - x).detach()

        # AuxK (Gao et al. 2024, A.2): dead features reconstruct the residual.
        dead = self._silent >= self._dead_after
        if arch.revives_by_auxiliary and config.aux_weight > 0:
            k_aux = min(config.k_aux or 1, config.n_features)
            positive = code.pre.clamp_min(0) * dead
            value, index = positive.topk(k_aux, dim=1, sorted=False)
            revived = torch.zeros_like(positive).scatter(1, index, value) @ D
            # Without dead features this is the error times zero; a branch would wait for the device.
            loss = loss + config.aux_weight * (revived + error).square().mean() * dead.any()

        extra = arch.penalty(p, x, code, progress)
        return (loss if extra is None else loss + extra), error, code.active

    def run(self, batches: np.ndarray, lr: np.ndarray, progress: np.ndarray) -> None:
        """One step after another."""
        for step, rows in enumerate(batches):
            self._step(rows, float(lr[step]), float(progress[step]))

    def _step(self, rows: np.ndarray, lr: float, progress: float) -> None:
        """One step: loss, gradients, clipping, Adam, decoder rows back to unit norm."""
        x = self._cells[torch.from_numpy(rows).to(self._cells.device)]
        self._optimizer.zero_grad(set_to_none=True)
        seen = x + self.config.noise * torch.randn(x.shape, generator=self._noise, device=x.device)
        loss, error, active = self.loss(x, progress, seen)
        loss.backward()
        with torch.no_grad():
            D, E = self.p["D"], self.p["E"]
            if D.grad is not None:
                D.grad -= (D.grad * D).sum(1, keepdim=True) * D
            torch.nn.utils.clip_grad_norm_(list(self.p.values()), self.config.clip)
            for group in self._optimizer.param_groups:
                group["lr"] = lr
            difference = D - E
            self._optimizer.step()
            E += lr * self.config.tie_strength * len(D) / len(self._cells) * difference
            self.arch.constrain(self.p)
            fired = (active > 0).any(0)
            self._silent = torch.where(fired, 0, self._silent + len(x))
            self._error += error.square().sum()
            self._active += (active > 0).sum()
            self._seen += len(x)
            self.arch.after_step(active.detach())

    def drain(self) -> tuple[float, float, float]:
        """FVU, L0 and dead fraction of the steps since the last call."""
        seen = max(self._seen, 1)
        fvu, l0 = float(self._error) / (seen * self._cells.shape[1]), float(self._active) / seen
        self._error.zero_()
        self._active.zero_()
        self._seen = 0
        return fvu, l0, float((self._silent >= self._dead_after).float().mean())

    def parameters(self) -> dict[str, np.ndarray]:
        """A copy of all parameters."""
        return {name: value.detach().cpu().numpy().copy() for name, value in self.p.items()}
