"""Many sparse autoencoders on the same cells at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

import numba as nb
import numpy as np

from sparsesc._train_config import TrainConfig

from ._train import TrainingCells, TrainResult, fit, standardize
from .architectures import ARCHITECTURES
from .kernels._processor import NARROW
from .kernels._threads import one_thread


def train_many(
    X: np.ndarray,
    configs: Sequence[TrainConfig],
    *,
    rngs: Sequence[np.random.Generator],
    X_validation: np.ndarray | None = None,
    held_out: Sequence[np.ndarray] | None = None,
    training: Sequence[np.ndarray] | None = None,
    device: str | Sequence[str] = "cpu",
    on_epoch: Callable[[int, dict[str, float], float], None] | None = None,
) -> list[TrainResult | None]:
    """Fit one sparse autoencoder for each of ``configs``, each with its own generator and the same bits as alone.

    A single training keeps all threads busy only part of its time: they wait for each other several times a step. Here
    every training stays on one thread and as many run as there are threads, with one copy of the cells for all. Wide
    embeddings, whose time goes into one large product that uses every thread anyway, penalized codes and other devices
    go one after another.

    Parameters
    ----------
    X
        Training cells, (n, d) float32, finite.
    configs
        Settings of each training.
    rngs
        One generator for each.
    X_validation
        Cells that choose the best states.
    held_out
        Instead of `X_validation`: for each training which of the cells `X` it holds out, (n,) bool.
    training
        With `held_out`: for each training which of the cells it trains on, (n,) bool. Default: all others.
    device
        ``"cpu"`` or a torch device, one for all or one for each.
    on_epoch
        Called with the number of the training, its latest row of the history and its progress; from its own thread.

    Returns
    -------
    One result for each of ``configs``. After Ctrl-C these are the best states so far, ``None`` where a training had not
    begun.

    Raises
    ------
    ValueError
        If there are not as many generators as settings, held-out cells do not fit, or all cells are the same point.

    See Also
    --------
    sparsesc.nn.train : One training.
    sparsesc.tl.sweep : The same on an AnnData, with a table of results.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsesc as ssc
    >>> X = np.random.default_rng(0).normal(size=(200, 5)).astype(np.float32)
    >>> configs = [ssc.nn.TrainConfig(n_features=16, k=k, max_steps=20) for k in (1, 2)]
    >>> results = ssc.nn.train_many(X, configs, rngs=[np.random.default_rng(i) for i in range(2)])
    >>> [result.sae.n_features for result in results]
    [16, 16]
    """
    if len(configs) != len(rngs):
        msg = f"Every training needs its own generator: found {len(configs)} settings and {len(rngs)} generators."
        raise ValueError(msg)
    if held_out is not None and (X_validation is not None or len(held_out) != len(configs)):
        msg = f"held_out is one mask a training, instead of X_validation: found {len(held_out)} for {len(configs)}."
        raise ValueError(msg)
    devices = [device] * len(configs) if isinstance(device, str) else list(device)
    shared: dict[bool, TrainingCells] = {}
    if held_out is None:
        shared = {c: standardize(X, X_validation, whiten=c) for c in {c.whiten for c in configs}}
    stop = threading.Event()

    def cells(i: int) -> TrainingCells:
        if held_out is None:
            return shared[configs[i].whiten]
        aside = held_out[i]
        used = ~aside if training is None else training[i]
        return standardize(X[used], X[aside] if aside.any() else None, whiten=configs[i].whiten)

    def one(i: int) -> TrainResult | None:
        if stop.is_set():
            return None
        report = None if on_epoch is None else lambda row, progress: on_epoch(i, row, progress)
        return fit(cells(i), configs[i], rng=rngs[i], device=devices[i], on_epoch=report, stopped=stop.is_set)

    def one_alone(i: int) -> TrainResult | None:
        with one_thread():
            return one(i)

    narrow = X.shape[1] <= NARROW
    together = [
        i
        for i, config in enumerate(configs)
        if narrow and devices[i] == "cpu" and ARCHITECTURES[config.architecture].by_batch is not None
    ]
    if len(together) < 2:
        together = []
    jobs: dict[int, Future[TrainResult | None]] = {}
    results: dict[int, TrainResult | None] = {}
    try:
        with ThreadPoolExecutor(nb.get_num_threads()) as pool:
            # The widest first, so that no thread ends long after the others.
            for i in sorted(together, key=lambda i: -configs[i].n_features):
                jobs[i] = pool.submit(one_alone, i)
            try:
                wait(jobs.values(), return_when=FIRST_EXCEPTION)
            finally:  # an error or Ctrl-C: the others end after their epoch
                if not all(job.done() for job in jobs.values()):
                    stop.set()
        for i in range(len(configs)):
            if i not in jobs:
                results[i] = result = one(i)
                if result is not None and result.interrupted:
                    stop.set()
    except KeyboardInterrupt:
        stop.set()
    results |= {i: job.result() for i, job in jobs.items()}
    return [results.get(i) for i in range(len(configs))]
