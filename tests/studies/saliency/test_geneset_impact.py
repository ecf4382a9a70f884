"""Impact of gene sets: the published number, planted modules among decoys, and an honest comparison of groups."""

from __future__ import annotations

import logging
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import sparsesc as ssc

GENES, CELLS, MODULES, SIZE, DECOYS = 400, 500, 6, 20, 60
_MADE: dict[str, AnnData] = {}


def planted() -> tuple[AnnData, np.ndarray]:
    """Counts with six modules of twenty genes that go up together in cells of their own, and what each cell has."""
    rng = np.random.default_rng(0)
    activity = rng.gamma(2, 1, size=(CELLS, MODULES)) * (rng.random((CELLS, MODULES)) < 0.3)
    rate = np.tile(rng.gamma(0.8, 0.7, size=GENES) + 0.05, (CELLS, 1))
    for module in range(MODULES):
        rate[:, module * SIZE : (module + 1) * SIZE] *= 1 + 3 * activity[:, [module]]
    X = rng.poisson(rate * rng.gamma(8, 1 / 8, size=(CELLS, 1))).astype(np.float32)
    adata = AnnData(sparse.csr_matrix(X))
    adata.var_names = [f"g{i}" for i in range(GENES)]
    adata.obs_names = [f"c{i}" for i in range(CELLS)]
    return adata, activity


def gene_sets() -> dict[str, list[str]]:
    rng = np.random.default_rng(1)
    modules = {f"module_{m}": [f"g{i}" for i in range(m * SIZE, (m + 1) * SIZE)] for m in range(MODULES)}
    decoys = {f"decoy_{d}": [f"g{i}" for i in rng.permutation(GENES)[: rng.integers(8, 40)]] for d in range(DECOYS)}
    return modules | decoys


@pytest.fixture
def trained() -> AnnData:
    """The cells with the representation of an OrthogonalAE and its saliency in 60 cells."""
    if not _MADE:
        import scvi
        import torch

        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        adata, activity = planted()
        with warnings.catch_warnings(), torch.random.fork_rng():
            warnings.simplefilter("ignore")
            scvi.settings.seed = 0
            ssc.models.OrthogonalAE.setup_anndata(adata)
            model = ssc.models.OrthogonalAE(adata, n_latent=12, n_hidden=32)
            model.train(max_epochs=60, accelerator="cpu", enable_progress_bar=False, lr=5e-3, batch_size=64)
        adata.obsm["X_oae"] = model.get_latent_representation()
        adata.obsm["activity"] = activity
        ssc.tl.saliency(adata, model, max_cells=60, progress_bar=False)
        _MADE["adata"] = adata
    return _MADE["adata"].copy()


def wide(adata: AnnData, value: str) -> pd.DataFrame:
    """Units x sets."""
    table = ssc.get.geneset_impact(adata)
    return table.astype({"unit": str, "term": str}).pivot(index="unit", columns="term", values=value)


def test_impact_is_the_published_number(trained):
    ssc.tl.geneset_impact(trained, gene_sets(), n_permutations=100, match="none", progress_bar=False)
    table = ssc.get.geneset_impact(trained)
    units = table["unit"].astype(str).unique()
    impact, sd, scaled = (wide(trained, name) for name in ("impact", "sd", "scaled"))
    for unit in units[:3]:
        cells = ssc.get.saliency(trained, unit, cells=True).abs()
        for term, genes in list(gene_sets().items())[:8]:
            medians = cells[genes].median(axis=1)
            assert impact.loc[unit, term] == pytest.approx(medians.mean(), rel=1e-5)
            assert sd.loc[unit, term] == pytest.approx(medians.std(), rel=1e-4)
    np.testing.assert_allclose(scaled, (impact - impact.min()) / (impact.max() - impact.min()), rtol=1e-6)
    first = table.iloc[0]
    own = gene_sets()[str(first["term"])]
    order = ssc.get.saliency(trained, str(first["unit"]), cells=True).abs().mean()[own].sort_values(ascending=False)
    assert first["genes"].split(",") == list(order.index[:10])


