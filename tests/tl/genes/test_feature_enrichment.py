from __future__ import annotations

from zlib import crc32

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats

import sparsesc as ssc

COLUMNS = ["feature", "term", "score", "pval", "padj", "n_genes", "genes"]


@pytest.fixture
def adata(pbmc68k_code):
    ssc.tl.feature_genes(pbmc68k_code, progress_bar=False)
    return pbmc68k_code


@pytest.fixture
def net(adata):
    """Forty random sets of 6 to 30 genes, and one that no one measured."""
    rng = np.random.default_rng(0)
    sets = {f"set {i}": list(rng.choice(adata.var_names, rng.integers(6, 30), replace=False)) for i in range(40)}
    return sets | {"unmeasured": ["NOT1", "NOT2", "NOT3", "NOT4", "NOT5", "NOT6"]}


def table(adata, net, **kwargs):
    ssc.tl.feature_enrichment(adata, net, progress_bar=False, **kwargs)
    return adata.uns["sae"]["enrichment"]


@pytest.mark.parametrize("method", ["ulm", "ora", "ranksum"])
@pytest.mark.parametrize("null", [None, "expression", "genes"])
def test_table(adata, net, method, null):
    found = table(adata, net, method=method, n_top=None, null=null)
    more = ["pval_parametric"] * (method == "ulm") + ["null_sd"] * (null is None)
    assert list(found.columns) == COLUMNS + more
    assert adata.uns["sae"]["params"]["feature_enrichment"]["null"] == (null or "cells")
    assert len(found) == 64 * 40
    np.testing.assert_allclose(found["padj"], stats.false_discovery_control(found["pval"]), rtol=1e-6)
    assert found.groupby("feature")["pval"].apply(lambda p: p.is_monotonic_increasing).all()
    assert (found["n_genes"] == found["term"].map({name: len(genes) for name, genes in net.items()})).all()
    # as h5ad has it: nothing that a file cannot hold
    assert not found.isna().any().any()


@pytest.mark.parametrize("method", ["ulm", "ora", "ranksum"])
def test_short_table_has_the_same_adjusted_p_values(adata, net, method):
    everything = table(adata, net, method=method, n_top=None)
    short = table(adata, net, method=method, n_top=2)
    assert len(short) == 64 * 2
    merged = short.merge(everything, on=["feature", "term"], suffixes=("", "_all"))
    np.testing.assert_array_equal(merged["padj"], merged["padj_all"])
    smallest = everything.groupby("feature")["pval"].nsmallest(2).groupby("feature").max()
    np.testing.assert_allclose(short.groupby("feature")["pval"].max(), smallest, rtol=1e-12)


def test_ulm_is_decouplers(adata, net):
    import decoupler

    found = table(adata, net, n_top=None, null="genes").pivot(index="feature", columns="term", values="score")
    scores = pd.DataFrame(adata.varm["sae_genes"].T, adata.uns["sae"]["features"].index, adata.var_names)
    long = pd.DataFrame(
        [(s, t, 1.0) for s, genes in net.items() for t in genes], columns=["source", "target", "weight"]
    )
    expected, _ = decoupler.mt.ulm(scores.astype(np.float64), long, tmin=5)
    found = found.loc[expected.index, expected.columns]
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_parametric_p_values_are_those_of_t(adata, net):
    default = table(adata, net, n_top=None, null="genes")
    assert adata.uns["sae"]["params"]["feature_enrichment"]["pvalues"] == "permutation"
    found = table(adata, net, n_top=None, pvalues="parametric", null="genes")
    assert list(found.columns) == COLUMNS
    np.testing.assert_allclose(found["pval"], 2 * stats.t.sf(found["score"].abs(), adata.n_vars - 2), rtol=1e-6)
    both = default.merge(found, on=["feature", "term"], suffixes=("", "_t"))
    np.testing.assert_allclose(both["pval_parametric"], both["pval_t"], rtol=1e-9)
    np.testing.assert_array_equal(both["score"], both["score_t"])


def highly_expressed_sets(adata, rng):
    """Genes drawn at random from the upper tenth."""
    genes = adata.raw.var_names[np.argsort(-np.asarray(adata.raw.X.mean(0)).ravel())[:77]]
    return {f"set {i}": list(rng.choice(genes, 20, replace=False)) for i in range(20)}


