"""Are the p-values of the package's tests what they say? Where nothing is to be found, and in mixtures of known truth.

    python -m benchmarks.calibration [--only genes] [--quick]

Every test is called through the public function that users call. Without signal: how often p is below .05, .01 and
.001, and how often a whole data set has an adjusted p below .05. In mixtures: the share of false discoveries at an
adjusted p below .05, and the share of planted pairs that are found. A test is added by one entry of ``TESTS``. Writes
``benchmarks/calibration.md``; ends with an error when a test that should hold does not.
"""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import scanpy as sc
from anndata import AnnData
from scipy import sparse

import sparsesc as ssc
from benchmarks._machine import machine
from sparsesc._slots import feature_table
from sparsesc.stats import benjamini_hochberg

LEVELS = (0.05, 0.01, 0.001)
CELLS, GENES, FEATURES, LABELS, SAMPLES = 1200, 500, 40, 5, 12


@dataclass
class Draw:
    """One data set; `truth` holds the pairs (feature, target), features or targets that have something to find."""

    adata: AnnData
    net: dict[str, list[str]] = field(default_factory=dict)
    truth: set = field(default_factory=set)


@dataclass(frozen=True)
class Test:
    """A test: which data sets it is tried on, and how it is called."""

    family: str
    run: Callable[[Draw], pd.DataFrame]
    """Gives `feature`, `target`, `pval` and, unless it is Benjamini-Hochberg of all rows, `padj`."""
    holds: bool = True
    """Whether it is meant to hold its level in this family; others are shown because people use them."""
    share: float = 1.0
    """Of the data sets, where it is slow."""


# -- data sets without signal, and with a known one -------------------------------------------------------------------


def with_codes(adata: AnnData, codes: sparse.spmatrix, key: str = "sae") -> AnnData:
    """Store a code as a fitted one."""
    codes = sparse.csr_matrix(codes, dtype=np.float32)
    codes.sort_indices()
    adata.obsm[f"X_{key}"] = codes
    names = [f"{key}_{i}" for i in range(codes.shape[1])]
    adata.uns[key] = {
        "params": {"use_rep": "X_pca"},
        "weights": {"W_dec": np.eye(codes.shape[1])},
        "features": feature_table(codes, names),
    }
    return adata


def untrained(X: np.ndarray, n_features: int, k: int, rng: np.random.Generator) -> sparse.csr_matrix:
    """The k largest positive projections of each cell on random directions."""
    directions = rng.normal(size=(X.shape[1], n_features))
    pre = np.maximum((X - X.mean(0)) @ directions, 0)
    pre[pre < np.partition(pre, -k, axis=1)[:, -k, None]] = 0
    return sparse.csr_matrix(pre)


@cache
def real_cells() -> AnnData:
    """700 blood cells with an untrained code of their principal components."""
    adata = ssc.datasets.pbmc68k_reduced()
    adata.obs["number"] = np.random.default_rng(0).gamma(0.5, size=adata.n_obs)
    return with_codes(adata, untrained(adata.obsm["X_pca"], 64, 8, np.random.default_rng(0)))


def shuffled_cells(rng: np.random.Generator) -> Draw:
    """Real expression, real labels; the cells of each feature shuffled on their own."""
    adata = real_cells().copy()
    dense = adata.obsm["X_sae"].toarray()
    order = np.argsort(rng.random(dense.shape), axis=0)
    return Draw(with_codes(adata, sparse.csr_matrix(np.take_along_axis(dense, order, axis=0))))


@cache
def real_scores() -> AnnData:
    adata = real_cells().copy()
    ssc.tl.feature_genes(adata, progress_bar=False)
    return adata


def random_sets(rng: np.random.Generator) -> Draw:
    """Real gene scores of real codes; sets of genes drawn at random."""
    adata = real_scores()
    genes = adata.raw.var_names.to_numpy()
    return Draw(
        adata.copy(), {f"set {i}": list(rng.choice(genes, rng.integers(10, 60), replace=False)) for i in range(40)}
    )


