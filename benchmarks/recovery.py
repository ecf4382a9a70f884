"""Which representation recovers the programs, types and covariate that made simulated cells.

    python -m benchmarks.recovery [--simulations large easy] [--keep FILE] [--quick]

The large simulation of ``ssc.datasets.simulate_programs`` with 2,000 genes: without noise, with Poisson and negative
binomial counts, and the easy version with 10 types. Principal components of 100 and of 20 dimensions, and codes of
these. Half of the cells choose the best feature of each variable, the other half score it (``ssc.stats.recovery``). All
representations are fitted to all cells without any label. With ``--keep`` results are kept in a file, and those in it
are not computed again. Writes ``benchmarks/recovery.md``.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse, stats

import sparsesc as ssc
from benchmarks._covariate import account, dense_direction, fitted, pearson, ridge
from benchmarks._keep import Kept
from benchmarks._machine import machine
from sparsesc._train_config import default_k, default_n_features
from sparsesc.stats import recovery
from sparsesc.tl.labels._controls import random_code

SIMULATIONS: dict[str, tuple[int, dict]] = {  # how many, and what they are
    "large": (3, {"kind": "large"}),
    "large, Poisson counts": (1, {"kind": "large", "count_noise": "poisson"}),
    "large, NB counts": (1, {"kind": "large", "count_noise": "nb"}),
    "easy": (1, {"kind": "easy"}),
}
DIMENSIONS = (100, 20)
WIDE, MOST = 512, 32  # features, and active ones, of codes that are not the default
TRUTH = "ridge regression (uses the truth)"
SHOWN = {
    "X0": "X0 mean r",
    "X0_max": "X0 max r",
    "X1": "X1 mean r",
    "X1_max": "X1 max r",
    "X2": "X2 mean r",
    "X2_max": "X2 max r",
    "X2_mcc": "X2 MCC",
    "type": "type mean r",
    "type_max": "type max r",
    "type_auroc": "type mean AUROC",
    "covariate": "covariate r, 0/1",
    "covariate_number": "covariate r, number",
    "l0": "L0",
}


def embedding(adata: AnnData, d: int) -> np.ndarray:
    """Principal components of expression; of log-normalized expression where there are counts."""
    import scanpy as sc

    if "counts" in adata.layers:
        sc.pp.normalize_total(adata, target_sum=1e4)
        sc.pp.log1p(adata)
    sc.pp.pca(adata, n_comps=d)
    return np.ascontiguousarray(adata.obsm["X_pca"], np.float32)


def ica(X: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.decomposition import FastICA

    return FastICA(whiten="unit-variance", random_state=seed, max_iter=100, tol=1e-3).fit_transform(X)


def nmf(X: np.ndarray, width: int, seed: int) -> np.ndarray:
    """Non-negative factors of the positive and the negative parts side by side."""
    from sklearn.decomposition import MiniBatchNMF

    X = X - X.mean(0)
    parts = np.hstack([np.maximum(X, 0), np.maximum(-X, 0)])
    return MiniBatchNMF(width, init="random", batch_size=1024, max_iter=10, random_state=seed).fit_transform(parts)


def untrained(X: np.ndarray, n_features: int, k: int, seed: int) -> sparse.csr_matrix:
    """The k largest positive projections of each cell on random directions."""
    return random_code(X, n_features, k, np.random.default_rng(seed))


def trained(X: np.ndarray, seed: int, **options: object) -> sparse.csr_matrix:
    return fitted(X, seed, **options).encode(X)


def with_dense(X: np.ndarray, seed: int) -> sparse.csr_matrix:
    """One dense direction, and the code of the rest."""
    _, value, rest = dense_direction(X, seed)
    return sparse.hstack([trained(rest, seed), sparse.csr_matrix(value)]).tocsr()


def representations(X: np.ndarray) -> dict[str, Callable[[int], object]]:
    """Names, and what makes each from a seed."""
    width = default_n_features(*X.shape)
    k = default_k(X.shape[1], width)
    made = {
        "its own dimensions": lambda seed: X,
        "ICA": lambda seed: ica(X, seed),
        f"NMF, {width} factors": lambda seed: nmf(X, width, seed),
        f"untrained, F {width}, k {k}": lambda seed: untrained(X, width, k, seed),
        f"untrained, F {WIDE}, k {MOST}": lambda seed: untrained(X, WIDE, MOST, seed),
        f"fit_sae: default (F {width}, k {k})": lambda seed: trained(X, seed),
        "fit_sae: default, and one dense direction": lambda seed: with_dense(X, seed),
    }
    equal = (
        {"nested widths with equal weights": {"full_width_weight": 1 / 5}} if k > 8 else {}
    )  # as by default of few dimensions
    changes = equal | {
        "batchtopk": {"architecture": "batchtopk"},
        "random start": {"init": "random"},
        "noise 1, pull 5": {"noise": 1.0, "tie_strength": 5.0},
        f"F {WIDE}, k {MOST}": {"n_features": WIDE, "k": MOST},
    }
    return made | {f"fit_sae: {name}": partial(trained, X, **change) for name, change in changes.items()}


def variables(adata: AnnData) -> dict[str, np.ndarray]:
    """Names of the truth, and its columns."""
    truth = {name: np.asarray(adata.obsm[name], np.float64) for name in ("X0", "X1", "X2")}
    truth |= {name: pd.get_dummies(adata.obs[name]).to_numpy(float) for name in ("type", "covariate")}
    number = adata.obs["covariate"].cat.codes.to_numpy().astype(float)
    return truth | {"covariate_number": number[:, None]}


def scores(Z: object, adata: AnnData, chosen: np.ndarray) -> dict[str, float]:
    found: dict[str, float] = {}
    for name, values in variables(adata).items():
        if name.startswith("covariate") and np.ptp(values, axis=0).max() == 0:  # the same for all cells
            continue
        result = recovery(Z, values, train=chosen, measure="pearson")
        found[name] = result.max if name == "covariate" else result.mean
        found |= {f"{name}_max": result.max, f"{name}_mcc": result.mcc}
        if name == "type":
            found["type_auroc"] = recovery(Z, values, train=chosen, measure="auroc").mean
    found["l0"] = Z.nnz / Z.shape[0] if sparse.issparse(Z) else float("nan")
    return {name: value for name, value in found.items() if name in SHOWN}


def limits(X: np.ndarray, adata: AnnData, chosen: np.ndarray) -> dict[str, float]:
    """What a linear read-out of the embedding, given the truth of half of the cells, reaches in the other half."""
    found = {}
    for name, values in variables(adata).items():
        if np.ptp(values, axis=0).max() == 0:
            continue
        predicted = ridge(X, values, chosen)[~chosen]
        r = [abs(pearson(p, t)) for p, t in zip(predicted.T, values[~chosen].T, strict=True)]
        found |= {name: max(r) if name == "covariate" else float(np.mean(r)), f"{name}_max": max(r)}
    return {name: value for name, value in found.items() if name in SHOWN}


def study(names: list[str], kept: Kept, *, quick: bool) -> Iterator[tuple[pd.DataFrame, pd.DataFrame]]:
    """Rows of both tables as they grow; a seed is a new simulation."""
    rows: list[dict] = []
    answers: list[dict] = []
    for name in names:
        n_fits, settings = SIMULATIONS[name]
        for seed in range(1 if quick else n_fits):
            size = {"n_cells": 600, "n_genes": 300} if quick else {"n_genes": 2000}
            adata = ssc.datasets.simulate_programs(**settings, **size, rng=seed)
            chosen = np.random.default_rng(seed).permutation(adata.n_obs) < adata.n_obs // 2
            X = embedding(adata, max(DIMENSIONS))
            for d in DIMENSIONS[quick:]:  # the first components are those of the narrower embedding
                part = np.ascontiguousarray(X[:, :d])
                made = representations(part)
                for code in [TRUTH, *made]:
                    key = f"{name} | {d} | {code} | {seed}"
                    if key not in kept:
                        begun = time.perf_counter()
                        limit = code == TRUTH
                        found = limits(part, adata, chosen) if limit else scores(made[code](seed), adata, chosen)
                        kept.add(key, {"simulation": name, "d": d, "code": code, "seed": seed, **found})
                        print(f"{key}: {time.perf_counter() - begun:.0f} s", flush=True)
                    rows.append(kept[key])
            if name == "large":
                key = f"covariate | {seed}"
                if key not in kept:
                    kept.add(key, covariate_answers(adata, X, chosen, seed))
                    print(key, flush=True)
                answers += [{"answer": answer, "seed": seed} | r for answer, r in kept[key].items()]
            yield pd.DataFrame(rows), pd.DataFrame(answers)


def covariate_answers(adata: AnnData, X: np.ndarray, chosen: np.ndarray, seed: int) -> dict[str, dict[str, float]]:
    truth = variables(adata)
    found = {}
    for answer, Z in account(adata, X, chosen, seed):
        Z = Z[:, None] if Z.ndim == 1 else Z
        found[answer] = {
            name: recovery(Z, truth[name], train=chosen, measure="pearson").max
            for name in ("covariate_number", "covariate")
        }
    return found


def interval(values: pd.Series, digits: int = 2) -> str:
    """Mean over simulations, with half of its 95 % interval where there are three or more."""
    values = values.dropna()
    if not len(values):
        return ""
    text = f"{values.mean():.{digits}f}"
    if len(values) < 3:
        return text
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    return f"{text} ± {half:.{digits}f}"


HOW_TO_READ = """
10,000 cells and 2,000 genes. Representations are fitted to all cells without labels; then half of the cells choose the
feature of each variable and the other half score it. r is |Pearson r|; means and maxima are over variables (100
programs, the types). MCC matches features one to one. The covariate is scored as three 0/1 columns (the best of them)
and as a number (0, 1, 2); the published value is for the latter, .66 at best. One 0/1 column of such a number has an r
of at most .87 with it.