@pytest.mark.parametrize("method", ["ulm", "ranksum", "ora"])
def test_null_of_shuffled_cells(adata, method):
    """Markers vary together, random genes do not; scores stay, and p-values grow where sets are coherent."""
    markers = ssc.datasets.gene_sets("immune_markers").groupby("source")["target"].agg(list).to_dict()
    net = markers | highly_expressed_sets(adata, np.random.default_rng(0))
    like = table(adata, net, method=method, n_top=None, null="expression")
    cells = table(adata, net, method=method, n_top=None)
    pd.testing.assert_frame_equal(cells, table(adata, net, method=method, n_top=None, null="cells"))
    asked = adata.uns["sae"]["params"]["feature_enrichment"]
    assert asked["n_permutations"] == 1000
    np.testing.assert_allclose(cells["padj"], stats.false_discovery_control(cells["pval"]), rtol=1e-6)
    if method != "ora":
        spread = cells.groupby("term")["null_sd"].first()
        random = spread.index.str.startswith("set ")
        assert spread[~random].median() > 1.4
        assert 0.75 < spread[random].median() < 1.2
    both = like.merge(cells, on=["feature", "term"], suffixes=("", "_cells"))
    np.testing.assert_array_equal(both["score"], both["score_cells"])
    is_random = both["term"].str.startswith("set ")
    assert (both["pval_cells"] <= 0.05)[is_random].mean() <= 0.06
    assert (both["pval_cells"] >= both["pval"]).all()
    assert (both["pval_cells"] > 2 * both["pval"])[~is_random & (both["pval"] < 0.05)].mean() > 0.5
    found = cells[cells["padj"] < 0.05]
    assert len(found) > 20
    assert found["term"].isin(markers).mean() > 0.95


@pytest.mark.parametrize("method", ["ulm", "ranksum", "ora"])
def test_random_sets_of_highly_expressed_genes_are_no_findings(adata, method):
    net = highly_expressed_sets(adata, np.random.default_rng(1))
    all_genes = table(adata, net, method=method, n_top=None, null="genes")
    assert all_genes[all_genes["padj"] <= 0.05]["feature"].nunique() > 0.2 * 64
    for null in ("expression", None):
        found = table(adata, net, method=method, n_top=None, null=null)
        assert found[found["padj"] <= 0.05]["feature"].nunique() <= 0.06 * 64
        assert (0.005 if method == "ora" else 0.025) < (found["pval"] <= 0.05).mean() < 0.06


@pytest.mark.parametrize("method", ["ulm", "ranksum", "ora"])
def test_genes_that_vary_together_are_no_finding_in_shuffled_cells(pbmc68k_code, method):
    """Sets of genes that correlate, and features that have nothing to do with any gene."""
    adata, rng = pbmc68k_code, np.random.default_rng(0)
    codes = adata.obsm["X_sae"].toarray()
    adata.obsm["X_sae"] = sparse.csr_matrix(rng.permuted(codes, axis=0))
    X = adata.raw.X.toarray().astype(float)
    with_seed = np.corrcoef(X.T)[rng.permutation(X.shape[1])[:30]]
    net = {f"module {i}": list(adata.raw.var_names[np.argsort(-r)[:20]]) for i, r in enumerate(with_seed)}
    ssc.tl.feature_genes(adata, progress_bar=False)
    share, false = {}, {}
    for null in ("genes", "expression", None):
        found = table(adata, net, method=method, n_top=None, null=null)
        share[null] = (found["pval"] <= 0.05).mean()
        false[null] = found[found["padj"] <= 0.05]["feature"].nunique() / 64
    assert min(share["genes"], share["expression"]) > (0.04 if method == "ora" else 0.12)
    assert share[None] < (0.06 if method == "ora" else 0.08)
    assert false["genes"] > 0.2
    assert false[None] <= 0.06


