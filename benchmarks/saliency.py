"""Do gene sets with an impact on a unit fit the cells that it tells apart? An orthogonal autoencoder beside controls.

    SPARSESC_DATA_DIR=... python -m benchmarks.saliency [--seeds 2] [--smoke] [--out benchmarks/saliency.md]

Mouse marrow progenitors (Paul et al. 2015; gene names in upper case, so that human sets match) and blood cells (10x
PBMC 3k). For each cell type, the unit that tells it from the others best is chosen on half of the cells; which sets
have an impact on this unit is then asked, and where the set is that was expected before looking (``EXPECTED``).
Controls: the same network without training, without the penalty, scVI, sparse features of the units, and the rank of
the same set in all other units. ``--smoke`` trains for two epochs on few genes.
"""

from __future__ import annotations

import argparse
import logging
import resource
import shlex
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks._machine import machine

CYCLE = "proliferation"
# Named before any result was seen. A type with several sets counts the best of them.
EXPECTED: dict[str, dict[str, list[str]]] = {
    "marrow": {
        "Ery": ["HEME_METABOLISM"],
        CYCLE: ["E2F_TARGETS", "G2M_CHECKPOINT"],
        "Mk": ["COAGULATION"],
        "Neu": ["INFLAMMATORY_RESPONSE", "COMPLEMENT"],
        "Mo": ["INFLAMMATORY_RESPONSE", "COMPLEMENT"],
        "DC": ["INTERFERON_GAMMA_RESPONSE", "INTERFERON_ALPHA_RESPONSE"],
    },
    "blood": {
        "CD14+ Mono": ["TNFA_SIGNALING_VIA_NFKB", "INFLAMMATORY_RESPONSE", "COMPLEMENT"],
        "NK": ["ALLOGRAFT_REJECTION"],
        "CD8 T": ["ALLOGRAFT_REJECTION"],
        "DC": ["INTERFERON_GAMMA_RESPONSE", "INTERFERON_ALPHA_RESPONSE"],
        "Platelet": ["COAGULATION"],
    },
    "blood, markers": {
        "B": ["B cell"],
        "CD14+ Mono": ["Classical monocyte"],
        "FCGR3A+ Mono": ["Nonclassical monocyte"],
        "NK": ["NK cell"],
        "CD8 T": ["CD8 T cell"],
        "DC": ["Conventional dendritic cell type 2"],
        "Platelet": ["Platelet or megakaryocyte"],
    },
}
RANDOM_SETS = 300


def load(name: str, *, smoke: bool) -> Any:
    """Counts in ``X``, types in ``obs["type"]``, a score of proliferation."""
    import scanpy as sc

    import sparsesc as ssc

    if name == "marrow":
        adata = ssc.datasets.bonemarrow_mouse()
        adata.var_names = adata.var_names.str.upper()
        adata.var_names_make_unique()
    else:
        adata = ssc.datasets.pbmc3k()
        adata = adata[adata.obs["cell_type"] != "unlabelled (failed QC)"].copy()
    adata.X = adata.X.astype(np.float32)
    sc.pp.filter_genes(adata, min_cells=1500 if smoke else 30)
    adata.obs["type"] = adata.obs["cell_type"].astype(str)
    logs = sc.pp.log1p(sc.pp.normalize_total(adata, target_sum=1e4, copy=True), copy=True)
    markers = ssc.datasets.gene_sets("immune_markers").query("source == 'Proliferating cell'")["target"]
    genes = [g for g in markers if g in adata.var_names]
    adata.obs[CYCLE] = np.asarray(logs[:, genes].X.mean(1)).ravel() if genes else 0.0
    return adata


def train(adata: Any, kind: str, seed: int, *, epochs: int | None) -> Any:
    """A model, or one without training."""
    import scvi

    import sparsesc as ssc

    scvi.settings.seed = seed
    quiet = {"accelerator": "cpu", "enable_progress_bar": False, "max_epochs": epochs}
    if kind == "scVI":
        scvi.model.SCVI.setup_anndata(adata)
        model = scvi.model.SCVI(adata, n_latent=30)
        model.train(early_stopping=True, early_stopping_patience=15, **(quiet | {"max_epochs": epochs or 100}))
        return model
    ssc.models.OrthogonalAE.setup_anndata(adata)
    model = ssc.models.OrthogonalAE(adata, orthogonality=0.0 if kind == "no penalty" else 0.05)
    if kind == "untrained":
        model.is_trained_ = True
        model.module.eval()
    else:
        model.train(**quiet)
    return model