*ridge regression* is given the truth of half of the cells and predicts the other half: the upper limit of a linear
read-out of the embedding. *one dense direction*: the first principal component of the residual of a code with one
feature per cell is removed, as a separate column, and the code is fitted to the rest (`dense_direction` in
`benchmarks/_covariate.py`).
"""

PUBLISHED = """
Schuster (2025) trained ReLU autoencoders with biases as Bricken et al. on latents of models of the same simulation, of
20,000 genes (lambda 1e-3, learning rate 1e-5). Their scores are the largest r of any feature with any variable, in the
cells that chose it; type and covariate are treated as numbers. Compare them with the columns "max".

| latent / features | alive | active per cell | X0 max r | X1 max r | X2 max r | type, a number | covariate, number |
|---|---|---|---|---|---|---|---|
| 20 / 400 | 399 | 269 | .13 | .23 | .76 | -.47 | .33 |
| 20 / 10,000 | 9,995 | 5,063 | .17 | .25 | .84 | -.56 | .39 |
| 100 / 2,000 | 1,533 | 1,530 | .15 | .39 | .68 | -.48 | .59 |
| 100 / 50,000 | 39,020 | 30,040 | .19 | .44 | .85 | -.54 | .64 |
| 150 / 75,000 | 59,227 | 44,265 | .20 | .45 | .77 | -.55 | .66 |
"""

ACCOUNT = """
The covariate shifts all programs of a cell by the same amount. In the embedding this is a move along one direction that
all types share, and it is smaller than the differences between types. Therefore