def test_sets_are_compared_with_genes_of_like_expression(adata):
    """A shift of all highly expressed genes moves no set; without bins it does."""
    order = np.argsort(np.asarray(adata.raw.X.mean(0)).ravel())
    top = adata.raw.var_names[order[-51:]]
    net = {"top": list(top[:25]), "other": list(adata.raw.var_names[order[:30]])}
    before = {null: table(adata, net, n_top=None, null=null) for null in ("expression", "genes")}
    adata.varm["sae_genes"] = adata.varm["sae_genes"] + 3 * adata.var_names.isin(top)[:, None].astype(np.float32)
    after = {null: table(adata, net, n_top=None, null=null) for null in ("expression", "genes")}
    columns = ["feature", "term", "score"]
    sort = lambda frame: frame[columns].sort_values(columns[:2]).reset_index(drop=True)  # noqa: E731
    pd.testing.assert_frame_equal(sort(after["expression"]), sort(before["expression"]), rtol=1e-3, atol=1e-3)
    assert (sort(after["genes"])["score"] - sort(before["genes"])["score"]).abs().median() > 0.5


def test_scaled_values_are_not_ordered_by_expression(adata, net):
    ssc.tl.feature_genes(adata, use_raw=False, progress_bar=False)
    like = table(adata, net, n_top=None, null="expression")
    pd.testing.assert_frame_equal(
        like[COLUMNS[:6]], table(adata, net, n_top=None, null="genes")[COLUMNS[:6]], rtol=1e-6
    )


def test_null_of_shuffled_cells_follows_how_genes_were_scored(adata, net, monkeypatch):
    """Correlations, samples as replicates and scores that are not stored; and memory that holds few copies at once."""
    adata.obs["donor"] = pd.Categorical([f"donor {i % 4}" for i in range(adata.n_obs)])
    for options in ({"method": "correlation"}, {"sample_key": "donor"}, {"split": "cells", "holdout": 0.5}):
        ssc.tl.feature_genes(adata, progress_bar=False, **options)
        found = table(adata, net, n_top=None, null="cells", n_permutations=200)
        assert (found["pval"] <= 0.05).mean() < 0.08
        assert 0.8 < found["null_sd"].median() < 1.2
    ssc.tl.feature_genes(adata, progress_bar=False)
    stored = table(adata, net, null="cells", n_permutations=100)
    few = table(adata, net, null="cells", n_permutations=100, max_memory=1e-3)
    np.testing.assert_allclose(few["pval"], stored["pval"], rtol=1e-9)
    ssc.tl.feature_genes(adata, store=False, progress_bar=False)
    pd.testing.assert_frame_equal(table(adata, net, null="cells", n_permutations=100), stored)


def test_null_of_shuffled_cells_needs_scores_that_compare_cells(adata, net):
    adata.uns["sae"]["params"]["feature_genes"]["method"] = "decoder"
    with pytest.raises(ValueError, match=r"null='cells' goes by the cells that are compared.*'decoder' compare none"):
        table(adata, net, null="cells")
    table(adata, net)
    assert adata.uns["sae"]["params"]["feature_enrichment"]["null"] == "genes"


def test_ranksum_is_scipys(adata, net):
    found = table(adata, net, method="ranksum", n_top=None, null="genes").iloc[::37]
    scores = adata.varm["sae_genes"]
    column = adata.uns["sae"]["features"].index
    for row in found.itertuples():
        inside = adata.var_names.isin(net[row.term])
        values = scores[:, column.get_loc(row.feature)].astype(np.float64)
        expected = stats.mannwhitneyu(values[inside], values[~inside], method="asymptotic")
        assert row.pval == pytest.approx(expected.pvalue, rel=1e-6)


def test_ora_is_hypergeometric_in_the_measured_universe(adata, net):
    found = table(adata, net, method="ora", n_top=None, n_up=40, null="genes").iloc[::37]
    scores = adata.varm["sae_genes"]
    column = adata.uns["sae"]["features"].index
    for row in found.itertuples():
        values = scores[:, column.get_loc(row.feature)]
        top = set(adata.var_names[np.argsort(-values)[:40]])
        overlap = len(top & set(net[row.term]))
        expected = stats.hypergeom.sf(overlap - 1, adata.n_vars, len(net[row.term]), 40)
        assert row.pval == pytest.approx(expected, rel=1e-6)
        assert set(row.genes.split(",")) - {""} <= top & set(net[row.term])


