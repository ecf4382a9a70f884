"""Steering: the arithmetic of moves, controls of the same length, and programs and a stimulation that are known."""

from __future__ import annotations

import os

import anndata
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy.stats import rankdata

import sparsesc as ssc
from sparsesc.tl.act._gene_effects import enriched_sets


def steered(adata, *args, **kwargs):
    """The result of quick calls."""
    kwargs = {"n_controls": 2, "doses": [1.0], "decoder": None, **kwargs}
    ssc.tl.steer(adata, *args, **kwargs)
    return adata.uns["sae"]["steering"]


@pytest.fixture
def cells(pbmc68k_code):
    adata = pbmc68k_code
    adata.obs["half"] = pd.Categorical(np.where(np.arange(700) % 2 == 0, "even", "odd"))
    adata.obs["even"] = np.arange(700) % 2 == 0
    return adata


def test_moves_are_differences_of_decoded_codes(cells):
    X, Z = cells.obsm["X_pca"].copy(), cells.obsm["X_sae"].toarray()
    model = ssc.get.sae(cells)
    for mode, features, change in [
        ("set", {"sae_3": 2.0, "sae_7": 0.0}, lambda z: np.array([2.0, 0.0]) + 0 * z),
        ("scale", {"sae_3": 2.0, "sae_7": 0.5}, lambda z: z * [2.0, 0.5]),
        ("add", {"sae_3": 1.0, "sae_7": -1.0}, lambda z: np.maximum(z + np.array([1.0, -1.0]), 0)),
        ("ablate", ["sae_3", "sae_7"], lambda z: 0 * z),
    ]:
        steered(cells, features, mode=mode, cells="even")
        new = Z.copy()
        new[::2, [3, 7]] = change(Z[::2][:, [3, 7]])
        moved = cells.obsm["X_pca_steered"]
        np.testing.assert_allclose(moved, X + model.decode(new) - model.decode(Z), atol=1e-4)
        assert (moved[1::2] == X[1::2]).all()
        assert moved.dtype == np.float32
    assert (cells.obsm["X_pca"] == X).all()


def test_values_come_from_the_group_to_become_like_within_strata(cells):
    Z = cells.obsm["X_sae"].toarray()
    kind = cells.obs["bulk_labels"].astype(str).to_numpy()
    even, reference = cells.obs["even"].to_numpy(), np.arange(700) < 500
    options = {"groupby": "half", "from_group": "odd", "to_group": "even", "within": "bulk_labels"}
    found = steered(cells, ["sae_3"], reference_cells=reference, **options)
    W = cells.uns["sae"]["weights"]["W_dec"][3]
    move = (cells.obsm["X_pca_steered"] - cells.obsm["X_pca"]) @ W
    one = (kind == "CD14+ Monocyte") & ~even
    target = Z[(kind == "CD14+ Monocyte") & even & reference, 3].mean()
    np.testing.assert_allclose(move[one], target - Z[one, 3], atol=1e-4)
    assert (move[even] == 0).all()
    table = found["features"].set_index("stratum")
    assert table.loc["CD14+ Monocyte", "after"] == pytest.approx(target)
    assert table.loc["CD14+ Monocyte", "before"] == pytest.approx(Z[one, 3].mean())
    steered(cells, ["sae_3"], mode="add", reference_cells=reference, **options)
    added = (cells.obsm["X_pca_steered"] - cells.obsm["X_pca"]) @ W
    rise = target - Z[one & reference, 3].mean()
    np.testing.assert_allclose(added[one], np.maximum(Z[one, 3] + rise, 0) - Z[one, 3], atol=1e-4)


