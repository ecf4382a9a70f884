from __future__ import annotations

import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse

import sparsesc as ssc

scvi = pytest.importorskip("scvi", reason="scvi-tools is not installed")

TRAIN = {"max_epochs": 3, "enable_progress_bar": False, "accelerator": "cpu", "logger": False, "train_size": 0.9}
QUICK = {"progress_bar": False, "n_permutations": 99, "n_draws": 3}
_MODELS: dict[str, object] = {}


def simulate(seed=0) -> AnnData:
    """Five donors of 60 cells, three types that differ; the last two donors are not for training."""
    rng = np.random.default_rng(seed)
    donor = np.repeat(np.arange(5), 60)
    kind = rng.integers(3, size=300)
    program = np.exp(rng.normal(size=(3, 40)))
    counts = rng.poisson(program[kind] * rng.lognormal(0, 0.3, 300)[:, None]).astype(np.float32)
    obs = pd.DataFrame(
        {
            "donor": pd.Categorical([f"d{i}" for i in donor]),
            "type": pd.Categorical([f"t{i}" for i in kind]),
            "chip": pd.Categorical([f"c{i}" for i in donor % 2]),
            "age": rng.normal(size=300),
            "held_out": donor >= 3,
        },
        index=[f"cell_{i}" for i in range(300)],
    )
    return AnnData(sparse.csr_matrix(counts), obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(40)]))


def train(name: str):
    """A model of the first three donors."""
    if name in _MODELS:
        return _MODELS[name]
    adata = simulate()
    adata = adata[~adata.obs["held_out"]].copy()
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")  # of lightning, about workers and checkpoints
        torch.manual_seed(0)
        if name == "LinearSCVI":
            scvi.model.LinearSCVI.setup_anndata(adata)
            model = scvi.model.LinearSCVI(adata, n_latent=4)
        else:
            batch = {"batch": "donor", "chip": "chip"}.get(name)
            scvi.model.SCVI.setup_anndata(adata, batch_key=batch, labels_key="type")
            model = scvi.model.SCVI(adata, n_latent=4, n_hidden=16, gene_likelihood="nb")
        model.train(**TRAIN)
        if name == "SCANVI":
            model = scvi.model.SCANVI.from_scvi_model(model, unlabeled_category="unknown")
            model.train(**TRAIN)
    _MODELS[name] = model
    return model


class Points:
    """A model of somebody's own: positions that are stored with the cells, Poisson counts at one rate."""

    def project(self, adata):
        return np.asarray(adata.obsm["X_own"])

    def get_log_likelihood(self, adata, *, latent):
        assert latent.shape == adata.obsm["X_own"].shape
        return -np.asarray(adata.X.sum(1)).ravel()


@pytest.fixture
def cells():
    return simulate()


@pytest.fixture
def held_out(cells):
    return cells[cells.obs["held_out"]].copy()


@pytest.mark.parametrize("name", ["SCVI", "SCANVI", "LinearSCVI"])
def test_objective_is_the_models_own(name, held_out):
    model = train(name)
    ssc.tl.latent_diagnostics(held_out, model, sample_key="donor", **QUICK | {"n_draws": 40})
    table = ssc.get.latent_diagnostics(held_out, table="elbo").set_index("donor")
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = np.mean([model.get_elbo(held_out.copy()) for _ in range(20)])
    # the depth of a cell is latent in LinearSCVI: its draws differ by much
    assert table.loc["all", "elbo"] == pytest.approx(theirs, rel=0.03 if name == "LinearSCVI" else 0.003)
    np.testing.assert_allclose(table["elbo"], -(table["reconstruction"] + table["kl"]))
    assert list(table.index) == ["all", "d3", "d4"]
    assert list(table["n_cells"]) == [120, 60, 60]
    assert table.loc["all", "elbo"] == pytest.approx(table.loc[["d3", "d4"], "elbo"].mean())


def test_reconstruction_of_scanvi_is_that_of_its_counts(held_out):
    """It files a part of the divergence under reconstruction: here the two are apart."""
    model = train("SCANVI")
    ssc.tl.latent_diagnostics(held_out, model, **QUICK)
    found = ssc.get.latent_diagnostics(held_out, table="elbo")["reconstruction"].iloc[0]
    module = model.module
    with torch.no_grad(), torch.random.fork_rng():
        tensors = next(iter(model._make_data_loader(adata=model._validate_anndata(held_out.copy()), batch_size=120)))
        torch.manual_seed(0)
        draws = []
        for _ in range(20):
            inferred = module.inference(**module._get_inference_input(tensors))
            given = module.generative(**module._get_generative_input(tensors, inferred))
            draws.append(-given["px"].log_prob(tensors["X"]).sum(1).mean().item())
    assert found == pytest.approx(np.mean(draws), rel=0.01)