def test_gsea_of_one_feature(adata):
    found = table(adata, "immune_markers", method="gsea", features="sae_1", rng=3)
    again = table(adata, "immune_markers", method="gsea", features="sae_1", rng=3)
    pd.testing.assert_frame_equal(found, again)
    assert adata.uns["sae"]["params"]["feature_enrichment"]["null"] == "expression"
    ulm = table(adata, "immune_markers", features="sae_1")
    assert found["term"][0] == ulm["term"][0]
    assert ((found["pval"] > 0) & (found["pval"] <= 1)).all()


def test_names_and_leading_genes(adata):
    found = table(adata, "immune_markers", null="genes")
    terms = adata.uns["sae"]["features"]["term"]
    assert terms.dtype == "str"
    significant = found[(found["padj"] < 0.05) & (found["score"] > 0)]
    first = significant.groupby("feature", sort=False)["term"].first()
    assert terms[terms != ""].to_dict() == first.to_dict()
    scores = pd.DataFrame(adata.varm["sae_genes"], adata.var_names, terms.index)
    row = significant.iloc[0]
    genes = row["genes"].split(",")
    members = ssc.datasets.gene_sets("immune_markers").query("source == @row.term")["target"]
    assert set(genes) <= set(members)
    values = scores.loc[genes, row["feature"]]
    assert (values > 0).all()
    assert values.is_monotonic_decreasing
    short = table(adata, "immune_markers", n_leading=1)
    assert not short["genes"].str.contains(",").any()


@pytest.mark.parametrize("method", ["ulm", "ora", "ranksum"])
def test_scores_that_are_not_stored_are_computed_again(adata, net, method):
    stored = table(adata, net, method=method)
    ssc.tl.feature_genes(adata, store=False, progress_bar=False)
    pd.testing.assert_frame_equal(table(adata, net, method=method), stored)


def test_sampled_silent_cells_are_the_same_when_computed_again(adata, net):
    ssc.tl.feature_genes(adata, n_silent=80, rng=5, progress_bar=False)
    stored = table(adata, net)
    ssc.tl.feature_genes(adata, n_silent=80, rng=5, store=False, progress_bar=False)
    pd.testing.assert_frame_equal(table(adata, net), stored)


def test_genes_of_raw_count_when_adata_has_few(adata, net):
    expected = table(adata, net)
    few = adata[:, :200].copy()
    few.raw = adata.raw.to_adata()
    ssc.tl.feature_genes(few, progress_bar=False)
    pd.testing.assert_frame_equal(table(few, net), expected)


def test_genes_without_variation_are_outside_of_the_universe(adata, net):
    raw = adata.raw.to_adata()
    raw.X = raw.X.toarray() * (np.arange(raw.n_vars) >= 50)
    adata.raw = raw
    ssc.tl.feature_genes(adata, progress_bar=False)
    stored = table(adata, net)
    assert adata.uns["sae"]["params"]["feature_enrichment"]["n_genes_universe"] == 715
    ssc.tl.feature_genes(adata, store=False, progress_bar=False)
    pd.testing.assert_frame_equal(table(adata, net), stored)


def test_forms_of_net_agree(adata, net, tmp_path):
    expected = table(adata, net)
    long = pd.DataFrame([(s, t) for s, genes in net.items() for t in genes], columns=["source", "target"])
    pd.testing.assert_frame_equal(table(adata, long), expected)
    pd.testing.assert_frame_equal(table(adata, long.assign(weight=1, more="x")), expected)
    pd.testing.assert_frame_equal(table(adata, {s: dict.fromkeys(g, 1) for s, g in net.items()}), expected)
    path = tmp_path / "sets.gmt"
    path.write_text("".join(f"{s}\tno description\t" + "\t".join(g) + "\n" for s, g in net.items()))
    pd.testing.assert_frame_equal(table(adata, path), expected)
    pd.testing.assert_frame_equal(table(adata, str(path)), expected)
    twice = pd.concat([long, long])
    pd.testing.assert_frame_equal(table(adata, twice), expected)