def marker_sets(rng: np.random.Generator) -> Draw:
    """Shuffled cells against sets of genes that vary together: markers of cell types."""
    draw = shuffled_cells(rng)
    table = ssc.datasets.gene_sets("immune_markers")
    draw.net = table.groupby("source")["target"].agg(list).to_dict()
    ssc.tl.feature_genes(draw.adata, progress_bar=False)
    return draw


def simulated(rng: np.random.Generator, *, labels: int = 0, genes: int = 0, sets: int = 0, conditions: int = 0) -> Draw:
    """Counts, features, labels, sets and samples without relation, but for so many features (pairs) of one kind."""
    label = rng.integers(0, LABELS, CELLS)
    sample = np.arange(CELLS) % SAMPLES
    condition = rng.permutation(np.arange(SAMPLES) % 2)
    odds = np.full((CELLS, FEATURES), -2.4 if conditions < 0 else -1.6)
    rate = np.exp(rng.normal(-1, 1, GENES)) * rng.gamma(4, 0.25, size=(CELLS, 1))
    if conditions >= 0:  # samples differ in every feature and every gene, as donors do
        odds += rng.normal(scale=0.5, size=(SAMPLES, FEATURES))[sample]
        rate *= np.exp(rng.normal(scale=0.3, size=(SAMPLES, GENES)))[sample]
    for f in range(max(conditions, 0)):
        odds[:, f] += 1.5 * condition[sample]
    for f in range(labels):
        odds[:, f] += np.where(label == f % LABELS, 1.2, 0)
    codes = (rng.random(odds.shape) < 1 / (1 + np.exp(-odds))) * rng.gamma(3, size=odds.shape)

    names = np.array([f"G{g}" for g in range(GENES)])
    net, truth = {f"random {i}": list(rng.choice(names, 20, replace=False)) for i in range(20)}, set()
    for f in range(genes):
        planted = rng.choice(GENES, 20, replace=False)
        rate[np.ix_(codes[:, f] > 0, planted)] *= 2.5
        if sets:
            net[f"planted {f}"] = list(dict.fromkeys([*names[planted[:8]], *rng.choice(names, 12, replace=False)]))
            truth.add((f"sae_{f}", f"planted {f}"))
        else:
            truth |= {(f"sae_{f}", gene) for gene in names[planted]}
    truth |= {f"sae_{f}" for f in range(max(labels, conditions))}
    adata = AnnData(
        sparse.csr_matrix(np.log1p(rng.poisson(rate)).astype(np.float32)),
        obs=pd.DataFrame(
            {
                "label": pd.Categorical([f"label {i}" for i in label]),
                "sample": pd.Categorical([f"sample {i}" for i in sample]),
                "condition": pd.Categorical(np.where(condition[sample] == 1, "treated", "control")),
                "number": rng.gamma(0.5, size=CELLS),
            },
            index=[f"cell {i}" for i in range(CELLS)],
        ),
        var=pd.DataFrame(index=names),
    )
    draw = Draw(with_codes(adata, sparse.csr_matrix(codes)), net, truth)
    if sets:
        ssc.tl.feature_genes(adata, progress_bar=False)
    return draw


def numbers_of_features(rng: np.random.Generator) -> Draw:
    """A number that grows with the activation of some features."""
    draw = simulated(rng, conditions=-1)
    dense = draw.adata.obsm["X_sae"][:, :10].toarray()
    draw.adata.obs["number"] += 0.15 * dense.sum(1)
    draw.truth = {f"sae_{f}" for f in range(10)}
    return draw


def coactive(rng: np.random.Generator) -> Draw:
    """Ten pairs of features of which the second is more often active where the first is."""
    draw = simulated(rng, conditions=-1)
    dense = draw.adata.obsm["X_sae"].toarray()
    for f in range(0, 20, 2):
        together = (dense[:, f] > 0) & (rng.random(CELLS) < 0.4)
        dense[together, f + 1] = rng.gamma(3, size=together.sum())
        draw.truth.add(tuple(sorted((f"sae_{f}", f"sae_{f + 1}"))))
    with_codes(draw.adata, sparse.csr_matrix(dense))
    return draw


