"""The study behind the defaults of ``fit_sae``: which start, architecture, width, sparsity, nesting are best.

    uv run python -m benchmarks.defaults [--data pbmc3k ...] [--embedding PCA scVI] [--codes ...] [--quick]

Every labeled data set, PCA and batch-aware scVI embeddings, several seeds. A seed draws the held-out cells, the start
and the order of the cells, as the ``rng`` of ``fit_sae`` does, and the halves of the scores. No setting may use labels;
they only judge. Rows are kept (``--rows``) and not computed again; all of them are in ``benchmarks/defaults.md``, which
this writes.
"""

from __future__ import annotations

import argparse
import logging
import time
import warnings
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import sparse

from ._machine import machine
from ._scores import scores, test_cells

DATA = {
    "pbmc68k_reduced": ("pbmc68k_reduced", "bulk_labels", None),
    "pbmc3k": ("pbmc3k", "cell_type", None),
    "BALF COVID-19": ("balf_covid", "cell_type", "donor"),
    "mouse marrow": ("bonemarrow_mouse", "cell_type", None),
    "PBMC, 3 technologies": ("pbmc_3tech", "cell_type", "batch"),
    "Kang IFN-beta": ("kang2018", "cell_type", "donor"),
    "PBMC, 40 donors": ("onek1k", "cell_type", "donor"),
}
SCVI = tuple(name for name in DATA if name != "pbmc68k_reduced")  # which has no counts
MOST_CELLS = 3000
EMBEDDINGS = ("PCA", "scVI")
RATIOS = ["lms", "msas", "f1", "auroc"]
OWN = "its own dimensions"
CONTROLS = (OWN, "ICA", "NMF of the embedding", "untrained code")
DEFAULT = {
    "PCA": "matryoshka from F/16, kmeans, twice k, weight 2/3",
    "scVI": "matryoshka from F/4, kmeans, twice k",
}
READ = ("before the threshold", "Otsu's thresholds")
CEILINGS = ("supervised direction", "its positive part", "supervised call")


def load(name: str) -> tuple[object, np.ndarray, np.ndarray | None]:
    """Cells with ``X_pca``, their labels, and their batches."""
    import scanpy as sc

    import sparsesc as ssc

    function, label, batch = DATA[name]
    adata = getattr(ssc.datasets, function)()
    if adata.n_obs > MOST_CELLS:
        adata = adata[np.sort(np.random.default_rng(0).permutation(adata.n_obs)[:MOST_CELLS])].copy()
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
    """What is compared: two starts for each of the architectures, then nesting, width and sparsity."""
    for init in ("random", "kmeans"):
        start = {"init": init}
        yield f"matryoshka from F/16, {init}", {"nested": 16, **start}
        yield f"matryoshka from F/4, {init}", {"nested": 4, **start}
        yield f"batchtopk, {init}", {"architecture": "batchtopk", **start}
    start = {"init": "kmeans"}
    yield "matryoshka from F/8, kmeans", {"nested": 8, **start}
    yield "matryoshka from F/2, kmeans", {"nested": 2, **start}
    yield "matryoshka from F/4, kmeans, F/2", {"nested": 4, "width": 0.5, **start}
    yield "batchtopk, kmeans, F/2", {"architecture": "batchtopk", "width": 0.5, **start}
    yield "matryoshka from F/4, kmeans, half k", {"nested": 4, "sparsity": 0.5, **start}
    twice = {"sparsity": 2, **start}
    yield "matryoshka from F/4, kmeans, twice k", {"nested": 4, **twice}
    yield "matryoshka from F/16, kmeans, twice k", {"nested": 16, **twice}
    yield "matryoshka from F/2, kmeans, twice k", {"nested": 2, **twice}
    yield "batchtopk, kmeans, twice k", {"architecture": "batchtopk", **twice}
    for times, sparsity in (("three", 3), ("four", 4)):
        yield f"matryoshka from F/4, kmeans, {times} times k", {"nested": 4, "sparsity": sparsity, **start}
    yield "matryoshka from F/4, kmeans, twice k, twice F", {"nested": 4, "width": 2, **twice}
    yield "matryoshka from F/4, kmeans, four times k, twice F", {"nested": 4, "width": 2, "sparsity": 4, **start}
    for weight in ("1/2", "2/3", "3/4"):
        whole = {"full_width_weight": float(Fraction(weight)), **twice}
        yield f"matryoshka from F/16, kmeans, twice k, weight {weight}", {"nested": 16, **whole}
    whole = {"nested": 16, "full_width_weight": 2 / 3, "noise": 1.0, "tie_strength": 5.0, **twice}
    yield "matryoshka from F/16, kmeans, twice k, weight 2/3, noise 1, pull 5", whole
    yield "matryoshka from F/4, kmeans, twice k, weight 2/3", {"nested": 4, "full_width_weight": 2 / 3, **twice}
    for noise, tie_strength in ((0.3, 15.0), (1.0, 15.0), (0.6, 5.0), (0.6, 45.0), (1.0, 5.0)):
        told = [f"noise {noise:g}"] * (noise != 0.6) + [f"pull {tie_strength:g}"] * (tie_strength != 15)
        change = {"nested": 4, "noise": noise, "tie_strength": tie_strength, **twice}
        yield f"matryoshka from F/4, kmeans, twice k, {', '.join(told)}", change
    for read in READ:
        yield f"matryoshka from F/4, kmeans, twice k, {read}", {"nested": 4, "read": read, **twice}
    yield "matryoshka from F/4, kmeans, whitened", {"nested": 4, "whiten": True, **start}
    yield "matryoshka from F/4, kmeans, without noise", {"nested": 4, "noise": 0.0, **start}


