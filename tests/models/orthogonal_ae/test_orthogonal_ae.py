"""The orthogonal autoencoder: its penalty acts, its projection is one forward pass, and it comes back from a file."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse


@pytest.fixture(scope="module", autouse=True)
def _quiet():
    import logging

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


@pytest.fixture(scope="module")
def cells():
    """400 cells of three types, 120 genes, two batches; counts in a layer."""
    rng = np.random.default_rng(0)
    kind = rng.integers(3, size=400)
    profile = rng.gamma(0.8, size=(3, 120))
    X = rng.poisson(profile[kind] * rng.gamma(4, 0.5, size=(400, 1))).astype(np.float32)
    X[X.sum(1) == 0, 0] = 1
    adata = AnnData(sparse.csr_matrix(np.log1p(X)), layers={"counts": sparse.csr_matrix(X)})
    adata.var_names = [f"g{i}" for i in range(120)]
    adata.obs["kind"] = pd.Categorical(kind.astype(str))
    adata.obs["batch"] = pd.Categorical(rng.choice(["a", "b"], 400))
    return adata


def fit(adata, *, seed=0, max_epochs=12, batch_key=None, **options):
    import scvi

    from sparsesc.models import OrthogonalAE

    scvi.settings.seed = seed
    OrthogonalAE.setup_anndata(adata, layer="counts", batch_key=batch_key)
    model = OrthogonalAE(adata, **({"n_latent": 6, "n_hidden": 16} | options))
    train(model, max_epochs=max_epochs, lr=5e-3)
    return model


def train(model, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of lightning, about workers and its own calls of torch
        model.train(accelerator="cpu", enable_progress_bar=False, **options)


@pytest.fixture(scope="module")
def model(cells):
    return fit(cells.copy(), orthogonality=0.05, max_epochs=40)


def test_network_is_the_published_one(cells):
    import torch

    from sparsesc.models import OrthogonalAE

    adata = cells.copy()
    OrthogonalAE.setup_anndata(adata, layer="counts")
    module = OrthogonalAE(adata).module
    shapes = [tuple(layer.weight.shape) for layer in (*module.encoder[::2], *module.decoder[::2])]
    assert shapes == [(128, 120), (64, 128), (128, 64), (120, 128)]
    assert all(isinstance(layer, torch.nn.Softplus) for layer in (*module.encoder[1::2], *module.decoder[1::2]))


def test_penalty_has_a_gradient(cells):
    """In the published code it had none: the weights were taken out of the graph."""
    import torch

    from sparsesc.models import OrthogonalAE

    adata = cells.copy()
    OrthogonalAE.setup_anndata(adata, layer="counts")
    module = OrthogonalAE(adata, n_latent=6, n_hidden=16).module
    W = module.encoder[2].weight
    gap = module.orthogonality_gap()
    (found,) = torch.autograd.grad(gap, W)
    with torch.no_grad():
        residual = W @ W.T - torch.eye(6)
        np.testing.assert_allclose(gap.detach(), residual.norm(), rtol=1e-5)
        np.testing.assert_allclose(found, 2 * residual @ W / residual.norm(), atol=1e-5)
    # and it reaches the weights through the loss of a batch
    tensors = {"X": torch.as_tensor(adata.layers["counts"][:32].toarray()), "batch": torch.zeros(32, 1)}
    grads = []
    for weight in (0.0, 1e6):
        module.orthogonality = weight
        module.zero_grad()
        module(tensors)[2].loss.backward()
        grads.append(W.grad.clone())
    cosine = torch.nn.functional.cosine_similarity((grads[1] - grads[0]).ravel(), found.ravel(), dim=0)
    assert cosine > 0.999


def test_penalty_makes_weights_orthogonal(cells, model):
    start = fit(cells.copy(), orthogonality=0.0, max_epochs=1)
    without = fit(cells.copy(), orthogonality=0.0, max_epochs=40)
    assert model.orthogonality_gap < 0.1
    assert without.orthogonality_gap > 5 * model.orthogonality_gap
    assert start.orthogonality_gap > 5 * model.orthogonality_gap
    W = model.module.encoder[2].weight.detach().numpy()
    np.testing.assert_allclose(W @ W.T, np.eye(6), atol=0.1)
    assert model.history["orthogonality_gap_train"].iloc[-1].item() < 0.2


def test_representation_tells_types_apart(cells, model):
    from sklearn.linear_model import LogisticRegression

    Z = model.get_latent_representation()
    assert Z.shape == (400, 6)
    assert (Z > 0).all()
    half = np.arange(400) < 200
    kind = cells.obs["kind"].to_numpy()
    score = LogisticRegression(max_iter=500).fit(Z[half], kind[half]).score(Z[~half], kind[~half])
    assert score > 0.9
    assert model.history["elbo_validation"].iloc[-1].item() < model.history["elbo_validation"].iloc[0].item()


def test_new_cells_take_one_forward_pass_with_the_training_depth(cells, model):
    new = cells[:50].copy()
    new = new[:, ::-1].copy()  # genes in another order
    np.testing.assert_allclose(model.project(new), model.get_latent_representation()[:50], atol=1e-5)
    deeper = cells[:50].copy()
    deeper.layers["counts"] = deeper.layers["counts"] * 3  # depth is no information
    np.testing.assert_allclose(model.project(deeper), model.project(cells[:50].copy()), atol=1e-4)


def test_a_saved_model_gives_the_same_with_other_cells(cells, model, tmp_path):
    from sparsesc.models import OrthogonalAE

    model.save(tmp_path / "model", overwrite=True)
    few = cells[:60].copy()
    few.layers["counts"] = few.layers["counts"] * 2  # another median depth than that of the training
    loaded = OrthogonalAE.load(tmp_path / "model", adata=few, accelerator="cpu")
    np.testing.assert_allclose(loaded.get_latent_representation(), model.project(few), atol=1e-5)
    assert loaded.orthogonality_gap == pytest.approx(model.orthogonality_gap)


def test_batches_go_to_the_decoder_only(cells):
    model = fit(cells.copy(), batch_key="batch", max_epochs=2, gene_likelihood="nb")
    assert model.module.decoder[0].in_features == 6 + 2
    other = cells[:20].copy()
    other.obs["batch"] = "unseen"
    np.testing.assert_allclose(model.project(other), model.get_latent_representation()[:20], atol=1e-5)


def test_training_stops_when_held_out_cells_do_not_improve(cells):
    model = fit(cells[:150].copy(), max_epochs=2)
    assert len(model.history["elbo_validation"]) == 2
    train(model, max_epochs=300, lr=0.02, early_stopping_patience=3, train_size=0.6)
    assert len(model.history["elbo_validation"]) < 250


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_latent": 20, "n_hidden": 10}, "cannot have orthogonal weights"),
        ({"n_latent": 0}, "n_latent must be a whole number"),
        ({"orthogonality": -1}, "orthogonality must be 0 or a positive number"),
        ({"gene_likelihood": "normal"}, "Unknown gene_likelihood"),
    ],
)
def test_bad_options_are_told(cells, options, message):
    from sparsesc.models import OrthogonalAE

    adata = cells.copy()
    OrthogonalAE.setup_anndata(adata, layer="counts")
    with pytest.raises(ValueError, match=message):
        OrthogonalAE(adata, **options)


def test_what_cannot_be_encoded_is_told(cells, model):
    from sparsesc.models import OrthogonalAE

    adata = cells.copy()
    OrthogonalAE.setup_anndata(adata, layer="counts")
    with pytest.raises(RuntimeError, match="not trained"):
        OrthogonalAE(adata, 4, n_hidden=8).get_latent_representation()
    with pytest.raises(KeyError, match="20 of the 120 genes"):
        model.project(cells[:, :100].copy())
    with pytest.raises(NotImplementedError, match="no prior"):
        model.module.sample()
