"""The study behind the defaults of ``fit_sae``: which architecture, width, sparsity, noise and pull find labels.

    uv run python -m benchmarks.defaults [--quick]

Every labelled data set, PCA and (where it has batches or many genes) batch-aware scVI embeddings, several seeds.
Writes ``benchmarks/defaults.md``. No setting may use labels; they only judge.
"""

from __future__ import annotations

import argparse
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ._machine import machine
from ._scores import scores

DATA = {
    "pbmc68k_reduced": ("pbmc68k_reduced", "bulk_labels", None),
    "pbmc3k": ("pbmc3k", "cell_type", None),
    "BALF COVID-19": ("balf_covid", "cell_type", "donor"),
    "mouse marrow": ("bonemarrow_mouse", "cell_type", None),
    "PBMC, 3 technologies": ("pbmc_3tech", "cell_type", "batch"),
    "Kang IFN-beta": ("kang2018", "cell_type", "donor"),
}
SCVI = ("pbmc3k", "BALF COVID-19", "PBMC, 3 technologies")
SHOWN = ["auroc", "ge90", "f1", "lms", "msas", "covered"]


def load(name: str) -> tuple[object, np.ndarray, np.ndarray | None]:
    """Cells with ``X_pca``, their labels, and their batches."""
    import scanpy as sc

    import sparsesc as ssc

    function, label, batch = DATA[name]
    adata = getattr(ssc.datasets, function)()
    if name != "pbmc68k_reduced":
        adata.layers["counts"] = adata.X.copy()
        sc.pp.normalize_total(adata, target_sum=1e4)
        sc.pp.log1p(adata)
        if adata.n_vars > 2500:
            sc.pp.highly_variable_genes(adata, n_top_genes=2000)
        sc.pp.pca(adata, n_comps=50)
    return adata, adata.obs[label].astype(str).to_numpy(), adata.obs[batch].astype(str).to_numpy() if batch else None


def scvi_latent(
    adata: object, batches: np.ndarray | None, cache: Path, *, drvi: bool = False, max_epochs: int = 200, **model: int
) -> np.ndarray:
    """The latent of scVI or DRVI, batch-aware where there are batches; kept, because it takes minutes."""
    if cache.exists():
        return np.load(cache)
    import scvi

    scvi.settings.seed = 0
    kind = scvi.external.DRVI if drvi else scvi.model.SCVI
    cells = adata[:, adata.var["highly_variable"]].copy() if "highly_variable" in adata.var else adata.copy()
    cells.obs["batch"] = batches if batches is not None else "one"
    kind.setup_anndata(cells, layer="counts", batch_key="batch")
    fitted = kind(cells, **model)
    fitted.train(max_epochs=max_epochs, accelerator="cpu", enable_progress_bar=False, logger=False)
    latent = fitted.get_latent_representation()
    cache.parent.mkdir(parents=True, exist_ok=True)
    np.save(cache, latent)
    return latent


def settings(d: int, n: int) -> Iterator[tuple[str, dict]]:
    """What is compared: the default, and one change at a time."""
    plain = {"noise": 0.0, "align": 0.0}
    yield "default: matryoshka, noise .6, pull 15", {}
    yield "without noise", {"noise": 0.0}
    yield "without pull", {"align": 0.0}
    yield "matryoshka, neither", plain
    yield "batchtopk, noise and pull", {"architecture": "batchtopk"}
    yield "batchtopk, neither", {"architecture": "batchtopk", **plain}
    yield "topk, neither", {"architecture": "topk", **plain}
    yield "whitened", {"whiten": True}
    yield "half the width", {"width": 0.5}
    yield "twice the width", {"width": 2}
    yield "four times the width", {"width": 4}
    yield "half k", {"sparsity": 0.5}
    yield "twice k", {"sparsity": 2}


