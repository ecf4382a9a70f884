"""A query beside the cells of the fit: same or not, which features drift, and what is said when little is known."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import stats

import sparsesc as ssc
from sparsesc.tl.fit._reference import facts_of

N_PROGRAMS, D = 12, 16


def simulate(rng, n_donors, n_cells, *, shares=None, novel=0.0):
    """Sparse programs, in shares that differ between donors; `novel` of the cells have a program of their own."""
    frame = np.random.default_rng(99)
    W = frame.normal(size=(N_PROGRAMS + 1, D))
    W /= np.linalg.norm(W, axis=1, keepdims=True)
    base = frame.uniform(0.05, 0.4, N_PROGRAMS) if shares is None else shares
    X, donor, new = [], [], []
    for i in range(n_donors):
        n = n_cells[i] if np.ndim(n_cells) else n_cells
        active = rng.random((n, N_PROGRAMS)) < rng.beta(20 * base, 20 * (1 - base))
        is_new = rng.random(n) < novel
        Z = np.column_stack([active * rng.gamma(4, 0.5, active.shape), is_new * rng.gamma(6, 0.7, n)])
        X.append(Z @ W + 0.25 * rng.normal(size=(n, D)))
        donor += [f"donor {i}"] * n
        new.append(is_new)
    obs = pd.DataFrame({"donor": pd.Categorical(donor), "new": np.concatenate(new)})
    obs.index = [f"cell {i}" for i in range(len(obs))]
    return ad.AnnData(obs=obs, obsm={"X_emb": np.concatenate(X).astype(np.float32)})


def base_shares():
    frame = np.random.default_rng(99)
    frame.normal(size=(N_PROGRAMS + 1, D))
    return frame.uniform(0.05, 0.4, N_PROGRAMS)


@pytest.fixture(scope="module")
def _reference():
    adata = simulate(np.random.default_rng(0), 8, 150)
    ssc.tl.fit_sae(adata, use_rep="X_emb", n_features=32, k=4, max_steps=600, validation=0.2, progress_bar=False)
    return adata


@pytest.fixture
def reference(_reference):
    return _reference.copy()


@pytest.fixture
def said(monkeypatch):
    messages = []
    monkeypatch.setattr("sparsesc.tl.fit._apply_sae.warning", messages.append)
    return messages


def query(seed=1, **options):
    return simulate(np.random.default_rng(seed), 4, [60, 150, 150, 300], **options)


def test_a_query_of_the_same_distribution_gives_no_warning(reference, said):
    for seed in range(1, 6):
        adata = query(seed)
        ssc.tl.apply_sae(adata, reference, sample_key="donor")
        found = adata.uns["sae"]["query"]
        assert not found["out_of_distribution"]
        assert not found["embedded_differently"]
        assert 0.8 < found["residual_ratio"] < 1.25
        assert found["fvu_reference_units"] == pytest.approx(found["fvu_reference"], rel=0.25)
        assert found["beyond_95"] == pytest.approx(0.05, abs=0.05)
        # the fit has seen the reference, not the query: what is left over still has the same distribution
        assert stats.kstest(adata.obs["sae_residual_pval"], "uniform").statistic < 0.13
    assert not said


def test_reference_facts_are_those_of_its_held_out_cells(reference):
    slot = reference.uns["sae"]
    facts = slot["reference"]
    held_out = reference[slot["validation_obs"].astype(str)]
    X = held_out.obsm["X_emb"]
    residual = np.linalg.norm(X - ssc.get.sae(reference).reconstruct(X), axis=1)
    np.testing.assert_allclose(facts["residual"], np.sort(residual), rtol=1e-5)
    assert facts["squared_residual"] / facts["variance"] == pytest.approx(slot["metrics"]["fvu"], rel=1e-4)
    assert facts["n_held_out"] == len(X) == 240
    np.testing.assert_allclose(facts["density"], slot["features"]["density"], rtol=1e-6)


def test_table_and_columns(reference):
    adata = query()
    ssc.tl.apply_sae(adata, reference)
    slot = adata.uns["sae"]
    table = ssc.get.drift(adata).set_index("feature")
    features = slot["features"]
    np.testing.assert_allclose(table["density_query"][features.index], features["density"])
    np.testing.assert_allclose(table["density_reference"][features.index], reference.uns["sae"]["features"]["density"])
    h = 2 * np.arcsin(np.sqrt(table["density_query"])) - 2 * np.arcsin(np.sqrt(table["density_reference"]))
    np.testing.assert_allclose(table["drift"], h, atol=1e-6)
    assert (table["drift"].abs().diff().dropna() <= 1e-12).all()
    assert table[["pval", "padj"]].isna().all(axis=None)  # cells are no replicates
    X, sae = adata.obsm["X_emb"], ssc.get.sae(reference)
    residual = np.linalg.norm(X - sae.reconstruct(X), axis=1)
    np.testing.assert_allclose(adata.obs["sae_residual"], residual, rtol=1e-5)
    unseen = slot["reference"]["residual"]
    as_much = [(1 + (unseen >= r).sum()) / (1 + len(unseen)) for r in adata.obs["sae_residual"]]
    np.testing.assert_allclose(adata.obs["sae_residual_pval"], as_much, rtol=1e-6)
    assert ssc.get.drift(adata, [0, 3]).shape[0] == 2


def test_level_over_donors(reference):
    """Other donors on either side, and an untrained code, so that there are many tests."""
    rng = np.random.default_rng(3)
    directions = rng.normal(size=(64, D))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    p = []
    for seed in range(60):
        draw = np.random.default_rng([5, seed])
        ours, theirs = simulate(draw, 8, 120), simulate(draw, 4, [30, 60, 120, 400])
        sae = ssc.nn.SparseAutoencoder(
            directions.T, np.zeros(64), directions, np.zeros(D), np.full(64, 0.8), metadata={"use_rep": "X_emb"}
        )
        ssc.tl.apply_sae(theirs, sae, control=ours, sample_key="donor")
        p.append(theirs.uns["sae"]["drift"]["pval"].dropna())
    p = np.concatenate(p)
    assert len(p) > 3000
    assert 0.03 <= (p <= 0.05).mean() <= 0.06


def test_level_after_training(reference):
    """Features were fitted to the donors that they are compared with."""
    p = []
    for seed in range(40):
        adata = simulate(np.random.default_rng([7, seed]), 4, 150)
        ssc.tl.apply_sae(adata, reference, sample_key="donor")
        p.append(adata.uns["sae"]["drift"]["pval"].dropna())
    assert np.mean(np.concatenate(p) <= 0.05) <= 0.08  # one reference for all: its donors are drawn once


def test_what_drifts_is_found(reference):
    shares = base_shares()
    shares[3] = min(3 * shares[3], 0.9)
    adata = query(shares=shares)
    ssc.tl.apply_sae(adata, reference, sample_key="donor")
    table = ssc.get.drift(adata)
    found = table[table["padj"] < 0.05]
    frame = np.random.default_rng(99)
    program = frame.normal(size=(N_PROGRAMS + 1, D))[3]
    cosine = ssc.get.sae(reference).W_dec @ program / np.linalg.norm(program)
    assert cosine.argmax() in found["feature"].str.removeprefix("sae_").astype(int).tolist()
    top = int(table["feature"].iloc[0].removeprefix("sae_"))
    assert cosine[top] > 0.6
    assert table["drift_samples"].iloc[0] > 0.3


def test_new_kinds_of_cells_are_told(reference, said):
    adata = query(novel=0.15)
    ssc.tl.apply_sae(adata, reference)
    found = adata.uns["sae"]["query"]
    assert found["out_of_distribution"]
    assert len(said) == 1
    assert f"{found['beyond_95']:.1%} of its cells leave more over than 95 %" in said[0]
    assert f"{found['fvu_reference']:.1%} there" in said[0]
    new = adata.obs["new"].to_numpy()
    residual = adata.obs["sae_residual"]
    assert stats.mannwhitneyu(residual[new], residual[~new]).statistic / (new.sum() * (~new).sum()) > 0.95
    assert (adata.obs["sae_residual_pval"][new] <= 0.05).mean() > 0.8
    assert (adata.obs["sae_residual_pval"][~new] <= 0.05).mean() < 0.1


def test_a_shift_of_all_cells_is_told(reference, said):
    adata = query()
    adata.obsm["X_emb"] = adata.obsm["X_emb"] + 0.4 * np.random.default_rng(0).normal(size=D).astype(np.float32)
    ssc.tl.apply_sae(adata, reference)
    assert adata.uns["sae"]["query"]["out_of_distribution"]
    assert "out of distribution" in said[0]


def test_a_query_that_was_only_projected_is_told_and_a_control_helps(reference, said):
    center = reference.obsm["X_emb"].mean(0)

    def projected(seed):
        adata = query(seed)
        adata.obsm["X_emb"] = center + 0.75 * (adata.obsm["X_emb"] - center)
        return adata

    adata = projected(1)
    ssc.tl.apply_sae(adata, reference, sample_key="donor")
    assert adata.uns["sae"]["query"]["embedded_differently"]
    assert "pass projected cells as control" in said[0]
    said.clear()
    misled, fair = [], []
    for seed in range(1, 9):  # the donors of one query are few: their draw moves the p-values of all features
        for p, options in ((misled, {}), (fair, {"control": projected(100 + seed)})):
            adata = projected(seed)
            ssc.tl.apply_sae(adata, reference, sample_key="donor", **options)
            p.append(adata.uns["sae"]["drift"]["pval"].dropna())
        assert adata.uns["sae"]["query"]["reference"] == "control"
    assert len(said) == 8  # without a control only
    assert (np.concatenate(misled) <= 0.05).mean() > 0.2
    assert (np.concatenate(fair) <= 0.05).mean() <= 0.08


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_round_trip(reference, tmp_path, suffix):
    getattr(reference, f"write_{suffix}")(tmp_path / f"reference.{suffix}")
    stored = getattr(ad, f"read_{suffix}")(tmp_path / f"reference.{suffix}")
    adata = query()
    ssc.tl.apply_sae(adata, stored, sample_key="donor")
    expected = query()
    ssc.tl.apply_sae(expected, reference, sample_key="donor")
    getattr(adata, f"write_{suffix}")(tmp_path / f"query.{suffix}")
    back = getattr(ad, f"read_{suffix}")(tmp_path / f"query.{suffix}")
    for table in (ssc.get.drift(adata), ssc.get.drift(back)):
        pd.testing.assert_frame_equal(
            table, ssc.get.drift(expected), check_dtype=False, check_index_type=False, check_column_type=False
        )
    assert {k: v for k, v in back.uns["sae"]["query"].items() if v == v} == {
        k: v for k, v in expected.uns["sae"]["query"].items() if v == v
    }
    np.testing.assert_array_equal(back.obs["sae_residual_pval"], expected.obs["sae_residual_pval"])


def same_report(a, b):
    pd.testing.assert_frame_equal(ssc.get.drift(a), ssc.get.drift(b), rtol=1e-5)
    for name, value in ssc.get.drift(a).items():
        assert (value.isna() == ssc.get.drift(b)[name].isna()).all()
    ours, theirs = a.uns["sae"]["query"], b.uns["sae"]["query"]
    assert ours["reference"] == theirs["reference"]
    assert ours["beyond_95"] == pytest.approx(theirs["beyond_95"])
    assert ours["fvu_reference_units"] == pytest.approx(theirs["fvu_reference_units"], rel=1e-4)


def test_a_folder_a_model_and_an_applied_code_know_the_reference(reference, tmp_path):
    ssc.get.sae(reference).save(tmp_path / "model")
    expected = ssc.tl.apply_sae(query(), reference, copy=True)
    again = ssc.tl.apply_sae(query(2), reference, copy=True)
    ssc.get.sae(again).save(tmp_path / "applied")
    for source in (tmp_path / "model", ssc.get.sae(reference), again, tmp_path / "applied"):
        same_report(ssc.tl.apply_sae(query(), source, copy=True), expected)


def test_fits_that_stored_no_facts_are_asked_for_their_cells(reference):
    expected = ssc.tl.apply_sae(query(), reference, sample_key="donor", copy=True)
    del reference.uns["sae"]["reference"]
    same_report(ssc.tl.apply_sae(query(), reference, sample_key="donor", copy=True), expected)


def test_without_its_cells_a_fit_of_before_gives_what_its_tables_say(reference, said):
    del reference.uns["sae"]["reference"], reference.obsm["X_emb"]
    adata = ssc.tl.apply_sae(query(), reference, copy=True)
    found = adata.uns["sae"]["query"]
    assert found["reference"] == "unknown"
    assert found["fvu_reference"] == pytest.approx(reference.uns["sae"]["metrics"]["fvu"])
    assert np.isnan(found["fvu_reference_units"])
    assert np.isnan(found["beyond_95"])
    assert ssc.get.drift(adata)["drift"].notna().all()
    assert adata.obs["sae_residual_pval"].isna().all()
    assert not said


def test_nothing_known_is_no_error(reference, said, monkeypatch):
    told = []
    monkeypatch.setattr("sparsesc.tl.fit._apply_sae.info", told.append)
    bare = ssc.nn.SparseAutoencoder(**reference.uns["sae"]["weights"])
    adata = ssc.tl.apply_sae(query(), bare, use_rep="X_emb", copy=True)
    table = ssc.get.drift(adata)
    assert table["density_query"].notna().all()
    assert table[["density_reference", "drift", "pval"]].isna().all(axis=None)
    assert adata.uns["sae"]["query"]["reference"] == "unknown"
    assert any("nothing is known of residuals" in line for line in told)
    assert not said


def test_cells_that_were_all_trained_on_do_not_judge_others(said):
    adata = simulate(np.random.default_rng(0), 3, 60)
    ssc.tl.fit_sae(adata, use_rep="X_emb", n_features=16, k=3, max_steps=60, validation=0, progress_bar=False)
    other = ssc.tl.apply_sae(query(), adata, copy=True)
    assert other.uns["sae"]["query"]["reference"] == "trained on"
    assert other.obs["sae_residual_pval"].isna().all()
    assert np.isfinite(other.uns["sae"]["query"]["fvu_reference_units"])
    assert not said


def test_facts_are_small():
    rng = np.random.default_rng(0)
    sae = ssc.nn.SparseAutoencoder(np.eye(4), np.zeros(4), np.eye(4), np.zeros(4), np.full(4, 0.5))
    X = rng.normal(size=(20_000, 4)).astype(np.float32)
    facts = facts_of(sae, X, sae.encode(X), np.ones(len(X), bool))
    assert len(facts["residual"]) == 1000
    residual = np.linalg.norm(X - sae.reconstruct(X), axis=1)
    assert (residual > facts["residual"][949]).mean() == pytest.approx(0.05, abs=2e-3)


def test_columns_go_with_the_codes(reference):
    adata = query()
    ssc.tl.apply_sae(adata, reference)
    assert "sae_residual" in adata.obs
    ssc.tl.apply_sae(adata, reference)  # again: its own columns
    ssc.tl.fit_sae(adata, use_rep="X_emb", n_features=16, k=3, max_steps=60, progress_bar=False)
    assert not {"sae_residual", "sae_residual_pval"} & set(adata.obs)
    adata = query()
    adata.obs["sae_residual"] = 1.0
    with pytest.raises(ValueError, match=r"would overwrite adata\.obs columns 'sae_residual'"):
        ssc.tl.apply_sae(adata, reference)
    assert "sae" not in adata.uns


def test_errors(reference):
    adata = query()
    with pytest.raises(KeyError, match=r"Did not find adata.obs\['mouse'\]"):
        ssc.tl.apply_sae(adata, reference, sample_key="mouse")
    with pytest.raises(ValueError, match="whose cells are not at hand"):
        ssc.tl.apply_sae(adata, ssc.get.sae(reference), sample_key="donor")
    with pytest.raises(ValueError, match="has 0 samples of at least min_cells=1000 cells in the query and 0 in"):
        ssc.tl.apply_sae(adata, reference, sample_key="donor", min_cells=1000)
    with pytest.raises(ValueError, match="min_cells must be a whole number"):
        ssc.tl.apply_sae(adata, reference, min_cells=0)
    control = query(2)
    control.obsm["X_emb"] = control.obsm["X_emb"][:, :5]
    with pytest.raises(ValueError, match="has 5 in control"):
        ssc.tl.apply_sae(adata, reference, control=control)
    with pytest.raises(KeyError, match=r"Did not find adata\.uns\[.sae.\]\[.drift.\]"):
        ssc.get.drift(reference)
    assert "sae" not in adata.uns
    assert "sae_residual" not in adata.obs


def test_interferon_moves_its_features_and_other_donors_move_none(published):
    """Features of unstimulated cells of four donors, in the other four: without and with interferon.

    The response is no single feature: it is spread over those of several cell types, each of which becomes more
    frequent by less than one on the scale of `drift`, and which of them moves most depends on the seed.
    """
    import scanpy as sc

    adata = published("kang2018")
    adata = adata[adata.obs["donor"].astype(str) != "NA"].copy()
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    sc.pp.highly_variable_genes(adata, n_top_genes=1000)
    adata.obsm["X_pca"] = sc.pp.pca(adata[:, adata.var["highly_variable"]].X.toarray(), n_comps=20)
    fitted = adata.obs["donor"].astype(str).isin(["101", "1015", "1039", "1256"])
    reference = adata[fitted & (adata.obs["condition"] == "ctrl")].copy()
    ssc.tl.fit_sae(reference, use_rep="X_pca", n_features=48, k=4, max_steps=600, progress_bar=False)
    others = adata[~fitted].copy()
    found = {}
    for condition in ("ctrl", "stim"):
        query = others[others.obs["condition"] == condition].copy()
        ssc.tl.apply_sae(query, reference, sample_key="donor")
        found[condition] = ssc.get.drift(query), query.uns["sae"]["query"]["out_of_distribution"]
    table, outside = found["ctrl"]
    assert not outside
    assert (table["padj"] < 0.05).sum() <= 1
    table, outside = found["stim"]
    assert outside
    risen = table[(table["padj"] < 0.05) & (table["drift"] > 0.3)]["feature"]
    steady = table[table["drift"].abs() < 0.2]["feature"]
    assert len(risen) >= 6
    # what the features stand for, in cells of both kinds: the place of known genes among all
    ssc.tl.apply_sae(others, reference)
    ssc.tl.feature_genes(others, progress_bar=False)
    interferon = ["ISG15", "IFI6", "IFIT1", "IFIT3", "IFIT2", "ISG20", "LY6E", "MX1", "IFITM3", "CXCL10", "IFITM2"]
    statistic = pd.DataFrame(others.varm["sae_genes"], others.var_names, others.uns["sae"]["features"].index)
    place = statistic.rank(ascending=False).loc[interferon].median()
    assert place[risen].median() < 100
    assert place[steady].median() > 1000
