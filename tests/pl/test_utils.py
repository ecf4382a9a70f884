"""What all plots share: arguments, what they give back, and that they change nothing."""

from __future__ import annotations

import inspect

import joblib
import pytest
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import sparsesc as ssc
from sparsesc.pl import _utils

# How each plot is called at its simplest, and what it gives back with show=False.
PLOTS = {
    "training": ({}, list),
    "feature_umap": ({"features": ["sae_1", "sae_2"]}, list),
    "association": ({}, Axes),
    "genes": ({}, list),
    "enrichment": ({}, Axes),
    "feature_density": ({}, dict),
    "feature_card": ({"feature": "sae_1"}, dict),
}
ONE_PANEL = {
    "training": {"metrics": "l0"},
    "feature_umap": {"features": "sae_1"},
    "association": {},
    "genes": {"features": "sae_1"},
    "enrichment": {},
}


def call(name, adata, **kwargs):
    return getattr(ssc.pl, name)(adata, **PLOTS[name][0], **kwargs)


def fingerprint(adata) -> str:
    """Of every slot and everything in it."""
    slots = [dict(getattr(adata, slot)) for slot in ("uns", "obsm", "varm", "obsp", "layers")]
    return joblib.hash([adata.obs, adata.var, adata.X, adata.raw.X, *slots])


def test_all_public_plots_are_tested_here():
    assert set(PLOTS) <= set(ssc.pl.__all__)


@pytest.mark.parametrize("name", PLOTS)
def test_signature_has_the_arguments_of_scanpy(name):
    parameters = inspect.signature(getattr(ssc.pl, name)).parameters
    assert next(iter(parameters)) == "adata"
    assert parameters["key"].default == "sae"
    for argument in ("ax", "show", "save", "return_fig"):
        assert parameters[argument].kind is inspect.Parameter.KEYWORD_ONLY
        assert parameters[argument].default is None


@pytest.mark.parametrize("name", PLOTS)
def test_adata_stays_as_it_is(name, described):
    before = fingerprint(described)
    call(name, described, show=False)
    assert fingerprint(described) == before


def test_fingerprint_sees_a_change(described):
    before = fingerprint(described)
    described.uns["sae"]["genes"].loc[0, "score"] += 1e-6
    assert fingerprint(described) != before


@pytest.mark.parametrize("name", PLOTS)
def test_works_on_a_view_without_making_it_a_copy(name, described):
    view = described[:300]
    call(name, view, show=False)
    assert view.is_view


@pytest.mark.parametrize("name", PLOTS)
def test_what_is_given_back(name, described, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    drawn = call(name, described, show=False)
    assert isinstance(drawn, PLOTS[name][1])
    axes = drawn.values() if isinstance(drawn, dict) else drawn if isinstance(drawn, list) else [drawn]
    assert all(isinstance(ax, Axes) for ax in axes)
    assert isinstance(call(name, described, return_fig=True), Figure)
    assert not shown
    assert call(name, described, show=True) is None
    assert shown


@pytest.mark.parametrize("name", PLOTS)
def test_layout_leaves_no_text_outside_the_figure(name, described):
    fig = call(name, described, return_fig=True)
    fig.canvas.draw()
    box, frame = fig.get_tightbbox(), fig.get_size_inches()
    assert box.x0 > -0.05
    assert box.y0 > -0.05
    assert box.x1 < frame[0] + 0.05
    assert box.y1 < frame[1] + 0.05


@pytest.mark.parametrize("name", ONE_PANEL)
def test_draws_on_given_axes(name, described):
    fig, ax = plt.subplots(figsize=(8, 6))
    drawn = getattr(ssc.pl, name)(described, **ONE_PANEL[name], ax=ax, show=False)
    assert drawn is ax
    assert plt.get_fignums() == [fig.number]
    assert getattr(ssc.pl, name)(described, **ONE_PANEL[name], ax=ax, return_fig=True) is fig


@pytest.mark.parametrize("name", ["training", "feature_umap", "genes"])
def test_several_panels_need_more_than_one_axes(name, described):
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match=r"Cannot draw \d panels on one ax"):
        call(name, described, ax=ax)


@pytest.mark.parametrize("name", ["feature_density", "feature_card"])
@pytest.mark.parametrize("spec", [True, False])
def test_panels_take_the_place_of_given_axes(name, spec, described):
    fig = plt.figure(figsize=(16, 8))
    ax = fig.add_subplot(1, 2, 2) if spec else fig.add_axes((0.5, 0.1, 0.45, 0.8))
    place = ax.get_position()
    drawn = call(name, described, ax=ax, show=False)
    assert not ax.axison
    for panel in drawn.values():
        assert panel.figure is fig
        box = panel.get_position()
        assert place.x0 - 1e-6 <= box.x0 < box.x1 <= place.x1 + 1e-6
        assert place.y0 - 1e-6 <= box.y0 < box.y1 <= place.y1 + 1e-6


@pytest.mark.parametrize("name", PLOTS)
def test_suffix_saves_to_scanpys_folder(name, described):
    import scanpy as sc

    call(name, described, save="_mine.png", show=False)
    assert [p.name for p in sc.settings.figdir.iterdir()] == [f"{name}_mine.png"]
    assert not plt.get_fignums()


