"""Interpretation: genes, gene sets and labels of all features, compared with one feature at a time.

    uv run --group bench python -m benchmarks.interpret [--features 10000] [--genes 13000] [--quick]

Writes ``benchmarks/interpret.md``. Beside it stands the procedure that scFeatureLens describes, written from that
description and timed for a few features. Every run is a process of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from ._machine import machine
from .memory import peak_mib
from .train import run

if TYPE_CHECKING:
    from anndata import AnnData

LABELS, ACTIVE, DENSITY = 20, 32, 0.08
LIMIT_SECONDS, LIMIT_GB = 120, 8
NEGATIVES = 1000  # the first ones, in the order of the file
QUICK = (256, 500, 50, 2000)


def expression(kinds: np.ndarray, n_genes: int, rng: np.random.Generator) -> sparse.csr_matrix:
    """Log1p counts, a share ``DENSITY`` of them not zero, with genes that types differ in; made in blocks of cells."""
    rate = rng.lognormal(0, 1, n_genes) * np.exp(rng.normal(0, 0.5, (LABELS, n_genes)))
    chance = np.minimum(rate * (DENSITY / rate.mean()), 0.95)
    chance = np.minimum(chance * (DENSITY / chance.mean()), 0.95).astype(np.float32)
    blocks = []
    for block in np.split(kinds, range(1000, len(kinds), 1000)):
        row, gene = np.nonzero(rng.random((len(block), n_genes), dtype=np.float32) < chance[block])
        value = np.log1p(rng.geometric(0.6, len(row))).astype(np.float32)
        blocks.append(sparse.csr_matrix((value, (row, gene)), shape=(len(block), n_genes)))
    return sparse.vstack(blocks, format="csr")


def codes(kinds: np.ndarray, n_features: int, rng: np.random.Generator) -> sparse.csr_matrix:
    """Codes with ``ACTIVE`` features in a cell, one of each of as many groups; the frequent ones depend on the type."""
    bounds = np.arange(ACTIVE + 1) * n_features // ACTIVE
    width = np.diff(bounds)
    place = (rng.random((len(kinds), ACTIVE)) ** 2 * width).astype(np.int64)
    shift = kinds[:, None] * width // LABELS
    column = bounds[:-1] + (place + shift) % width
    value = rng.gamma(2, 1, column.size).astype(np.float32)
    starts = np.arange(len(kinds) + 1) * ACTIVE
    return sparse.csr_matrix((value, column.ravel(), starts), shape=(len(kinds), n_features))


def simulate(n_features: int, n_genes: int, n_terms: int, n_cells: int) -> tuple[AnnData, dict[str, list[str]]]:
    """Cells with an expression matrix, labels and a code, and gene sets of 10 to 500 genes."""
    import pandas as pd
    from anndata import AnnData

    rng = np.random.default_rng(0)
    kinds = rng.integers(LABELS, size=n_cells)
    obs = pd.DataFrame({"label": pd.Categorical([f"type {i}" for i in kinds])}, index=np.arange(n_cells).astype(str))
    var = pd.DataFrame(index=[f"G{i}" for i in range(n_genes)])
    adata = AnnData(expression(kinds, n_genes, rng), obs=obs, var=var)
    Z = codes(kinds, n_features, rng)
    adata.obsm["X_latent"] = np.zeros((n_cells, 2), np.float32)
    adata.obsm["X_sae"] = Z
    n_active = np.bincount(Z.indices, minlength=n_features)
    sums = np.asarray(Z.sum(0)).ravel()
    table = {
        "density": n_active / n_cells,
        "mean_active": sums / np.maximum(n_active, 1),
        "max": Z.max(0).toarray().ravel(),
        "n_cells": n_active,
        "dead": n_active == 0,
    }
    adata.uns["log1p"] = {}
    adata.uns["sae"] = {
        "params": {
            "use_rep": "X_latent",
            "architecture": "topk",
            "n_features": n_features,
            "k": ACTIVE,
            "schema_version": 1,
        },
        "weights": {
            "W_enc": np.ones((2, n_features), np.float32),
            "b_enc": np.zeros(n_features, np.float32),
            "W_dec": np.full((n_features, 2), 0.5**0.5, np.float32),
            "b_dec": np.zeros(2, np.float32),
            "threshold": np.zeros(n_features, np.float32),
        },
        "features": pd.DataFrame(table, index=pd.Index([f"sae_{i}" for i in range(n_features)], name="feature")),
    }
    sizes = np.exp(rng.uniform(np.log(10), np.log(min(500, n_genes // 2)), n_terms)).astype(int)
    names = var.index.to_numpy()
    return adata, {f"set {i}": list(names[rng.choice(n_genes, size, replace=False)]) for i, size in enumerate(sizes)}


def interpret(adata: AnnData, sets: dict[str, list[str]]) -> dict[str, float]:
    """Seconds of genes, gene sets and labels, and the peak of the process after each."""
    import sparsesc as ssc

    found = {"data_mib": peak_mib()}
    begun = time.perf_counter()
    ssc.tl.feature_genes(adata, store=False, progress_bar=False)
    found["genes"] = time.perf_counter() - begun
    begun = time.perf_counter()
    ssc.tl.feature_enrichment(adata, sets, progress_bar=False)
    found["enrichment"] = time.perf_counter() - begun
    found["peak_mib"] = peak_mib()
    begun = time.perf_counter()
    ssc.tl.feature_association(adata, "label")
    found["association"] = time.perf_counter() - begun
    return found | {"association_peak_mib": peak_mib()}


def described(adata: AnnData, sets: dict[str, list[str]], n: int) -> dict[str, float]:
    """Median seconds of a feature by the procedure that scFeatureLens describes, over ``n`` features."""
    from scipy import stats

    Z, members = adata.obsm["X_sae"].tocsc(), [adata.var_names.get_indexer(genes) for genes in sets.values()]
    often = np.argsort(-np.diff(Z.indptr), kind="stable")
    seconds = []
    for feature in often[:: max(1, len(often) // n)][:n]:
        begun = time.perf_counter()
        z = Z[:, [feature]].toarray().ravel()
        high = adata.X[np.flatnonzero(z > np.quantile(z, 0.99))].toarray()
        silent = adata.X[np.flatnonzero(z == 0)[:NEGATIVES]].toarray()
        p = np.nan_to_num(stats.ttest_ind(high, silent, equal_var=False).pvalue, nan=1.0)
        change = high.mean(0) - silent.mean(0)
        chosen = (stats.false_discovery_control(p) < 0.05) & (np.abs(change) > np.quantile(np.abs(change), 0.9))
        ranks = stats.rankdata(change)
        n_chosen, outside = int(chosen.sum()), np.ones(len(ranks), bool)
        for genes in members:
            stats.binomtest(int(chosen[genes].sum()), max(n_chosen, 1), len(genes) / len(ranks), alternative="greater")
            outside[genes] = False
            stats.mannwhitneyu(ranks[genes], ranks[outside])
            outside[genes] = True
        seconds.append(time.perf_counter() - begun)
    return {"seconds": statistics.median(seconds)}


def main() -> None:
    """Run every part in a process of its own and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=10_000)
    parser.add_argument("--genes", type=int, default=13_000)
    parser.add_argument("--terms", type=int, default=2500)
    parser.add_argument("--cells", type=int, default=50_000)
    parser.add_argument("--described", type=int, default=3, help="features to time the described procedure on")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--quick", action="store_true", help="us alone on little data, nothing written")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    size = QUICK if options.quick else (options.features, options.genes, options.terms, options.cells)
    if options.one == "described":
        print(json.dumps(described(*simulate(*size), options.described)))
        return
    if options.one:
        if not options.quick:
            interpret(*simulate(*QUICK))  # compile
        print(json.dumps(interpret(*simulate(*size))))
        return
    names = ("--features", "--genes", "--terms", "--cells")
    asked = [f"{name}={value}" for name, value in zip(names, size, strict=True)]
    command = [sys.executable, "-m", "benchmarks.interpret", *asked, f"--described={options.described}"]
    if options.quick:
        command.append("--quick")
    m = run([*command, "--one", "sparsesc"], options.threads)
    if m is None:
        sys.exit("sparsesc did not finish.")
    total, gb = m["genes"] + m["enrichment"], 2**20 / 1e9
    held = "held" if total < LIMIT_SECONDS and m["peak_mib"] * gb < LIMIT_GB else "not held"
    rows = [
        f"| genes | {m['genes']:.1f} | |",
        f"| gene sets (ulm) | {m['enrichment']:.1f} | |",
        f"| **genes + gene sets** | {total:.1f} | {m['peak_mib'] * gb:.2f} |",
        f"| limit ({held}) | {LIMIT_SECONDS} | {LIMIT_GB} |",
        f"| association with {LABELS} labels | {m['association']:.1f} | {m['association_peak_mib'] * gb:.2f} |",
    ]
    print("\n".join(rows), flush=True)
    if options.quick:
        return
    each = run([*command, "--one", "described"], options.threads)
    if each:
        days = each["seconds"] * size[0] / 86_400
        rows.append(
            f"| scFeatureLens' procedure: {each['seconds']:.1f} s a feature, times {size[0]:,} | "
            f"{each['seconds'] * size[0]:,.0f} ({days:.1f} days) | |"
        )
        rows.append(f"| the same over genes + gene sets | {each['seconds'] * size[0] / total:,.0f} x | |")
    lines = ["# Interpretation of all features", "", f"Machine: {machine()}; {options.threads} threads.", ""]
    lines += [f"Command: `uv run --group bench python -m benchmarks.interpret {' '.join(asked)}`.", ""]
    lines += [
        f"{size[0]:,} features, {size[1]:,} genes ({DENSITY:.0%} of the matrix is not zero), {size[2]:,} sets of 10 to "
        f"500 genes, {size[3]:,} cells with {ACTIVE} active features each; only the top tables are stored "
        "(`store=False`). One run. Memory is the peak of the whole process; "
        f"the data alone peaked at {m['data_mib'] * gb:.2f} GB. The procedure in comparison: cells above the feature's "
        f"99th percentile against {NEGATIVES:,} silent ones, Welch's t for each gene on dense rows, "
        "Benjamini-Hochberg, and for each set a binomial test and a Mann-Whitney test on ranks of fold change; "
        f"median over {options.described} features.",
        "",
        "| | seconds | peak GB |",
        "|---|---|---|",
        *rows,
    ]
    Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n")
    print("\n".join(rows[5:]), flush=True)


if __name__ == "__main__":
    main()
