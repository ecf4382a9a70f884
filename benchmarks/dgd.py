"""The deep generative decoder compared with scVI and an autoencoder: held-out counts, clusters, new cells, few cells.

    uv run --with igraph python -m benchmarks.dgd [--seeds 2] [--seeds-few 1] [--quick] [--cache FOLDER]

Every fit is kept under ``--cache``, so that a run can be continued. Needs ``SPARSESC_DATA_DIR``, and igraph for Leiden
clusters. Writes ``benchmarks/dgd.md``.
"""

from __future__ import annotations

import argparse
import json
import logging
import shlex
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ._machine import machine
from .rank_fidelity import table

DATA = {
    "PBMC": ("pbmc3k", "cell_type"),
    "mouse marrow": ("bonemarrow_mouse", "paul15_cluster"),
}
UNLABELLED = "unlabelled"
N_GENES, N_LATENT, N_HIDDEN = 1000, 20, 128
SIZES = (250, 500, 1000, 2000, 0)  # 0: all cells that are not held out
FEW = "PBMC"  # where the number of cells is varied
HELD_OUT = 0.2  # of the cells of every label
SEEN = 0.8  # of the molecules of every cell
NEIGHBORS = 15
METHODS = ("DGD", "scVI", "DGD, prior=None", "autoencoder")
METHOD = """\
{genes} variable genes, {latent} latent dimensions, one hidden layer of {hidden} nodes, a negative binomial with one
dispersion per gene, and no covariates, for all. DGD has as many components as there are labels and is otherwise at its
defaults, and so is scVI, which stops early. The autoencoder has the decoder of `prior=None`, an encoder with as many
hidden nodes, no prior, and the same rule for stopping. `seeds` is the number of fits of a row, which differ in their
random draws and held-out cells; with several, the values are means, with standard deviations in brackets. Models are
trained on {seen:.0%} of the molecules of {rest:.0%} of the cells of every label.
"""
CLUSTERS = """\
Training cells. Adjusted Rand index with the published labels. `own`: the most probable components of DGD's mixture;
`start`: the clusters at the start of its training, k-means of principal components. `Leiden`: at the resolution that
gives as many clusters as there are labels (`found`).
"""
HELD = """\
The score is the log likelihood (natural logarithm, mean over cells) of the held-out molecules, given one point of the
latent space that the other molecules of the cell determine, with the sum of the held-out counts as the size of the
cell. The point is DGD's most probable one (by `project` for new cells), the mean of scVI's posterior, or the
autoencoder's code. All models are thus scored with the same kind of distribution, on counts that did not determine the
point, and in the way they are used; an ELBO would not be comparable, as DGD has none. Two things differ: the mean of a
posterior is not the point of the highest likelihood, and a point of DGD takes hundreds of gradient steps where an
encoder takes one pass. `kNN`: share of new cells whose {neighbors} nearest training cells have their label. Seconds are
of one core.
"""
QUIET = {"accelerator": "cpu", "enable_progress_bar": False, "logger": None}


def cells(name: str) -> Any:
    """Labeled cells x variable genes: counts in ``X``, and cut into two parts in layers."""
    import scanpy as sc

    import sparsesc as ssc

    function, label = DATA[name]
    adata = getattr(ssc.datasets, function)()
    adata.obs["label"] = adata.obs[label].astype(str)
    adata = adata[~adata.obs["label"].str.startswith(UNLABELLED)].copy()
    sc.pp.filter_genes(adata, min_cells=10)
    chosen = sc.pp.normalize_total(adata, target_sum=1e4, copy=True)
    sc.pp.log1p(chosen)
    sc.pp.highly_variable_genes(chosen, n_top_genes=N_GENES)
    adata = adata[:, chosen.var["highly_variable"]].copy()
    ssc.pp.thin_counts(adata, fraction=SEEN, rng=0)
    enough = [np.asarray(adata.layers[f"thin_{part}"].sum(1)).ravel() >= 5 for part in ("train", "test")]
    return adata[enough[0] & enough[1]].copy()