@pytest.mark.parametrize("name", PLOTS)
def test_path_is_taken_as_it_is(name, described, tmp_path):
    call(name, described, save=tmp_path / "new" / "figure.svg", show=False)
    assert (tmp_path / "new" / "figure.svg").stat().st_size > 1000


def test_saved_figure_can_still_be_given_back(described, tmp_path):
    fig = ssc.pl.association(described, save=tmp_path / "a.png", return_fig=True)
    assert plt.get_fignums() == [fig.number]


def test_figure_of_the_user_stays_open_when_saved(described, tmp_path):
    fig, ax = plt.subplots()
    ssc.pl.training(described, "fvu", ax=ax, save=tmp_path / "a.png", show=False)
    assert plt.get_fignums() == [fig.number]


def test_autosave_of_scanpy_is_obeyed(described):
    import scanpy as sc

    sc.settings.autosave = True
    try:
        ssc.pl.training(described, "fvu", show=False)
    finally:
        sc.settings.autosave = False
    assert (sc.settings.figdir / "training.pdf").exists()


@pytest.mark.parametrize(
    ("save", "expected"),
    [
        (None, None),
        (False, None),
        (True, "figures/plot.pdf"),
        ("_a", "figures/plot_a.pdf"),
        ("_a.png", "figures/plot_a.png"),
        ("_v1.2", "figures/plot_v1.2.pdf"),
        (".svg", "figures/plot.svg"),
        ("here/a.png", "here/a.png"),
        ("here/a", "here/a.pdf"),
        ("here/v1.2", "here/v1.2.pdf"),
    ],
)
def test_where_a_figure_goes(save, expected):
    import scanpy as sc

    sc.settings.figdir = "figures"
    path = _utils.save_path("plot", save)
    assert (None if path is None else path.as_posix()) == expected


def test_path_object_without_folder_is_a_path(tmp_path):
    from pathlib import Path

    assert _utils.save_path("plot", Path("a.png")) == Path("a.png")


def test_save_of_another_type_is_refused():
    with pytest.raises(TypeError, match="save must be a bool, a suffix, or a path, found int"):
        _utils.save_path("plot", 3)


@pytest.mark.parametrize("name", PLOTS)
def test_missing_code_is_named(name, pbmc68k):
    with pytest.raises(KeyError, match=r"No sparse autoencoder under key='sae'.*Run ssc.tl.fit_sae first"):
        call(name, pbmc68k)


@pytest.mark.parametrize(
    ("name", "table", "writer"),
    [
        ("training", "history", "fit_sae"),
        ("association", "association", "feature_association"),
        ("genes", "genes", "feature_genes"),
        ("enrichment", "enrichment", "feature_enrichment"),
    ],
)
def test_missing_table_names_the_function_to_run(name, table, writer, described):
    del described.uns["sae"][table]
    with pytest.raises(KeyError, match=rf"\['{table}'\].*Run ssc.tl.{writer} first"):
        call(name, described)


@pytest.mark.parametrize("name", ["feature_umap", "genes", "enrichment", "association"])
def test_unknown_feature_lists_the_closest(name, described):
    with pytest.raises(KeyError, match=r"Did not find feature 'sae_1O'.*Closest:.*'sae_1'"):
        getattr(ssc.pl, name)(described, features="sae_1O")


def test_features_by_position(described):
    ax = ssc.pl.feature_umap(described, 7, show=False)
    assert ax.get_title() == "sae_7"
    with pytest.raises(KeyError, match="Feature 64 of 'sae' is out of range: there are 64"):
        ssc.pl.feature_umap(described, 64)
    with pytest.raises(TypeError, match=r"found float: 1\.5"):
        ssc.pl.feature_umap(described, [1.5])
    with pytest.raises(ValueError, match="No features given"):
        ssc.pl.feature_umap(described, [])


def test_another_key(described):
    described.uns["fine"] = described.uns.pop("sae")
    described.obsm["X_fine"] = described.obsm.pop("X_sae")
    assert ssc.pl.feature_umap(described, "sae_1", key="fine", show=False).get_title() == "sae_1"
    assert isinstance(ssc.pl.association(described, key="fine", show=False), Axes)
    with pytest.raises(KeyError, match=r"Fitted here: 'fine'"):
        ssc.pl.association(described)


def test_tables_survive_a_file(described, tmp_path):
    import anndata as ad

    described.write_h5ad(tmp_path / "a.h5ad")
    read = ad.read_h5ad(tmp_path / "a.h5ad")
    for name in PLOTS:
        call(name, read, show=False)


def test_users_text_size_scales_figures(described):
    small = ssc.pl.association(described, return_fig=True).get_size_inches()
    with plt.rc_context({"font.size": 20}):
        large = ssc.pl.association(described, return_fig=True).get_size_inches()
    assert large == pytest.approx(2 * small)


def test_mudata_with_a_joint_code(described):
    from mudata import MuData

    joint = MuData({"rna": described.copy()})
    joint.obsm["X_sae"], joint.obsm["X_umap"] = described.obsm["X_sae"], described.obsm["X_umap"]
    joint.uns["sae"] = described.uns["sae"]
    joint.obs["bulk_labels"] = described.obs["bulk_labels"]
    for name in PLOTS:
        call(name, joint, show=False)