def trained(X: np.ndarray, seed: int, change: dict) -> tuple[np.ndarray, dict[str, float]]:
    """Dense codes of all cells and the fit's metrics on a tenth of them."""
    from sparsesc.nn import TrainConfig, train
    from sparsesc.nn._config import default_k, default_n_features
    from sparsesc.nn._metrics import fit_metrics

    change = dict(change)
    n_features = int(min(default_n_features(*X.shape) * change.pop("width", 1), len(X) // 2))
    k = max(1, round(default_k(X.shape[1], n_features) * change.pop("sparsity", 1)))
    order = np.random.default_rng(seed).permutation(len(X))
    held_out, rest = X[order[: len(X) // 10]], X[order[len(X) // 10 :]]
    config = TrainConfig(n_features=n_features, k=k, **change)
    sae = train(rest, config, X_validation=held_out, rng=np.random.default_rng(seed)).sae
    return sae.encode(X).toarray(), fit_metrics(sae, held_out)


def random_code(X: np.ndarray, seed: int) -> np.ndarray:
    """An untrained code of the default's width and sparsity."""
    from sparsesc.nn._config import default_k, default_n_features

    rng = np.random.default_rng(seed)
    n_features = default_n_features(*X.shape)
    k = default_k(X.shape[1], n_features)
    D = rng.normal(size=(n_features, X.shape[1]))
    pre = np.maximum((X - X.mean(0)) @ (D / np.linalg.norm(D, axis=1, keepdims=True)).T, 0)
    return np.where(pre >= np.sort(pre, axis=1)[:, -k, None], pre, 0)


def ica(X: np.ndarray, seed: int) -> np.ndarray:
    """As many independent components as dimensions."""
    from sklearn.decomposition import FastICA

    return FastICA(whiten="unit-variance", random_state=seed, max_iter=1000, tol=1e-3).fit_transform(X)


def study(seeds: int, names: list[str], cache: Path, *, quick: bool) -> pd.DataFrame:
    """One row a data set, embedding, representation and seed."""
    rows = []
    for name in names:
        adata, labels, batches = load(name)
        if name == "Kang IFN-beta":  # the other labels were predicted from these very counts
            judged = (adata.obs["label_origin"] == "original").to_numpy()
        else:
            judged = np.ones(len(labels), bool)
        embeddings = {"PCA": np.ascontiguousarray(adata.obsm["X_pca"], np.float32)}
        if name in SCVI and not quick:
            embeddings["scVI"] = scvi_latent(adata, batches, cache / f"{DATA[name][0]}.npy").astype(np.float32)
        for embedding, X in embeddings.items():
            made: dict[str, Callable[[int], tuple[np.ndarray, dict]]] = {
                "its own dimensions": lambda seed, X=X: (X, {}),
                "ICA": lambda seed, X=X: (ica(X, seed), {}),
                "untrained code": lambda seed, X=X: (random_code(X, seed), {}),
            }
            for label, change in settings(X.shape[1], len(X)):
                made[label] = lambda seed, X=X, change=change: trained(X, seed, change)
            for label, make in list(made.items())[: 4 if quick else None]:
                for seed in range(seeds):
                    Z, metrics = make(seed)
                    found = scores(Z[judged], labels[judged], rng=np.random.default_rng(seed))
                    rows.append({"data": name, "embedding": embedding, "code": label, "seed": seed, **found, **metrics})
            print(name, embedding, "done", flush=True)
    return pd.DataFrame(rows)


def report(table: pd.DataFrame) -> str:
    """Markdown: a summary over data sets, then one table a data set and embedding."""
    keys = ["data", "embedding", "code"]
    mean = table.groupby(keys, sort=False)[[*SHOWN, "fvu", "l0"]].mean().reset_index()
    spread = table.groupby(keys, sort=False)[["lms", "auroc"]].std().reset_index()
    lines = ["# The study behind the defaults", "", f"Machine: {machine()}.", ""]
    lines += [f"Command: `uv run python -m benchmarks.defaults --seeds {table['seed'].nunique()}`.", ""]
    lines += ["Mean ratio to the embedding's own dimensions, over data sets and embeddings:", ""]
    own = mean[mean.code == "its own dimensions"].set_index(["data", "embedding"])
    lines += [
        "| code | " + " | ".join(["auroc", "f1", "lms", "msas"]) + " | labels covered (sum) | FVU |",
        "|---" * 7 + "|",
    ]
    for code, part in mean.groupby("code", sort=False):
        part = part.set_index(["data", "embedding"])
        ratio = [(part[c] / own[c]).mean() for c in ("auroc", "f1", "lms", "msas")]
        fvu = "" if part["fvu"].isna().all() else f"{part['fvu'].mean():.3f}"
        lines.append(
            f"| {code} | " + " | ".join(f"{r:.2f}" for r in ratio) + f" | {part['covered'].sum():.0f} | {fvu} |"
        )
    for (data, embedding), part in mean.groupby(["data", "embedding"], sort=False):
        n = int(table[table.data == data]["n_labels"].iloc[0])
        lines += ["", f"## {data}, {embedding} ({n} labels)", ""]
        lines += ["| code | auroc (sd) | labels >= .90 | F1 | LMS (sd) | MSAS | covered | FVU | L0 |", "|---" * 9 + "|"]
        for row, sd in zip(part.to_dict("records"), spread.loc[part.index].to_dict("records"), strict=True):
            fvu = "" if np.isnan(row["fvu"]) else f"{row['fvu']:.3f} | {row['l0']:.1f}"
            lines.append(
                f"| {row['code']} | {row['auroc']:.3f} ({sd['auroc']:.3f}) | {row['ge90']:.1f} | {row['f1']:.3f} | "
                f"{row['lms']:.3f} ({sd['lms']:.3f}) | {row['msas']:.3f} | {row['covered']:.1f} | {fvu or ' | '} |"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "sparsesc" / "scvi")
    parser.add_argument("--quick", action="store_true", help="one data set, few codes, one seed: does it run?")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("defaults.md"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("scvi").setLevel(logging.ERROR)
    results = study(
        1 if options.quick else options.seeds,
        ["pbmc68k_reduced"] if options.quick else list(DATA),
        options.cache,
        quick=options.quick,
    )
    text = report(results)
    print(text)
    if not options.quick:
        options.out.write_text(text)
