"""What a training run is asked to do, with every default that depends on the data spelled out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

MIN_BATCH, MAX_BATCH = 32, 4096
_FEW_DIMENSIONS = 20  # as the latents of models have; measured at 10, against 50 and 100


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training run; ``None`` is filled in by :meth:`complete` from the size of the data."""

    architecture: str = "matryoshka"
    n_features: int = 256
    k: int = 8
    """Active features per cell: exact for ``topk``, on average for all others (a target for the penalised ones)."""
    init: str = "random"
    """Where decoder rows start: ``"random"`` directions, or those of the cells' ``"kmeans"`` centres (what
    ``tl.fit_sae`` asks for)."""
    max_steps: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    matryoshka_widths: tuple[int, ...] | None = None
    """Widths of the nested dictionaries of ``matryoshka``, ascending, the last one ``n_features``."""
    full_width_weight: float | None = None
    """Share of the loss of ``matryoshka`` that the whole dictionary has; narrower widths have equal shares of the
    rest."""
    penalty: float | None = None
    """Fixed weight of the sparsity penalty of ``relu``, ``gated``; ``None`` steers it so that L0 comes to `k`."""
    whiten: bool = False
    noise: float = 0.6
    """Standard deviation of the Gaussian noise that the encoder, not the target, gets in training, in units of the
    standardised embedding. It keeps features from memorising cells: codes of unseen cells get better and sparser."""
    tie_strength: float = 15.0
    """Pull of each feature's encoder weights toward its decoder row, times F / n, as a decoupled decay. Where cells are
    few for each feature it keeps the encoder from memorising them, and it keeps features from dying."""
    aux_weight: float = 1 / 32
    k_aux: int | None = None
    resample_dead: bool = False
    """Whether features that fire in no cell are given to the worst reconstructed cells after the training of a code
    with one threshold (``batchtopk``, ``matryoshka``)."""
    clip: float = 1.0
    warmup: float = 0.05
    decay: float = 0.2
    patience: int | None = 50
    """Epochs without a better validation FVU before the final decay begins early; ``None`` never does."""
    precision: str = "auto"
    """Of the encoder product on the CPU: ``"float32"``, ``"bfloat16"``, or ``"auto"``: half precision for wide
    embeddings if the processor has instructions for it. Measured on simulated cells (d 100 and 512, three
    architectures, three seeds) held-out FVU is the same to 0.6 %, in either direction. Parameters are float32."""

    def complete(self, n_cells: int, n_dimensions: int) -> TrainConfig:
        """The same settings with every ``None`` replaced."""
        batch = self.batch_size or int(np.clip(n_cells // 16, MIN_BATCH, MAX_BATCH))
        batch = min(batch, n_cells)
        matryoshka_widths = self.matryoshka_widths
        if self.architecture == "matryoshka" and matryoshka_widths is None:
            matryoshka_widths = default_matryoshka_widths(self.n_features, n_dimensions)
        full_width_weight = self.full_width_weight
        if not matryoshka_widths or len(matryoshka_widths) == 1:
            full_width_weight = 1.0
        elif full_width_weight is None:
            full_width_weight = default_full_width_weight(len(matryoshka_widths), n_dimensions)
        return replace(
            self,
            batch_size=batch,
            max_steps=self.max_steps or default_steps(n_cells, batch),
            lr=self.lr or default_lr(self.n_features),
            matryoshka_widths=matryoshka_widths or (self.n_features,),
            full_width_weight=full_width_weight,
            k_aux=self.k_aux or max(n_dimensions // 2, 2 * self.k),
        )

    def width_weights(self) -> np.ndarray:
        """(P,) share of the loss of each of ``matryoshka_widths``, of settings that are complete; the sum is 1."""
        weights = np.ones(len(self.matryoshka_widths or (self.n_features,)))
        if len(weights) > 1:
            weights[-1] = self.full_width_weight
            weights[:-1] = (1 - weights[-1]) / (len(weights) - 1)
        return weights


def default_n_features(n_cells: int, n_dimensions: int) -> int:
    """The power of two nearest to three features a dimension, at least 64, at most one for four cells."""
    wanted = max(64, 2 ** round(np.log2(3 * n_dimensions)))
    return int(max(1, min(wanted, n_cells // 4)))


def default_k(n_dimensions: int, n_features: int) -> int:
    """One active feature for three dimensions, between 8 and 32; in narrow dictionaries at most one in four."""
    wanted = np.clip(round(n_dimensions / 3), 8, 32)
    return int(max(1, min(wanted, n_features // 4)))


def default_matryoshka_widths(n_features: int, n_dimensions: int) -> tuple[int, ...]:
    """F/16, F/8, F/4, F/2, F (Bussmann et al. 2025), without repeats in narrow dictionaries; from F/4 for latents.

    Principal components have a few long axes, which a few features describe. The few dimensions of a model's latent
    are about equally long: a handful of features does not span them, and blurs the groups of cells that it mixes.
    """
    parts = (16, 8, 4, 2, 1) if n_dimensions > _FEW_DIMENSIONS else (4, 2, 1)
    return tuple(sorted({max(1, n_features // part) for part in parts}))


def default_full_width_weight(n_widths: int, n_dimensions: int) -> float:
    """Two thirds: narrow widths give some features broad meaning, but not at the cost of fine ones; latents: equal."""
    return 2 / 3 if n_dimensions > _FEW_DIMENSIONS else 1 / n_widths


def default_lr(n_features: int) -> float:
    """2e-4 sqrt(2^14 / F), at most 2e-3 (Gao et al. 2024 for the scaling)."""
    return float(min(2e-3, 2e-4 * np.sqrt(2**14 / n_features)))


def default_steps(n_cells: int, batch_size: int) -> int:
    """At least 2,000 steps, and at least 10 passes over the cells."""
    return int(max(2000, 10 * n_cells // batch_size))
