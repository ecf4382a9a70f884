from __future__ import annotations

import json
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse, stats

import sparsesc as ssc
from sparsesc.studies.vae._inputs import Scale, choose_genes, make_folds
from sparsesc.studies.vae._scores import label_transfer, rounded_log_prob, spearman_of_genes

pytest.importorskip("scvi", reason="scvi-tools is not installed")

QUICK = {
    "max_epochs": 2,
    "n_draws": 2,
    "n_top_genes": 30,
    "progress_bar": False,
    "accelerator": "cpu",
    "batch_size": 64,
}
TINY = {"tiny": {"n_hidden": 8, "n_latent": 3}, "wide": {"n_hidden": 12, "n_latent": 5, "n_layers": 2}}


def simulate(n_donors=3, n=60, seed=0) -> AnnData:
    """Donors with three types of cells in common."""
    rng = np.random.default_rng(seed)
    donor = np.repeat(np.arange(n_donors), n)
    kind = rng.integers(3, size=len(donor))
    program = np.exp(1.5 * rng.normal(size=(3, 60)))
    counts = rng.poisson(program[kind] * rng.lognormal(0, 0.4, len(donor))[:, None])
    obs = pd.DataFrame(
        {
            "donor": pd.Categorical([f"d{i}" for i in donor]),
            "type": pd.Categorical([f"t{i}" for i in kind]),
            "chip": pd.Categorical(rng.choice(["x", "y"], len(donor))),
        },
        index=[f"cell_{i}" for i in range(len(donor))],
    )
    return AnnData(
        sparse.csr_matrix(counts.astype(np.float32)), obs=obs, var=pd.DataFrame(index=[f"G{i}" for i in range(60)])
    )


@pytest.fixture(scope="module")
def _study():
    adata = simulate()
    before = adata.copy()
    state = torch.random.get_rng_state()
    found = ssc.tl.vae_study(
        adata,
        sample_key="donor",
        label_key="type",
        architectures=TINY,
        test_donors="d2",
        likelihoods=["nb", "normal"],
        **QUICK,
    )
    assert torch.equal(state, torch.random.get_rng_state())
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    assert dict(adata.uns) == {}
    return found


@pytest.fixture
def study(_study):
    return {name: table.copy() for name, table in _study.items()}


def test_every_combination_has_its_row(study):
    runs = study["runs"]
    asked = [("counts", "nb"), ("counts", "normal"), ("log1p", "normal"), ("pearson", "normal")]
    trained = runs[runs["architecture"] != "PCA"]
    assert list(zip(trained["architecture"], trained["preprocessing"], trained["likelihood"], strict=True)) == [
        (name, *pair) for name in TINY for pair in asked
    ]
    assert set(trained["fold"]) == {"d2"}
    assert (trained["n_train"] == 120).all()
    assert (trained["n_test"] == 60).all()
    assert list(trained["n_latent"]) == [3] * 4 + [5] * 4
    np.testing.assert_allclose(trained["elbo"], -(trained["reconstruction"] + trained["kl"]), rtol=1e-9)
    np.testing.assert_allclose(trained["elbo_counts"], trained["loglik_counts"] - trained["kl"], rtol=1e-9)
    counted = trained["likelihood"] == "nb"
    np.testing.assert_allclose(trained["loglik_counts"][counted], -trained["reconstruction"][counted])
    assert trained["elbo_counts_null"].nunique() == 1
    assert not trained["diverged"].any()
    (control,) = runs[runs["architecture"] == "PCA"].to_dict("records")
    assert control["n_latent"] == 5
    assert control["label_transfer"] > 0.9  # types that differ this much


def test_dimensions_add_up_to_the_divergence(study):
    table = study["dimensions"]
    keys = ["architecture", "preprocessing", "likelihood"]
    assert len(table) == 4 * 3 + 4 * 5
    total = table.groupby(keys, sort=False)["kl"].sum()
    runs = study["runs"].set_index(keys).loc[total.index]
    np.testing.assert_allclose(runs["kl"], total, rtol=1e-3)
    np.testing.assert_array_equal(runs["n_active"], table.groupby(keys, sort=False)["active"].sum())