def test_chosen_features_carry_the_difference(cells):
    """Over all features the shares add up to what the code explains of the difference of means."""
    options = {"groupby": "bulk_labels", "from_group": "Dendritic", "to_group": "CD19+ B"}
    share = steered(cells, n_steered=64, **options)["features"]["share_of_difference"]
    assert (np.diff(share) <= 1e-12).all()
    label = cells.obs["bulk_labels"].to_numpy()
    X, Xhat = cells.obsm["X_pca"], ssc.get.sae(cells).decode(cells.obsm["X_sae"])
    b, m = label == "CD19+ B", label == "Dendritic"
    gap = X[b].mean(0) - X[m].mean(0)
    assert share.sum() == pytest.approx((Xhat[b].mean(0) - Xhat[m].mean(0)) @ gap / (gap @ gap), rel=1e-3)
    best = steered(cells, n_steered=2, **options)["features"]
    np.testing.assert_allclose(best["share_of_difference"], share[:2])


def test_controls_have_the_length_of_the_move(cells):
    doses = steered(cells, {"sae_3": 5.0}, n_controls=3, doses=[0, 0.5, 2])["doses"]
    assert set(doses["control"]) == {"steered", "random_direction", "random_features"}
    assert sorted(doses["dose"].unique()) == [0, 0.5, 1, 2]
    norm = doses.groupby(["dose", "control", "draw"])["norm"].first().unstack("dose")
    np.testing.assert_allclose(norm, np.tile(norm.loc["steered"].to_numpy(), (7, 1)), rtol=1e-6)
    assert doses.groupby("control")["draw"].nunique().to_dict() == {
        "random_direction": 3,
        "random_features": 3,
        "steered": 1,
    }
    far = doses[doses["dose"] == 2]
    assert (far["distance"] > doses[doses["dose"] == 0]["distance"].iloc[0]).all()


def test_no_dose_leaves_cells_at_home(cells):
    kind = "CD19+ B"
    found = steered(cells, n_steered=3, groupby="bulk_labels", from_group="Dendritic", to_group=kind, doses=[0])
    at_home = found["doses"].query("dose == 0")
    assert at_home["landed"].nunique() == at_home["distance"].nunique() == 1
    assert at_home["landed"].iloc[0] < 0.1
    landing = found["landing"]
    assert landing.groupby(["state", "key"])["share"].sum().to_list() == pytest.approx([1, 1])
    before = landing.set_index(["state", "category"])["share"]
    assert before["before", "Dendritic"] > 0.7


def test_genes_are_those_of_the_decoder(cells):
    rng = np.random.default_rng(0)
    loadings = pd.DataFrame(rng.normal(size=(30, 50)), index=[f"g{i}" for i in range(30)])
    net = {"up": list(loadings.index[:10]), "other": list(loadings.index[10:20])}
    loadings.iloc[:10] += 3 * cells.uns["sae"]["weights"]["W_dec"][3]
    found = steered(cells, {"sae_3": 4.0}, decoder=loadings, net=net, n_controls=20)
    effects = found["effects"].set_index("gene")
    assert (effects["logfc"].abs().diff().dropna() <= 0).all()
    move = cells.obsm["X_pca_steered"] - cells.obsm["X_pca"]
    rise = move @ loadings.to_numpy().T / np.log(2)
    np.testing.assert_allclose(effects.loc[loadings.index, "logfc"], rise.mean(0), atol=1e-4)
    np.testing.assert_allclose(effects.loc[loadings.index, "sd"], rise.std(0), atol=1e-3)
    # random directions of length r give a normal effect with the deviation r |loading| / sqrt(d)
    expected = np.linalg.norm(move, axis=1).mean() * np.linalg.norm(loadings, axis=1) / np.sqrt(50) / np.log(2)
    np.testing.assert_allclose(effects.loc[loadings.index, "control_sd"] / expected, 1, atol=0.6)
    assert found["enrichment"]["term"].iloc[0] == "up"
    assert found["enrichment"]["padj"].iloc[0] < 0.01
    assert found["gene_doses"]["gene"].nunique() == 20


