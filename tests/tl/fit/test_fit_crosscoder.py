"""One dictionary over several embeddings: what is shared is found, and nothing where cells are shuffled."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from mudata import MuData
from scipy import stats

import sparsesc as ssc
from sparsesc.tl.fit._blocks import find_sources, join_blocks

QUICK = {"n_features": 48, "k": 4, "max_steps": 800, "progress_bar": False}
N_SHARED, N_PRIVATE, DIMENSIONS = 8, 6, (20, 14)


def programs(rng, n, m):
    return (rng.random((n, m)) < 0.15) * rng.gamma(4, 0.5, (n, m))


def simulate(seed=0, n=1600, noise=0.5, n_shared=N_SHARED):
    """Two embeddings of the same cells; what each program's activity is, shared ones first."""
    rng, frame = np.random.default_rng([seed, 1]), np.random.default_rng(77)
    loadings = [frame.normal(size=(n_shared + N_PRIVATE, d)) for d in DIMENSIONS]
    shared, own = programs(rng, n, n_shared), [programs(rng, n, N_PRIVATE) for _ in DIMENSIONS]
    parts = []
    for private, W, d, unit in zip(own, loadings, DIMENSIONS, (1.0, 7.0), strict=True):
        W = W / np.linalg.norm(W, axis=1, keepdims=True)
        X = np.hstack([shared, private]) @ W
        parts.append((unit * (X + noise * X.std() * rng.normal(size=(n, d))) + 3).astype(np.float32))
    kind = np.where(shared[:, 0] > 0, "yes", "no") if n_shared else np.full(n, "no")
    obs = pd.DataFrame({"type": pd.Categorical(kind)}, index=[f"cell {i}" for i in range(n)])
    adata = ad.AnnData(obs=obs, obsm={"X_a": parts[0], "X_b": parts[1]})
    return adata, np.hstack([shared, *own])


@pytest.fixture(scope="module")
def _fitted():
    adata, truth = simulate()
    ssc.tl.fit_crosscoder(adata, use_reps={"a": "X_a", "b": "X_b"}, **QUICK)
    return adata, truth


@pytest.fixture
def fitted(_fitted):
    return _fitted[0].copy()


def matched(adata, truth, at_least=0.5):
    """Features that follow one program, and whether that program is shared."""
    Z = adata.obsm["X_sae"].toarray()
    alive = np.flatnonzero(Z.any(0))
    r = np.corrcoef(Z[:, alive].T, truth.T)[: len(alive), len(alive) :]
    sure = r.max(1) > at_least
    return alive[sure], r.argmax(1)[sure]


def test_shared_programs_are_told_from_private_ones(_fitted):
    adata, truth = _fitted
    table = adata.uns["sae"]["features"]
    features, program = matched(adata, truth)
    shared = program < N_SHARED
    assert len(set(program)) >= 0.8 * truth.shape[1]
    share = table[["share_a", "share_b"]].min(axis=1).to_numpy()[features]
    pairing = table["pairing_r"].fillna(0).to_numpy()[features]
    for score in (share, pairing):
        auroc = stats.mannwhitneyu(score[shared], score[~shared]).statistic / (shared.sum() * (~shared).sum())
        assert auroc > 0.9
    kinds = table["kind"].to_numpy()[features]
    assert (kinds[shared] == "shared").mean() > 0.8
    assert (kinds[~shared] == "shared").mean() < 0.1
    own = np.where(program < N_SHARED + N_PRIVATE, "a", "b")
    private = kinds == "private"
    assert (table["embedding"].to_numpy()[features][private] == own[private]).all()


