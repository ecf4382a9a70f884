"""The deep generative decoder on simulated mixtures: what it recovers, what it keeps, where new cells land."""

from __future__ import annotations

import logging
import warnings
from itertools import chain

import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn.metrics import adjusted_rand_score

pytest.importorskip("scvi", reason="scvi-tools is not installed")

import anndata
import torch
from lightning.pytorch import Callback

from sparsesc.models.dgd._dgd import DGD
from sparsesc.models.dgd._training import parameter_groups

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
TYPES, GENES, LATENT = 5, 60, 4
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "logger": None}


def simulate(seed: int, n: int = 360, *, batches: int = 1, shift: float = 1.5) -> anndata.AnnData:
    """Counts of cells from a mixture of Gaussians in a latent space, and batches that move genes of their own."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(TYPES, LATENT))
    centers *= 2 / np.linalg.norm(centers, axis=1, keepdims=True)
    kind, batch = rng.integers(TYPES, size=n), rng.integers(batches, size=n)
    Z = centers[kind] + 0.15 * rng.normal(size=(n, LATENT))
    moved = np.random.default_rng(99).normal(size=(6, GENES)) * shift
    eta = Z @ rng.normal(size=(LATENT, GENES)) + rng.normal(size=GENES) + (moved[batch] if batches > 1 else 0)
    share = np.exp(eta) / np.exp(eta).sum(1, keepdims=True)
    depth = rng.gamma(8, 60, size=n)
    counts = rng.poisson(depth[:, None] * share * rng.gamma(8, 1 / 8, size=share.shape))
    adata = anndata.AnnData(sparse.csr_matrix(counts.astype(np.float32)))
    adata.obs_names = [f"cell{i}" for i in range(n)]
    adata.var_names = [f"gene{i}" for i in range(GENES)]
    adata.obs["type"] = pd.Categorical(kind.astype(str))
    adata.obs["batch"] = pd.Categorical([f"b{b}" for b in batch])
    return adata


def fit(
    adata: anndata.AnnData, *, max_epochs: int = 40, setup: dict | None = None, lr_mixture: float = 1e-2, **options
) -> DGD:
    DGD.setup_anndata(adata, **(setup or {}))
    model = DGD(adata, **({"n_latent": LATENT, "n_components": TYPES, "n_hidden": 32} | options))
    train(model, max_epochs, lr_mixture=lr_mixture)
    return model


def train(model: DGD, max_epochs: int, **options) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of lightning, about workers
        model.train(max_epochs, **({"lr_decoder": 3e-3, "lr_latent": 3e-2} | options | QUIET))


@pytest.fixture(scope="module")
def cells():
    return simulate(0, 460)


@pytest.fixture(scope="module")
def model(cells):
    """Trained on the first 360 cells; 100 are new."""
    return fit(cells[:360].copy())


@pytest.fixture(scope="module")
def new(cells):
    return cells[360:].copy()


def ari(adata, clusters) -> float:
    return adjusted_rand_score(adata.obs["type"], clusters)


def nearest_type(model, adata, Z) -> np.ndarray:
    """Type of the nearest cells of the training."""
    from sklearn.neighbors import KNeighborsClassifier

    known = KNeighborsClassifier(5).fit(model.get_latent_representation(), model.adata.obs["type"].astype(str))
    return known.predict(Z)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_mixture_finds_the_components(seed, model):
    found = model if seed == 0 else fit(simulate(seed), rng=seed, max_epochs=80)
    clusters = found.predict_clusters()
    assert ari(found.adata, clusters) >= 0.95
    assert found.get_responsibilities().to_numpy().max(1).mean() > 0.8


def test_training_lowers_the_loss_and_keeps_the_best_epoch(model):
    history = model.history
    assert {"train_loss", "validation_loss", "reconstruction_loss_train", "latent_loss_train"} <= set(history)
    loss = history["validation_loss"]["validation_loss"].to_numpy(dtype=float)
    assert loss[-1] < loss[0] - 5
    assert not any(parameter.grad is not None for parameter in model.module.parameters())


def test_same_rng_same_bits_and_global_state_is_left_alone(cells):
    adata = cells[:80].copy()
    torch_state, numpy_state = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    first, second = (fit(adata.copy(), max_epochs=3, rng=7) for _ in range(2))
    assert torch.equal(torch_state, torch.random.get_rng_state())
    np.testing.assert_array_equal(numpy_state, np.random.get_state()[1])
    np.testing.assert_array_equal(first.get_latent_representation(), second.get_latent_representation())
    other = fit(adata.copy(), max_epochs=3, rng=8)
    assert not np.array_equal(first.get_latent_representation(), other.get_latent_representation())


def test_saved_and_loaded_model_gives_the_same_bits(model, new, tmp_path):
    model.save(tmp_path / "dgd", save_anndata=True)
    loaded = DGD.load(tmp_path / "dgd", accelerator="cpu")
    for call in (
        "get_latent_representation",
        "get_responsibilities",
        "get_normalized_expression",
        "get_log_likelihood",
    ):
        np.testing.assert_array_equal(getattr(model, call)(), getattr(loaded, call)())
    np.testing.assert_array_equal(
        model.project(new, n_steps=5, progress_bar=False), loaded.project(new, n_steps=5, progress_bar=False)
    )


def test_new_cells_are_placed_without_those_of_the_training(model, new, tmp_path):
    model.save(tmp_path / "dgd")
    alone = DGD.load(tmp_path / "dgd", adata=False, accelerator="cpu")
    assert alone.adata is None
    before = new.copy()
    Z = alone.project(new, progress_bar=False)
    assert (nearest_type(model, new, Z) == new.obs["type"].astype(str)).mean() >= 0.95
    assert ari(new, alone.predict_clusters(new, latent=Z)) >= 0.9
    assert list(new.obs.columns) == list(before.obs.columns)  # nothing is written
    assert dict(new.uns) == {}
    np.testing.assert_array_equal(alone.get_latent_representation(), model.get_latent_representation())
    with pytest.raises(ValueError, match="loaded without cells"):
        alone.train(1)


def test_cells_of_the_training_land_near_their_own_place(model):
    own = model.get_latent_representation()
    again = model.project(model.adata, progress_bar=False)
    gap = np.linalg.norm(own - again, axis=1)
    spread = np.linalg.norm(own - own.mean(0), axis=1).mean()
    assert np.median(gap) < 0.25 * spread
    assert (nearest_type(model, model.adata, again) == model.adata.obs["type"].astype(str)).mean() >= 0.97


def test_place_found_is_better_than_every_start(model, new):
    module = model.module
    Z = model.project(new, progress_bar=False)

    def joint(z):
        density = module.mixture.log_density(torch.from_numpy(z), blur=module.latent_noise).detach().numpy()
        return model.get_log_likelihood(new, latent=z) + density

    found = joint(Z)
    for mean in module.mixture.means.detach().numpy():
        assert (found >= joint(np.tile(mean, (new.n_obs, 1))) - 1e-3).all()


def test_new_cells_are_not_drawn_to_a_narrow_component_without_cells(cells, model, new):
    """Beside the mean of a type: a component that no cell of the training has, as narrow as one that lost its cells."""
    adata = model.adata.copy()
    DGD.setup_anndata(adata)
    planted = DGD(adata, n_latent=LATENT, n_components=TYPES + 1, n_hidden=32)
    state = model.module.state_dict()
    for name, shape in {"means": (1, LATENT), "log_precisions": (1, LATENT), "logits": (1,)}.items():
        state[f"mixture.{name}"] = torch.cat([state[f"mixture.{name}"], torch.zeros(shape)])
    state["mixture.means"][-1] = state["mixture.means"][0] + 0.1
    state["mixture.log_precisions"][-1] = -2 * np.log(0.02)
    state["mixture.logits"][-1] = state["mixture.logits"].min() - 4
    planted.module.load_state_dict(state)
    planted.is_trained_ = True
    empty = str(TYPES)
    assert (planted.predict_clusters() != empty).all()
    assert (planted.predict_clusters(new, latent=planted.project(new, progress_bar=False)) != empty).all()
    planted.module.latent_noise = 0.0  # the control: the density as it is, not as the training saw it
    assert (planted.predict_clusters(new, latent=planted.project(new, progress_bar=False)) == empty).sum() > 5


def test_components_keep_their_cells(cells):
    """With twice as many components as types none of them has to be lost to its neighbors."""
    found = fit(cells[:360].copy(), n_components=2 * TYPES)
    sizes = found.predict_clusters().value_counts()
    assert (sizes > 0).sum() >= 2 * TYPES - 2
    assert found.module.mixture.log_weights.exp().max() < 0.35


def test_projection_takes_genes_by_name_and_does_without_some(model, new, monkeypatch):
    said = []
    monkeypatch.setattr("sparsesc._logging.warning", said.append)
    Z = model.project(new, progress_bar=False)
    shuffled = new[:, np.random.default_rng(0).permutation(GENES)].copy()
    np.testing.assert_allclose(model.project(shuffled, progress_bar=False), Z, atol=1e-4)
    assert not said
    half = model.project(new[:, ::2].copy(), progress_bar=False)
    assert (nearest_type(model, new, half) == new.obs["type"].astype(str)).mean() >= 0.9
    assert "30 of 60 features of the model are not in adata" in said[0]
    with pytest.raises(ValueError, match="None of the 60 features of the model is in adata"):
        strange = new.copy()
        strange.var_names = [f"ENSG{i}" for i in range(GENES)]
        model.project(strange)


def test_clusters_are_written_where_they_are_asked_for(model, new, tmp_path):
    adata = model.adata.copy()
    before = set(adata.obs)
    found = model.predict_clusters(adata)
    assert set(adata.obs) == before
    model.predict_clusters(adata, key_added="dgd")
    assert list(adata.obs["dgd"]) == list(found)
    responsibilities = adata.obsm["dgd_responsibilities"]
    assert responsibilities.dtype == np.float32
    np.testing.assert_allclose(responsibilities.sum(1), 1, atol=1e-5)
    some = model.predict_clusters(adata[::3].copy())
    assert list(some) == list(found.iloc[::3])
    adata.write_h5ad(tmp_path / "cells.h5ad")
    assert list(anndata.read_h5ad(tmp_path / "cells.h5ad").obs["dgd"]) == list(found)


def test_plain_decoder_has_no_clusters_but_places_cells(cells, new):
    plain = fit(cells[:200].copy(), prior=None)
    assert plain.module.mixture is None
    Z = plain.project(new, progress_bar=False)
    assert (nearest_type(plain, new, Z) == new.obs["type"].astype(str)).mean() >= 0.9
    with pytest.raises(ValueError, match="With prior=None there are no components"):
        plain.predict_clusters()
    with pytest.raises(ValueError, match="no distribution to draw latent vectors from"):
        plain.module.sample(3)


@pytest.fixture(scope="module")
def batched():
    """Three batches that move the genes; the model knows two of them."""
    adata = simulate(3, 480, batches=3)
    known = adata[adata.obs["batch"] != "b2"].copy()
    known.obs["batch"] = known.obs["batch"].cat.remove_unused_categories()
    return fit(known, setup={"batch_key": "batch"}, max_epochs=60), adata[adata.obs["batch"] == "b2"].copy()


def same_batch(Z, batch) -> float:
    """Share of the ten nearest cells from the same batch, over what chance gives: 1 when batches are mixed."""
    from sklearn.neighbors import NearestNeighbors

    batch = np.asarray(batch)
    near = NearestNeighbors(n_neighbors=11).fit(Z).kneighbors(Z, return_distance=False)[:, 1:]
    chance = np.mean([(batch == b).mean() for b in batch])
    return float((batch[near] == batch[:, None]).mean() / chance)


def test_expression_can_be_moved_to_another_batch(batched):
    model, _ = batched
    batch = model.adata.obs["batch"].to_numpy()
    as_b0 = model.get_normalized_expression(transform_batch="b0")
    own = model.get_normalized_expression()
    shift = np.log(own[batch == "b1"].mean() / as_b0[batch == "b1"].mean())
    moved = np.random.default_rng(99).normal(size=(6, GENES)) * 1.5
    assert np.corrcoef(shift, moved[1] - moved[0])[0, 1] > 0.8
    assert np.corrcoef(own[batch == "b0"].mean(), as_b0[batch == "b0"].mean())[0, 1] > 0.99
    with pytest.raises(KeyError, match="Unknown batch 'b9'"):
        model.get_normalized_expression(transform_batch="b9")


def test_cells_of_a_batch_that_the_model_has_not_seen_find_their_type(batched):
    model, unseen = batched
    truth = unseen.obs["type"].astype(str)
    Z, own = model.project(unseen, covariates=True, progress_bar=False)
    right = (nearest_type(model, unseen, Z) == truth).mean()
    assert right >= 0.7
    means = model.module.label_mixtures[0].means.detach().numpy()
    assert np.linalg.norm(own.mean(0) - means, axis=1).min() > 0.2
    open_label = unseen.copy()
    open_label.obs["batch"] = pd.Categorical([None] * unseen.n_obs, categories=["b0"])
    assert np.isfinite(model.project(open_label, n_steps=5, progress_bar=False)).all()


def test_errors_say_what_is_wrong_and_what_to_do(model, new, cells):
    with pytest.raises(KeyError, match=r"100 of 100 cells were not in the training: .*model\.project"):
        model.get_latent_representation(new)
    with pytest.raises(ValueError, match=r"latent must be 100 cells x 4 dimensions, found shape \(100, 3\)"):
        model.predict_clusters(new, latent=np.zeros((100, 3)))
    scaled = cells[:50].copy()
    scaled.X = scaled.X / 3
    DGD.setup_anndata(scaled)
    with pytest.raises(ValueError, match="likelihood='nb' takes whole numbers"):
        DGD(scaled)
    twice = cells[:50].copy()
    twice.obs_names = ["a"] * 50
    DGD.setup_anndata(twice)
    with pytest.raises(ValueError, match="Cell names repeat"):
        DGD(twice)
    few = cells[:50].copy()
    with pytest.raises(KeyError, match=r"Did not find adata.obs\['donor'\]"):
        DGD.setup_anndata(few, batch_key="donor")
    DGD.setup_anndata(few)
    for options, message in {
        "radius": "radius must be a positive number",
        "n_latent": "n_latent must be a whole number",
        "prior": "Unknown prior: 0",
    }.items():
        with pytest.raises(ValueError, match=message):
            DGD(few, **{options: 0})
    with pytest.raises(ValueError, match="Unknown likelihood: 'poisson'"):
        DGD(few, likelihood="poisson")
    with pytest.raises(ValueError, match="train_size must be"):
        DGD(few, n_components=2).train(1, train_size=0)
    with pytest.warns(UserWarning, match="was not trained"):
        DGD(few, n_components=2).get_latent_representation()


def test_loading_with_other_cells_is_refused(model, new, cells, tmp_path):
    model.save(tmp_path / "dgd")
    with pytest.raises(KeyError, match=r"100 of 100 cells were not in the training.*adata=False"):
        DGD.load(tmp_path / "dgd", adata=new.copy(), accelerator="cpu")
    turned = cells[:360][::-2].copy()  # half of them, in another order
    loaded = DGD.load(tmp_path / "dgd", adata=turned, accelerator="cpu")
    np.testing.assert_array_equal(loaded.get_latent_representation(turned), model.get_latent_representation()[::-2])


def test_gradients_reach_every_part():
    adata = simulate(4, 60, batches=2)
    DGD.setup_anndata(adata, batch_key="batch")
    module = (model := DGD(adata, n_latent=LATENT, n_components=TYPES, n_hidden=16)).module
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():  # at the start some gradients are zero by symmetry
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator)
    groups = parameter_groups(module)
    assert sorted(map(id, chain(*groups.values()))) == sorted(map(id, module.parameters()))  # each in one group
    (batch,) = model._make_data_loader(adata, batch_size=60)
    module.loss(batch, module.inference(torch.arange(60)), {}).loss.backward()
    for name, parameter in module.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad != 0).float().mean() > 0.5, name
    for vectors in groups["latent"]:
        assert (vectors.grad != 0).all()


class Recorder(Callback):
    """Vectors at the start of every epoch, and at the end of the last before the best epoch is restored."""

    def __init__(self):
        self.seen = []

    def on_train_epoch_start(self, trainer, pl_module):
        self.seen.append(pl_module.module.latent.detach().clone().numpy())


@pytest.mark.parametrize("prior", ["gmm", None])
def test_every_vector_takes_one_step_an_epoch(cells, prior):
    adata = cells[:90].copy()
    DGD.setup_anndata(adata)
    model = DGD(adata, n_latent=LATENT, n_components=TYPES, n_hidden=16, prior=prior)
    recorder = Recorder()
    options = {"lr_latent": 0.01, "weight_decay": 0.0, "train_size": 0.8, "batch_size": 16}
    train(model, 2, callbacks=[recorder], **options)
    first, second = recorder.seen
    # The first step of Adam is the learning rate in every dimension, whatever the gradient: a vector that moved with
    # every batch would be further away, and one that was left out, of held-out cells for example, where it was.
    np.testing.assert_allclose(np.abs(second - first), 0.01, rtol=1e-2)


def test_noise_keeps_components_from_shrinking_to_points(cells):
    def widths(noise):
        found = fit(cells[:150].copy(), max_epochs=50, latent_noise=noise, sd=0.3, n_hidden=16, lr_mixture=0.05)
        used = found.predict_clusters().value_counts() > 5
        return (-0.5 * found.module.mixture.log_precisions.detach()).exp().numpy()[used.sort_index().to_numpy()]

    free, blurred = widths(0.0), widths(0.3)
    assert blurred.min() > 0.2
    assert np.median(free) < 0.5 * np.median(blurred)


def test_normalized_expression_is_the_share_of_every_gene(model, new):
    shares = model.get_normalized_expression()
    np.testing.assert_allclose(shares.to_numpy().sum(1), 1, rtol=1e-4)
    assert list(shares.columns) == list(model.adata.var_names)
    assert list(shares.index) == list(model.adata.obs_names)
    kind = model.adata.obs["type"].astype(str).to_numpy()
    counts = model.adata.X.toarray()
    for label in np.unique(kind):
        seen = counts[kind == label].sum(0) / counts[kind == label].sum()
        expected = shares.to_numpy()[kind == label].mean(0)
        assert np.corrcoef(np.log(seen + 1e-4), np.log(expected + 1e-4))[0, 1] > 0.97
    some = model.get_normalized_expression(indices=[5, 2], gene_list=["gene7", "gene3"], library_size=1e4)
    np.testing.assert_allclose(some.to_numpy(), 1e4 * shares.iloc[[5, 2]][["gene7", "gene3"]].to_numpy(), rtol=1e-4)
    Z = model.project(new, n_steps=5, progress_bar=False)
    assert model.get_normalized_expression(new, latent=Z).shape == (100, GENES)
    with pytest.raises(KeyError, match="Unknown features: 'nothing'"):
        model.get_normalized_expression(gene_list=["nothing"])


def test_vectors_of_the_batch_take_it_out_of_those_of_the_cells(batched):
    model, _ = batched
    batch = model.adata.obs["batch"]
    without = fit(model.adata.copy(), max_epochs=30)
    # Vectors with the noise that they had in training: differences below it mean nothing to the decoder.
    noise = model.module.latent_noise * np.random.default_rng(0).normal(size=(model.adata.n_obs, LATENT))
    assert same_batch(without.get_latent_representation() + noise, batch) > 1.4  # the control holds the batch
    assert same_batch(model.get_latent_representation() + noise, batch) < 1.2
    assert (
        same_batch(model.get_latent_representation(), batch)
        < 1.6
        < same_batch(without.get_latent_representation(), batch)
    )
    own = model.get_latent_representation(covariates=True)
    assert own.shape == (model.adata.n_obs, 2)
    assert same_batch(own, batch) > 1.9
    assert ari(model.adata, model.predict_clusters()) > 0.9


@pytest.fixture(scope="module")
def modalities():
    """The same cells by counts, by real values and by what is open; the last 80 are new."""
    from mudata import MuData

    rng = np.random.default_rng(5)
    rna = simulate(5, 380)
    kind = rna.obs["type"].astype(int).to_numpy()
    protein = (rng.normal(size=(TYPES, 12)) * 2)[kind] + 3 + 0.5 * rng.normal(size=(380, 12))
    chance = rng.uniform(0.05, 0.95, size=(TYPES, 80))[kind]
    parts = {
        "rna": rna,
        "prot.1": anndata.AnnData(protein.astype(np.float32), obs=rna.obs[[]].copy()),
        "atac": anndata.AnnData(sparse.csr_matrix((rng.random(chance.shape) < chance).astype(np.float32))),
    }
    parts["atac"].obs_names = rna.obs_names
    for name, part in parts.items():
        part.var_names = [f"{name}_{i}" for i in range(part.n_vars)]
    mdata = MuData(parts)
    mdata.obs["type"] = rna.obs["type"].to_numpy()
    return mdata[:300].copy(), mdata[300:].copy(), chance[:300]


def test_modalities_share_one_latent(modalities, tmp_path):
    mdata, new, chance = modalities
    likelihoods = {"rna": "nb", "prot.1": "gaussian", "atac": "bernoulli"}
    DGD.setup_mudata(mdata, list(likelihoods))
    model = DGD(mdata, n_latent=LATENT, n_components=TYPES, n_hidden=32, likelihood=likelihoods)
    train(model, 40)
    assert ari(mdata, model.predict_clusters()) >= 0.95

    np.testing.assert_allclose(model.get_normalized_expression(modality="rna").to_numpy().sum(1), 1, rtol=1e-4)
    protein = model.get_normalized_expression(modality="prot.1").to_numpy()
    seen = mdata["prot.1"].X
    assert 1 - ((seen - protein) ** 2).sum() / ((seen - seen.mean(0)) ** 2).sum() > 0.8
    is_open = model.get_normalized_expression(modality="atac").to_numpy()
    assert is_open.min() >= 0
    assert is_open.max() <= 1
    assert np.abs(is_open - chance).mean() < 0.12

    model.save(tmp_path / "dgd")
    alone = DGD.load(tmp_path / "dgd", adata=False, accelerator="cpu")
    for names in (list(likelihoods), ["rna"], ["prot.1", "atac"]):  # all that was measured, or some
        Z = alone.project(type(new)({name: new[name] for name in names}), progress_bar=False)
        assert (nearest_type(model, new, Z) == new.obs["type"].astype(str)).mean() >= 0.95, names
    with pytest.raises(TypeError, match="set up with a MuData, found an AnnData"):
        alone.project(new["rna"])
    with pytest.raises(ValueError, match="likelihood must name the modalities"):
        DGD(mdata, likelihood={"rna": "nb"})