def unit_of(values: np.ndarray, target: np.ndarray, half: np.ndarray) -> tuple[int, float]:
    """The unit that goes with a label or a score best on one half, and how well it does on the other."""
    from scipy.stats import rankdata

    if target.dtype == bool:
        ranks = {side: rankdata(values[rows], axis=0) for side, rows in ((0, half), (1, ~half))}
        found = []
        for side, rows in ((0, half), (1, ~half)):
            inside = target[rows]
            n1, n0 = inside.sum(), (~inside).sum()
            found.append((ranks[side][inside].sum(0) - n1 * (n1 + 1) / 2) / max(n1 * n0, 1))
        strength = np.abs(found[0] - 0.5)
        best = int(np.nanargmax(strength))
        sign = np.sign(found[0][best] - 0.5)
        return best, float(0.5 + sign * (found[1][best] - 0.5))
    r = [
        np.nan_to_num([np.corrcoef(column, target[rows])[0, 1] for column in values[rows].T]) for rows in (half, ~half)
    ]
    best = int(np.abs(r[0]).argmax())
    return best, float(np.sign(r[0][best]) * r[1][best])


def place(adata: Any, values: np.ndarray, names: list[str], expected: dict[str, list[str]]) -> pd.DataFrame:
    """Where the expected sets are among all sets of the chosen units, and in the others."""
    import sparsesc as ssc

    table = ssc.get.geneset_impact(adata).astype({"unit": str, "term": str})
    table["term"] = table["term"].str.removeprefix("HALLMARK_")
    table["rank"] = table.groupby("unit")["score"].rank(ascending=False, method="first")
    tested = [n for n in names if n in set(table["unit"])]
    columns = [names.index(n) for n in tested]
    half = np.random.default_rng(0).random(adata.n_obs) < 0.5
    rows = []
    for label, terms in expected.items():
        target = adata.obs[CYCLE].to_numpy() if label == CYCLE else (adata.obs["type"] == label).to_numpy()
        best, quality = unit_of(values[:, columns], target, half)
        mine = table[(table["unit"] == tested[best]) & table["term"].isin(terms)].sort_values("rank")
        if mine.empty:
            continue
        first = mine.iloc[0]
        others = table[(table["unit"] != tested[best]) & table["term"].isin(terms)]
        top = table[table["unit"] == tested[best]].sort_values("rank")["term"].head(3)
        rows.append(
            {
                "cells": label,
                "unit": tested[best],
                "quality": quality,
                "term": first["term"],
                "rank": int(first["rank"]),
                "padj": first["padj"],
                "scaled": first["scaled"],
                "others": others.groupby("unit")["rank"].min().median(),
                "n_sets": table["term"].nunique(),
                "top": ", ".join(top),
            }
        )
    return pd.DataFrame(rows)


def random_sets(genes: pd.Index, sizes: np.ndarray, rng: np.random.Generator) -> dict[str, list[str]]:
    return {f"random {i}": list(rng.choice(genes, int(rng.choice(sizes)), replace=False)) for i in range(RANDOM_SETS)}


