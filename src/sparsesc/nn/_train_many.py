"""Many sparse autoencoders on the same cells at once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

import numba as nb
import numpy as np

from ._config import TrainConfig
from ._train import Cells, TrainResult, fit, standardise
from .architectures import ARCHITECTURES
from .kernels._chunks import OWN_PRODUCT
from .kernels._threads import one_thread


def train_many(
    X: np.ndarray,
    configs: Sequence[TrainConfig],
    *,
    rngs: Sequence[np.random.Generator],
    X_validation: np.ndarray | None = None,
    device: str = "cpu",
    on_epoch: Callable[[int, dict[str, float], float], None] | None = None,
) -> list[TrainResult]:
    """Fit one sparse autoencoder for each of ``configs``, each with its own generator and the same bits as alone.

    A single training keeps all threads busy only part of its time: they wait for each other several times a step. Here
    every training stays on one thread and as many run as there are threads, with one copy of the cells for all. Wide
    embeddings, whose time goes into one large product that uses every thread anyway, penalised codes and other devices
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
    device
        ``"cpu"`` or a torch device.
    on_epoch
        Called with the number of the training, its latest row of the history and its progress; from its own thread.

    Returns
    -------
    One result for each of ``configs``. After Ctrl-C these are the best states so far; trainings that had not begun are
    left out.

    Raises
    ------
    ValueError
        If there are not as many generators as settings, or all cells are the same point.
    """
    if len(configs) != len(rngs):
        msg = f"Every training needs its own generator: found {len(configs)} settings and {len(rngs)} generators."
        raise ValueError(msg)
    cells: dict[bool, Cells] = {c: standardise(X, X_validation, whiten=c) for c in {c.whiten for c in configs}}
    stop = threading.Event()

    def one(i: int) -> TrainResult | None:
        if stop.is_set():
            return None
        report = None if on_epoch is None else lambda row, progress: on_epoch(i, row, progress)
        return fit(
            cells[configs[i].whiten], configs[i], rng=rngs[i], device=device, on_epoch=report, stopped=stop.is_set
        )

    def one_alone(i: int) -> TrainResult | None:
        with one_thread():
            return one(i)

    narrow = device == "cpu" and X.shape[1] <= OWN_PRODUCT
    together = [i for i, c in enumerate(configs) if narrow and ARCHITECTURES[c.architecture].by_batch is not None]
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
    ordered = (results.get(i) for i in range(len(configs)))
    return [result for result in ordered if result is not None]