def circular(rng: np.random.Generator, *, genes: int = 0) -> Draw:
    """Features from the counts that are tested: of all counts ("sae"), and of one part of them ("thinned").

    All cells are alike, or of two kinds that differ in so many genes up and as many down; other genes are the same.
    """
    kind = np.arange(600) % 2
    rate = np.full((600, 300), 0.7)
    rate[kind == 0, :genes] *= 3
    rate[kind == 1, genes : 2 * genes] *= 3
    names = np.array([f"G{g}" for g in range(rate.shape[1])])
    adata = AnnData(sparse.csr_matrix(rng.poisson(rate).astype(np.float32)), var=pd.DataFrame(index=names))
    ssc.pp.thin_counts(adata, rng=rng)
    for key, layer in (("sae", None), ("thinned", "thin_train")):
        part = AnnData(adata.X.copy() if layer is None else adata.layers[layer].copy(), var=adata.var)
        sc.pp.normalize_total(part)
        sc.pp.log1p(part)
        sc.pp.pca(part, n_comps=10)
        if layer is None:
            adata.layers["log"] = part.X
        with_codes(adata, untrained(part.obsm["X_pca"], FEATURES, 4, rng), key)
    return Draw(adata, truth=set(names[: 2 * genes]))


# What the families are tried on: without signal, with some, and how many data sets of each.
FAMILIES: dict[str, tuple[Callable, Callable | None, int, int]] = {
    "labels": (shuffled_cells, lambda rng: simulated(rng, labels=10, conditions=-1), 50, 20),
    "labels, all features together": (shuffled_cells, None, 50, 0),
    "pairs of features": (shuffled_cells, coactive, 20, 20),
    "numbers": (shuffled_cells, numbers_of_features, 300, 20),
    "genes": (shuffled_cells, lambda rng: simulated(rng, genes=10, conditions=-1), 12, 10),
    "random gene sets": (random_sets, lambda rng: simulated(rng, genes=20, sets=1, conditions=-1), 40, 20),
    "marker gene sets, cells shuffled": (marker_sets, None, 20, 0),
    "12 samples that differ": (simulated, lambda rng: simulated(rng, conditions=10), 60, 20),
    "12 samples that differ, genes": (simulated, lambda rng: simulated(rng, genes=10), 10, 10),
    "features of the counts tested": (circular, lambda rng: circular(rng, genes=20), 10, 10),
}


# -- the tests --------------------------------------------------------------------------------------------------------


def association(draw: Draw, column: str = "", pvalues: str = "auto") -> pd.DataFrame:
    column = column or ("label" if "label" in draw.adata.obs else "bulk_labels")
    ssc.tl.feature_association(draw.adata, column, pvalues=pvalues)
    return draw.adata.uns["sae"]["association"].rename(columns={"category": "target"})


def numeric(draw: Draw, pval: str) -> pd.DataFrame:
    ssc.tl.feature_association(draw.adata, "number")
    table = draw.adata.uns["sae"]["association_numeric"]
    return pd.DataFrame({"feature": table["feature"], "target": "number", "pval": table[pval]})


def concept(draw: Draw) -> pd.DataFrame:
    column = "label" if "label" in draw.adata.obs else "bulk_labels"
    ssc.tl.annotate_features(draw.adata, label_keys=column)
    table = draw.adata.uns["sae"]["annotation"]
    return table[table["source"] == "label"].rename(columns={"evidence": "target"})


def genes(draw: Draw, *, key: str = "sae", **options: object) -> pd.DataFrame:
    keep = {"n_top": None, "direction": "both", "store": False, "progress_bar": False}  # all tests, not the best
    ssc.tl.feature_genes(draw.adata, key=key, **keep, **options)
    return draw.adata.uns[key]["genes"].rename(columns={"gene": "target"})


def terms(draw: Draw, method: str, pvalues: str = "permutation") -> pd.DataFrame:
    options = {"n_top": None, "min_size": 5, "progress_bar": False}
    ssc.tl.feature_enrichment(draw.adata, draw.net, method=method, pvalues=pvalues, **options)
    return draw.adata.uns["sae"]["enrichment"].rename(columns={"term": "target"})


