"""Which representation recovers the programs, types and covariate that made simulated cells.

    python -m benchmarks.recovery [--seeds 3] [--simulations large "large, NB counts" easy] [--plain] [--quick]

The large simulation of ``ssc.datasets.simulate_programs`` with 2,000 genes: without noise, with negative binomial
counts, and the easy version with 10 types. Principal components of 100 and of 20 dimensions, and codes of these. Half
of the cells choose the best feature of each variable, the other half score it (``ssc.stats.recovery``). All
representations are fitted to all cells without any label. Writes ``benchmarks/recovery.md``.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from benchmarks._machine import machine

SIMULATIONS: dict[str, dict] = {
    "large": {"kind": "large"},
    "large, NB counts": {"kind": "large", "count_noise": "nb"},
    "easy": {"kind": "easy"},
}
DIMENSIONS = (100, 20)
WIDTH = 512
SPARSITY = (16, 32)
ARCHITECTURES = ("matryoshka", "batchtopk")
SHOWN = {
    "X0": "X0 mean r",
    "X1": "X1 mean r",
    "X2": "X2 mean r",
    "X2_max": "X2 max r",
    "X2_mcc": "X2 MCC",
    "type": "type mean r",
    "type_max": "type max r",
    "type_auroc": "type mean AUROC",
    "covariate_max": "covariate max r",
    "l0": "L0",
}


def embedding(adata: object, d: int) -> np.ndarray:
    """Principal components of expression; of log-normalised expression where there are counts."""
    import scanpy as sc

    if "counts" in adata.layers:
        sc.pp.normalize_total(adata, target_sum=1e4)
        sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=d)
    return np.ascontiguousarray(adata.obsm["X_pca"], np.float32)


def ica(X: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.decomposition import FastICA

    return FastICA(whiten="unit-variance", random_state=seed, max_iter=400, tol=1e-3).fit_transform(X)


def untrained(X: np.ndarray, k: int, seed: int) -> sparse.csr_matrix:
    """The k largest positive projections on random directions."""
    directions = np.random.default_rng(seed).normal(size=(X.shape[1], WIDTH)).astype(np.float32)
    pre = np.maximum((X - X.mean(0)) @ (directions / np.linalg.norm(directions, axis=0)), 0)
    pre[pre < np.partition(pre, -k, axis=1)[:, -k, None]] = 0
    return sparse.csr_matrix(pre)


def trained(X: np.ndarray, architecture: str, k: int, seed: int, **change: float) -> sparse.csr_matrix:
    from sparsesc.nn import TrainConfig, train

    rng = np.random.default_rng(seed)
    order = rng.permutation(len(X))
    held_out, rest = X[order[: len(X) // 10]], X[order[len(X) // 10 :]]
    config = TrainConfig(architecture=architecture, n_features=WIDTH, k=k, **change)
    return train(rest, config, X_validation=held_out, rng=rng).sae.encode(X)


def representations(X: np.ndarray, *, plain: bool, quick: bool) -> Iterator[tuple[str, Callable[[int], object]]]:
    yield "its own dimensions", lambda seed: X
    yield "ICA", lambda seed: ica(X, seed)
    for k in SPARSITY[1:] if quick else SPARSITY:
        yield f"untrained code, k {k}", lambda seed, k=k: untrained(X, k, seed)
    for architecture in ARCHITECTURES[: 1 if quick else None]:
        for k in SPARSITY[1:] if quick else SPARSITY:
            yield f"{architecture}, k {k}", lambda seed, a=architecture, k=k: trained(X, a, k, seed)
    if plain:
        off = {"noise": 0.0, "align": 0.0}
        yield "matryoshka, k 32, neither noise nor pull", lambda seed: trained(X, "matryoshka", 32, seed, **off)


def scores(Z: object, adata: object, chosen: np.ndarray) -> dict[str, float]:
    from sparsesc.stats import recovery

    found: dict[str, float] = {}
    for name in ("X0", "X1", "X2"):
        result = recovery(Z, adata.obsm[name], train=chosen)
        found |= {name: result.mean, f"{name}_max": result.max, f"{name}_mcc": result.mcc}
    for name in ("type", "covariate"):
        one_hot = pd.get_dummies(adata.obs[name]).to_numpy()
        result, area = (recovery(Z, one_hot, train=chosen, measure=m) for m in ("pearson", "auroc"))
        found |= {name: result.mean, f"{name}_max": result.max, f"{name}_auroc": area.mean}
    found["l0"] = Z.nnz / Z.shape[0] if sparse.issparse(Z) else float("nan")
    return found


def study(seeds: int, names: list[str], *, plain: bool, quick: bool) -> Iterator[pd.DataFrame]:
    """One row a simulation, dimension, code and seed, handed out as it grows; a seed is a new simulation."""
    import sparsesc as ssc

    rows = []
    for name in names:
        for seed in range(seeds):
            size = {"n_cells": 2000, "n_genes": 500} if quick else {"n_genes": 2000}
            adata = ssc.datasets.simulate_programs(**SIMULATIONS[name], **size, rng=seed)
            chosen = np.random.default_rng(seed).permutation(adata.n_obs) < adata.n_obs // 2
            X = embedding(adata, max(DIMENSIONS))
            for d in DIMENSIONS:  # the first components are those of the narrower embedding
                part = np.ascontiguousarray(X[:, :d])
                for code, make in representations(part, plain=plain, quick=quick):
                    begun = time.perf_counter()
                    found = scores(make(seed), adata, chosen)
                    rows.append({"simulation": name, "d": d, "code": code, "seed": seed, **found})
                    print(f"{name}, d {d}, {code}, seed {seed}: {time.perf_counter() - begun:.0f} s", flush=True)
                yield pd.DataFrame(rows)


def report(table: pd.DataFrame, command: str) -> str:
    keys = ["simulation", "d", "code"]
    mean = table.groupby(keys, sort=False)[list(SHOWN)].mean().reset_index()
    seeds = table["seed"].nunique()
    lines = ["# What recovers simulated programs", "", f"Machine: {machine()}.", "", f"Command: `{command}`.", ""]
    over = f"means over {seeds} simulations" if seeds > 1 else "one simulation, without intervals"
    lines += [
        f"10,000 cells and 2,000 genes; {over}. Representations are fitted to all cells without labels; then half of",
        "the cells choose the feature of each variable and the other half score it.",
        f"Codes have {WIDTH} features; trained ones use the default noise and pull. r is |Pearson r|; types and",
        "the covariate are 0/1 columns. MCC matches features one to one. Means and maxima are over variables.",
    ]
    for (name, d), part in mean.groupby(["simulation", "d"], sort=False):
        lines += ["", f"## {name}, {d} principal components", ""]
        lines += ["| code | " + " | ".join(SHOWN.values()) + " |", "|---" * (len(SHOWN) + 1) + "|"]
        for row in part.to_dict("records"):
            cells = ["" if np.isnan(row[c]) else f"{row[c]:{'.1f' if c == 'l0' else '.2f'}}" for c in SHOWN]
            lines.append(f"| {row['code']} | " + " | ".join(cells) + " |")
        lines += ["", "Trained codes below the best of the others:", "", *losses(part)]
    return "\n".join(lines) + "\n"


def losses(part: pd.DataFrame) -> list[str]:
    """A line a trained code: the columns in which dimensions, components or an untrained code do better."""
    part = part.set_index("code")[[c for c in SHOWN if c != "l0"]].round(2)
    is_trained = part.index.str.startswith(ARCHITECTURES)
    rivals = part[~is_trained]
    lines = []
    for code, row in part[is_trained].iterrows():
        lost = [f"{SHOWN[c]} {row[c]:.2f} (best {rivals[c].max():.2f}, {rivals[c].idxmax()})" for c in part]
        lost = [text for text, c in zip(lost, part, strict=True) if row[c] < rivals[c].max()]
        lines.append(f"- {code}: {'; '.join(lost) or 'none'}")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--simulations", nargs="+", choices=SIMULATIONS, default=list(SIMULATIONS))
    parser.add_argument("--plain", action="store_true", help="also matryoshka without noise and pull")
    parser.add_argument("--quick", action="store_true", help="small, one seed, few codes: does it run?")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("recovery.md"))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    seeds, names = (1, ["large"]) if arguments.quick else (arguments.seeds, arguments.simulations)
    command, text = shlex.join(["python", "-m", "benchmarks.recovery", *sys.argv[1:]]), ""
    for results in study(seeds, names, plain=arguments.plain, quick=arguments.quick):
        text = report(results, command)
        if not arguments.quick:
            arguments.out.write_text(text)
    print(text)