def test_weights_matter_to_ulm_only(adata, net, monkeypatch):
    rng = np.random.default_rng(0)
    weighted = {s: dict(zip(g, rng.normal(size=len(g)), strict=True)) for s, g in net.items()}
    assert not table(adata, weighted).equals(table(adata, net))
    messages = []
    monkeypatch.setattr("sparsesc._logging.warning", messages.append)
    pd.testing.assert_frame_equal(
        table(adata, weighted, method="ranksum")[COLUMNS[:6]], table(adata, net, method="ranksum")[COLUMNS[:6]]
    )
    assert [message for message in messages if "unmeasured" not in message] == [
        "net has weights, which method='ranksum' does not use: only membership counts."
    ]


def test_report_of_the_match(adata, net):
    net["all of them"] = list(adata.var_names)
    net["two"] = list(adata.var_names[:2])
    table(adata, net, max_size=100)
    report = adata.uns["sae"]["params"]["feature_enrichment"]
    assert report["n_sets"] == 43
    assert report["n_sets_tested"] == 40
    assert report["n_sets_too_small"] == 2
    assert report["n_sets_too_large"] == 1
    assert report["n_targets_measured"] == 765
    assert report["coverage"] == pytest.approx(765 / 771)
    assert report["unmatched"].tolist() == [f"NOT{i}" for i in range(1, 7)]
    assert report["sets_too_small"].tolist() == ["two", "unmeasured"]
    assert report["n_features_not_tested"] == 0


def test_what_is_left_out_is_said(adata, net, monkeypatch):
    """Sets with too few genes, the nearest to min_size first, and genes whose names are all but right."""
    messages = []
    monkeypatch.setattr("sparsesc._logging.warning", messages.append)
    genes = list(adata.var_names)
    table(adata, net | {"a": genes[:1], "b": [*genes[:4], "NOT9"], "c": genes[:2]})
    assert len(messages) == 1
    assert messages[0].startswith(
        "4 of 44 gene sets have fewer than min_size=5 tested genes and are left out: 'b' (4 of 5), "
    )
    assert messages[0].endswith("'c' (2 of 2), 'a' (1 of 1) and 1 more.")
    messages.clear()
    hla = [name for name in genes if name.startswith("HLA-")][:4]
    through_r = [name.replace("-", ".") for name in hla]
    table(adata, {"mhc": [*genes[:9], *through_r, genes[20].lower(), "NOT1"]})
    assert len(messages) == 1
    assert messages[0].startswith("5 genes of net are not among the measured ones, but differ")
    assert f"{through_r[0]!r} (measured: {hla[0]!r})" in messages[0]
    misses = adata.uns["sae"]["params"]["feature_enrichment"]["near_misses"].tolist()
    assert sorted(misses) == sorted(
        f"{a} ({b})" for a, b in [*zip(through_r, hla, strict=True), (genes[20].lower(), genes[20])]
    )
    messages.clear()
    table(adata, {"whole": genes[:9]})
    assert messages == []


def test_a_net_of_the_older_kind_has_its_weights_in_mor(adata, net):
    rng = np.random.default_rng(0)
    long = pd.DataFrame([(s, t) for s, genes in net.items() for t in genes], columns=["source", "target"])
    long["weight"] = rng.choice([-1.0, 1.0], len(long))
    expected = table(adata, long)
    pd.testing.assert_frame_equal(table(adata, long.rename(columns={"weight": "mor"})), expected)
    pd.testing.assert_frame_equal(table(adata, long.assign(mor=1.0)), expected)
    with pytest.raises(ValueError, match=r"net\['mor'\] must hold finite numbers"):
        table(adata, long[["source", "target"]].assign(mor="activation"))


def test_names_of_raw_are_told_from_those_of_adata(adata, net):
    """Ids in raw, symbols in adata: the refusal says which were read, and how to read the others."""
    raw = adata.raw.to_adata()
    raw.var_names = [f"ENSG{i:011}" for i in range(raw.n_vars)]
    adata.raw = raw
    ssc.tl.feature_genes(adata, progress_bar=False)
    with pytest.raises(ValueError, match=r"adata\.raw, from which genes were read, has 'ENSG.*use_raw=False"):
        table(adata, net)
    with pytest.raises(ValueError, match=r"adata\.raw uses Ensembl ids, net gene symbols"):
        table(adata, {"x": ["FOO", "BAR"]})
    ssc.tl.feature_genes(adata, use_raw=False, progress_bar=False)
    assert len(table(adata, net))


