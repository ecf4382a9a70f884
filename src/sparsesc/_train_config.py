"""The settings of a training: the one source of their names, defaults, checks, storage and documentation.

Functions that train (``tl.fit_sae``, ``tl.sweep``, ``tl.fit_crosscoder``) take every public option from here.
"""

from __future__ import annotations

import ast
import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import Field, asdict, dataclass, field, fields, replace
from functools import cache
from itertools import pairwise
from typing import Any, Literal, get_type_hints

import numpy as np

from ._values import check_choice, check_positive_int, listing

ARCHITECTURE_NAMES = ("matryoshka", "batchtopk", "topk", "relu", "jumprelu", "gated", "archetypal")
OBJECTIVES = ("concepts", "reconstruction")
INITS = ("kmeans", "random")
PRECISIONS = ("auto", "float32", "bfloat16")
MIN_BATCH, MAX_BATCH = 32, 4096
MIN_CELLS = 20
_FEW_DIMENSIONS = 20  # as the latents of models have; measured at 10, against 50 and 100
_NARROW = 64  # dimensions up to which codes with one threshold reconstruct best without noise and ties

_MAY_BE_NONE = ("matryoshka_widths", "full_width_weight", "penalty", "patience")  # in complete settings

type Check = Callable[[str, Any], Any]


def _one_of(choices: Sequence[str], *, or_none: bool = False) -> Check:
    def check(name: str, value: Any) -> Any:
        if value is not None or not or_none:
            check_choice(value, choices, name=name)
        return value

    return check


def _whole(name: str, value: Any) -> int | None:
    return None if value in (None, "auto") else check_positive_int(value, name=name)


def _number(name: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | np.number) or not 0 <= value < np.inf:
        msg = f"{name} must be a non-negative number, found {value!r}."
        raise ValueError(msg)
    return float(value)


def _share_of_loss(name: str, value: Any) -> float | None:
    value = _number(name, value)
    if value is not None and not 0 < value <= 1:
        msg = f"{name}, a share of the loss, must be above 0 and at most 1, found {value}."
        raise ValueError(msg)
    return value


def _yes_or_no(name: str, value: Any) -> bool | None:
    return None if value is None else bool(value)


def _widths(name: str, value: Any) -> tuple[int, ...] | None:
    if value is None:
        return None
    widths = tuple(check_positive_int(width, name=f"each of {name}") for width in value)
    if list(widths) != sorted(set(widths)) or not widths:
        msg = f"{name} must ascend, found {list(widths)}."
        raise ValueError(msg)
    return widths


def _option(default: Any, check: Check, *, auto: bool = False, public: bool = True) -> Any:
    """A setting; its annotation is the type that it has in complete settings."""
    return field(default=default, metadata={"check": check, "auto": auto, "public": public})