def test_columns_of_features(fitted):
    slot = fitted.uns["sae"]
    table = slot["features"]
    dead = table["dead"].to_numpy(bool)
    np.testing.assert_allclose(table["share_a"] + table["share_b"], 1, atol=1e-6)
    W = slot["weights"]["W_dec"]
    np.testing.assert_allclose(table["share_a"], (W[:, :20] ** 2).sum(1), rtol=1e-4, atol=1e-6)
    spread = (table[["share_a", "share_b"]].min(axis=1) >= 0.1) & ~dead
    assert (table["pairing_pval"].notna() == spread).all()
    assert set(table["kind"][spread]) <= {"shared", "mixed"}
    assert (table["kind"][~spread & ~dead] == "private").all()
    assert (table["kind"][dead] == "").all()
    shared = table["kind"] == "shared"
    assert (shared == (spread & (table["pairing_r"] > 0) & (table["pairing_padj"] < 0.05))).all()
    assert set(table["embedding"][shared]) <= {"a; b", "b; a"}
    # A gain is that of held-out cells. Starts at k-means centers leave features that stand for a handful of cells:
    # without any of them among those held out the gain is zero, with one or two its sign is chance.
    unseen = fitted.obs_names.isin(slot["validation_obs"])
    n_active = np.asarray((fitted.obsm["X_sae"][unseen] > 0).sum(axis=0)).ravel()
    gain = table[["gain_a", "gain_b"]]
    assert (gain[n_active == 0] == 0).all(axis=None)
    often = gain[shared & (n_active >= 10)]
    assert len(often) >= N_SHARED
    assert (often > 0).all(axis=None)


def test_controls(fitted):
    found = {name: ssc.get.crosscoder(fitted, table=name) for name in ("embeddings", "cross", "counts")}
    embeddings = found["embeddings"].set_index("embedding")
    assert embeddings["n_dimensions"].tolist() == [20, 14]
    X, unseen = fitted.obsm["X_sae_joint"], fitted.obs_names.isin(fitted.uns["sae"]["validation_obs"])
    X, X_hat = X[unseen], ssc.get.sae(fitted).reconstruct(X[unseen])
    for name, part in (("a", slice(0, 20)), ("b", slice(20, 34))):
        error = np.square(X[:, part] - X_hat[:, part]).sum() / np.square(X[:, part] - X[:, part].mean(0)).sum()
        assert embeddings.loc[name, "fvu"] == pytest.approx(error, rel=1e-4)
    # alone, all features serve one embedding; shuffled, none serves both
    assert (embeddings["fvu_alone"] < embeddings["fvu"]).all()
    assert (embeddings["fvu"] < embeddings["fvu_shuffled"]).all()
    cross = found["cross"]
    assert cross[["source", "target"]].to_numpy().tolist() == [["a", "b"], ["b", "a"]]
    assert (cross["fvu"] < 0.9).all()
    assert (cross["fvu"] > cross["fvu_linear"] - 0.05).all()
    assert (cross["fvu_shuffled"] > 0.98).all()
    counts = found["counts"].set_index("kind")
    assert counts.loc["shared", "n"] >= 6
    assert counts.loc["shared", "n_shuffled"] <= 1
    assert counts["n"].sum() == (~fitted.uns["sae"]["features"]["dead"]).sum()


def test_nothing_is_shared_by_independent_embeddings():
    adata, _ = simulate(seed=3, n_shared=0, noise=1.0)
    ssc.tl.fit_crosscoder(adata, use_reps=["X_a", "X_b"], n_controls=0, **QUICK)
    table = adata.uns["sae"]["features"]
    assert (table["kind"] == "shared").sum() <= 1
    assert (table["kind"] == "mixed").sum() >= 5  # decoder rows alone would have called them shared
    counts = ssc.get.crosscoder(adata, table="counts")
    assert counts["n_shuffled"].isna().all()
    assert ssc.get.crosscoder(adata)[["fvu_alone", "fvu_shuffled"]].isna().all(axis=None)