def trained(X: np.ndarray, seed: int, change: dict) -> tuple[object, np.ndarray]:
    """A fit of all cells but a tenth, and that tenth."""
    from sparsesc._train_config import default_n_features
    from sparsesc.nn import TrainConfig, train

    change = dict(change)
    n_features = int(min(default_n_features(*X.shape) * change.pop("width", 1), len(X) // 2))
    k = round(np.clip(round(X.shape[1] / 6), 4, 32) * change.pop("sparsity", 1))
    most = change.pop("nested", None)
    if most is not None:
        change["matryoshka_widths"] = tuple(n_features // part for part in (16, 8, 4, 2, 1) if part <= most)
        change.setdefault("full_width_weight", 1 / len(change["matryoshka_widths"]))
    rng = np.random.default_rng(seed)
    held_out = np.zeros(len(X), bool)
    held_out[rng.permutation(len(X))[: round(len(X) / 10)]] = True
    config = TrainConfig(n_features=n_features, k=k, **change)
    return train(X[~held_out], config, X_validation=X[held_out], rng=rng).sae, X[held_out]


def code_rows(X: np.ndarray, labels: np.ndarray, judged: np.ndarray, seeds: int, change: dict) -> list[dict]:
    """Scores of the codes of all seeds, with what their dictionaries have in common."""
    from sparsesc.nn._metrics import fit_metrics
    from sparsesc.stats import dictionary_stability

    rows, dictionaries = [], []
    how = change.get("read")
    change = {name: value for name, value in change.items() if name != "read"}
    for seed in range(seeds):
        sae, held_out = trained(X, seed, change)
        Z = sae.encode(X) if how is None else read_otherwise(sae, X, how)
        alive = np.bincount(Z.indices, minlength=sae.n_features) > 0
        dictionaries.append(sae.W_dec[alive])
        rows.append({"seed": seed, **scores(Z[judged], labels[judged], rng=np.random.default_rng(seed))})
        rows[-1] |= fit_metrics(sae, held_out) | {"dead": 1 - alive.mean(), "F": sae.n_features}
    if seeds > 1:
        # A stream of its own: a fit may have started with the draws that stand for chance.
        found = dictionary_stability(dictionaries, rng=np.random.default_rng([0, 1]))
        for row in rows:
            row |= {"stability": found.pairs[np.triu_indices(seeds, 1)].mean(), "by chance": found.random.mean()}
    return rows


def read_otherwise(sae: object, X: np.ndarray, how: str) -> sparse.csr_matrix:
    """Features of a trained code without the threshold that all share.

    Either every positive entry, or those above a threshold of each feature's own, which parts its positive entries into
    two groups as well as one number can (Otsu 1979); labels have no part in it.
    """
    pre = np.maximum((X - sae.b_dec) @ sae.W_enc + sae.b_enc, 0)
    if how == READ[1]:
        for column in pre.T:
            positive = np.sort(column[column > 0])
            if len(positive) > 1:
                # Between-class variance for a cut after each value, from running sums.
                n = np.arange(1, len(positive))
                below = np.cumsum(positive)[:-1]
                difference = below / n - (positive.sum() - below) / (len(positive) - n)
                column[column <= positive[np.argmax(n * (len(positive) - n) * difference**2)]] = 0
    return sparse.csr_matrix(pre)


def control_rows(X: np.ndarray, labels: np.ndarray, judged: np.ndarray, seeds: int) -> Iterator[dict]:
    """Scores of what a code has to beat, and of what it cannot: directions and calls made with the labels."""
    from sparsesc.tl.labels._controls import control_representations

    names = {"ica": "ICA", "nmf": "NMF of the embedding", "random_sae": "untrained code"}
    for seed in range(seeds):
        made: dict[str, object] = {OWN: X}
        for name, Z in control_representations(tuple(names), X, {}, n_components=None, rng=np.random.default_rng(seed)):
            made[names[name]] = Z
        for code, Z in made.items():
            yield {"code": code, "seed": seed, **scores(Z[judged], labels[judged], rng=np.random.default_rng(seed))}
        for code, Z in supervised(X[judged], labels[judged], seed).items():
            yield {"code": code, "seed": seed, **scores(Z, labels[judged], rng=np.random.default_rng(seed))}


def supervised(X: np.ndarray, labels: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Logistic regression of each label, learned from the very cells that choose features (the same draw)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.multiclass import OneVsRestClassifier

    test = test_cells(labels, np.random.default_rng(seed))
    U = (X - X.mean(0)) / X.std()
    model = OneVsRestClassifier(LogisticRegression(max_iter=200)).fit(U[~test], labels[~test])
    directions = model.decision_function(U)
    call = np.arange(directions.shape[1]) == directions.argmax(1)[:, None]
    return dict(zip(CEILINGS, (directions, np.maximum(directions, 0), call.astype(float)), strict=True))


def study(options: argparse.Namespace, seeds: int) -> Iterator[pd.DataFrame]:
    """One row a data set, embedding, representation and seed, handed out as the table grows."""
    kept = options.rows if options.rows.exists() else None
    rows = pd.read_csv(kept).to_dict("records") if kept else []
    there = {(row["data"], row["embedding"], row["code"]) for row in rows}
    for embedding in options.embedding:
        for name in options.data:
            if embedding == "scVI" and name not in SCVI:
                continue
            adata, labels, batches = load(name)
            judged = ~np.char.startswith(labels.astype(str), "unlabelled")
            if name == "Kang IFN-beta":  # the other labels were predicted from these very counts
                judged = (adata.obs["label_origin"] == "original").to_numpy()
            if embedding == "PCA":
                X = np.ascontiguousarray(adata.obsm["X_pca"], np.float32)
            else:
                cache = options.cache / f"{DATA[name][0]}.npy"
                X = scvi_latent(adata, batches, cache, max_epochs=options.epochs).astype(np.float32)
            place = {"data": name, "embedding": embedding}
            if (name, embedding, OWN) not in there:
                rows += [place | row for row in control_rows(X, labels, judged, seeds)]
                yield pd.DataFrame(rows)
            for code, change in settings(X.shape[1], len(X)):
                if (name, embedding, code) in there or (options.codes and code not in options.codes):
                    continue
                change = change | ({"max_steps": 50} if options.quick else {})
                begun = time.perf_counter()
                rows += [place | {"code": code} | row for row in code_rows(X, labels, judged, seeds, change)]
                print(name, embedding, code, f"{time.perf_counter() - begun:.0f} s", flush=True)
                yield pd.DataFrame(rows)


def chosen_without(ratio: pd.DataFrame, name: str) -> str | None:
    """The code with the best mean log ratio on all data sets but one, among those fitted to most of them."""
    rest = ratio[(ratio["data"] != name) & ratio["stability"].notna()]
    counts = rest["code"].value_counts()
    rest = rest[rest["code"].isin(counts.index[counts == counts.max()])]
    value = np.log(rest[RATIOS]).mean(axis=1).groupby(rest["code"]).mean()
    return str(value.idxmax()) if len(value) else None


def report(table: pd.DataFrame, epochs: int) -> str:
    """Markdown: means over data sets, the choice without each of them, then one table a data set and embedding."""
    shown = [*RATIOS, "ge90", "covered", "stability", "by chance", "dead", "fvu", "l0"]
    table = table.reindex(columns=[*dict.fromkeys([*table.columns, *shown])])
    keys = ["embedding", "data", "code"]
    mean = table.groupby(keys, sort=False)[[*shown, "n_labels"]].mean().reset_index()
    sd = table.groupby(keys, sort=False)[RATIOS].std().reset_index()
    own = mean[mean.code == OWN].set_index(["embedding", "data"])
    at = pd.MultiIndex.from_frame(mean[["embedding", "data"]])
    ratio = mean.assign(**{c: mean[c].to_numpy() / own.loc[at, c].to_numpy() for c in RATIOS})
    gain = mean["auroc"].to_numpy() - own.loc[at, "auroc"].to_numpy()
    lines = ["# The study behind the defaults", "", f"Machine: {machine()}.", ""]
    lines += [
        f"Command: `uv run python -m benchmarks.defaults --seeds {table['seed'].nunique()} --epochs {epochs}`.",
        "",
    ]
    lines += [*READING]
    for embedding, part in ratio.groupby("embedding", sort=False):
        lines += ["", f"## {embedding}: mean over data sets", ""]
        lines += [
            "| code | data sets | LMS ratio | MSAS ratio | F1 ratio | AUROC | AUROC gain | labels covered | "
            "stability | by chance | dead | FVU |",
            "|---" * 12 + "|",
        ]
        for code, rows in part.groupby("code", sort=False):
            absolute = mean.loc[rows.index]
            cells = [f"{rows[c].mean():.2f}" for c in ("lms", "msas", "f1")]
            cells += [f"{absolute['auroc'].mean():.3f}", f"{gain[rows.index].mean():+.3f}"]
            cells += [f"{absolute['covered'].sum():.0f} of {absolute['n_labels'].sum():.0f}"]
            cells += [_figure(absolute[c].mean(), digits) for c, digits in SHOWN_MEANS]
            lines.append(f"| {code} | {len(rows)} | " + " | ".join(cells) + " |")
        if part["stability"].notna().any() and part["data"].nunique() > 1:
            lines += ["", "Chosen on all other data sets, by the mean log ratio of the four scores:", ""]
            lines += ["| judged on | chosen | " + " | ".join(RATIOS) + " |", "|---" * (len(RATIOS) + 2) + "|"]
            for name in part["data"].unique():
                code = chosen_without(part, name)
                row = part[(part["data"] == name) & (part["code"] == code)]
                if len(row):
                    lines.append(f"| {name} | {code} | " + " | ".join(f"{row[c].iloc[0]:.2f}" for c in RATIOS) + " |")
            lines += ["", "Chosen without labels, in each data set by one score of the fits alone:", ""]
            lines += ["| by | " + " | ".join(RATIOS) + " | how often the default |", "|---" * (len(RATIOS) + 2) + "|"]
            figures = {"stability, less chance": part["stability"] - part["by chance"], "FVU": -part["fvu"]}
            for told, value in figures.items():
                taken = part.loc[value.groupby(part["data"]).idxmax()]
                cells = [f"{taken[c].mean():.2f}" for c in RATIOS]
                cells.append(f"{(taken['code'] == DEFAULT[embedding]).sum()} of {len(taken)}")
                lines.append(f"| {told} | " + " | ".join(cells) + " |")
    lines += ["", "## Where a control is above the default", "", *losses(mean)]
    for (embedding, data), part in mean.groupby(["embedding", "data"], sort=False):
        lines += ["", f"## {data}, {embedding} ({part['n_labels'].iloc[0]:.0f} labels)", ""]
        lines += [
            "| code | LMS (sd) | MSAS | F1 | AUROC (sd) | labels >= .90 | covered | stability | FVU | L0 | dead |"
        ]
        lines += ["|---" * 11 + "|"]
        for i, row in part.iterrows():
            lines.append(
                f"| {row['code']} | {row['lms']:.3f} ({sd['lms'][i]:.3f}) | {row['msas']:.3f} | {row['f1']:.3f} | "
                f"{row['auroc']:.3f} ({sd['auroc'][i]:.3f}) | {row['ge90']:.1f} | {row['covered']:.1f} | "
                + " | ".join(_figure(row[c], n) for c, n in (("stability", 2), ("fvu", 3), ("l0", 1), ("dead", 2)))
                + " |"
            )
    return "\n".join(lines) + "\n"


def losses(mean: pd.DataFrame) -> Iterator[str]:
    """One line an embedding and data set: the scores in which the best control is better."""
    for (embedding, data), part in mean.groupby(["embedding", "data"], sort=False):
        part = part.set_index("code")
        if DEFAULT[embedding] not in part.index:
            continue
        ours, others = part.loc[DEFAULT[embedding]], part.loc[list(CONTROLS)]
        lost = [
            f"{c} {ours[c]:.3f} ({others[c].astype(float).idxmax()} {others[c].max():.3f})"
            for c in [*RATIOS, "covered"]
            if ours[c] < others[c].max()
        ]
        yield f"- {data}, {embedding}: {'; '.join(lost) or 'nowhere'}."


def _figure(value: float, digits: int) -> str:
    return "" if np.isnan(value) else f"{value:.{digits}f}"


SHOWN_MEANS = (("stability", 2), ("by chance", 2), ("dead", 2), ("fvu", 3))
READING = [
    "Ratios are to the embedding's dimensions. Half of each label's cells choose the feature, the other half",
    "score it (`benchmarks/_scores.py`). Stability is the mean cosine of features matched one to one between two",
    "fits with other seeds, which also hold out other cells; next to it is that of random directions. The",
    "supervised rows are no competitors, but show how high scores can get: a logistic regression of each label on",
    "the choosing cells, with its scores on the others (a direction of the embedding, learned with the labels),",
    "their positive part, and the label it predicts.",
    "",
    "F is 128 for fifty principal components and 64 for the ten dimensions of scVI; k is 8 and 4, twice that 16",
    "and 8. `from F/4`: nested dictionaries of F/4, F/2 and F features, with equal shares of the loss; `weight",
    "2/3`: the whole dictionary has two thirds of it. Noise (on what the encoder sees) is .6 and the pull of the",
    "encoder toward the decoder 15 where no other value is given. The resulting defaults of `fit_sae` are",
    "`matryoshka from F/16, kmeans, twice k, weight 2/3` on principal components and `matryoshka from F/4,",
    "kmeans, twice k` on scVI's latent. scVI was trained for 60 epochs, for PBMC, 3 technologies, for 200.",
]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--embedding", nargs="+", choices=EMBEDDINGS, default=list(EMBEDDINGS))
    parser.add_argument("--codes", nargs="*", help="only these settings, and the controls")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=60, help="of scVI, where its latent is not in --cache")
    here = Path.home() / ".cache" / "sparsesc"
    parser.add_argument("--cache", type=Path, default=here / "scvi")
    parser.add_argument("--rows", type=Path, default=here / "defaults.csv")
    parser.add_argument("--quick", action="store_true", help="one data set, few codes, one seed: does it run?")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("defaults.md"))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("scvi").setLevel(logging.ERROR)
    if arguments.quick:
        arguments.data, arguments.embedding, arguments.rows = ["pbmc68k_reduced"], ["PCA"], Path("no rows are kept")
        arguments.codes = ["matryoshka from F/4, kmeans"]
    text = ""
    for results in study(arguments, 1 if arguments.quick else arguments.seeds):
        text = report(results, arguments.epochs)
        if not arguments.quick:
            arguments.rows.parent.mkdir(parents=True, exist_ok=True)
            results.to_csv(arguments.rows, index=False)
            arguments.out.write_text(text)
    print(text)