def locality(draw: Draw) -> pd.DataFrame:
    ssc.tl.feature_locality(draw.adata, "label" if "label" in draw.adata.obs else "bulk_labels")
    return draw.adata.uns["sae"]["locality"].rename(columns={"category": "target"})


def representations(draw: Draw) -> pd.DataFrame:
    found = ssc.tl.compare_representations(draw.adata, "X_sae", "bulk_labels", n_permutations=40, progress_bar=False)
    # scores that do not move in wide steps; of these, p-values are multiples of 1 / 41
    found = found[
        found["metric"].isin(["auroc", "f1", "probe_1", "probe_2", "probe_5", "lms_smi", "msgs_smi", "lms_spn"])
    ]
    return found.assign(feature="all", target=found["metric"])


def coactivation(draw: Draw) -> pd.DataFrame:
    ssc.tl.feature_similarity(draw.adata, n_neighbors=100, n_genes=0)
    table = draw.adata.uns["sae"]["similarity"].rename(columns={"neighbor": "target"})
    return table[table["feature"].astype(str) < table["target"].astype(str)]  # each pair once


def differential(draw: Draw, **options: object) -> pd.DataFrame:
    ssc.tl.differential_features(draw.adata, "condition", sample_key="sample", **options)
    return draw.adata.uns["sae"]["differential"].rename(columns={"measure": "target"})


def half_of_two_sided(draw: Draw) -> pd.DataFrame:
    """Mann-Whitney of gene sets as scFeatureLens publishes it: half the two-sided p, and no correction over tests."""
    table = terms(draw, "ranksum")
    return table.assign(pval=table["pval"] / 2, padj=table["pval"] / 2)


TESTS: dict[str, Test] = {
    "association: Mann-Whitney (AUROC), default": Test("labels", association),
    "association: Mann-Whitney, permutation": Test("labels", lambda d: association(d, pvalues="permutation")),
    "association: Mann-Whitney, asymptotic": Test(
        "labels", lambda d: association(d, pvalues="asymptotic"), holds=False
    ),
    "locality: Mann-Whitney": Test("labels", locality),
    "similarity: co-activation": Test("pairs of features", coactivation),
    "representations: 40 permutations": Test("labels, all features together", representations),
    "annotation: held-out concept F1": Test("labels", concept),
    "association: Spearman, default": Test("numbers", lambda d: numeric(d, "pval")),
    "association: Pearson, default": Test("numbers", lambda d: numeric(d, "pval_pearson")),
    "association: Spearman, asymptotic": Test("numbers", lambda d: numeric(d, "pval_asymptotic"), holds=False),
    "association: Pearson, asymptotic": Test("numbers", lambda d: numeric(d, "pval_pearson_asymptotic"), holds=False),
    "genes: contrast, default": Test("genes", lambda d: genes(d, method="contrast", pvalues="permutation")),
    "genes: contrast, Welch's t": Test(
        "genes", lambda d: genes(d, method="contrast", pvalues="parametric"), holds=False
    ),
    "genes: correlation, default": Test("genes", lambda d: genes(d, method="correlation", pvalues="permutation")),
    "genes: correlation, t": Test("genes", lambda d: genes(d, method="correlation", pvalues="parametric"), holds=False),
    "gene sets: ulm, default": Test("random gene sets", lambda d: terms(d, "ulm")),
    "gene sets: ulm, t": Test("random gene sets", lambda d: terms(d, "ulm", "parametric"), holds=False),
    "gene sets: ranksum": Test("random gene sets", lambda d: terms(d, "ranksum")),
    "gene sets: ora": Test("random gene sets", lambda d: terms(d, "ora")),
    "gene sets: gsea": Test("random gene sets", lambda d: terms(d, "gsea"), share=0.12),
    "scFeatureLens' Mann-Whitney, as published": Test("random gene sets", half_of_two_sided, holds=False),
    "gene sets that vary together: ulm": Test(
        "marker gene sets, cells shuffled", lambda d: terms(d, "ulm"), holds=False
    ),
    "genes: all cells choose and test": Test(
        "features of the counts tested", lambda d: genes(d, layer="log"), holds=False
    ),
    "genes: split by cells": Test(
        "features of the counts tested",
        lambda d: genes(d, layer="log", split="cells", holdout=0.5),
        holds=False,
    ),
    "genes: split by counts": Test("features of the counts tested", lambda d: genes(d, key="thinned", split="counts")),
    "genes: cells as replicates": Test("12 samples that differ, genes", lambda d: genes(d, quantile=0.0), holds=False),
    "genes: samples as replicates": Test(
        "12 samples that differ, genes", lambda d: genes(d, quantile=0.0, sample_key="sample")
    ),
    "conditions: differential features, default": Test("12 samples that differ", differential),
    "conditions: differential features, plain t": Test(
        "12 samples that differ", lambda d: differential(d, moderate=False)
    ),
    "conditions: cells as replicates": Test(
        "12 samples that differ", lambda d: association(d, "condition"), holds=False
    ),
}