def split(labels: np.ndarray, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cells to train on, and a share of every label to hold out (the same for all sizes)."""
    rng = np.random.default_rng(seed)
    held = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = rng.permutation(np.flatnonzero(labels == label))
        held[members[: round(HELD_OUT * len(members))]] = True
    pool = rng.permutation(np.flatnonzero(~held))
    return np.sort(pool[: size or None]), np.flatnonzero(held)


class Fit:
    """A model of some cells: their latent, that of other cells, and how likely counts are given a latent."""

    latent: np.ndarray
    epochs: int

    def place(self, adata: Any) -> np.ndarray:
        """Latent of new cells."""
        raise NotImplementedError

    def log_likelihood(self, counts: Any, Z: np.ndarray) -> float:
        """Mean over cells of the log probability of counts, at their sum."""
        raise NotImplementedError

    def clusters(self) -> np.ndarray | None:
        """Its own, if it has any."""
        return None


class DGDFit(Fit):
    """The model of this package, at its defaults."""

    def __init__(self, adata: Any, layer: str | None, n_clusters: int, seed: int, prior: str | None = "gmm") -> None:
        from sparsesc.models import DGD

        DGD.setup_anndata(adata, layer=layer)
        self.model = DGD(adata, n_latent=N_LATENT, n_components=n_clusters, prior=prior, n_hidden=N_HIDDEN, rng=seed)
        self.model.train(**QUIET)
        self.latent = self.model.get_latent_representation()
        self.epochs = len(self.model.history["train_loss"])

    def place(self, adata: Any) -> np.ndarray:
        return self.model.project(adata, progress_bar=False)

    def log_likelihood(self, counts: Any, Z: np.ndarray) -> float:
        import anndata

        adata = anndata.AnnData(None, shape=counts.shape, var=self.model.adata.var[[]], layers={"judged": counts})
        return float(self.model.get_log_likelihood(adata, layer="judged", latent=Z).mean())

    def clusters(self) -> np.ndarray:
        return self.model.predict_clusters().to_numpy()


class ScviFit(Fit):
    """scVI: as many dimensions and hidden nodes, the same likelihood, otherwise at its defaults."""

    def __init__(self, adata: Any, layer: str | None, n_clusters: int, seed: int) -> None:
        import scvi

        scvi.settings.seed = seed
        scvi.model.SCVI.setup_anndata(adata, layer=layer)
        self.layer = layer
        self.model = scvi.model.SCVI(adata, n_latent=N_LATENT, n_hidden=N_HIDDEN, gene_likelihood="nb")
        self.model.train(early_stopping=True, **QUIET)
        self.latent = self.model.get_latent_representation()
        self.epochs = len(self.model.history["elbo_train"])

    def place(self, adata: Any) -> np.ndarray:
        return self.model.get_latent_representation(adata)

    def log_likelihood(self, counts: Any, Z: np.ndarray) -> float:
        import torch

        total = 0.0
        with torch.inference_mode():
            for rows in np.array_split(np.arange(len(Z)), len(Z) // 256 + 1):
                x = torch.from_numpy(counts[rows].toarray())
                batch = torch.zeros(len(rows), 1)
                given = self.model.module.generative(
                    z=torch.from_numpy(Z[rows]), library=x.sum(1, keepdim=True).log(), batch_index=batch
                )
                total += float(given["px"].log_prob(x).sum())
        return total / len(Z)


class AutoencoderFit(Fit):
    """The decoder of `prior=None`, and an encoder in place of the free vectors; no prior either."""

    def __init__(self, adata: Any, layer: str | None, n_clusters: int, seed: int) -> None:
        import torch
        from torch import nn

        from sparsesc.models.dgd._module import EXPRESSION, Cells, DGDModule

        self.layer, self.name, self.cells = layer, EXPRESSION, Cells
        X = adata.layers[layer]
        torch.manual_seed(seed)
        self.encoder = nn.Sequential(nn.Linear(X.shape[1], N_HIDDEN), nn.ReLU(), nn.Linear(N_HIDDEN, N_LATENT))
        self.decoder = DGDModule(
            n_obs=1, n_latent=N_LATENT, features={EXPRESSION: X.shape[1]}, likelihoods={EXPRESSION: "nb"},
            n_components=None, covariates={}, n_latent_covariate=1, n_hidden=N_HIDDEN, n_layers=1, sd=1.0,
            covariate_sd=1.0, radius=1.0, hardness=1.0, alpha=1.0, latent_noise=0.0, prior_per_cell=False,
        )  # fmt: skip
        self.decoder.heads[EXPRESSION].start_at(torch.from_numpy(np.asarray(X.mean(0), dtype=np.float32).ravel()))
        parts = [*self.encoder.parameters(), *self.decoder.trunk.parameters(), *self.decoder.head_list.parameters()]
        optimizer = torch.optim.Adam(parts, lr=1e-3)
        order = torch.randperm(X.shape[0]).numpy()
        held, rest = X[order[: X.shape[0] // 10]], X[order[X.shape[0] // 10 :]]
        best, since, state = np.inf, 0, None
        for epoch in range(500):
            for rows in torch.randperm(rest.shape[0]).split(128):
                optimizer.zero_grad()
                x = torch.from_numpy(rest[rows.numpy()].toarray())
                (-self._log_prob(x, self.encoder(self._seen(x))).sum()).backward()
                optimizer.step()
            loss = -self.log_likelihood(held, self._encode(held))
            since += 1
            if loss < best:
                best, since = loss, 0
                state = [p.detach().clone() for p in parts]
            if epoch >= 50 and since >= 10:  # the rule of DGD
                break
        with torch.no_grad():
            for p, kept in zip(parts, state, strict=True):
                p.copy_(kept)
        self.epochs, self.latent = epoch + 1, self._encode(X)

    @staticmethod
    def _seen(x: Any) -> Any:
        return (x * (500 / x.sum(1, keepdim=True).clamp(min=1))).log1p()

    def _log_prob(self, x: Any, z: Any) -> Any:
        none = x.new_zeros(len(x), 0)
        return self.decoder.log_likelihood(self.cells({self.name: x}, none.long()), z, none)

    def _encode(self, X: Any) -> np.ndarray:
        import torch

        with torch.no_grad():
            return self.encoder(self._seen(torch.from_numpy(X.toarray()))).numpy()

    def place(self, adata: Any) -> np.ndarray:
        return self._encode(adata.layers[self.layer])

    def log_likelihood(self, counts: Any, Z: np.ndarray) -> float:
        import torch

        with torch.no_grad():
            return float(self._log_prob(torch.from_numpy(counts.toarray()), torch.from_numpy(Z)).mean())


def make(method: str) -> Callable[..., Fit]:
    return {
        "DGD": DGDFit,
        "DGD, prior=None": lambda *given: DGDFit(*given, prior=None),
        "autoencoder": AutoencoderFit,
        "scVI": ScviFit,
    }[method]


def held_out(adata: Any, method: str, size: int, seed: int) -> dict[str, float]:
    """Train on some molecules of some cells; judge by the others, of these cells and of new ones, and by labels."""
    from sklearn.metrics import adjusted_rand_score
    from sklearn.neighbors import KNeighborsClassifier

    labels = adata.obs["label"].to_numpy()
    n = len(np.unique(labels))
    rows, new = split(labels, size, seed)
    train, unseen = adata[rows].copy(), adata[new].copy()
    begun = time.process_time()
    fit = make(method)(train, "thin_train", n, seed)
    seconds = time.process_time() - begun
    Z = fit.place(unseen)
    nearest = KNeighborsClassifier(NEIGHBORS).fit(fit.latent, labels[rows])
    found = {
        "cells": len(rows),
        "held-out counts": fit.log_likelihood(train.layers["thin_test"], fit.latent),
        "held-out counts, new cells": fit.log_likelihood(unseen.layers["thin_test"], Z),
        "kNN, new cells": float((nearest.predict(Z) == labels[new]).mean()),
        "epochs": fit.epochs,
        "seconds": seconds,
    }
    if size == 0 and method in ("DGD", "scVI"):
        by_leiden = leiden(fit.latent, n)
        found |= {"labels": n, "Leiden": adjusted_rand_score(labels[rows], by_leiden)}
        found["found"] = len(np.unique(by_leiden))
        if (own := fit.clusters()) is not None:
            found["own"] = adjusted_rand_score(labels[rows], own)
            found["start"] = adjusted_rand_score(labels[rows], start(train, n, seed))
    return found


def start(adata: Any, n_clusters: int, seed: int) -> np.ndarray:
    """The clusters of principal components from which the training of DGD begins."""
    from sklearn.cluster import KMeans

    from sparsesc.models.dgd._start import principal_start

    Z = principal_start({"": adata.layers["thin_train"]}, {"": "nb"}, N_LATENT, np.random.default_rng(seed))
    return KMeans(n_clusters, n_init=4, random_state=seed).fit_predict(Z)


def leiden(Z: np.ndarray, n_clusters: int) -> np.ndarray:
    """Leiden clusters at the resolution that gives this number of them, or the nearest found."""
    import anndata
    import scanpy as sc

    adata = anndata.AnnData(np.zeros((len(Z), 1), np.float32), obsm={"Z": Z})
    sc.pp.neighbors(adata, use_rep="Z", n_neighbors=NEIGHBORS, transformer="sklearn")
    low, high, best = 0.02, 5.0, None
    for _ in range(20):
        middle = (low * high) ** 0.5
        sc.tl.leiden(adata, resolution=middle, flavor="igraph", n_iterations=2, directed=False, random_state=0)
        found = adata.obs["leiden"].to_numpy()
        n = len(np.unique(found))
        if best is None or abs(n - n_clusters) < abs(len(np.unique(best)) - n_clusters):
            best = found
        if n == n_clusters:
            break
        low, high = (middle, high) if n < n_clusters else (low, middle)
    return best


def run(jobs: list[tuple[str, str, int, int]], cache: Path) -> pd.DataFrame:
    """Rows of a table: what is in the cache is read, the rest is computed."""
    rows, loaded = [], {}
    for name, method, size, seed in jobs:
        path = cache / f"{name}_{method}_{size}_{seed}.json".replace(" ", "_")
        if not path.exists():
            if name not in loaded:
                loaded = {name: cells(name)}
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(held_out(loaded[name], method, size, seed)))
            print(path.stem, path.read_text(), flush=True)
        rows.append({"data": name, "method": method, "size": size, "seed": seed} | json.loads(path.read_text()))
    return pd.DataFrame(rows)


def summary(frame: pd.DataFrame, index: list[str], columns: dict[str, str]) -> list[str]:
    """Means over seeds as a table, with the standard deviation in brackets where there are several seeds."""
    rows = []
    for key, part in frame.groupby(index, sort=False):
        row = dict(zip(index, map(str, key), strict=True)) | {"seeds": len(part)}
        for name, digits in columns.items():
            values = part[name].dropna()
            spread = f" ({values.std():{digits}})" if len(values) > 1 and digits != ".0f" else ""
            row[name] = f"{values.mean():{digits}}{spread}" if len(values) else ""
        rows.append(row)
    return [*table(pd.DataFrame(rows)), ""]


def gaps(scored: pd.DataFrame) -> list[str]:
    """Each method of ours minus what it is compared with, seed by seed."""
    names = ["held-out counts, new cells", "kNN, new cells"]
    wide = scored.pivot_table(index=["data", "cells", "seed"], columns="method", values=names, sort=False)
    rows = []
    for ours, theirs in (("DGD", "scVI"), ("DGD, prior=None", "autoencoder")):
        if not {ours, theirs} <= set(scored["method"]):
            continue
        found = pd.DataFrame({name: wide[name][ours] - wide[name][theirs] for name in names}).dropna()
        mean = found.groupby(["data", "cells"], sort=False).mean()
        for (data, n), row in mean.iterrows():
            rows.append([data, f"{n}", f"{ours} - {theirs}", f"{row.iloc[0]:+.1f}", f"{row.iloc[1]:+.3f}"])
    return [*table(pd.DataFrame(rows, columns=["data", "cells", "difference", *names])), ""]


def report(scored: pd.DataFrame) -> str:
    """The page."""
    told = {"genes": N_GENES, "latent": N_LATENT, "hidden": N_HIDDEN, "neighbors": NEIGHBORS}
    lines = [
        "# The deep generative decoder compared with scVI and an autoencoder",
        "",
        f"Machine: {machine()}.",
        "",
        f"Command: `{shlex.join(['python', '-m', 'benchmarks.dgd', *sys.argv[1:]])}`.",
        "",
        METHOD.format(**told, seen=SEEN, rest=1 - HELD_OUT),
    ]
    if "own" in scored:
        columns = {"labels": ".0f", "own": ".3f", "start": ".3f", "Leiden": ".3f", "found": ".1f"}
        grouped = scored[scored["Leiden"].notna()]
        lines += ["## Clusters", "", CLUSTERS, *summary(grouped, ["data", "method"], columns)]
    columns = {"held-out counts": ".1f", "held-out counts, new cells": ".1f", "kNN, new cells": ".3f"}
    columns |= {"epochs": ".0f", "seconds": ".0f"}
    lines += ["## Held-out counts and new cells", "", HELD.format(**told)]
    scored = scored.sort_values(["data", "cells"], kind="stable")
    lines += summary(scored, ["data", "cells", "method"], columns)
    return "\n".join([*lines, *gaps(scored)]).rstrip() + "\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", nargs="*", default=list(DATA), choices=list(DATA))
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--sizes", nargs="*", type=int, default=list(SIZES), help="cells of the training; 0: all")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument(
        "--seeds-few", type=int, default=1, help="seeds of the fits to fewer cells, and without a prior"
    )
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "sparsesc" / "dgd")
    parser.add_argument("--quick", action="store_true", help="one fit of each method; no page is written")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    for name in ("lightning.pytorch", "scvi"):
        logging.getLogger(name).setLevel(logging.ERROR)
    if options.quick:
        print(report(run([("PBMC", method, 250, 0) for method in METHODS], options.cache)))
        return
    jobs = []
    for seed in range(options.seeds):
        jobs += [(data, method, 0, seed) for data in DATA for method in METHODS[:2]]
        few = [(FEW, method, size, seed) for size in SIZES for method in METHODS if seed < options.seeds_few]
        jobs += [job for job in few if job not in jobs]
    jobs = [job for job in jobs if job[0] in options.data and job[1] in options.methods and job[2] in options.sizes]
    Path(__file__).with_suffix(".md").write_text(report(run(jobs, options.cache)))


if __name__ == "__main__":
    main()