def test_counts_are_described(study):
    facts = study["counts"].set_index("statistic")["value"]
    assert facts["n_cells"] == 180
    shares = [facts[f"share_{name}"] for name in ("poisson", "nb", "zinb", "lognormal")]
    assert sum(shares) == pytest.approx(1)
    assert facts["share_poisson"] > 0.7  # with donors and types named, that is what they are


def test_a_study_goes_on_where_it_was_stopped(tmp_path, monkeypatch):
    adata = simulate()
    asked = {"sample_key": "donor", "architectures": {"tiny": TINY["tiny"]}, "likelihoods": ["nb"], "path": tmp_path}
    from sparsesc.studies.vae import _vae_study as module

    calls = []
    real = module.train_and_score

    def counted(split, setting, accelerator):
        calls.append(split.fold.name)
        if len(calls) == 2 and not stopped:
            stopped.append(1)
            raise KeyboardInterrupt
        return real(split, setting, accelerator)

    stopped: list[int] = []
    monkeypatch.setattr(module, "train_and_score", counted)
    first = ssc.tl.vae_study(adata, **asked, **QUICK)["runs"]
    assert list(first["fold"][first["architecture"] == "tiny"]) == ["d0"]
    whole = ssc.tl.vae_study(adata, **asked, **QUICK)
    assert calls == ["d0", "d1", "d1", "d2"]  # the first was not trained again, the one that was stopped was
    again = ssc.tl.vae_study(adata, **asked, **QUICK)
    assert len(calls) == 4
    for name in whole:
        pd.testing.assert_frame_equal(whole[name], again[name])
    pd.testing.assert_frame_equal(first[first["architecture"] == "tiny"], whole["runs"].iloc[:1], check_like=True)
    assert sum("run" in json.loads(file.read_text()) for file in tmp_path.iterdir()) == 3
    adata.X = adata.X * 2  # other counts: nothing of before may be taken
    ssc.tl.vae_study(adata, **asked, **QUICK | {"max_epochs": 1})
    assert len(calls) == 7


def test_the_same_seed_gives_the_same_numbers():
    adata = simulate(2)
    asked = {
        "sample_key": "donor",
        "architectures": {"tiny": TINY["tiny"]},
        "likelihoods": ["nb"],
        "test_donors": ["d1"],
    }
    runs = pd.concat([ssc.tl.vae_study(adata, **asked, rng=[0, 1], **QUICK)["runs"] for _ in range(2)])
    trained = runs[runs["architecture"] == "tiny"]
    first, second = trained["elbo"].to_numpy().reshape(2, 2)
    np.testing.assert_array_equal(first, second)
    assert first[0] != first[1]


def test_training_beats_no_latent_and_finds_types():
    """Types that differ strongly: the objective on a donor never seen gains most of what knowing the types would."""
    adata = simulate(3, 120, seed=1)
    runs = ssc.tl.vae_study(
        adata, sample_key="donor", label_key="type", architectures={"one": {"n_hidden": 32, "n_latent": 4}},
        likelihoods=["poisson", "normal"], test_donors="d0", lr=1e-2,
        **QUICK | {"max_epochs": 30, "n_top_genes": None},
    )["runs"]  # fmt: skip
    trained = runs[runs["architecture"] == "one"].set_index(["preprocessing", "likelihood"])
    poisson = trained.loc[("counts", "poisson")]
    counts, held_out = adata.X.toarray(), (adata.obs["donor"] == "d0").to_numpy()
    known = 0.0
    for kind in ("t0", "t1", "t2"):
        own = (adata.obs["type"] == kind).to_numpy()
        share = counts[own & ~held_out].sum(0) + 0.5
        cells = counts[own & held_out]
        known += stats.poisson.logpmf(cells, cells.sum(1, keepdims=True) * share / share.sum()).sum() / held_out.sum()
    assert known > poisson["elbo_counts_null"] + 10
    assert poisson["elbo_counts"] > (known + poisson["elbo_counts_null"]) / 2
    assert (trained["label_transfer"] > 0.9).all()
    assert (trained["spearman"] > 0.2).all()
    assert (trained["n_active"] >= 1).all()