# -- what they are worth ----------------------------------------------------------------------------------------------


def adjusted(table: pd.DataFrame) -> np.ndarray:
    if "padj" in table:
        return table["padj"].to_numpy()
    return benjamini_hochberg(table["pval"].to_numpy())


def measure(name: str, *, quick: bool) -> dict[str, object]:
    test = TESTS[name]
    null, mixture, n_null, n_mixture = FAMILIES[test.family]
    shrink = (lambda n: min(n, 1 + (test.share == 1))) if quick else (lambda n: int(np.ceil(n * test.share)))
    p, any_found = [], []
    for seed in range(shrink(n_null)):
        table = test.run(null(np.random.default_rng([1, seed])))
        p.append(table["pval"].to_numpy(dtype=np.float64))
        any_found.append((adjusted(table) < 0.05).any())
    p = np.concatenate(p)
    false, power = [], []
    for seed in range(shrink(n_mixture) if quick else max(shrink(n_mixture), n_mixture // 2)):
        draw = mixture(np.random.default_rng([2, seed]))
        table = test.run(draw)
        pairs = zip(table["feature"].astype(str), table["target"].astype(str), strict=True)
        true = np.array([pair in draw.truth or not draw.truth.isdisjoint(pair) for pair in pairs])
        found = adjusted(table) < 0.05
        false.append((found & ~true).sum() / max(found.sum(), 1))
        power.append(found_share(table, found & true, draw.truth))
    return {
        "test": name,
        "family": test.family,
        "holds": test.holds,
        "n": p.size,
        **{f"{level:g}": float((p <= level).mean()) for level in LEVELS},
        "any": float(np.mean(any_found)),
        "fdr": float(np.mean(false)) if false else np.nan,
        "power": float(np.mean(power)) if power else np.nan,
    }


def found_share(table: pd.DataFrame, found: np.ndarray, truth: set) -> float:
    """Share of what was planted that was found: pairs, or features or genes where these are planted as a whole."""
    features, targets = (table[column].astype(str)[found] for column in ("feature", "target"))
    return len((set(features) | set(targets) | set(zip(features, targets, strict=True))) & truth) / len(truth)


def broken(row: dict) -> list[str]:
    """What a test that is meant to hold does not hold."""
    n = row["n"]
    faults = []
    for level in LEVELS:
        allowed = (1.2 if level == 0.05 else 1.3) * level + 4 * np.sqrt(level / n)
        if row[f"{level:g}"] > allowed:
            faults.append(f"{row[f'{level:g}']:.4f} of null p at or below {level:g}")
    if row["fdr"] > 0.07:
        faults.append(f"false discoveries {row['fdr']:.3f}")
    return [f"{row['test']}: {fault}" for fault in faults] if row["holds"] else []


def report(rows: list[dict], seconds: float) -> str:
    lines = [
        "# Are the p-values what they say?",
        "",
        "Command: `uv run python -m benchmarks.calibration`"
        f" ({seconds / 60:.0f} minutes, other work beside it). Machine: {machine()}.",
        "",
        "Without signal, a share of .05 of the p-values should be at or below .05 (tests whose p-values move in steps",
        "may have less), .01 at or below .01, .001 at or below .001. *A discovery*: the share of data sets without",
        "signal in which any adjusted p is below .05; it should be at most .05. *False*: the mean share of false",
        "discoveries in mixtures of known truth (adjusted p below .05); at most .05. *Found*: the share of what was",
        'planted. Tests under "not to be trusted here" are shown because they are in use: do not take their p-values',
        "at their word in that setting.",
        "",
    ]
    for holds, title in ((True, "Tests that hold"), (False, "Not to be trusted here")):
        chosen = [row for row in rows if row["holds"] == holds]
        if not chosen:
            continue
        lines += [
            f"## {title}",
            "",
            "| test | on | null tests | ≤ .05 | ≤ .01 | ≤ .001 | a discovery | false | found |",
        ]
        lines.append("|---" * 9 + "|")
        for row in chosen:
            shares = [f"{row[f'{level:g}']:.4f}" for level in LEVELS]
            rest = ["–" if np.isnan(row[c]) else f"{row[c]:.3f}" for c in ("any", "fdr", "power")]
            lines.append("| " + " | ".join([row["test"], row["family"], f"{row['n']:,}", *shares, *rest]) + " |")
        lines.append("")
    lines += [
        "What the data sets are",
        "",
        "- labels, numbers, genes: 700 real blood cells (765 genes, 10 labels of 8 to 240 cells) with an untrained",
        "  code of 64 features, the cells of every feature shuffled on their own; a number with a long tail.",
        "- labels, all features together: shuffled labels, scored by the best features; the p-values of eight metrics.",
        "- pairs of features: cells of both shuffled; in mixtures, ten of 780 pairs are active together.",
        "- random gene sets: real gene scores of the same code, unshuffled, against 40 random sets of 10 to 59 genes.",
        "- marker gene sets, cells shuffled: gene scores of shuffled cells, against sets of markers of cell types.",
        "  Nothing is to be found, but the genes of a set vary together, so that by chance all of them score alike.",
        f"- {SAMPLES} samples that differ: {CELLS} simulated cells, features and genes that differ between samples,",
        "  features neither between conditions nor related to genes.",
        "- features of the counts tested: 600 cells of 300 genes, all alike (Poisson counts), and an untrained code of",
        "  40 features of 10 principal components of the same counts, or of one half of them by `ssc.pp.thin_counts`.",
        f"- mixtures: {CELLS} simulated cells, {GENES} genes (Poisson counts with cell sizes), {FEATURES} features of",
        "  which 10 (gene sets: 20) have something to find: a label in which they are more often active, 20 genes with",
        "  2.5 times the counts where they are active, a set of 20 genes that holds 8 of these, a number that grows",
        "  with them, or a condition that makes them more frequent; where features are of the counts tested, two kinds",
        "  of cells that differ in 40 of the genes.",
        "",
        "scFeatureLens reports half the two-sided p of a Mann-Whitney test of each gene set as its p-value and",
        "corrects neither over sets nor over features: twice as many null p-values below any level, and in its own",
        "terms every p below .05 is a finding (columns *a discovery* and *false*).",
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="tests whose name or family holds this text; nothing is written")
    parser.add_argument("--quick", "--smoke", action="store_true", help="two data sets a test, nothing written")
    options = parser.parse_args()
    start = time.perf_counter()
    rows, faults = [], []
    for name, test in TESTS.items():
        if options.only and options.only not in f"{name} {test.family}":
            continue
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows.append(measure(name, quick=options.quick))
        faults += broken(rows[-1])
        print(pd.Series(rows[-1]).drop("holds").to_dict(), f"{time.perf_counter() - start:.0f} s", flush=True)
    text = report(rows, time.perf_counter() - start)
    if not (options.only or options.quick):
        Path(__file__).with_suffix(".md").write_text(text)
    print("\n".join(faults) or "all tests that should hold do")
    # two data sets are too few to judge
    return 0 if options.quick else int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