def study(name: str, *, seeds: int, smoke: bool) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Every model and method on one data set: where expected sets are, and facts about the run."""
    import sparsesc as ssc

    adata = load(name, smoke=smoke)
    nets = {name: ssc.datasets.gene_sets("hallmark")}
    if name == "blood":
        nets["blood, markers"] = ssc.datasets.gene_sets("immune_markers")
    epochs = 2 if smoke else None
    options = {"max_cells": 20 if smoke else 100, "progress_bar": False}
    null = {"n_null": 100 if smoke else 500, "progress_bar": False}
    places, facts = [], []
    for seed in range(seeds):
        for kind in ("penalty .05", "no penalty", "untrained", "scVI", "features"):
            begun = time.perf_counter()
            if kind != "features":
                model = train(adata, kind, seed, epochs=epochs)
                values = model.get_latent_representation()
                if kind == "penalty .05":
                    kept = model, values
            else:
                model, adata.obsm["X_oae"] = kept
                ssc.tl.fit_sae(adata, use_rep="X_oae", rng=seed, progress_bar=False, max_steps=50 if smoke else None)
                values = adata.obsm["X_sae"].toarray()
            trained = time.perf_counter() - begun
            methods = ("guided", "gradient", "integrated_gradients") if kind == "penalty .05" else ("guided",)
            for method in methods:
                begun = time.perf_counter()
                ssc.tl.saliency(
                    adata, model, method=method, sae="sae" if kind == "features" else None, rng=seed, **options
                )
                took = time.perf_counter() - begun
                units = adata.uns["saliency"]["units"]
                fact = {
                    "data": name,
                    "seed": seed,
                    "model": kind,
                    "method": method,
                    "train": trained,
                    "saliency": took,
                    "units": len(units),
                    "silent": int(units["silent"].sum()),
                    "bytes": adata.uns["saliency"]["pairs"]["nodes"].nbytes,
                }
                if hasattr(model, "orthogonality_gap") and kind != "features":
                    fact["gap"] = model.orthogonality_gap
                    if model.history:
                        fact["held_out"] = float(model.history["reconstruction_loss_validation"].iloc[-1].item())
                        fact["epochs"] = len(model.history["reconstruction_loss_validation"])
                if not units["silent"].all():
                    for which, net in nets.items():
                        begun = time.perf_counter()
                        ssc.tl.geneset_impact(adata, net, rng=seed, **null)
                        table = ssc.get.geneset_impact(adata)
                        if which == name:
                            fact["impact"] = time.perf_counter() - begun
                            fact["found"] = float((table["padj"] < 0.05).mean())
                            fact["sets per unit"] = float((table["padj"] < 0.05).groupby(table["unit"]).sum().mean())
                        found = place(adata, values, list(units.index), EXPECTED[which])
                        places.append(found.assign(data=which, seed=seed, model=kind, method=method))
                    if seed == 0:
                        fact |= level(adata, nets[name], null)
                facts.append(fact)
                print({k: v for k, v in fact.items() if k in ("data", "seed", "model", "method")}, flush=True)
    return pd.concat(places, ignore_index=True), pd.DataFrame(facts)


def level(adata: Any, net: pd.DataFrame, null: dict[str, Any]) -> dict[str, float]:
    """Share of p below .05: of random sets, and of the real ones without matching."""
    import sparsesc as ssc

    genes = adata.uns["saliency"]["inputs"].index.astype(str)
    sizes = net[net["target"].isin(genes)].groupby("source").size().clip(5, 100).to_numpy()
    out = {}
    live = adata.uns["saliency"]["units"].query("~silent").index[:16]
    ssc.tl.geneset_impact(
        adata, random_sets(genes, sizes, np.random.default_rng(0)), units=list(live), match="none", **null
    )
    out["random sets"] = float((ssc.get.geneset_impact(adata)["pval"] < 0.05).mean())
    for match in ("none", "expression", "detection"):
        ssc.tl.geneset_impact(adata, net, units=list(live), match=match, **null)
        out[f"p<.05, {match}"] = float((ssc.get.geneset_impact(adata)["pval"] < 0.05).mean())
    mean = adata.uns["saliency"]["inputs"]["mean"].to_numpy()
    position = adata.uns["saliency"]["units"].index.get_indexer(live)
    top = np.stack([np.abs(ssc.get.saliency(adata, int(p), cells=True).to_numpy()).mean(0) for p in position])
    out["correlation with expression"] = float(
        np.mean([pd.Series(t).corr(pd.Series(mean), method="spearman") for t in top])
    )
    return out


def report(places: pd.DataFrame, facts: pd.DataFrame, command: str) -> str:
    lines = ["# Saliency: do the gene sets of a unit fit its cells?", "", f"Machine: {machine()}.", ""]
    lines += [f"Command: `{command}`. {facts['seed'].nunique()} seeds.", ""]
    lines += [
        "For each type, the unit that tells it from the other cells best (chosen on half of the cells; quality: AUROC,",
        "for proliferation Pearson r, on the other half). Rank: place of the expected set among all sets by its score",
        "on that unit, the best over the sets named; others: the median of this rank over other units. Expectations",
        "were written down before. `scaled` is the published measure, marked above .7.",
        "",
    ]
    main = places[(places["model"] == "penalty .05") & (places["method"] == "guided")]
    for data, part in main.groupby("data", sort=False):
        lines += [f"## {data}: OrthogonalAE, guided backpropagation", ""]
        lines += [
            "| cells | seed | quality | expected set | rank | others | padj | scaled | top three sets of the unit |"
        ]
        lines += ["|---|---|---|---|---|---|---|---|---|"]
        for row in part.sort_values(["cells", "seed"], kind="stable").itertuples():
            lines.append(
                f"| {row.cells} | {row.seed} | {row.quality:.2f} | {row.term} | {row.rank} of {row.n_sets} "
                f"| {row.others:.0f} | {row.padj:.2g} | {row.scaled:.2f} | {row.top} |"
            )
        lines.append("")
    lines += ["## Models and methods", ""]
    lines += [
        "Over all expectations and seeds; a rank is divided by the number of sets (chance: about .5, and less where"
    ]
    lines += ["several sets were named).", ""]
    lines += ["| data | model | method | median rank | in other units | first three | padj < .05 | quality |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for (data, model, method), part in places.groupby(["data", "model", "method"], sort=False):
        lines.append(
            f"| {data} | {model} | {method} | {(part['rank'] / part['n_sets']).median():.2f} "
            f"| {(part['others'] / part['n_sets']).median():.2f} | {(part['rank'] <= 3).mean():.0%} "
            f"| {(part['padj'] < 0.05).mean():.0%} | {part['quality'].median():.2f} |"
        )
    lines += ["", "## Orthogonality", ""]
    lines += [
        "| data | model | norm of I - W W^T | held-out NLL per cell | epochs | silent units |",
        "|---|---|---|---|---|---|",
    ]
    for (data, model), part in facts[facts["gap"].notna()].groupby(["data", "model"], sort=False):
        here = part[part["method"] == "guided"]
        lines.append(
            f"| {data} | {model} | {here['gap'].mean():.3f} | {here['held_out'].mean():.0f} "
            f"| {here['epochs'].mean():.0f} | {here['silent'].mean():.0f} of {here['units'].mean():.0f} |"
        )
    lines += ["", "## Levels", ""]
    lines += [
        "Share of p < .05 among random sets of genes, and among all real sets by what random sets have in common with"
    ]
    lines += ["them; share of padj < .05; rank correlation of saliency and expression over genes. Seed 0.", ""]
    lines += [
        "| data | model | method | random sets | real, none | expression | detection | padj < .05 | correlation |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|---|"]
    for row in facts[facts["seed"] == 0].to_dict("records"):
        if "random sets" in row and np.isfinite(row["random sets"]):
            lines.append(
                f"| {row['data']} | {row['model']} | {row['method']} | {row['random sets']:.3f} "
                f"| {row['p<.05, none']:.2f} | {row['p<.05, expression']:.2f} | {row['p<.05, detection']:.2f} "
                f"| {row['found']:.2f} | {row['correlation with expression']:.2f} |"
            )
    lines += ["", "## Time and size", ""]
    lines += [
        "| data | model | method | training s | saliency s | impact s | stored MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for (data, model, method), part in facts.groupby(["data", "model", "method"], sort=False):
        lines.append(
            f"| {data} | {model} | {method} | {part['train'].mean():.0f} | {part['saliency'].mean():.1f} "
            f"| {part['impact'].mean():.0f} | {part['bytes'].mean() / 1e6:.1f} |"
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines += ["", f"Peak memory of the whole run: {peak:.1f} GiB.", ""]
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--data", nargs="*", default=["marrow", "blood"])
    parser.add_argument("--smoke", action="store_true", help="two epochs, few genes: does it run?")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("saliency.md"))
    parser.add_argument("--tables", type=Path, help="keep the tables in this folder")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    found = [study(d, seeds=1 if arguments.smoke else arguments.seeds, smoke=arguments.smoke) for d in arguments.data]
    places, facts = (pd.concat(parts, ignore_index=True) for parts in zip(*found, strict=True))
    if arguments.tables:
        arguments.tables.mkdir(parents=True, exist_ok=True)
        places.to_csv(arguments.tables / "places.csv", index=False)
        facts.to_csv(arguments.tables / "facts.csv", index=False)
    words = [w for w in sys.argv[1:] if not w.startswith(("--tables", "--out", "/"))]
    text = report(places, facts, shlex.join(["python", "-m", "benchmarks.saliency", *words]))
    if not arguments.smoke:
        arguments.out.write_text(text)
    print(text)
