"""Settings of a training are spelled once: signatures, docstrings, storage and checks follow from one dataclass."""

from __future__ import annotations

import ast
import inspect
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest

import sparsesc as ssc
from sparsesc._train_config import ARCHITECTURE_NAMES, OBJECTIVES, TrainConfig, option_docs, public_options
from sparsesc.nn import ARCHITECTURES

TRAINS = {"fit_sae": "use_rep", "sweep": "use_rep", "fit_crosscoder": "use_reps"}
ROOT = Path(ssc.__file__).parent


@pytest.mark.parametrize(("name", "after"), TRAINS.items())
def test_all_functions_that_train_take_the_same_options(name, after):
    parameters = inspect.signature(getattr(ssc.tl, name)).parameters
    names = list(parameters)
    options = public_options()
    first = names.index(after) + 1
    assert names[first : first + len(options)] == list(options)
    for option, field in options.items():
        assert parameters[option].default == field.default
        assert parameters[option].kind is inspect.Parameter.KEYWORD_ONLY


def test_every_setting_is_documented_below_itself_and_in_the_fit():
    docs, text = option_docs(), inspect.getdoc(ssc.tl.fit_sae)
    assert set(docs) == {field.name for field in fields(TrainConfig)}
    for name in public_options():
        assert len(docs[name]) > 20
        assert docs[name].splitlines()[0] in text


@pytest.mark.parametrize("name", TRAINS)
def test_no_function_spells_a_training_option_again(name):
    """What the source of a function names itself, not what the decorator adds."""
    tree = ast.parse((ROOT / "tl" / "fit" / f"_{name}.py").read_text())
    function = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == name)
    spelled = {arg.arg for arg in [*function.args.args, *function.args.kwonlyargs]}
    assert not spelled & set(public_options())


@pytest.mark.parametrize("name", TRAINS)
def test_an_unknown_option_is_refused_with_the_closest_ones(name, pbmc68k):
    reps = {"use_reps": ["X_pca", "X_umap"]} if name == "fit_crosscoder" else {"use_rep": "X_pca"}
    with pytest.raises(TypeError, match=r"Unknown option 'n_feature'. Did you mean 'n_features'"):
        getattr(ssc.tl, name)(pbmc68k, n_feature=3, **reps)
    with pytest.raises(TypeError, match="Unknown option 'aux_weight'"):
        getattr(ssc.tl, name)(pbmc68k, aux_weight=3, **reps)


@pytest.mark.parametrize("architecture", ARCHITECTURE_NAMES)
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_stored_settings_are_the_settings(architecture, objective):
    config = TrainConfig(architecture=architecture, objective=objective).complete(1000, 50)
    again = TrainConfig.restored(config.stored())
    assert again == config
    assert again.complete(1000, 50) == config
    assert all(value is not None for value in config.stored().values())
    assert [name for name, value in asdict(config).items() if value is None] in (
        ["penalty"],
        ["matryoshka_widths", "full_width_weight", "penalty"],
    )


def test_architectures_are_those_of_nn():
    assert sorted(ARCHITECTURE_NAMES) == sorted(ARCHITECTURES)


@pytest.mark.parametrize(
    ("architecture", "d", "F", "measured"),
    [  # the settings behind the table of benchmarks/train
        ("topk", 10, 512, {"noise": 0.3, "tie_strength": 15, "lr": 8e-4, "resample_dead": False}),
        ("topk", 32, 1024, {"noise": 0.1, "tie_strength": 15, "lr": 1.5e-3, "resample_dead": False}),
        ("topk", 512, 4096, {"noise": 0.3, "tie_strength": 15, "lr": 4e-3, "resample_dead": False}),
        ("topk", 512, 8192, {"noise": 0.3, "tie_strength": 15, "lr": 4e-3, "resample_dead": False}),
        ("batchtopk", 10, 512, {"noise": 0.0, "tie_strength": 0, "lr": 4e-3, "resample_dead": True}),
        ("batchtopk", 32, 1024, {"noise": 0.0, "tie_strength": 0, "lr": 4e-3, "resample_dead": True}),
        ("batchtopk", 512, 4096, {"noise": 0.3, "tie_strength": 15, "lr": 4e-3, "resample_dead": False}),
    ],
)
def test_one_word_gives_the_settings_for_reconstruction(architecture, d, F, measured):
    config = TrainConfig(architecture=architecture, n_features=F, k=8, objective="reconstruction").complete(20_000, d)
    assert {name: getattr(config, name) for name in measured} == pytest.approx(measured)
    assert config.init == "random"


def test_each_default_of_an_objective_can_be_overridden():
    config = TrainConfig(objective="reconstruction", noise=0.7, lr=1e-3, init="kmeans").complete(5000, 50)
    assert (config.noise, config.lr, config.init, config.tie_strength) == (0.7, 1e-3, "kmeans", 0)
    concepts = TrainConfig().complete(5000, 50)
    assert (concepts.noise, concepts.tie_strength, concepts.init, concepts.resample_dead) == (0.6, 15, "kmeans", False)
    np.testing.assert_allclose(concepts.width_weights(), [1 / 12] * 4 + [2 / 3])


def test_reconstruction_has_the_lower_error(pbmc68k):
    options = {"use_rep": "X_pca", "n_features": 128, "k": 16, "progress_bar": False}
    ssc.tl.fit_sae(pbmc68k, **options)
    ssc.tl.fit_sae(pbmc68k, objective="reconstruction", key_added="close", **options)
    fvu = {key: pbmc68k.uns[key]["metrics"]["fvu"] for key in ("sae", "close")}
    assert fvu["close"] < 0.9 * fvu["sae"]
    assert pbmc68k.uns["close"]["params"]["objective"] == "reconstruction"