def test_it_is_an_autoencoder_on_the_joint_embedding(fitted):
    X = fitted.obsm["X_sae_joint"]
    assert X.dtype == np.float32
    for name, part in (("X_a", slice(0, 20)), ("X_b", slice(20, 34))):
        np.testing.assert_allclose(X[:, part].mean(0), 0, atol=1e-4)
        assert np.square(X[:, part]).sum() / len(X) == pytest.approx(1, rel=1e-4)
        correlation = np.corrcoef(X[:, part].ravel(), (fitted.obsm[name] - fitted.obsm[name].mean(0)).ravel())[0, 1]
        assert correlation == pytest.approx(1, abs=1e-5)
    alone = ad.AnnData(obs=fitted.obs, obsm={"X_joint": X})
    ssc.tl.fit_sae(alone, use_rep="X_joint", **QUICK)
    assert (alone.obsm["X_sae"] != fitted.obsm["X_sae"]).nnz == 0
    assert fitted.uns["sae"]["params"]["use_rep"] == "X_sae_joint"
    assert fitted.uns["sae"]["params"]["rng"] == "0"


def test_what_reads_an_autoencoder_reads_a_crosscoder(fitted):
    assert (ssc.get.sae(fitted).encode(fitted.obsm["X_sae_joint"]) != fitted.obsm["X_sae"]).nnz == 0
    ssc.tl.feature_association(fitted, "type")
    ssc.tl.feature_similarity(fitted)
    ssc.tl.feature_locality(fitted, "type")
    ssc.tl.stability(fitted, n_fits=1)
    assert ssc.get.features(fitted).var["kind"].isin(["shared", "mixed", "private", ""]).all()
    ssc.tl.steer(fitted, {"sae_0": 1.0})
    assert "X_sae_joint_steered" in fitted.obsm
    ssc.tl.fit_sae(fitted, use_rep="X_a", n_features=16, k=3, max_steps=20, progress_bar=False)
    assert "X_sae_joint" not in fitted.obsm
    assert "crosscoder" not in fitted.uns["sae"]


