from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib import colors
from matplotlib import pyplot as plt
from scipy import sparse

import sparsesc as ssc
from sparsesc.pl import _feature_umap, _style


def activation(adata, feature):
    return adata.obsm["X_sae"][:, adata.uns["sae"]["features"].index.get_loc(feature)].toarray().ravel()


def test_active_cells_lie_on_silent_ones_the_strongest_last(described):
    ax = ssc.pl.feature_umap(described, "sae_5", show=False)
    below, above = ax.collections
    values, coords = activation(described, "sae_5"), described.obsm["X_umap"]
    order = np.argsort(values, kind="stable")[(values == 0).sum() :]
    np.testing.assert_array_equal(below.get_offsets(), coords[values == 0])
    np.testing.assert_array_equal(above.get_offsets(), coords[order])
    np.testing.assert_array_equal(above.get_array(), values[order])
    assert below.get_zorder() < above.get_zorder()
    assert colors.to_hex(below.get_facecolor()[0]) == _style.SILENT


def test_colors_follow_the_codes_from_0_to_the_percentile_of_active_cells(described):
    ax = ssc.pl.feature_umap(described, "sae_5", vmax="p90", show=False)
    values = activation(described, "sae_5")
    above = ax.collections[1]
    assert above.norm.vmin == 0
    assert above.norm.vmax == pytest.approx(np.percentile(values[values > 0], 90))
    ax.figure.canvas.draw()
    shown = above.get_facecolor()
    expected = above.cmap(np.clip(above.get_array() / above.norm.vmax, 0, 1))
    np.testing.assert_allclose(shown, expected, atol=1 / 255)


@pytest.mark.parametrize(("vmax", "expected"), [(None, "max"), (2.5, 2.5), (3, 3), ("p50", "median")])
def test_upper_end_of_the_scale(described, vmax, expected):
    values = activation(described, "sae_5")
    values = values[values > 0]
    expected = {"max": values.max(), "median": np.median(values)}.get(expected, expected)
    assert ssc.pl.feature_umap(described, "sae_5", vmax=vmax, show=False).collections[1].norm.vmax == pytest.approx(
        expected
    )


def test_one_bound_for_each_feature(described):
    axes = ssc.pl.feature_umap(described, ["sae_1", "sae_2"], vmax=[1.5, 2.5], show=False)
    assert [ax.collections[1].norm.vmax for ax in axes] == [1.5, 2.5]


@pytest.mark.parametrize("vmax", ["99", "p101", "pxx", "p", -1, 0, np.nan])
def test_bounds_that_make_no_sense(described, vmax):
    with pytest.raises(ValueError, match="vmax must be a positive number, a percentile such as 'p99', or None"):
        ssc.pl.feature_umap(described, "sae_1", vmax=vmax)


def test_wrong_number_of_bounds_or_titles(described):
    with pytest.raises(ValueError, match="one for each of the 2 features, found 3"):
        ssc.pl.feature_umap(described, ["sae_1", "sae_2"], vmax=[1, 2, 3])
    with pytest.raises(ValueError, match="title must give one text for each of the 2 features, found 1"):
        ssc.pl.feature_umap(described, ["sae_1", "sae_2"], title="one")


def test_weak_activation_differs_from_silence():
    """In gray print too: the palest active color is darker than silent gray."""

    def luminance(color):
        return np.dot(colors.to_rgb(color), [0.2126, 0.7152, 0.0722])

    ramp = _style.activation_cmap()(np.linspace(0, 1, 32))[:, :3]
    lightness = [luminance(c) for c in ramp]
    assert lightness[0] < luminance(_style.SILENT) - 0.05
    assert (np.diff(lightness) < 0).all()  # monotone: legible without any color vision


def test_dead_feature_says_so(described):
    ax = ssc.pl.feature_umap(described, "sae_63", show=False)
    assert len(ax.collections[0].get_offsets()) == described.n_obs
    assert [t.get_text() for t in ax.texts] == ["no active cells"]
    assert len(ax.figure.axes) == 1  # no color bar


def test_a_code_active_in_every_cell(described):
    codes = described.obsm["X_sae"].tolil()
    codes[:, 3] = 2.0
    described.obsm["X_sae"] = codes.tocsr()
    below, above = ssc.pl.feature_umap(described, "sae_3", show=False).collections
    assert len(below.get_offsets()) == 0
    assert above.norm.vmax == 2.0