- the largest principal components, which describe types, mix it with them;
- a sparse code describes a cell by a few of many directions, each of which serves cells of few types. The shift is then
  a part of every one of them: all features together still contain most of it (ridge regression on the code), but no
  single feature does so reliably, with or without its sign, and neither does the number, sum or norm of the
  activations;
- the residual of the code does not contain it either: the code has explained it;
- a code that may use only one feature per cell removes the differences between types and little else. The first
  principal component of its residual is the covariate, nearly as well as a ridge regression that is given the truth. If
  it is removed from the embedding before the code is fitted, as a separate column, the code also has more room for the
  programs (*one dense direction* above).

This is a property of a shift that all cells share. If a condition changes each type in a different way, there is no
such direction.
"""


def report(table: pd.DataFrame, answers: pd.DataFrame, command: str) -> str:
    lines = ["# What recovers simulated programs", "", f"Machine: {machine()}.", "", f"Command: `{command}`.", ""]
    lines += HOW_TO_READ.strip().splitlines()
    for (name, d), part in table.groupby(["simulation", "d"], sort=False):
        shown = [c for c in SHOWN if c in part and part[c].notna().any()]
        seeds = part["seed"].nunique()
        lines += ["", f"## {name}, {d} principal components", ""]
        lines += [f"Means over {seeds} simulations, with 95 % intervals.", ""] if seeds > 2 else ["One simulation.", ""]
        lines += ["| code | " + " | ".join(SHOWN[c] for c in shown) + " |", "|---" * (len(shown) + 1) + "|"]
        for code, rows in part.groupby("code", sort=False):
            cells = [interval(rows[c], 1 if c == "l0" else 2) for c in shown]
            lines.append(f"| {code} | " + " | ".join(cells) + " |")
        lines += ["", "Trained codes below the best of the others (without the ridge regression):", "", *losses(part)]
    few = [
        f"{name} ({table.loc[table['simulation'] == name, 'seed'].nunique()} of {n})"
        for name, (n, _) in SIMULATIONS.items()
        if table.loc[table["simulation"] == name, "seed"].nunique() < n
    ]
    lines += ["", f"Simulations of which fewer were run: {', '.join(few)}."] if few else []
    lines += ["", "## Published", *PUBLISHED.rstrip().splitlines()]
    if len(answers):
        lines += ["", "## Who carries the covariate?", "", "| large, 100 principal components | r, number | r, 0/1 |"]
        lines.append("|---|---|---|")
        for answer, rows in answers.groupby("answer", sort=False):
            lines.append(f"| {answer} | {interval(rows['covariate_number'])} | {interval(rows['covariate'])} |")
        lines += ACCOUNT.splitlines()
    return "\n".join(lines) + "\n"


def losses(part: pd.DataFrame) -> list[str]:
    """A line a trained code: the columns in which dimensions, components or an untrained code do better."""
    mean = part[part["code"] != TRUTH].groupby("code", sort=False)[[c for c in SHOWN if c in part and c != "l0"]].mean()
    mean = mean.dropna(axis=1).round(2)
    is_trained = mean.index.str.startswith("fit_sae")
    rivals = mean[~is_trained]
    lines = []
    for code, row in mean[is_trained].iterrows():
        lost = [c for c in mean if row[c] < rivals[c].max()]
        told = [f"{SHOWN[c]} {row[c]:.2f} (best {rivals[c].max():.2f}, {rivals[c].idxmax()})" for c in lost]
        lines.append(f"- {code}: {'; '.join(told) or 'none'}")
    return lines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", nargs="+", choices=SIMULATIONS, default=list(SIMULATIONS))
    parser.add_argument("--keep", type=Path, help="file of results, one a line; what is in it is not computed again")
    parser.add_argument("--quick", action="store_true", help="small, one seed, few codes: does it run?")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("recovery.md"))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    kept = Kept(None if arguments.quick else arguments.keep)
    command, text = "uv run python -m benchmarks.recovery", ""
    names = ["large"] if arguments.quick else arguments.simulations
    if names != list(SIMULATIONS):
        command += " --simulations " + " ".join(f'"{name}"' for name in names)
    for results, answers in study(names, kept, quick=arguments.quick):
        text = report(results, answers, command)
        if not arguments.quick:
            arguments.out.write_text(text)
    print(text)