def test_other_cells_are_joined_by_the_same_units(fitted, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("sparsesc.tl.fit._apply_sae.warning", said.append)
    query, _ = simulate(seed=5, n=300)
    ssc.get.sae(fitted).save(tmp_path / "model")
    expected = (query.obsm["X_a"] - fitted.obsm["X_a"].mean(0, dtype=float)) / np.sqrt(
        np.square(fitted.obsm["X_a"] - fitted.obsm["X_a"].mean(0, dtype=float)).sum() / fitted.n_obs
    )
    for source in (fitted, tmp_path / "model"):
        adata = ssc.tl.apply_sae(query, source, key_added="new", copy=True)
        np.testing.assert_allclose(adata.obsm["X_new_joint"][:, :20], expected, atol=1e-5)
        assert (ssc.get.sae(adata, "new").encode(adata.obsm["X_new_joint"]) != adata.obsm["X_new"]).nnz == 0
        assert adata.uns["new"]["params"]["use_rep"] == "X_new_joint"
    assert not said
    again = ssc.tl.apply_sae(query, adata, key="new", copy=True)
    assert (again.obsm["X_sae"] != adata.obsm["X_new"]).nnz == 0
    mixed = query.copy()
    mixed.obsm["X_b"] = mixed.obsm["X_b"][np.random.default_rng(0).permutation(300)]
    ssc.tl.apply_sae(mixed, fitted)
    assert "out of distribution" in said[0]
    query.obsm["X_b"] = query.obsm["X_b"][:, :5]
    with pytest.raises(ValueError, match="'b' had 14 dimensions in the fit, but has 5 here"):
        ssc.tl.apply_sae(query, fitted)
    del query.obsm["X_b"]
    with pytest.raises(KeyError, match=r"Did not find adata\.obsm\['X_b'\]"):
        ssc.tl.apply_sae(query, fitted)


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_round_trip(fitted, tmp_path, suffix):
    path = tmp_path / f"cells.{suffix}"
    getattr(fitted, f"write_{suffix}")(path)
    back = getattr(ad, f"read_{suffix}")(path)
    for table in ("embeddings", "cross", "counts"):
        pd.testing.assert_frame_equal(
            ssc.get.crosscoder(back, table=table),
            ssc.get.crosscoder(fitted, table=table),
            check_dtype=False,
            check_column_type=False,
            check_index_type=False,
        )
    query, _ = simulate(seed=5, n=100)
    codes = [ssc.tl.apply_sae(query, source, copy=True).obsm["X_sae"] for source in (fitted, back)]
    assert (codes[0] != codes[1]).nnz == 0


def as_mudata(adata):
    """The same cells as two modalities, one of them in another order."""
    cells = adata.obs_names.to_numpy()
    other = np.random.default_rng(0).permutation(len(cells))

    def part(X, order, name):
        obs, var = pd.DataFrame(index=cells[order]), pd.DataFrame(index=[name])
        return ad.AnnData(np.zeros((len(cells), 1), np.float32), obs=obs, var=var, obsm={"X_emb": X[order]})

    first = part(adata.obsm["X_a"], np.arange(len(cells)), "gene")
    return MuData({"a": first, "b": part(adata.obsm["X_b"], other, "protein")})


def test_modalities_of_a_mudata(_fitted, tmp_path):
    adata, _ = simulate(n=300)
    mdata = as_mudata(adata)
    options = QUICK | {"max_steps": 60, "n_controls": 0}
    ssc.tl.fit_crosscoder(adata, use_reps={"a": "X_a", "b": "X_b"}, **options)
    ssc.tl.fit_crosscoder(mdata, use_reps={"a": "X_emb", "b": "X_emb"}, **options)
    place = mdata.obs_names.get_indexer(adata.obs_names)
    np.testing.assert_allclose(mdata.obsm["X_sae_joint"][place], adata.obsm["X_sae_joint"], atol=1e-6)
    assert ssc.get.crosscoder(mdata)["modality"].tolist() == ["a", "b"]
    mdata.write_h5mu(tmp_path / "cells.h5mu")
    import mudata

    back = mudata.read_h5mu(tmp_path / "cells.h5mu")
    again = ssc.tl.apply_sae(back, back, key_added="again", copy=True)
    assert (again.obsm["X_again"] != mdata.obsm["X_sae"]).nnz == 0
    with pytest.raises(KeyError, match=r"is that of a modality 'a'\. Found modalities: none"):
        ssc.tl.apply_sae(adata, back, key_added="again")
    fewer = MuData({"a": back["a"], "b": back["b"][:200].copy()})
    with pytest.raises(ValueError, match="100 of 300 cells are not in modality 'b'"):
        ssc.tl.fit_crosscoder(fewer, use_reps={"a": "X_emb", "b": "X_emb"})


def test_three_embeddings(fitted):
    adata, _ = simulate(n=400)
    adata.obsm["X_c"] = adata.obsm["X_a"] @ np.linalg.qr(np.random.default_rng(0).normal(size=(20, 20)))[0]
    ssc.tl.fit_crosscoder(adata, use_reps=["X_a", "X_b", "X_c"], n_controls=0, **QUICK)
    cross = ssc.get.crosscoder(adata, table="cross").set_index(["source", "target"])["fvu"]
    assert len(cross) == 6
    assert cross["X_a", "X_c"] < 0.5 < cross["X_b", "X_c"]
    table = adata.uns["sae"]["features"]
    shared = table[table["kind"] == "shared"]
    assert (shared["embedding"].str.contains("X_a") & shared["embedding"].str.contains("X_c")).mean() > 0.8


def test_the_seed_decides(_fitted):
    adata, _ = simulate(n=200)
    options = {"use_reps": ["X_a", "X_b"], **QUICK, "max_steps": 30}
    first, same, other = (
        ssc.tl.fit_crosscoder(adata, rng=rng, copy=True, **options) for rng in (0, np.random.default_rng(0), 1)
    )
    pd.testing.assert_frame_equal(ssc.get.crosscoder(first), ssc.get.crosscoder(same))
    assert not ssc.get.crosscoder(first)["fvu"].equals(ssc.get.crosscoder(other)["fvu"])
    assert "sae" not in adata.uns


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"use_reps": "X_a"}, TypeError, "use_reps must name embeddings"),
        ({"use_reps": ["X_a"]}, ValueError, "at least two different embeddings"),
        ({"use_reps": {"one": "X_a", "two": "X_a"}}, ValueError, "at least two different embeddings"),
        ({"use_reps": ["X_a", "X_b"], "validation": 0}, ValueError, "Some cells must be held out"),
        ({"use_reps": ["X_a", "X_missing"]}, KeyError, "Did not find adata.obsm\\['X_missing'\\]"),
        ({"use_reps": {"a/b": "X_a", "c": "X_b"}}, ValueError, "without '/'"),
        ({"use_reps": ["X_a", "X_b"], "min_share": 0.7}, ValueError, "min_share must be a share between 0 and 0.5"),
        ({"use_reps": ["X_a", "X_b"], "alpha": 0}, ValueError, "alpha must lie between 0 and 1"),
        ({"use_reps": ["X_a", "X_b"], "n_controls": -1}, ValueError, "n_controls must be a whole number"),
        ({"use_reps": ["X_a", "X_constant"]}, ValueError, "'X_constant' is constant"),
        ({"use_reps": ["X_a", "X_b"], "validation_groups": "donor"}, KeyError, "Did not find adata.obs\\['donor'\\]"),
    ],
)
def test_bad_options(options, error, message):
    adata, _ = simulate(n=60)
    adata.obsm["X_constant"] = np.ones((60, 3), np.float32)
    with pytest.raises(error, match=message):
        ssc.tl.fit_crosscoder(adata, **options)
    assert not {"sae"} & set(adata.uns)
    assert set(adata.obsm) == {"X_a", "X_b", "X_constant"}


