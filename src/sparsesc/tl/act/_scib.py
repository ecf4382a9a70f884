"""scib-metrics, where it is installed: how well batches are mixed, and how well labels are kept apart."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from sparsesc._values import as_list, check_choice

_BIO, _BATCH = "bio", "batch"
METRICS = {
    "silhouette_label": _BIO,
    "nmi_ari_cluster_labels_kmeans": _BIO,
    "clisi_knn": _BIO,
    "bras": _BATCH,
    "ilisi_knn": _BATCH,
    "kbet_per_label": _BATCH,
    "graph_connectivity": _BATCH,
    "pcr_comparison": _BATCH,
}
"""Functions of scib-metrics, and what they are about. Without ``isolated_labels``, which changes the root logger."""
_NEIGHBORS = {"graph_connectivity": 15, "kbet_per_label": 50, "clisi_knn": 90, "ilisi_knn": 90}


def check_scib(metrics: bool | str | Iterable[str]) -> list[str]:
    """Names of the requested metrics; none for ``False``.

    Raises
    ------
    ImportError
        If scib-metrics is not installed.
    ValueError
        If there is no such metric.
    """
    if metrics is False or metrics is None:
        return []
    names = list(METRICS) if metrics is True else as_list(metrics)  # type: ignore[arg-type]
    for name in names:
        check_choice(name, METRICS, name="scib metric")
    try:
        import scib_metrics  # noqa: F401
    except ImportError as error:
        msg = "scib= needs the package scib-metrics. Install it: pip install 'sparsesc[scib]', or scib-metrics itself."
        raise ImportError(msg) from error
    return names


def scib_rows(
    names: Iterable[str], X: np.ndarray, start: np.ndarray, labels: np.ndarray, batches: np.ndarray
) -> Iterator[dict[str, Any]]:
    """Scores of one embedding by scib-metrics: 1 is best. ``pcr_comparison`` is 0 before, and never below.

    Parameters
    ----------
    names
        Metrics of :data:`METRICS`.
    X, start
        Embedding to judge, and the embedding before any change, cells x dimensions.
    labels, batches
        Codes of each cell.
    """
    names = list(names)
    logger = logging.getLogger("scib_metrics")  # says for every embedding which labels it skips
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield from _rows(names, X, start, labels, batches)
    finally:
        logger.setLevel(level)


def _rows(
    names: list[str], X: np.ndarray, start: np.ndarray, labels: np.ndarray, batches: np.ndarray
) -> Iterator[dict[str, Any]]:
    import scib_metrics
    from scib_metrics.nearest_neighbors import NeighborsResults
    from sklearn.neighbors import NearestNeighbors

    most = min(max((_NEIGHBORS.get(name, 1) for name in names), default=1), len(X))
    distances, indices = NearestNeighbors(n_neighbors=most).fit(X).kneighbors(X)  # exact, and with the cell itself
    for name in names:
        function = getattr(scib_metrics, name)
        given: tuple[np.ndarray, ...] = (labels,)
        if name in ("ilisi_knn", "pcr_comparison"):
            given = (batches,)
        elif name == "kbet_per_label":
            given = (batches, labels)
        elif name == "bras":
            given = (labels, batches)
        if name in _NEIGHBORS:
            n = min(_NEIGHBORS[name], most)
            value = function(NeighborsResults(indices=indices[:, :n], distances=distances[:, :n]), *given)
        elif name == "pcr_comparison":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", UserWarning)  # batches explain more than before: that is 0
                value = function(start, X, *given, categorical=True)
        else:
            value = function(X, *given)
        for part, score in value.items() if isinstance(value, dict) else [("", value)]:
            title = name.replace("nmi_ari", part) if part else name
            yield {"metric": title, "about": METRICS[name], "value": float(score)}
