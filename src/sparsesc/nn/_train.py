"""The training loop: batches, schedule, validation, the best state, and the way back to original units."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sparsesc._random import apart
from sparsesc._train_config import TrainConfig

from ._engines import make_engine
from ._initialize import initial_parameters
from ._metrics import fraction_unexplained
from ._resample import resample_dead
from ._sae import SparseAutoencoder
from ._scaling import Scaler, fit_scaler
from .architectures import ARCHITECTURES

HISTORY_COLUMNS = ("epoch", "train_fvu", "validation_fvu", "l0", "dead_fraction", "lr", "seconds")

_MONITORED = 2048  # validation cells looked at after each epoch
_TOLERANCE = 1e-4  # of the best validation FVU: less is no improvement
# The start limits the threads of products, for the whole process: one at a time, or trainings side by side would differ
# in their last bits from trainings alone.
_STARTING = threading.Lock()
_TOO_DENSE = 1.2  # times k: a state of a penalized code above this is not judged by its FVU


@dataclass
class TrainResult:
    """The result of a training run.

    See Also
    --------
    sparsesc.nn.train : Train one autoencoder.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsesc as ssc
    >>> X = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    >>> config = ssc.nn.TrainConfig(n_features=16, k=2, max_steps=20)
    >>> result = ssc.nn.train(X, config, rng=np.random.default_rng(0))
    >>> result.n_steps, result.interrupted
    (20, False)
    """

    sae: SparseAutoencoder
    """In the original units of the embedding."""
    history: dict[str, np.ndarray]
    """One entry an epoch: :data:`HISTORY_COLUMNS`."""
    config: TrainConfig
    """As used, every default filled in."""
    n_steps: int
    """Steps taken."""
    best_epoch: int
    """The epoch whose state is returned."""
    interrupted: bool
    """Whether the user stopped it (Ctrl-C)."""


def train(
    X: np.ndarray,
    config: TrainConfig,
    *,
    X_validation: np.ndarray | None = None,
    rng: np.random.Generator,
    device: str = "cpu",
    on_epoch: Callable[[dict[str, float], float], None] | None = None,
) -> TrainResult:
    """Fit a sparse autoencoder to an array of cells.

    Parameters
    ----------
    X
        Training cells, (n, d) float32, finite.
    config
        Settings; defaults that depend on the data are filled in.
    X_validation
        Cells that choose the best state and when to stop; without them the last state is returned.
    rng
        Draws the initial dictionary and the order of the cells.
    device
        ``"cpu"`` or a torch device.
    on_epoch
        Called after each epoch with its row of the history and the progress from 0 to 1.

    Returns
    -------
    The autoencoder in the units of `X`, with its history and the settings as they were used. Ctrl-C returns the best
    state so far.

    Raises
    ------
    ValueError
        If all cells are the same point.

    See Also
    --------
    sparsesc.tl.fit_sae : The same on an AnnData.
    sparsesc.nn.train_many : Many trainings at once.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsesc as ssc
    >>> X = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    >>> config = ssc.nn.TrainConfig(n_features=16, k=2, max_steps=20)
    >>> ssc.nn.train(X, config, rng=np.random.default_rng(0)).sae.encode(X).shape
    (200, 16)
    """
    return fit(standardize(X, X_validation, whiten=config.whiten), config, rng=rng, device=device, on_epoch=on_epoch)


class TrainingCells(NamedTuple):
    """What a training sees, in standardized units."""

    training: np.ndarray
    monitored: np.ndarray | None
    """Validation cells looked at after each epoch."""
    scaler: Scaler


def standardize(X: np.ndarray, X_validation: np.ndarray | None, *, whiten: bool) -> TrainingCells:
    """Cells in the units of the training."""
    scaler = fit_scaler(X, whiten=whiten)
    monitored = None if X_validation is None else scaler.transform(X_validation[:_MONITORED])
    return TrainingCells(scaler.transform(X), monitored, scaler)


def fit(
    cells: TrainingCells,
    config: TrainConfig,
    *,
    rng: np.random.Generator,
    device: str = "cpu",
    on_epoch: Callable[[dict[str, float], float], None] | None = None,
    stopped: Callable[[], bool] | None = None,
) -> TrainResult:
    """:func:`train` on standardized cells; ``stopped`` says after each epoch whether to end as if interrupted."""
    U, monitored, scaler = cells
    rng = apart(rng)
    config = config.complete(*U.shape)
    arch = ARCHITECTURES[config.architecture](config)
    widths = config.matryoshka_widths or ()
    parameters = initial_parameters(U, config.n_features, config.k, rng, init=config.init, widths=widths)
    parameters |= arch.extra_parameters(parameters, U)
    engine = make_engine(U, parameters, arch, config, rng=rng, device=device)
    # The state after each epoch is judged with a threshold fitted to training cells only.
    reference = U[rng.permutation(len(U))[:_MONITORED]]

    schedule = Schedule(config)
    history: list[dict[str, float]] = []
    best: dict[str, np.ndarray] | None = None
    best_epoch, best_score = -1, np.inf
    interrupted = False
    try:
        while not schedule.done() and not interrupted:
            begun = time.perf_counter()
            batches = _batches(len(U), config.batch_size, rng)
            batches = batches[: schedule.left()]
            engine.run(batches, *schedule.advance(len(batches)))
            train_fvu, l0, dead = engine.drain()
            row = {"epoch": len(history), "train_fvu": train_fvu, "validation_fvu": np.nan, "l0": l0}
            row |= {"dead_fraction": dead, "lr": schedule.last_lr, "seconds": 0.0}
            if monitored is None:
                best_epoch = len(history)
            else:
                state = engine.parameters()
                sae = _in_training_units(arch.inference(state, reference), config)
                codes = sae.encode(monitored)
                row["validation_fvu"] = score = fraction_unexplained(monitored, sae.decode(codes))
                density = codes.nnz / (len(monitored) * config.k)
                if arch.by_batch is None and density > _TOO_DENSE:
                    score = 1e3 * density  # anything sparse enough is better, then the sparsest
                if score < best_score * (1 - _TOLERANCE):
                    best, best_epoch, best_score = state, len(history), score
                elif config.patience is not None and len(history) - best_epoch >= config.patience:
                    schedule.begin_decay()
            row["seconds"] = time.perf_counter() - begun
            history.append(row)
            if on_epoch is not None:
                on_epoch(row, schedule.progress)
            interrupted = stopped is not None and stopped()
    except KeyboardInterrupt:
        interrupted = True

    seen = U if monitored is None else _both_kinds(U, monitored)
    weights = arch.inference(engine.parameters() if best is None else best, seen)
    if config.resample_dead and arch.by_batch:
        weights = resample_dead(weights, seen, config.k, rng)
    folded = scaler.fold(**weights)
    sae = SparseAutoencoder(**folded, k=config.k, architecture=config.architecture, metadata=None)
    columns = {name: np.array([row[name] for row in history]) for name in HISTORY_COLUMNS}
    columns["epoch"] = columns["epoch"].astype(np.int64)
    return TrainResult(sae, columns, config, schedule.step, best_epoch, interrupted)


class Schedule:
    """Learning rate over the steps: linear warm-up, constant, linear decay to zero."""

    def __init__(self, config: TrainConfig) -> None:
        total = config.max_steps
        self._peak, self.step, self.last_lr = config.lr, 0, 0.0
        self._warmup = max(1, round(config.warmup * total))
        self._decay = max(1, round(config.decay * total))
        self._end = total

    def done(self) -> bool:
        """Whether all steps are taken."""
        return self.step >= self._end

    @property
    def progress(self) -> float:
        """From 0 to 1."""
        return self.step / self._end

    def left(self) -> int:
        """Steps to come."""
        return self._end - self.step

    def advance(self, n_steps: int) -> tuple[np.ndarray, np.ndarray]:
        """Learning rates and progress of the next steps, which count as taken."""
        steps = self.step + np.arange(n_steps)
        lr = self._peak * np.minimum(1.0, np.minimum((steps + 1) / self._warmup, (self._end - steps) / self._decay))
        self.step += n_steps
        self.last_lr = float(lr[-1])
        return lr, steps / self._end

    def begin_decay(self) -> None:
        """End early: skip to the decay, unless it has begun."""
        self._end = min(self._end, self.step + self._decay)


def _batches(n: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """All full batches (batches, size) of one pass over the cells in random order; the rest waits for another pass."""
    return rng.permutation(n)[: n // size * size].reshape(-1, size)


def _both_kinds(seen: np.ndarray, unseen: np.ndarray) -> np.ndarray:
    """Training and validation cells in equal shares, as many of the training cells as there are.

    Where cells are few, a code is denser on cells it was not trained on. A threshold for both kinds sits between.
    """
    return np.concatenate([seen, unseen[np.arange(len(seen)) % len(unseen)]])


def _in_training_units(weights: dict[str, np.ndarray], config: TrainConfig) -> SparseAutoencoder:
    return SparseAutoencoder(
        weights["E"].T,
        weights["b_enc"],
        weights["D"],
        weights["b_dec"],
        weights["threshold"],
        k=config.k,
        architecture=config.architecture,
    )