def test_dimensions_are_those_of_the_posterior(held_out):
    model = train("SCVI")
    ssc.tl.latent_diagnostics(held_out, model, min_variance=0.05, **QUICK)
    table = ssc.get.latent_diagnostics(held_out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mean, variance = model.get_latent_representation(held_out.copy(), return_dist=True)
    np.testing.assert_allclose(table["variance"], mean.var(0), rtol=1e-4)
    np.testing.assert_allclose(table["posterior_variance"], variance.mean(0), rtol=1e-4)
    np.testing.assert_array_equal(table["active"], mean.var(0) > 0.05)
    own = torch.distributions.Normal(torch.tensor(mean), torch.tensor(variance).sqrt())
    kl = torch.distributions.kl_divergence(own, torch.distributions.Normal(0.0, 1.0)).numpy()
    np.testing.assert_allclose(table["kl"], kl.mean(0), rtol=1e-4)
    assert table["kl"].sum() == pytest.approx(
        ssc.get.latent_diagnostics(held_out, table="elbo")["kl"].iloc[0], rel=1e-3
    )
    assert table["kl_share"].sum() == pytest.approx(1)


def test_a_collapsed_dimension_is_found(held_out):
    """One dimension whose posterior is made the prior, whatever the cell."""
    from copy import deepcopy

    model = train("SCVI")
    before = deepcopy(model.module.state_dict())
    encoder = model.module.z_encoder
    with torch.no_grad():
        for layer in (encoder.mean_encoder, encoder.var_encoder):
            layer.weight[2] = 0
            layer.bias[2] = 0
    ssc.tl.latent_diagnostics(held_out, model, ["type"], **QUICK)
    model.module.load_state_dict(before)
    table = ssc.get.latent_diagnostics(held_out)
    assert list(table["collapsed"]) == [False, False, True, False]
    assert not table["active"].iloc[2]
    assert table["silent_cells"].iloc[2] == 1
    params = held_out.uns["latent_diagnostics"]["params"]
    assert (params["n_collapsed"], params["n_active"]) == (1, int(table["active"].sum()))
    assert np.isnan(ssc.get.latent_diagnostics(held_out, table="dependence")["pval"].iloc[2])


def test_same_seed_same_numbers_and_nothing_else_changes(held_out):
    model = train("SCVI")
    state = torch.random.get_rng_state()
    before = held_out.copy()
    one, two = (ssc.tl.latent_diagnostics(held_out, model, "type", copy=True, **QUICK) for _ in range(2))
    for name in ("elbo", "dimensions", "dependence"):
        pd.testing.assert_frame_equal(
            ssc.get.latent_diagnostics(one, table=name), ssc.get.latent_diagnostics(two, table=name)
        )
    assert torch.equal(state, torch.random.get_rng_state())
    assert set(held_out.uns) == set(before.uns)
    pd.testing.assert_frame_equal(held_out.obs, before.obs)


def test_genes_are_matched_by_name(held_out):
    model = train("SCVI")
    ssc.tl.latent_diagnostics(held_out, model, **QUICK)
    mixed = held_out[:, np.random.default_rng(0).permutation(40)].copy()
    ssc.tl.latent_diagnostics(mixed, model, **QUICK)
    pd.testing.assert_frame_equal(ssc.get.latent_diagnostics(mixed), ssc.get.latent_diagnostics(held_out))
    with pytest.raises(KeyError, match="3 of the 40 genes of the model"):
        ssc.tl.latent_diagnostics(held_out[:, 3:].copy(), model, **QUICK)


def test_cells_and_donors_of_the_training_are_refused(cells):
    model = train("SCVI")
    with pytest.raises(ValueError, match=r"162 of 300 cells were in the training.*'d0', 'd1', 'd2' of 'donor'"):
        ssc.tl.latent_diagnostics(cells, model, sample_key="donor", **QUICK)
    fresh = cells.copy()
    fresh.obs_names = [f"new_{i}" for i in range(300)]
    fresh.X = fresh.X * 2
    with pytest.raises(ValueError, match="cells of the donors"):  # other cells, but of the same donors
        ssc.tl.latent_diagnostics(fresh, model, sample_key="donor", **QUICK)
    assert "latent_diagnostics" not in cells.uns
    ssc.tl.latent_diagnostics(cells, model, mask="held_out", sample_key="donor", **QUICK)
    assert cells.uns["latent_diagnostics"]["params"]["n_seen"] == 0
    assert cells.uns["latent_diagnostics"]["params"]["n_cells"] == 120
    ssc.tl.latent_diagnostics(cells, model, sample_key="donor", seen="warn", **QUICK)
    assert cells.uns["latent_diagnostics"]["params"]["n_seen"] == 162


def test_the_same_name_is_not_the_same_cell(held_out):
    """Barcodes come back in other samples: only with the same counts it is the cell of the training."""
    held_out.obs_names = [f"cell_{i}" for i in range(120)]  # names of cells of the training
    held_out.X = held_out.X * 3
    ssc.tl.latent_diagnostics(held_out, train("SCVI"), sample_key="donor", **QUICK)
    assert held_out.uns["latent_diagnostics"]["params"]["n_seen"] == 0


def test_batches_that_the_model_does_not_know(held_out):
    model = train("batch")
    with pytest.raises(ValueError, match=r"does not know 'd3', 'd4'.*decode_as='d0'"):
        ssc.tl.latent_diagnostics(held_out, model, sample_key="donor", **QUICK)
    ssc.tl.latent_diagnostics(held_out, model, sample_key="donor", decode_as="d1", **QUICK)
    assert list(ssc.get.latent_diagnostics(held_out, table="elbo")["donor"]) == ["all", "d3", "d4"]
    with pytest.raises(ValueError, match="Unknown decode_as"):
        ssc.tl.latent_diagnostics(held_out, model, decode_as="d4", **QUICK)
    with pytest.raises(ValueError, match="without batch_key"):
        ssc.tl.latent_diagnostics(held_out, train("SCVI"), decode_as="d1", **QUICK)
    ssc.tl.latent_diagnostics(held_out, train("chip"), sample_key="donor", **QUICK)  # a batch that donors share


def test_dependence_finds_what_was_planted(cells):
    rng = np.random.default_rng(0)
    kind, donor = cells.obs["type"].cat.codes.to_numpy(), cells.obs["donor"].cat.codes.to_numpy()
    Z = rng.normal(size=(300, 4))
    Z[:, 0] += 2 * (kind == 1)
    Z[:, 1] += donor
    Z[:, 2] += cells.obs["age"].to_numpy()
    cells.obsm["X_own"] = Z
    ssc.tl.latent_diagnostics(cells, Points(), ["type", "donor", "age"], sample_key="donor", **QUICK)
    table = ssc.get.latent_diagnostics(cells, table="dependence").set_index(["key", "dimension"])
    assert list(table.index.get_level_values("key").unique()) == ["type", "donor", "age"]
    assert table.loc["type", "padj"].lt(0.05).tolist() == [True, False, False, False]
    assert table.loc["age", "padj"].lt(0.05).tolist() == [False, False, True, False]
    assert (table.loc["type", "unit"] == "cell within sample").all()
    assert table.loc["donor", "pval"].isna().all()  # donors are the samples: no replicates
    assert table.loc[("donor", "z_1"), "share"] > 0.5
    assert (table["padj"] >= table["pval"])[table["pval"].notna()].all()
    elbo = ssc.get.latent_diagnostics(cells, table="elbo")
    assert elbo["reconstruction"].iloc[0] == pytest.approx(cells.X.sum() / 300)
    assert elbo["elbo"].iloc[0] == -elbo["reconstruction"].iloc[0]
    assert np.isnan(elbo["kl"].iloc[0])
    assert list(ssc.get.latent_diagnostics(cells)["active"]) == [True] * 4


def test_sample_level_keys_are_tested_over_samples():
    """Samples differ, the condition means nothing: cells as units find it everywhere, samples do not."""
    naive, careful = [], []
    for seed in range(4):
        rng = np.random.default_rng(seed)
        sample = np.repeat(np.arange(14), 10)
        obs = {"sample": pd.Categorical(sample.astype(str)), "condition": pd.Categorical((sample % 2).astype(str))}
        adata = AnnData(np.ones((140, 1)), obs=pd.DataFrame(obs, index=[str(i) for i in range(140)]))
        adata.obsm["X_own"] = rng.normal(size=(140, 500)) + rng.normal(size=(14, 500))[sample]
        for key, found in ((None, naive), ("sample", careful)):
            options = {"n_permutations": 199, "progress_bar": False}
            ssc.tl.latent_diagnostics(adata, Points(), "condition", sample_key=key, **options)
            table = ssc.get.latent_diagnostics(adata, table="dependence")
            found.append(table["pval"])
            assert set(table["unit"]) == {"cell" if key is None else "sample"}
    assert (pd.concat(naive) <= 0.05).mean() > 0.3
    assert 0.03 < (pd.concat(careful) <= 0.05).mean() < 0.06


def test_labels_that_vary_within_some_samples_only(cells):
    cells.obsm["X_own"] = np.random.default_rng(0).normal(size=(300, 2))
    cells.obs["plate"] = cells.obs["chip"].astype(str)
    cells.obs.loc["cell_0", "plate"] = "c1"
    with pytest.raises(ValueError, match=r"varies within 1 samples of 'donor' \('d0'\)"):
        ssc.tl.latent_diagnostics(cells, Points(), "plate", sample_key="donor", **QUICK)


@pytest.mark.parametrize("file", ["h5ad", "zarr"])
def test_tables_survive_a_file(held_out, file, tmp_path):
    held_out.obsm["X_own"] = np.random.default_rng(0).normal(size=(120, 3))
    ssc.tl.latent_diagnostics(held_out, Points(), "type", sample_key="donor", key_added="own", **QUICK)
    path = tmp_path / f"cells.{file}"
    getattr(held_out, f"write_{file}")(path)
    again = getattr(ad, f"read_{file}")(path)
    for name in ("elbo", "dimensions", "dependence"):
        pd.testing.assert_frame_equal(
            ssc.get.latent_diagnostics(again, table=name, key="own"),
            ssc.get.latent_diagnostics(held_out, table=name, key="own"),
            check_dtype=False,
        )


def test_other_models_are_refused(held_out):
    from sklearn.decomposition import PCA

    for model in (PCA(), object(), scvi.model.SCVI, "SCVI"):
        with pytest.raises(TypeError, match=r"Cannot evaluate .*SCVI, SCANVI, LinearSCVI"):
            ssc.tl.latent_diagnostics(held_out, model)
    scvi.model.SCVI.setup_anndata(held_out)
    with pytest.raises(ValueError, match="was not trained"):
        ssc.tl.latent_diagnostics(held_out, scvi.model.SCVI(held_out))


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"label_keys": "no"}, KeyError, "Did not find adata.obs"),
        ({"sample_key": "no"}, KeyError, "Did not find adata.obs"),
        ({"mask": "type"}, ValueError, "must be True or False"),
        ({"mask": np.zeros(120, bool)}, ValueError, "at least 20 are needed"),
        ({"min_variance": 0}, ValueError, "positive variance"),
        ({"n_draws": 0}, ValueError, "at least 1"),
        ({"seen": "maybe"}, ValueError, "Unknown seen"),
        ({"decode_as": "d1"}, ValueError, "takes the batch"),
        ({"key_added": ""}, ValueError, "non-empty string"),
    ],
)
def test_bad_input_is_told(held_out, options, error, match):
    held_out.obsm["X_own"] = np.zeros((120, 2))
    with pytest.raises(error, match=match):
        ssc.tl.latent_diagnostics(held_out, Points(), **options)
    assert "latent_diagnostics" not in held_out.uns