def test_another_joint_embedding_is_not_overwritten():
    adata, _ = simulate(n=60)
    adata.obsm["X_sae_joint"] = np.ones((60, 2))
    with pytest.raises(ValueError, match=r"would overwrite adata\.obsm\['X_sae_joint'\]"):
        ssc.tl.fit_crosscoder(adata, use_reps=["X_a", "X_b"])


def test_units_and_names_can_be_stored():
    adata, _ = simulate(n=50)
    blocks, X = join_blocks(adata, find_sources(adata, {"a": "X_a", "b": "X_b"}))
    back = type(blocks).restored({k: v.tolist() for k, v in blocks.stored().items()})
    np.testing.assert_array_equal(back.join(adata), X)
    assert back.sources == blocks.sources


def test_a_reader_of_other_slots_is_told(pbmc68k_code):
    with pytest.raises(KeyError, match=r"Run ssc.tl.fit_crosscoder first"):
        ssc.get.crosscoder(pbmc68k_code)
    with pytest.raises(ValueError, match="Unknown table: 'genes'"):
        ssc.get.crosscoder(pbmc68k_code, table="genes")


def test_rna_and_protein_share_features(published):
    import scanpy as sc

    mdata = published("citeseq")
    rna, adt = mdata["rna"], mdata["adt"]
    sc.pp.normalize_total(rna, target_sum=1e4)
    sc.pp.log1p(rna)
    sc.pp.highly_variable_genes(rna, n_top_genes=1000)
    rna.obsm["X_pca"] = sc.pp.pca(rna[:, rna.var["highly_variable"]].X.toarray(), n_comps=15)
    counts = np.log1p(adt.X.toarray())
    adt.obsm["X_pca"] = sc.pp.pca(counts - counts.mean(1, keepdims=True), n_comps=12)
    ssc.tl.fit_crosscoder(
        mdata, use_reps={"rna": "X_pca", "adt": "X_pca"}, validation=0.2, max_steps=600, progress_bar=False
    )
    counts = ssc.get.crosscoder(mdata, table="counts").set_index("kind")
    assert counts.loc["shared", "n"] >= 5
    assert counts.loc["shared", "n_shuffled"] <= 1
    cross = ssc.get.crosscoder(mdata, table="cross")
    assert (cross["fvu"] < 0.7).all()
    assert (cross["fvu_shuffled"] > 0.95).all()