def test_planted_modules_are_found_and_decoys_are_not(trained):
    ssc.tl.geneset_impact(trained, gene_sets(), n_permutations=1000, n_strata=8, progress_bar=False)
    table = ssc.get.geneset_impact(trained).astype({"unit": str, "term": str})
    clear = table[table["padj"] < 0.05]
    false = clear["term"].str.startswith("decoy").mean()
    assert false <= 0.1
    found = set(clear["term"][clear["term"].str.startswith("module")])
    assert len(found) >= MODULES - 1
    # the unit with most impact of a module is one whose value goes with the module's activity
    score = wide(trained, "score")
    Z = pd.DataFrame(trained.obsm["X_oae"], columns=[f"oae_{i}" for i in range(12)])
    for name in sorted(found):
        module = int(name.rsplit("_", 1)[1])
        r = Z[score.index].corrwith(pd.Series(trained.obsm["activity"][:, module])).abs()
        assert r[score[name].idxmax()] > 0.3
    assert set(trained.uns["saliency"]["units"]["term"]) & found


def test_p_of_decoys_is_uniform(trained):
    rng = np.random.default_rng(3)
    genes = [f"g{i}" for i in range(MODULES * SIZE, GENES)]
    decoys = {f"s{i}": list(rng.permutation(genes)[: rng.integers(5, 40)]) for i in range(2200)}
    trained.uns["saliency"]["units"]["silent"] = False
    fewer = trained.uns["saliency"]["pairs"]["cell"] < 5
    pairs = trained.uns["saliency"]["pairs"]
    trained.uns["saliency"]["pairs"] = {k: v if k == "cells" else v[fewer] for k, v in pairs.items()}
    # modules stand out in some units and take no part in the decoys: decoys are drawn among the others
    trained.uns["saliency"]["inputs"] = trained.uns["saliency"]["inputs"].iloc[MODULES * SIZE :]
    trained.uns["saliency"]["node_weights"] = trained.uns["saliency"]["node_weights"][:, MODULES * SIZE :]
    for match in ("none", "expression"):
        ssc.tl.geneset_impact(trained, decoys, match=match, n_strata=5, n_permutations=200, progress_bar=False)
        table = ssc.get.geneset_impact(trained)
        assert len(table) > 20_000
        assert 0.03 < (table["pval"] < 0.05).mean() < 0.06
        assert (table["padj"] < 0.05).sum() <= 3


def test_random_sets_have_the_expression_of_the_set(trained):
    """Sets of the most expressed genes: a finding in most units without matching, in few with."""
    mean = trained.uns["saliency"]["inputs"]["mean"].iloc[MODULES * SIZE :]
    high = mean.sort_values(ascending=False).index[:100]
    rng = np.random.default_rng(0)
    sets = {f"high_{i}": list(rng.permutation(high)[:25]) for i in range(40)}
    share = {}
    for match in ("none", "expression"):
        ssc.tl.geneset_impact(trained, sets, match=match, n_strata=10, n_permutations=200, progress_bar=False)
        share[match] = (ssc.get.geneset_impact(trained)["pval"] < 0.05).mean()
    assert share["none"] > 2 * share["expression"]


def by_hand(adata: AnnData, unit: str, genes: list[str]) -> pd.Series:
    return ssc.get.saliency(adata, unit, cells=True).abs()[genes].median(axis=1)


def test_groups_of_cells_are_compared_over_samples(trained):
    from scipy import stats

    rng = np.random.default_rng(0)
    trained.obs["group"] = rng.choice(["x", "y"], CELLS)
    trained.obs["donor"] = rng.choice(["d1", "d2", "d3", "d4"], CELLS)
    options = {"n_permutations": 100, "match": "none", "groupby": "group", "groups": ("y", "x"), "progress_bar": False}
    ssc.tl.geneset_impact(trained, gene_sets(), sample_key="donor", moderate=False, min_cells=1, **options)
    table = ssc.get.geneset_impact(trained, table="contrast").astype({"unit": str, "term": str})
    row = table.iloc[7]
    values = by_hand(trained, row["unit"], gene_sets()[row["term"]])
    obs = trained.obs.loc[values.index]
    means = values.groupby([obs["donor"], obs["group"]]).mean().unstack()
    t, p = stats.ttest_rel(means["y"], means["x"])
    assert row["impact_a"] == pytest.approx(values[obs["group"] == "y"].mean(), rel=1e-5)
    assert row["difference"] == pytest.approx(row["impact_a"] - row["impact_b"])
    assert row["score"] == pytest.approx(t, rel=1e-4)
    assert row["pval"] == pytest.approx(p, rel=1e-4)
    assert trained.uns["saliency"]["params"]["geneset_impact"]["paired"]