def test_layer_holds_decoded_cells(cells):
    loadings = pd.DataFrame(np.ones((3, 50)), index=[*cells.var_names[:2], "unknown"])
    steered(cells, {"sae_3": 4.0}, decoder=loadings, layer_added="steered")
    layer = cells.layers["steered"]
    np.testing.assert_allclose(layer[:, 0], cells.obsm["X_pca_steered"].sum(1), atol=1e-3)
    assert (layer[:, 2:] == 0).all()


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_result_survives_a_file(cells, tmp_path, suffix):
    found = steered(cells, n_steered=2, groupby="half", to_group="even", decoder="pca")
    path = tmp_path / f"cells.{suffix}"
    getattr(cells, f"write_{suffix}")(path)
    back = getattr(anndata, f"read_{suffix}")(path).uns["sae"]
    for name in ("features", "doses", "landing", "cells", "neighbors", "effects", "gene_doses"):
        pd.testing.assert_frame_equal(back["steering"][name], found[name], check_dtype=False, check_index_type=False)
    assert back["params"]["steer"]["to_group"] == "even"
    assert "from_group" not in back["params"]["steer"]


def test_moved_cells_and_their_neighbors_are_named(cells):
    found = steered(cells, {"sae_3": 2.0}, cells="even", n_neighbors=4, n_scored=60)
    moved = (cells.obsm["X_pca_steered"] != cells.obsm["X_pca"]).any(1)
    assert list(found["cells"]["cell"]) == list(cells.obs_names[moved])
    norm = np.linalg.norm(cells.obsm["X_pca_steered"] - cells.obsm["X_pca"], axis=1)
    np.testing.assert_allclose(found["cells"]["norm"], norm[moved])
    near = found["neighbors"]
    assert near.groupby(["state", "cell"], observed=True).size().eq(4).all()
    assert near["cell"].nunique() <= 60
    assert set(near["cell"]) <= set(found["cells"]["cell"])
    cell = near["cell"].iloc[0]
    for state, rep in (("before", "X_pca"), ("after", "X_pca_steered")):
        distance = np.linalg.norm(cells.obsm["X_pca"] - cells[cell].obsm[rep], axis=1)
        distance[cells.obs_names.get_loc(cell)] = np.inf
        expected = set(cells.obs_names[np.argsort(distance)[:4]])
        assert set(near[(near["cell"] == cell) & (near["state"] == state)]["neighbor"]) == expected


def test_nothing_moves(cells, tmp_path):
    found = steered(cells, {"sae_3": 1.0}, mode="scale")
    assert found["cells"].empty
    assert found["neighbors"].empty
    cells.write_h5ad(tmp_path / "cells.h5ad")


def test_same_seed_same_bits_and_copy_leaves_the_original(cells):
    options = {"n_steered": 2, "groupby": "half", "to_group": "even", "n_scored": 50, "n_controls": 2}
    one, two = (ssc.tl.steer(cells, rng=3, copy=True, **options) for _ in range(2))
    pd.testing.assert_frame_equal(one.uns["sae"]["steering"]["doses"], two.uns["sae"]["steering"]["doses"])
    assert "steering" not in cells.uns["sae"]
    assert "X_pca_steered" not in cells.obsm


def test_few_cells_of_a_type_are_compared_with_all(cells, monkeypatch):
    said: list[str] = []
    monkeypatch.setattr("sparsesc._logging.warning", said.append)
    cells.obs["type"] = ["rare" if i < 4 else "common" for i in range(700)]
    table = steered(cells, "sae_3", groupby="half", to_group="even", within="type")["features"]
    assert list(table["stratum"]) == ["", "common"]
    assert "'rare' of 'type'" in said[0]