def test_genes_and_scales_know_nothing_of_held_out_donors():
    """Other counts in held-out donors: the same genes, and the same scores on the training cells."""
    asked = {
        "sample_key": "donor",
        "architectures": {"tiny": TINY["tiny"]},
        "likelihoods": "normal",
        "test_donors": "d1",
    }
    adata = simulate(2)
    before = ssc.tl.vae_study(adata, **asked, **QUICK)["runs"]
    counts = adata.X.toarray()
    counts[60:] = np.random.default_rng(5).permutation(counts[60:].ravel()).reshape(60, 60)
    adata.X = sparse.csr_matrix(counts)
    after = ssc.tl.vae_study(adata, **asked, **QUICK)["runs"]
    np.testing.assert_array_equal(before["elbo_train"], after["elbo_train"])
    assert (before["elbo"] != after["elbo"]).iloc[:3].all()


def test_scvi_keeps_no_hold_on_the_cells():
    from scvi.model import SCVI

    before = len(SCVI._setup_adata_manager_store)
    asked = {"sample_key": "donor", "architectures": {"tiny": TINY["tiny"]}, "likelihoods": "nb", "test_donors": "d1"}
    ssc.tl.vae_study(simulate(2), **asked, **QUICK)
    assert len(SCVI._setup_adata_manager_store) == before


def test_batches_that_donors_share():
    adata = simulate(2)
    asked = {
        "sample_key": "donor",
        "architectures": {"tiny": TINY["tiny"]},
        "likelihoods": ["poisson"],
        "test_donors": "d0",
    }
    ssc.tl.vae_study(adata, batch_key="chip", **asked, **QUICK)
    with pytest.raises(ValueError, match="no training cell is of the batch 'd0'"):
        ssc.tl.vae_study(adata, batch_key="donor", **asked, **QUICK)


def test_rounded_normal_is_a_distribution_of_counts():
    """Over all counts the probabilities sum to one, on every scale; far out they stay finite and right."""
    x = np.arange(400.0)
    totals = np.full(1, 1000.0)
    counts = sparse.csr_matrix(np.random.default_rng(0).poisson(3.0, (50, 1)))
    for name in ("counts", "log1p", "pearson"):
        scale = Scale.fit(name, counts, np.full(50, 900.0))
        low = np.array([scale.place(np.array([[max(v - 0.5, 0)]]), totals)[0, 0] for v in x])
        low[0] = -np.inf
        high = np.array([scale.place(np.array([[v + 0.5]]), totals)[0, 0] for v in x])
        assert (np.diff(high) > 0).all()
        mean, sd = torch.tensor(high[2]), torch.tensor(0.3 * (high[5] - high[2]))
        p = rounded_log_prob(mean, sd, torch.tensor(low), torch.tensor(high)).exp()
        assert p.sum().item() == pytest.approx(1, abs=1e-9)
    tail = rounded_log_prob(*(torch.tensor(v, dtype=torch.float64) for v in (0.0, 1.0, 30.0, 30.1)))
    exact = np.log(stats.norm.sf(30.0) - stats.norm.sf(30.1))
    assert tail.item() == pytest.approx(exact, rel=1e-6)


def test_scales_are_those_of_the_training_cells():
    rng = np.random.default_rng(0)
    train, test = (sparse.csr_matrix(rng.poisson(2.0, (80, 20)) * 1.0) for _ in range(2))
    totals = np.asarray(train.sum(1)).ravel()
    scale = Scale.fit("pearson", train, totals)
    values = scale.values(train, totals)
    assert values.min() == pytest.approx(0)
    import scanpy as sc

    theirs = sc.experimental.pp.normalize_pearson_residuals(AnnData(train.copy()), inplace=False)["X"]
    np.testing.assert_allclose(values + scale.shift, theirs, rtol=1e-4, atol=1e-4)
    own = np.asarray(test.sum(1)).ravel()
    np.testing.assert_allclose(scale.place(test.toarray(), own), scale.values(test, own))
    log = Scale.fit("log1p", train, totals)
    np.testing.assert_allclose(
        log.values(test, own).toarray(), np.log1p(test.toarray() / own[:, None] * np.median(totals))
    )


def test_genes_that_vary_are_chosen():
    rng = np.random.default_rng(0)
    mean = rng.gamma(2.0, 1.0, 300)
    counts = rng.poisson(mean, (200, 300))
    counts[:, :5] = rng.poisson(2 * mean[:5] * (np.arange(200) % 2)[:, None])
    counts[:, 5] = 0
    chosen = choose_genes(sparse.csr_matrix(counts * 1.0), counts.sum(1) * 1.0, 30)
    assert len(chosen) == 30
    assert set(range(5)) <= set(chosen)
    assert 5 not in chosen
    assert list(chosen) == sorted(chosen)
    everything = choose_genes(sparse.csr_matrix(counts * 1.0), counts.sum(1) * 1.0, None)
    np.testing.assert_array_equal(everything, np.delete(np.arange(300), 5))