def test_cells_are_no_replicates(trained):
    """Cells of a donor are alike. Over cells, differences between donors look like differences between groups."""
    from scipy import stats

    donors = np.repeat(np.arange(10), CELLS // 10)
    trained.obs["donor"] = donors.astype(str)
    pairs = trained.uns["saliency"]["pairs"]
    position = trained.obs_names.get_indexer(pairs["cells"])
    rng = np.random.default_rng(0)
    shift = rng.lognormal(0, 0.3, size=(10, pairs["nodes"].shape[1])).astype(np.float32)
    pairs["nodes"] = pairs["nodes"] * shift[donors[position[pairs["cell"]]]]
    over_samples, over_cells = [], []
    for _ in range(6):
        side = rng.permutation(np.arange(10) % 2)
        trained.obs["group"] = np.array(["x", "y"])[side[donors]]
        ssc.tl.geneset_impact(
            trained, gene_sets(), groupby="group", sample_key="donor", n_permutations=100, match="none", min_cells=1,
            progress_bar=False,
        )  # fmt: skip
        table = ssc.get.geneset_impact(trained, table="contrast").astype({"unit": str, "term": str})
        over_samples.append((table["pval"] < 0.05).mean())
        for _, row in table.iloc[::60].iterrows():
            values = by_hand(trained, row["unit"], gene_sets()[row["term"]])
            inside = trained.obs.loc[values.index, "group"] == "y"
            over_cells.append(stats.ttest_ind(values[inside], values[~inside]).pvalue < 0.05)
    assert np.mean(over_samples) < 0.1
    assert np.mean(over_cells) > 0.2


def test_sets_of_a_unit_that_move_together_keep_the_level():
    """Saliency is larger in some samples, for all genes: by unit one number a sample, whatever the number of sets."""
    rng = np.random.default_rng(0)
    n_units, samples = 250, np.repeat(np.arange(6), 3)
    adata = AnnData(rng.poisson(1.0, size=(len(samples), 100)).astype(np.float32))
    adata.var_names = [f"g{i}" for i in range(100)]
    adata.obs["donor"] = samples.astype(str)
    adata.obsm["X_pca"] = rng.normal(size=(len(samples), n_units))
    adata.varm["PCs"] = rng.normal(size=(100, n_units))
    ssc.tl.saliency(adata, "pca", progress_bar=False)
    pairs = adata.uns["saliency"]["pairs"]
    donor = samples[adata.obs_names.get_indexer(pairs["cells"])][pairs["cell"]]
    nodes = pairs["nodes"].copy()
    sets = {f"s{i}": list(rng.choice(adata.var_names, 12, replace=False)) for i in range(15)}
    options = {"groupby": "group", "sample_key": "donor", "n_permutations": 100, "match": "none", "progress_bar": False}
    rejected = {"default": [], "moderated": []}
    for shuffle in range(6):
        adata.obs["group"] = np.array(["x", "y"])[rng.permutation(np.arange(6) % 2)][samples]
        size = rng.lognormal(0, 0.3, size=(6, n_units))[donor, pairs["unit"]] * rng.lognormal(0, 0.1, len(donor))
        pairs["nodes"] = (nodes * size[:, None]).astype(np.float32)
        for name, more in (("default", {}), ("moderated", {"moderate": True}))[: 2 if shuffle < 2 else 1]:
            ssc.tl.geneset_impact(adata, sets, **options, **more)
            rejected[name].append((ssc.get.geneset_impact(adata, table="contrast")["pval"] < 0.05).mean())
    assert 0.03 < np.mean(rejected["default"]) < 0.06
    assert np.mean(rejected["moderated"]) < 0.08  # knows that fifteen sets are not fifteen measurements


def test_without_samples_sets_are_compared_with_random_sets(trained):
    trained.obs["group"] = np.where(trained.obsm["activity"][:, 0] > 0, "on", "off")
    options = {"n_permutations": 200, "n_strata": 8, "groupby": "group", "progress_bar": False}
    ssc.tl.geneset_impact(trained, gene_sets(), groups=("on", "off"), **options)
    table = ssc.get.geneset_impact(trained, table="contrast")
    decoys = table["term"].astype(str).str.startswith("decoy")
    assert (table["pval"][decoys] < 0.05).mean() < 0.1
    assert set(trained.uns["saliency"]["params"]["geneset_impact"]["groups"]) == {"on", "off"}
    ssc.tl.geneset_impact(trained, gene_sets(), n_permutations=100, progress_bar=False)
    with pytest.raises(KeyError, match="impact_contrast"):  # of an earlier call: gone
        ssc.get.geneset_impact(trained, table="contrast")


def test_same_rng_same_numbers_on_any_number_of_threads(trained):
    import numba

    tables = []
    for rng, threads in ((0, 1), (0, numba.config.NUMBA_NUM_THREADS), (1, 1)):
        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        ssc.tl.geneset_impact(trained, gene_sets(), n_permutations=120, rng=rng, progress_bar=False)
        numba.set_num_threads(before)
        tables.append(wide(trained, "pval"))
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert not tables[0].equals(tables[2])


def test_survives_files(trained, tmp_path):
    trained.obs["group"] = np.where(np.arange(CELLS) % 2, "x", "y")
    ssc.tl.geneset_impact(trained, gene_sets(), n_permutations=100, groupby="group", progress_bar=False)
    trained.write_h5ad(tmp_path / "a.h5ad")
    back = anndata.read_h5ad(tmp_path / "a.h5ad")
    for name in ("impact", "contrast"):
        pd.testing.assert_frame_equal(
            ssc.get.geneset_impact(back, table=name), ssc.get.geneset_impact(trained, table=name), check_dtype=False
        )
    ssc.tl.geneset_impact(back, gene_sets(), n_permutations=100, progress_bar=False)
    assert ssc.get.geneset_impact(back)["pval"].equals(ssc.get.geneset_impact(trained)["pval"])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"match": "length"}, ValueError, "Unknown match"),
        ({"n_permutations": 10}, ValueError, "n_permutations must be at least 100"),
        ({"min_size": 50, "max_size": 10}, ValueError, "no gene set can pass"),
        ({"units": "oae_77"}, KeyError, "Did not find unit"),
        ({"key": "other"}, KeyError, "No saliency under key='other'"),
        ({"sample_key": "donor"}, ValueError, "name their column by groupby"),
        ({"groupby": "kind"}, KeyError, "Did not find adata.obs"),
        ({"groupby": "three"}, ValueError, "has 3 categories: name two"),
        ({"groupby": "three", "groups": ("a", "z")}, ValueError, "Unknown group: 'z'"),
        ({"groupby": "three", "groups": ("a", "b"), "sample_key": "one"}, ValueError, "At least 2 samples"),
        ({"max_memory": 0}, ValueError, "max_memory must be a positive"),
    ],
)
def test_bad_input_is_told(trained, options, error, message):
    trained.obs["three"] = np.tile(["a", "b", "c"], CELLS)[:CELLS]
    trained.obs["one"] = trained.obs["three"] + "1"
    with pytest.raises(error, match=message):
        ssc.tl.geneset_impact(trained, gene_sets(), progress_bar=False, **options)
    assert "impact" not in trained.uns["saliency"]


def test_names_that_do_not_match_are_told(trained):
    with pytest.raises(ValueError, match="upper and lower case"):
        ssc.tl.geneset_impact(trained, {"A": [f"G{i}" for i in range(20)]}, progress_bar=False)