def test_bad_input_is_told_at_the_door(cells):
    def fails(error, match, *args, **kwargs):
        with pytest.raises(error, match=match):
            ssc.tl.steer(cells, *args, **kwargs)

    fails(ValueError, "Unknown mode: 'clamp'", "sae_1", mode="clamp")
    fails(ValueError, "No features named")
    fails(ValueError, "mode='scale' needs values", "sae_1", mode="scale")
    fails(ValueError, "mode='set' needs values", "sae_1")
    fails(ValueError, "mode='ablate' takes no values", {"sae_1": 1.0}, mode="ablate")
    fails(ValueError, r"finite and not negative", {"sae_1": -1.0})
    fails(ValueError, "named twice", {"sae_1": 1.0, 1: 2.0})
    fails(KeyError, "Did not find feature 'sae_x'", {"sae_x": 1.0})
    fails(ValueError, "from_group='a' needs groupby", {"sae_1": 1.0}, from_group="a")
    fails(ValueError, "needs to_group, .* 'even', 'odd'", "sae_1", groupby="half")
    fails(ValueError, r"to_group='none' is not in adata.obs\['half'\]", "sae_1", groupby="half", to_group="none")
    fails(ValueError, "both 'odd'", "sae_1", groupby="half", from_group="odd", to_group="odd")
    fails(TypeError, r"adata.obs\['n_genes'\] must be boolean", {"sae_1": 1.0}, cells="n_genes")
    fails(ValueError, "one value for each of 700 cells", {"sae_1": 1.0}, cells=np.ones(3, bool))
    fails(ValueError, "cells is False for all cells", {"sae_1": 1.0}, cells=np.zeros(700, bool))
    even = cells.obs["even"].to_numpy()
    fails(ValueError, "no cell to move", "sae_1", groupby="half", to_group="even", cells=even)
    fails(ValueError, "No cell of to_group is among", "sae_1", groupby="half", to_group="even", reference_cells=~even)
    fails(ValueError, "doses must be finite", {"sae_1": 1.0}, doses=[np.nan])
    fails(ValueError, "n_neighbors must be a whole number", {"sae_1": 1.0}, n_neighbors=0)
    cells.obs["name"] = cells.obs_names
    fails(ValueError, "too many to be labels", {"sae_1": 1.0}, label_keys="name")
    cells.uns["sae"]["params"]["use_rep"] = "X_other"
    cells.obsm["X_other"] = cells.obsm["X_pca"]
    fails(ValueError, "net needs decoded genes, but there is no decoder for 'X_other'", {"sae_1": 1.0}, net={})
    fails(ValueError, "layer_added needs an AnnData and a decoder", {"sae_1": 1.0}, layer_added="x")
    assert "steering" not in cells.uns["sae"]


def auroc(score: np.ndarray, member: np.ndarray) -> float:
    ranks, n = rankdata(score), member.sum()
    return (ranks[member].sum() - n * (n + 1) / 2) / (n * (len(member) - n))


@pytest.fixture(scope="module")
def programs():
    adata = ssc.datasets.simulate_programs("large", n_cells=900, n_genes=300, n_programs=10, n_types=8, n_covariates=1)
    sc.pp.pca(adata, n_comps=10)
    ssc.tl.fit_sae(adata, use_rep="X_pca", n_features=48, k=5, max_steps=500, progress_bar=False)
    return adata


@pytest.fixture(scope="module")
def of_program(programs):
    """Programs that vary, and the feature of each: the most correlated one in every second cell."""
    half = np.arange(programs.n_obs) % 2 == 0
    Z, truth = programs.obsm["X_sae"].toarray()[half], programs.obsm["X2"][half]
    used = np.flatnonzero(truth.std(0) > 0)
    Zc, Pc = Z - Z.mean(0), truth - truth.mean(0)
    r = Zc.T @ Pc / np.maximum(np.outer(np.sqrt((Zc**2).sum(0)), np.sqrt((Pc**2).sum(0))), 1e-12)
    assert len(used) >= 8
    return half, {int(p): int(r[:, p].argmax()) for p in used}