def test_features_without_scores_have_no_rows(adata, net):
    codes = adata.obsm["X_sae"].tolil()
    codes[:, 2] = 0
    adata.obsm["X_sae"] = codes.tocsr()
    ssc.tl.feature_genes(adata, progress_bar=False)
    found = table(adata, net)
    assert "sae_2" not in set(found["feature"])
    assert adata.uns["sae"]["features"].loc["sae_2", "term"] == ""
    with pytest.raises(ValueError, match=r"None of the features 'sae_2' has gene scores"):
        table(adata, net, features="sae_2")
    some = table(adata, net, features=[4, "sae_3", "sae_2"], n_top=None)
    assert set(some["feature"]) == {"sae_3", "sae_4"}
    np.testing.assert_allclose(some["padj"], stats.false_discovery_control(some["pval"]), rtol=1e-6)


def test_copy_and_view(adata, net):
    copied = ssc.tl.feature_enrichment(adata, net, copy=True, progress_bar=False)
    assert "enrichment" in copied.uns["sae"]
    assert "enrichment" not in adata.uns["sae"]
    view = adata[:, :]
    with pytest.warns(ad.ImplicitModificationWarning, match="view"):
        ssc.tl.feature_enrichment(view, net, progress_bar=False)
    assert "enrichment" in view.uns["sae"]
    assert "enrichment" not in adata.uns["sae"]


@pytest.mark.parametrize("suffix", ["h5ad", "zarr"])
def test_results_survive_files(adata, net, tmp_path, suffix):
    found = table(adata, net)
    path = tmp_path / f"x.{suffix}"
    getattr(adata, f"write_{suffix}")(path)
    read = getattr(ad, f"read_{suffix}")(path)
    pd.testing.assert_frame_equal(read.uns["sae"]["enrichment"], found, check_dtype=False)
    pd.testing.assert_frame_equal(table(read, net), found)


HUMAN = ["CD79A", "CD79B", "MS4A1", "CD74", "NKG7", "GNLY"]


@pytest.mark.parametrize(
    ("rename", "targets", "hint"),
    [
        (str, [g.capitalize() for g in HUMAN], "upper and lower case: mouse"),
        (lambda g: g.capitalize(), HUMAN, "upper and lower case: mouse"),
        (str, [f"ENSG{i:011}" for i in range(6)], "net uses Ensembl ids, adata gene symbols"),
        (lambda g: f"ENSMUSG{crc32(g.encode()):011}", HUMAN, "adata uses Ensembl ids, net gene symbols"),
        (str, ["7157", "672", "675"], "Entrez"),
        (str, ["FOO", "BAR"], "same kind of name"),
    ],
)
def test_names_that_do_not_match_get_a_hint(adata, rename, targets, hint):
    raw = adata.raw.to_adata()
    raw.var_names = [rename(g) for g in raw.var_names]
    adata.raw = raw
    adata.var_names = raw.var_names
    ssc.tl.feature_genes(adata, progress_bar=False)
    with pytest.raises(ValueError, match=rf"Only 0 of the {len(targets)} genes in net \(0\.0%\).*{hint}"):
        ssc.tl.feature_enrichment(adata, {"x": targets}, min_size=1)


def test_ensembl_versions_get_a_hint(adata):
    raw = adata.raw.to_adata()
    raw.var_names = [f"ENSG{i:011}.{i % 7}" for i in range(raw.n_vars)]
    adata.raw = raw
    ssc.tl.feature_genes(adata, progress_bar=False)
    with pytest.raises(ValueError, match="versions"):
        ssc.tl.feature_enrichment(adata, {"x": [f"ENSG{i:011}" for i in range(20)]})
    with pytest.raises(ValueError, match="different species"):
        ssc.tl.feature_enrichment(adata, {"x": [f"ENSMUSG{i:011}" for i in range(20)]})


def test_a_tenth_is_asked_of_the_smaller_side(adata):
    """A matrix of 765 genes cannot hold a tenth of a collection of 20,000; that is no error."""
    large = {"some": list(adata.var_names[:400]), "others": [f"X{i}" for i in range(20_000)]}
    assert len(table(adata, large)) == 64
    with pytest.raises(ValueError, match=r"Only 9 of the 100 genes in net"):
        table(adata, {"x": [*adata.var_names[:9], *[f"X{i}" for i in range(91)]]})


