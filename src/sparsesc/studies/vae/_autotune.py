"""Search for an architecture with scvi-tools, on the training cells alone."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from ._inputs import Scale
from ._runs import DEFAULT_SHAPE, as_cells, model_options, plan_options, quiet, register

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ._runs import Setting, Split

_METRIC = "elbo_validation"


def check_autotune() -> None:
    """Refuse if ray is not installed.

    Raises
    ------
    ImportError
        If a package is missing.
    """
    missing = [name for name in ("ray", "hyperopt") if find_spec(name) is None]
    if missing:
        msg = (
            f"search='autotune' needs packages that are not installed ({', '.join(missing)}): "
            "pip install 'scvi-tools[autotune]'. Or search='grid', which trains every architecture."
        )
        raise ImportError(msg)


def search_values(architectures: Mapping[str, Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Every option of the architectures, with all its values in any of them, smallest first."""
    space = {}
    for name in dict.fromkeys(name for options in architectures.values() for name in options):
        values = {options.get(name, DEFAULT_SHAPE.get(name)) for options in architectures.values()} - {None}
        space[name] = sorted(values, key=lambda value: (str(type(value)), value))
    return space


def tuned_options(
    split: Split, setting: Setting, values: Mapping[str, list[Any]], *, n_trials: int, folder: str | None
) -> dict[str, Any]:
    """The options with the best ELBO on a tenth of the training cells; held-out donors are not used."""
    from ray import tune
    from scvi.autotune import run_autotune
    from scvi.model import SCVI

    cells = as_cells(split.train, Scale.fit(setting.preprocessing, split.train.counts, split.train.totals))
    varied = {name: tune.choice(list(options)) for name, options in values.items()}
    with quiet():
        register(cells)
        experiment = run_autotune(
            SCVI,
            cells,
            metrics=_METRIC,
            mode="min",
            search_space={
                "model_params": model_options(setting) | varied,
                "train_params": {"max_epochs": setting.max_epochs, "plan_kwargs": plan_options(setting)},
            },
            num_samples=n_trials,
            seed=setting.seed,
            logging_dir=folder,
            ignore_reinit_error=True,
        )
    best = experiment.result_grid.get_best_result(metric=_METRIC, mode="min").config["model_params"]
    return {name: best[name] for name in values}
