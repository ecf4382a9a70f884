"""Settings of a training: checked, stored with its result, and read back from there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sparsesc._values import check_choice, check_positive_int

if TYPE_CHECKING:
    from sparsesc.nn import TrainConfig

FEWEST_CELLS = 20
REQUIRED = (
    "architecture", "n_features", "k", "max_steps", "batch_size", "lr", "noise", "tie_strength", "resample_dead",
    "whiten", "precision",
)  # fmt: skip
"""Settings that every training has. Others may be missing: ``None`` is not stored."""


def checked_config(
    shape: tuple[int, ...],
    *,
    architecture: str,
    n_features: int | Literal["auto"] | None,
    k: int | Literal["auto"] | None,
    matryoshka_widths: Sequence[int] | None,
    full_width_weight: float | None,
    init: str,
    penalty: float | None,
    noise: float,
    tie_strength: float,
    resample_dead: bool,
    whiten: bool,
    max_steps: int | None,
    batch_size: int | None,
    lr: float | None,
    patience: int | None,
    precision: str,
) -> TrainConfig:
    """Settings for an embedding of this shape, checked, with the width and sparsity filled in.

    Raises
    ------
    ValueError
        If the embedding is too small, or options do not fit together or to it.
    """
    from sparsesc.nn import ARCHITECTURES, TrainConfig
    from sparsesc.nn._config import default_k, default_n_features
    from sparsesc.nn._initialize import INITS

    check_choice(architecture, ARCHITECTURES, name="architecture")
    check_choice(init, INITS, name="init")
    check_choice(precision, ["auto", "float32", "bfloat16"], name="precision")
    n, d = shape
    if n < FEWEST_CELLS or d == 0:
        msg = f"Too small to learn from: {n} cells x {d} dimensions. At least {FEWEST_CELLS} cells are needed."
        raise ValueError(msg)
    if n_features is None or n_features == "auto":
        n_features = default_n_features(n, d)
    check_positive_int(n_features, name="n_features")
    if n_features > n:
        msg = f"n_features={n_features} is more than the number of cells ({n}): use fewer features, or more cells."
        raise ValueError(msg)
    k = default_k(d, n_features) if k is None or k == "auto" else check_positive_int(k, name="k")
    if k > n_features:
        msg = f"k={k} active features per cell cannot come out of n_features={n_features}. Lower k or raise n_features."
        raise ValueError(msg)
    return TrainConfig(
        architecture=architecture,
        n_features=n_features,
        k=k,
        matryoshka_widths=_checked_matryoshka_widths(matryoshka_widths, n_features, architecture),
        full_width_weight=_checked_full_width_weight(full_width_weight, architecture),
        init=init,
        penalty=_checked_number("penalty", penalty),
        noise=_checked_number("noise", noise) or 0.0,
        tie_strength=_checked_number("tie_strength", tie_strength) or 0.0,
        resample_dead=bool(resample_dead),
        whiten=whiten,
        max_steps=None if max_steps is None else check_positive_int(max_steps, name="max_steps"),
        batch_size=None if batch_size is None else check_positive_int(batch_size, name="batch_size"),
        lr=_checked_number("lr", lr),
        patience=None if patience is None else check_positive_int(patience, name="patience"),
        precision=precision,
    )


def stored_settings(config: TrainConfig) -> dict[str, Any]:
    """What goes into ``params``, from which :func:`restored_config` makes the settings again."""
    nested = config.architecture == "matryoshka"
    return {
        "architecture": config.architecture,
        "n_features": config.n_features,
        "k": config.k,
        "matryoshka_widths": np.array(config.matryoshka_widths) if nested else None,
        "full_width_weight": config.full_width_weight if nested else None,
        "init": config.init,
        "penalty": config.penalty,
        "noise": config.noise,
        "tie_strength": config.tie_strength,
        "resample_dead": config.resample_dead,
        "whiten": config.whiten,
        "max_steps": config.max_steps,
        "batch_size": config.batch_size,
        "lr": config.lr,
        "patience": config.patience,
        "precision": config.precision,
    }


def restored_config(params: Mapping[str, Any]) -> TrainConfig:
    """The settings of a stored training, all of :data:`REQUIRED` among its ``params``."""
    from sparsesc.nn import TrainConfig

    values = {name: params[name] for name in REQUIRED}
    values = {name: v.item() if isinstance(v, np.generic) else v for name, v in values.items()}
    optional = ("matryoshka_widths", "full_width_weight", "penalty", "patience")
    matryoshka_widths, full_width_weight, penalty, patience = (params.get(name) for name in optional)
    if matryoshka_widths is not None and full_width_weight is None:
        full_width_weight = 1 / len(matryoshka_widths)  # all there was, before it was stored
    return TrainConfig(
        **values,
        init=str(params.get("init", "random")),  # all there was, before it was stored
        matryoshka_widths=None if matryoshka_widths is None else tuple(int(p) for p in matryoshka_widths),
        full_width_weight=None if full_width_weight is None else float(full_width_weight),
        penalty=None if penalty is None else float(penalty),
        patience=None if patience is None else int(patience),
    )


def _checked_matryoshka_widths(
    matryoshka_widths: Sequence[int] | None, n_features: int, architecture: str
) -> tuple[int, ...] | None:
    if matryoshka_widths is None:
        return None
    if architecture != "matryoshka":
        msg = f"matryoshka_widths belong to architecture 'matryoshka', not to {architecture!r}."
        raise ValueError(msg)
    widths = tuple(check_positive_int(p, name="each of matryoshka_widths") for p in matryoshka_widths)
    if list(widths) != sorted(set(widths)) or not widths or widths[-1] != n_features:
        msg = f"matryoshka_widths must ascend and end with n_features={n_features}, found {list(widths)}."
        raise ValueError(msg)
    return widths


def _checked_full_width_weight(full_width_weight: float | None, architecture: str) -> float | None:
    full_width_weight = _checked_number("full_width_weight", full_width_weight)
    if full_width_weight is None:
        return None
    if architecture != "matryoshka":
        msg = f"full_width_weight belongs to architecture 'matryoshka', not to {architecture!r}."
        raise ValueError(msg)
    if not 0 < full_width_weight <= 1:
        msg = f"full_width_weight, a share of the loss, must be above 0 and at most 1, found {full_width_weight}."
        raise ValueError(msg)
    return full_width_weight


def _checked_number(name: str, value: float | None) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value < np.inf:
        msg = f"{name} must be a non-negative number, found {value!r}."
        raise ValueError(msg)
    return float(value)