def test_steering_changes_the_genes_of_its_program_and_random_directions_do_not(programs, of_program):
    """In cells that did not choose the feature; random moves have the same length, and are scored without signs too."""
    half, features = of_program
    amount = programs.uns["sae"]["features"]["mean_active"].to_numpy()
    decoder = ssc.decoders.as_decoder(programs, use_rep="X_pca")
    rng = np.random.default_rng(0)
    scores, signed, unsigned = [], [], []
    for p, feature in features.items():
        found = steered(programs, {feature: float(amount[feature])}, mode="add", cells=~half, n_scored=100, doses=[])
        member = pd.Series(programs.varm["programs"][:, p] > 0, programs.var_names)
        effects = found["effects"].set_index("gene")["logfc"]
        scores.append(auroc(effects.to_numpy(), member[effects.index].to_numpy()))
        V = rng.normal(size=(40, 10))
        V *= amount[feature] / np.linalg.norm(V, axis=1, keepdims=True)
        rises = decoder.jvp(V, V)[1]
        signed += [auroc(rise, member[decoder.genes].to_numpy()) for rise in rises]
        unsigned += [auroc(np.abs(rise), member[decoder.genes].to_numpy()) for rise in rises]
    assert np.mean(scores) >= 0.9
    assert min(scores) >= 0.8
    assert np.mean(signed) <= 0.6
    assert np.mean(unsigned) <= 0.6


def test_ablation_moves_cells_toward_those_without_the_program(programs, of_program):
    half, features = of_program
    Z, truth = programs.obsm["X_sae"].toarray(), programs.obsm["X2"]
    gained, controls = [], []
    for p, feature in features.items():
        programs.obs["program"] = np.where(truth[:, p] == 0, "without", "with")
        groups = {"groupby": "program", "from_group": "with", "to_group": "without"}
        cells = (Z[:, feature] > 0) & ~half
        found = steered(programs, [feature], mode="ablate", cells=cells, doses=[0], **groups)
        near = found["doses"].groupby(["control", "dose"])["neighbors"].mean()
        gained.append(near["steered", 1] - near["steered", 0])
        controls.append((near["random_direction", 1] + near["random_features", 1]) / 2 - near["steered", 0])
    assert np.mean(gained) > 0.05
    assert np.mean(gained) > 3 * np.mean(controls)
    assert min(gained) >= 0


@pytest.mark.skipif(not os.environ.get("SPARSESC_DATA_DIR"), reason="SPARSESC_DATA_DIR is not set")
def test_control_cells_land_among_stimulated_ones_of_other_donors(published):
    """Three fits and more numbers are in benchmarks/steering.md."""
    adata = published("kang2018")
    donor = adata.obs["donor"].astype(str)
    adata = adata[donor != "NA"].copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=2000)
    sc.pp.pca(adata, n_comps=50)
    ssc.tl.fit_sae(
        adata, use_rep="X_pca", n_features=256, k=8, noise=0, max_steps=6000, patience=None, progress_bar=False
    )
    reference = adata.obs["donor"].isin(["101", "1015", "1039", "1256"]).to_numpy()
    landed = {}
    for n in (1, 3):
        found = steered(
            adata,
            groupby="condition",
            from_group="ctrl",
            to_group="stim",
            within="cell_type",
            n_steered=n,
            cells=~reference,
            reference_cells=reference,
            n_controls=3,
            doses=[],
        )
        landed[n] = found["doses"].groupby("control")["landed"].mean()
        assert landed[n][["random_direction", "random_features"]].max() <= 0.02
    assert landed[1]["steered"] >= 0.65
    assert landed[3]["steered"] >= 0.95
    assert landed[3]["steered"] > landed[3]["difference_of_means"]
    percentile = found["doses"].groupby("control")["percentile"].mean()
    assert percentile["steered"] < percentile["random_direction"]
    interferon = ["ISG15", "ISG20", "IFIT2", "IFIT3", "IFITM3", "CXCL10", "RSAD2", "TNFSF10", "CXCL11", "RTP4", "IFI27"]
    rng = np.random.default_rng(0)
    sets = {f"random_{i}": list(rng.choice(found["effects"]["gene"], 11, replace=False)) for i in range(50)}
    terms = enriched_sets(found["effects"], sets | {"interferon": interferon}, min_size=5, max_size=500)
    assert terms["term"].iloc[0] == "interferon"
    assert terms["padj"].iloc[0] < 1e-6
    assert terms["score"].iloc[0] > 0