def test_title_is_name_and_label(described):
    table = described.uns["sae"]["features"]
    table["label"] = ""
    table.loc["sae_2", "label"] = "NK cells"
    axes = ssc.pl.feature_umap(described, ["sae_1", "sae_2"], show=False)
    assert [ax.get_title() for ax in axes] == ["sae_1", "sae_2 · NK cells"]
    axes = ssc.pl.feature_umap(described, ["sae_1", "sae_2"], title=["a", "b"], show=False)
    assert [ax.get_title() for ax in axes] == ["a", "b"]


@pytest.mark.parametrize("basis", ["umap", "X_umap"])
def test_basis_with_and_without_prefix(described, basis):
    ax = ssc.pl.feature_umap(described, "sae_1", basis=basis, show=False)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("UMAP1", "UMAP2")


def test_other_bases_and_dimensions(described):
    ax = ssc.pl.feature_umap(described, "sae_1", basis="pca", dimensions=(2, 1), show=False)
    values = activation(described, "sae_1")
    np.testing.assert_array_equal(ax.collections[0].get_offsets(), described.obsm["X_pca"][values == 0][:, [2, 1]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("PC3", "PC2")


@pytest.mark.parametrize("kind", ["frame", "sparse"])
def test_basis_of_any_kind(described, kind):
    coords = described.obsm["X_umap"]
    stored = {
        "frame": pd.DataFrame(coords, index=described.obs_names, columns=["a", "b"]),
        "sparse": sparse.csr_matrix(coords),
    }
    described.obsm["spatial"] = stored[kind]
    ax = ssc.pl.feature_umap(described, "sae_1", basis="spatial", show=False)
    np.testing.assert_allclose(ax.collections[0].get_offsets(), coords[activation(described, "sae_1") == 0])


def test_cells_without_coordinates_are_left_out(described):
    described.obsm["X_umap"][:100] = np.nan
    below, above = ssc.pl.feature_umap(described, "sae_1", show=False).collections
    assert len(below.get_offsets()) + len(above.get_offsets()) == described.n_obs - 100


def test_missing_basis_lists_what_there_is(described):
    with pytest.raises(KeyError, match=r"obsm\['X_tsne'\]. Available: .*'X_umap'.*sc.tl.umap"):
        ssc.pl.feature_umap(described, "sae_1", basis="X_tsne")


def test_basis_of_a_bad_shape(described):
    described.obsm["X_line"] = np.zeros((described.n_obs, 1))
    with pytest.raises(ValueError, match=r"obsm\['X_line'\] must be cells x 2 .* found shape \(700, 1\)"):
        ssc.pl.feature_umap(described, "sae_1", basis="line")
    with pytest.raises(ValueError, match=r"dimensions=\(0, 2\) are out of range"):
        ssc.pl.feature_umap(described, "sae_1", dimensions=(0, 2))


def test_panels_are_laid_out_by_rows(described):
    axes = ssc.pl.feature_umap(described, [f"sae_{i}" for i in range(5)], ncols=2, show=False)
    assert axes[0].get_subplotspec().get_gridspec().get_geometry() == (3, 2)
    with pytest.raises(ValueError, match="ncols must be a whole number"):
        ssc.pl.feature_umap(described, "sae_1", ncols=0)


def test_users_figure_size_is_the_size_of_a_panel(described):
    with plt.rc_context({"figure.figsize": (2.0, 3.0)}):
        fig = ssc.pl.feature_umap(described, ["sae_1", "sae_2"], return_fig=True)
    assert tuple(fig.get_size_inches()) == (4.0, 3.0)


def test_frame_colormap_and_size(described):
    ax = ssc.pl.feature_umap(described, "sae_1", frameon=False, cmap="viridis", size=7, show=False)
    assert not ax.axison
    assert ax.collections[1].cmap.name == "viridis"
    assert set(ax.collections[1].get_sizes()) == {7}


def test_points_shrink_with_the_number_of_cells_and_become_an_image():
    _, ax = plt.subplots()
    few, many = (_feature_umap.point_size(ax, n) for n in (5_000, 200_000))
    assert few == pytest.approx(40 * many)
    coords = np.random.default_rng(0).normal(size=(5_000, 2))
    below, _ = _feature_umap.draw_activation(ax, coords, np.zeros(5_000))
    assert below.get_rasterized()
    below, _ = _feature_umap.draw_activation(ax, coords[:100], np.zeros(100))
    assert not below.get_rasterized()