@pytest.mark.parametrize(
    ("net", "error", "match"),
    [
        ({}, ValueError, "net is empty"),
        ({"x": []}, ValueError, "net is empty"),
        ({"x": "CD79A"}, TypeError, "must be a list of genes, found the string"),
        (["CD79A"], TypeError, "net must be a DataFrame .* found list"),
        (pd.DataFrame({"geneset": ["x"], "genesymbol": ["y"]}), KeyError, "rename"),
        (pd.DataFrame({"source": ["x"]}), KeyError, "lacks the columns 'target'"),
        (pd.DataFrame({"source": ["x"], "target": ["y"], "weight": ["z"]}), ValueError, "finite numbers"),
        (
            pd.DataFrame({"source": ["x", "x"], "target": ["CD79A"] * 2, "weight": [1.0, 2.0]}),
            ValueError,
            "two different weights in one set, for example 'CD79A' in 'x'",
        ),
        ("no_such_collection", ValueError, "Unknown gene sets: 'no_such_collection'.*immune_markers"),
        ("folder/none.gmt", FileNotFoundError, "Did not find the gene set file"),
        ({"x": ["CD79A", "CD79B"]}, ValueError, r"None of the 1 gene sets has between min_size=5 .* has 2\)"),
    ],
)
def test_bad_nets(adata, net, error, match):
    with pytest.raises(error, match=match):
        ssc.tl.feature_enrichment(adata, net)
    assert "enrichment" not in adata.uns["sae"]
    assert "term" not in adata.uns["sae"]["features"]


def test_rows_without_gene_are_left_out_with_a_warning(adata, net, monkeypatch):
    long = pd.DataFrame([(s, t) for s, genes in net.items() for t in genes], columns=["source", "target"])
    expected = table(adata, long)
    messages = []
    monkeypatch.setattr("sparsesc._logging.warning", messages.append)
    long.loc[len(long)] = ["set 0", None]
    pd.testing.assert_frame_equal(table(adata, long), expected)
    assert "1 rows without source or target" in messages[0]


@pytest.mark.parametrize(
    ("kwargs", "error", "match"),
    [
        ({"key": "other"}, KeyError, "No sparse autoencoder under key='other'"),
        ({"pvalues": "exact"}, ValueError, "Unknown pvalues: 'exact'. Choose one of 'permutation', 'parametric'"),
        ({"method": "mlm"}, ValueError, "Unknown method: 'mlm'.*'ulm', 'ora', 'gsea', 'ranksum'"),
        ({"min_size": 0}, ValueError, "min_size must be a whole number of at least 1"),
        ({"min_size": 10, "max_size": 9}, ValueError, "max_size=9 is smaller than min_size=10"),
        ({"n_top": 0}, ValueError, "n_top must be"),
        ({"n_up": -3}, ValueError, "n_up must be"),
        ({"n_leading": 0}, ValueError, "n_leading must be"),
        ({"null": "samples"}, ValueError, "Unknown null: 'samples'. Choose one of 'cells', 'expression', 'genes'"),
        (
            {"null": "cells", "method": "gsea"},
            ValueError,
            "null='cells' goes with method 'ulm', 'ranksum', 'ora', not with 'gsea'",
        ),
        ({"null": "cells", "n_permutations": 50}, ValueError, "n_permutations must be at least 100"),
        ({"max_memory": -1}, ValueError, "max_memory must be a positive number"),
        ({"features": "sae_999"}, KeyError, "Did not find feature 'sae_999'"),
    ],
)
def test_bad_options(adata, net, kwargs, error, match):
    with pytest.raises(error, match=match):
        ssc.tl.feature_enrichment(adata, net, **kwargs)


def test_gene_scores_must_be_there_and_be_of_these_cells(adata, net, pbmc68k_code):
    bare = pbmc68k_code.copy()
    del bare.uns["sae"]["params"]["feature_genes"]
    with pytest.raises(KeyError, match=r"Did not find the gene scores of 'sae'\. Run ssc\.tl\.feature_genes"):
        ssc.tl.feature_enrichment(bare, net)
    with pytest.raises(ValueError, match="are of 700 cells, but there are 300 now"):
        ssc.tl.feature_enrichment(adata[:300].copy(), net)