def test_folds_hold_out_whole_donors_once():
    from sparsesc.door._obs_columns import Labels

    codes = np.repeat(np.arange(7), [100, 90, 80, 70, 60, 50, 40])
    donors = Labels("donor", codes, [f"d{i}" for i in range(7)])
    folds = make_folds(donors, "donor", test_donors=None, n_folds=3)
    assert sorted(name for fold in folds for name in fold.name.split(", ")) == donors.categories
    for fold in folds:
        assert not set(codes[fold.train]) & set(codes[fold.test])
        assert 140 <= len(fold.test) <= 190  # parts of about the same size
    assert len(make_folds(donors, "donor", test_donors=None, n_folds=None)) == 5


def test_scores_against_other_implementations():
    rng = np.random.default_rng(0)
    expected, counts = rng.random((60, 4)), rng.poisson(1.0, (60, 4))
    totals = rng.uniform(50, 150, 60)
    theirs = np.mean([stats.spearmanr(expected[:, j], counts[:, j] / totals).statistic for j in range(4)])
    assert spearman_of_genes(expected, sparse.csr_matrix(counts), totals) == pytest.approx(theirs)
    assert np.isnan(spearman_of_genes(expected, sparse.csr_matrix((60, 4)), totals))
    train = np.repeat(np.eye(2), 20, axis=0) + 0.01 * rng.normal(size=(40, 2))
    labels = np.repeat([0, 1], 20)
    test_labels = np.r_[np.zeros(30, int), np.ones(10, int), [-1, 2]]
    test = np.r_[np.tile([1.0, 0], (35, 1)), np.tile([0, 1.0], (7, 1))]
    assert label_transfer(train, labels, test, test_labels) == pytest.approx((1 + 0.5) / 2)


@pytest.mark.skipif(find_spec("ray") is not None, reason="ray is installed")
def test_autotune_says_what_it_needs():
    with pytest.raises(ImportError, match=r"ray.*pip install 'scvi-tools\[autotune\]'"):
        ssc.tl.vae_study(simulate(2), sample_key="donor", search="autotune")


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"sample_key": "no"}, KeyError, "Did not find adata.obs"),
        ({"sample_key": "one"}, ValueError, "none can be held out"),
        ({"test_donors": "d9"}, ValueError, "must be some, not all"),
        ({"test_donors": ["d0", "d1", "d2"]}, ValueError, "must be some, not all"),
        ({"test_donors": "d0", "n_folds": 2}, ValueError, "exclude each other"),
        ({"n_folds": 4}, ValueError, "between 2 and the number of donors"),
        ({"preprocessing": "log1p", "likelihoods": "nb"}, ValueError, "need preprocessing='counts'"),
        ({"preprocessing": "scran"}, ValueError, "Unknown preprocessing"),
        ({"likelihoods": []}, ValueError, "likelihoods is empty"),
        ({"architectures": {"a": 3}}, TypeError, "must be a mapping"),
        ({"architectures": {"a": {"n_hidden": 0}}}, ValueError, "at least 1"),
        ({"architectures": {"a": {"gene_likelihood": "nb"}}}, ValueError, "decide"),
        ({"rng": "a"}, TypeError, "rng must be a seed"),
        ({"kl_warmup": 2}, ValueError, "between 0 and 1"),
        ({"lr": 0}, ValueError, "positive"),
        ({"layer": "no"}, KeyError, "Did not find adata.layers"),
        ({"search": "all"}, ValueError, "Unknown search"),
    ],
)
def test_bad_input_is_told(options, error, match):
    adata = simulate()
    adata.obs["one"] = "same"
    with pytest.raises(error, match=match):
        ssc.tl.vae_study(adata, **{"sample_key": "donor", **options})


def test_donors_with_too_few_cells():
    with pytest.raises(ValueError, match="With d0 held out there are 12 cells"):
        ssc.tl.vae_study(simulate(6, 12), sample_key="donor", n_folds=6)