@dataclass(frozen=True)
class TrainConfig:
    """Settings of a training; what is ``None`` follows from the objective and from the size of the data.

    Raises
    ------
    ValueError
        If a setting is out of its range.

    See Also
    --------
    sparsesc.nn.train : Train with these settings.
    sparsesc.tl.fit_sae : The same settings as options.

    Examples
    --------
    >>> import sparsesc as ssc
    >>> config = ssc.nn.TrainConfig(architecture="topk", k=8).complete(n_cells=5000, n_dimensions=50)
    >>> config.n_features, config.batch_size
    (128, 312)
    """

    architecture: str = _option("matryoshka", _one_of(ARCHITECTURE_NAMES))
    """``"matryoshka"`` (nested dictionaries over BatchTopK), ``"batchtopk"``, ``"topk"``, ``"relu"`` (L1),
    ``"jumprelu"``, ``"gated"`` or ``"archetypal"`` (features stay near mixtures of k-means centers of the cells, so
    they hardly depend on `rng`). The default matched labels best in our comparison: its first features have to
    describe the cells alone, so broad cell types are not split among narrow features."""
    objective: Literal["concepts", "reconstruction"] = _option("concepts", _one_of(OBJECTIVES))
    """What the defaults of `init`, `noise`, `tie_strength`, `resample_dead`, `full_width_weight` and `lr` are chosen
    for: ``"concepts"``, features that stand for something in cells that training did not see, or
    ``"reconstruction"``, the smallest error at a given sparsity. Each of them can still be set by itself."""
    n_features: int = _option(None, _whole, auto=True)
    """Width F. Default, also ``"auto"``: the power of two nearest to 3 d, at least 64 and at most a quarter of the
    cells."""
    k: int = _option(None, _whole, auto=True)
    """Active features per cell: exactly for ``"topk"``, on average for all others. Default, also ``"auto"``: d / 3,
    between 8 and 32, at most F / 4."""
    matryoshka_widths: Sequence[int] | None = _option(None, _widths)
    """Widths of the nested dictionaries of ``"matryoshka"``, ascending; the last one is `n_features`. Default: F/16,
    F/8, F/4, F/2, F; for embeddings of at most 20 dimensions F/4, F/2, F."""
    full_width_weight: float | None = _option(None, _share_of_loss)
    """Share of the loss of ``"matryoshka"`` that belongs to the full dictionary; the narrower widths share the rest
    equally. Default: 2/3; for embeddings of at most 20 dimensions the same share for all; 1 for reconstruction. The
    smaller it is, the broader are the first features and the fewer are the fine ones."""
    init: Literal["kmeans", "random"] = _option(None, _one_of(INITS, or_none=True))
    """Where features start: ``"kmeans"`` (default), at the centers of groups of cells (as many as features; for
    ``"matryoshka"`` few and large groups first), which the cells alone determine; or ``"random"`` (for
    reconstruction), at directions drawn by `rng`. Fits that start at centers are much alike for any `rng`, which is
    no evidence that other cells would give the same. ``"archetypal"`` codes always start at centers."""
    penalty: float | None = _option(None, _number)
    """Fixed sparsity penalty of ``"relu"`` and ``"gated"``; by default it is adapted until the code has `k` active
    features per cell."""
    noise: float = _option(None, _number)
    """Standard deviation of the noise that is added to the input of the encoder in training, in units of the overall
    standard deviation of the embedding. Default: 0.6; for reconstruction 0 to 0.3. With 0 the given cells are fitted
    more closely, and unseen cells and labels less well. In our study ``noise=1, tie_strength=5`` gave the features
    that matched labels best and were recovered most often, and left twice as much of a latent unexplained."""
    tie_strength: float = _option(None, _number)
    """Pull of the encoder of a feature toward its decoder row, times F / n. Default: 15; for reconstruction 0 where
    features are resampled. It keeps features alive, and keeps them from memorizing cells; with 0 they specialize and
    die."""
    resample_dead: bool = _option(None, _yes_or_no)
    """Give features that are active in no cell to the cells that are reconstructed worst (``"batchtopk"`` and
    ``"matryoshka"``). Default: no; for reconstruction yes, in embeddings of at most 64 dimensions. Such features
    describe few cells and change from seed to seed."""
    whiten: bool = _option(False, _yes_or_no)
    """Give all directions of the embedding equal variance first."""
    max_steps: int = _option(None, _whole)
    """Optimizer steps. Default: 2,000, or 10 passes over the cells if that is more."""
    batch_size: int = _option(None, _whole)
    """Cells per step. Default: a sixteenth of the cells, between 32 and 4,096."""
    lr: float = _option(None, _number)
    """Peak learning rate. Default: 2e-4 sqrt(2^14 / F), at most 2e-3; for reconstruction up to 4e-3."""
    patience: int | None = _option(50, _whole)
    """Epochs without improvement on held-out cells before training winds down early; ``None`` never does."""
    precision: Literal["auto", "float32", "bfloat16"] = _option("auto", _one_of(PRECISIONS))
    """Of the encoder product in training on the CPU: ``"float32"``, ``"bfloat16"``, or ``"auto"``, which takes half
    precision for more than 64 dimensions where the processor has instructions for it (held-out FVU was the same to
    0.6 %, in either direction). Parameters are always float32."""
    aux_weight: float = _option(1 / 32, _number, public=False)
    """Weight of the auxiliary loss, with which dead features learn from the residual (AuxK)."""
    k_aux: int | None = _option(None, _whole, public=False)
    """Dead features that the auxiliary loss uses in each cell. Default: the larger of d / 2 and 2 k."""
    clip: float = _option(1.0, _number, public=False)
    """Largest norm of the gradient."""
    warmup: float = _option(0.05, _number, public=False)
    """Share of the steps in which the learning rate rises."""
    decay: float = _option(0.2, _number, public=False)
    """Share of the steps in which the learning rate falls to zero."""

    def __post_init__(self) -> None:
        for option in fields(self):
            value = option.metadata["check"](option.name, getattr(self, option.name))
            object.__setattr__(self, option.name, value)
        if self.architecture != "matryoshka":
            for name in ("matryoshka_widths", "full_width_weight"):
                if getattr(self, name) is not None:
                    msg = f"{name} belongs to architecture 'matryoshka', not to {self.architecture!r}."
                    raise ValueError(msg)

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> TrainConfig:
        """Settings from the options of a call.

        Raises
        ------
        TypeError
            If there is no such option (names the closest).
        """
        public = list(public_options())
        for name in options:
            if name not in public:
                close = difflib.get_close_matches(name, public, n=3)
                hint = f"Did you mean {listing(close)}?" if close else f"There are {listing(public)}."
                msg = f"Unknown option {name!r}. {hint}"
                raise TypeError(msg)
        return cls(**options)

    @classmethod
    def restored(cls, params: Mapping[str, Any]) -> TrainConfig:
        """The settings that :meth:`stored` gave, from among other parameters of a fit.

        Raises
        ------
        KeyError
            If some that every training has are missing.
        """
        missing = [option.name for option in fields(cls) if option.name not in {*params, *_MAY_BE_NONE}]
        if missing:
            raise KeyError(*missing)
        values: dict[str, Any] = {option.name: params.get(option.name) for option in fields(cls)}
        values = {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}
        return cls(**values)

    def stored(self) -> dict[str, Any]:
        """All settings as a file can hold them: without what is ``None``, widths as an array."""
        values = {name: value for name, value in asdict(self).items() if value is not None}
        if "matryoshka_widths" in values:
            values["matryoshka_widths"] = np.array(values["matryoshka_widths"])
        return values

    def sized(self, n_cells: int, n_dimensions: int) -> TrainConfig:
        """The same settings with width and sparsity chosen for an embedding, checked against it.

        Raises
        ------
        ValueError
            If the embedding is too small, or the settings do not fit together or to it.
        """
        if n_cells < MIN_CELLS or n_dimensions == 0:
            msg = (
                f"Too small to learn from: {n_cells} cells x {n_dimensions} dimensions. At least {MIN_CELLS} cells are "
                "needed."
            )
            raise ValueError(msg)
        config = self._with_shape(n_cells, n_dimensions)
        F, k, widths = config.n_features, config.k, config.matryoshka_widths
        if n_cells < F:
            msg = f"n_features={F} is more than the number of cells ({n_cells}): use fewer features, or more cells."
            raise ValueError(msg)
        if k > F:
            msg = f"k={k} active features per cell cannot come out of n_features={F}. Lower k or raise n_features."
            raise ValueError(msg)
        if widths and widths[-1] != F:
            msg = f"matryoshka_widths must ascend and end with n_features={F}, found {list(widths)}."
            raise ValueError(msg)
        return config

    def complete(self, n_cells: int, n_dimensions: int) -> TrainConfig:
        """The same settings with every ``None`` replaced that has a default, for training cells of this shape."""
        config = self._with_shape(n_cells, n_dimensions)
        F, k = config.n_features, config.k
        batch = min(self.batch_size or int(np.clip(n_cells // 16, MIN_BATCH, MAX_BATCH)), n_cells)
        by_objective = objective_defaults(self.objective, self.architecture, F, n_dimensions)
        chosen = {name: value for name, value in by_objective.items() if getattr(self, name) is None}
        if self.architecture == "matryoshka":
            widths = self.matryoshka_widths or default_matryoshka_widths(F, n_dimensions)
            weight = self.full_width_weight or by_objective["full_width_weight"]
            weight = weight or default_full_width_weight(len(widths), n_dimensions)
            chosen |= {"matryoshka_widths": widths, "full_width_weight": weight if len(widths) > 1 else 1.0}
        else:
            chosen.pop("full_width_weight")
        return replace(
            config,
            **chosen,
            batch_size=batch,
            max_steps=self.max_steps or default_steps(n_cells, batch),
            k_aux=self.k_aux or max(n_dimensions // 2, 2 * k),
        )

    def _with_shape(self, n_cells: int, n_dimensions: int) -> TrainConfig:
        F = self.n_features or default_n_features(n_cells, n_dimensions)
        return replace(self, n_features=F, k=self.k or default_k(n_dimensions, F))

    @property
    def nested_widths(self) -> tuple[int, ...]:
        """Widths of the nested dictionaries, of settings that are complete: one, but for ``"matryoshka"``."""
        return tuple(self.matryoshka_widths or (self.n_features,))

    def width_weights(self) -> np.ndarray:
        """(P,) share of the loss of each of `nested_widths`, of settings that are complete; the sum is 1."""
        weights = np.ones(len(self.nested_widths))
        if len(weights) > 1:
            weights[-1] = self.full_width_weight
            weights[:-1] = (1 - weights[-1]) / (len(weights) - 1)
        return weights


@cache
def public_options() -> dict[str, Field[Any]]:
    """Options that functions take, by name, in the order of :class:`TrainConfig`."""
    return {option.name: option for option in fields(TrainConfig) if option.metadata["public"]}


def option_types() -> dict[str, Any]:
    """What each public option may be given as."""
    hints = get_type_hints(TrainConfig)
    types = {}
    for name, option in public_options().items():
        types[name] = hints[name] | Literal["auto"] if option.metadata["auto"] else hints[name]
        if option.default is None:
            types[name] |= None
    return types


@cache
def option_docs() -> dict[str, str]:
    """What each setting means: the text below it in :class:`TrainConfig`."""
    body = ast.parse(inspect.getsource(TrainConfig)).body[0].body  # type: ignore[attr-defined]
    docs: dict[str, str] = {}
    for statement, below in pairwise(body):
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            docs[statement.target.id] = inspect.cleandoc(below.value.value)
    return docs


def objective_defaults(objective: str, architecture: str, n_features: int, n_dimensions: int) -> dict[str, Any]:
    """Defaults that depend on what a code is for, as measured in ``benchmarks/defaults`` and ``benchmarks/train``."""
    concepts = {
        "init": "kmeans",
        "noise": 0.6,
        "tie_strength": 15.0,
        "resample_dead": False,
        "full_width_weight": None,
        "lr": default_lr(n_features),
    }
    if objective == "concepts":
        return concepts
    by_batch = architecture in ("matryoshka", "batchtopk", "archetypal")
    if by_batch and n_dimensions <= _NARROW:
        changed = {"noise": 0.0, "tie_strength": 0.0, "resample_dead": architecture != "archetypal", "lr": 4e-3}
    elif by_batch:
        changed = {"noise": 0.3, "lr": 4e-3}
    elif architecture == "topk":
        lr = float(np.interp(np.log2(n_features), (9, 10, 12), (8e-4, 1.5e-3, 4e-3)))
        changed = {"noise": 0.1 if _FEW_DIMENSIONS < n_dimensions <= _NARROW else 0.3, "lr": lr}
    else:
        changed = {"noise": 0.3}
    return concepts | {"init": "random", "full_width_weight": 1.0} | changed


def default_n_features(n_cells: int, n_dimensions: int) -> int:
    """The power of two nearest to three features a dimension, at least 64, at most one for four cells."""
    width = max(64, 2 ** round(np.log2(3 * n_dimensions)))
    return int(max(1, min(width, n_cells // 4)))


def default_k(n_dimensions: int, n_features: int) -> int:
    """One active feature for three dimensions, between 8 and 32; in narrow dictionaries at most one in four."""
    k = np.clip(round(n_dimensions / 3), 8, 32)
    return int(max(1, min(k, n_features // 4)))


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
