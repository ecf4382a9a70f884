from __future__ import annotations

import numpy as np
import pytest

import sparsesc as ssc


def curves(ax):
    return {line.get_label(): line for line in ax.lines}


def test_curves_are_the_columns_of_the_history(described):
    history = described.uns["sae"]["history"]
    fvu, l0, dead, lr = ssc.pl.training(described, show=False)
    for label, column in {"training": "train_fvu", "validation": "validation_fvu"}.items():
        x, y = curves(fvu)[label].get_data()
        np.testing.assert_array_equal(x, history["epoch"])
        np.testing.assert_array_equal(y, history[column])
    for ax, column in ((l0, "l0"), (dead, "dead_fraction"), (lr, "lr")):
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), history[column])


def test_the_kept_epoch_is_marked(described):
    ax = ssc.pl.training(described, "fvu", show=False)
    history = described.uns["sae"]["history"]
    kept = curves(ax)[f"kept: {history['validation_fvu'][17]:.3f}"]
    assert kept.get_data() == ([17], [history["validation_fvu"][17]])


def test_without_validation_only_the_training_curve(described):
    described.uns["sae"]["history"]["validation_fvu"] = np.nan
    ax = ssc.pl.training(described, "fvu", show=False)
    assert set(curves(ax)) == {"training", f"kept: {described.uns['sae']['history']['train_fvu'][17]:.3f}"}


def test_target_of_l0_is_drawn(described):
    ax = ssc.pl.training(described, "l0", show=False)
    assert [t.get_text() for t in ax.texts] == ["k = 8"]
    assert list(ax.lines[1].get_ydata()) == [8.0, 8.0]
    described.uns["sae"]["params"]["k"] = None
    assert len(ssc.pl.training(described, "l0", show=False).lines) == 1


def test_steep_curves_are_on_a_log_scale(described):
    assert ssc.pl.training(described, "fvu", show=False).get_yscale() == "log"
    described.uns["sae"]["history"][["train_fvu", "validation_fvu"]] += 1
    assert ssc.pl.training(described, "fvu", show=False).get_yscale() == "linear"


def test_one_epoch_is_seen(described):
    described.uns["sae"]["history"] = described.uns["sae"]["history"].head(1)
    ax = ssc.pl.training(described, "lr", show=False)
    assert ax.lines[0].get_marker() == "o"


def test_no_dead_features_is_drawn_at_0(described):
    described.uns["sae"]["history"]["dead_fraction"] = 0.0
    ax = ssc.pl.training(described, "dead_fraction", show=False)
    assert ax.get_ylim()[0] == 0
    assert not ax.lines[0].get_clip_on()


def test_unknown_metric(described):
    with pytest.raises(ValueError, match=r"Unknown metric: 'loss'. Choose one of 'fvu', 'l0'"):
        ssc.pl.training(described, ["fvu", "loss"])