def test_getter_says_what_to_run(cells):
    with pytest.raises(KeyError, match=r"Run ssc\.tl\.latent_diagnostics first"):
        ssc.get.latent_diagnostics(cells)


def test_orthogonal_autoencoders_have_positions_and_no_prior(held_out):
    adata = simulate()
    adata = adata[~adata.obs["held_out"]].copy()
    with warnings.catch_warnings(), torch.random.fork_rng():
        warnings.simplefilter("ignore")
        ssc.models.OrthogonalAE.setup_anndata(adata)
        model = ssc.models.OrthogonalAE(adata, n_latent=4, n_hidden=8)
        model.train(**TRAIN | {"train_size": 0.8})
    ssc.tl.latent_diagnostics(held_out, model, "type", sample_key="donor", **QUICK)
    elbo = ssc.get.latent_diagnostics(held_out, table="elbo")
    rate = model.module.decoder(torch.tensor(model.project(held_out))).detach().numpy()
    depth = held_out.X.toarray().sum(1, keepdims=True)
    own = -torch.distributions.Poisson(torch.tensor(rate * depth / model.module.depth.item())).log_prob(
        torch.tensor(held_out.X.toarray())
    )
    assert elbo["reconstruction"].iloc[0] == pytest.approx(own.sum(1).mean().item(), rel=1e-4)
    assert np.isnan(elbo["kl"]).all()
    table = ssc.get.latent_diagnostics(held_out)
    np.testing.assert_allclose(table["variance"], model.project(held_out).var(0), rtol=1e-4)
    assert table["kl"].isna().all()
    with pytest.raises(ValueError, match="in the training of the model"):
        ssc.tl.latent_diagnostics(adata, model, **QUICK)
