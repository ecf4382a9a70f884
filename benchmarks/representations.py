"""How well single features stand for cell types: codes against embeddings, ICA, NMF, untrained codes, scVI and DRVI.

    python -m benchmarks.representations [--data pbmc3k ...] [--seeds 3] [--scvi] [--drvi] [--quick]

Everything is scored by ``ssc.tl.compare_representations``: features are chosen on half of the cells and scored on the
other half. PCA is always included; with ``--scvi`` and ``--drvi`` so are the latents of these models (batch-aware where
there are batches; trained here, which takes minutes per data set, and kept under ``--cache``), each with our code of
it. Needs ``SPARSESC_DATA_DIR``. Writes ``benchmarks/representations.md``.
"""

from __future__ import annotations

import argparse
import logging
import shlex
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ._machine import machine
from .defaults import DATA, load, scvi_latent

SETS = ("pbmc3k", "PBMC, 3 technologies", "BALF COVID-19", "Kang IFN-beta", "mouse marrow")
UNLABELLED = "unlabelled"
DRVI_METRICS = ("lms_smi", "lms_spn", "msas_smi", "msas_spn", "msgs_smi", "msgs_spn")
SHOWN = {
    "auroc": "AUROC",
    "coverage": "labels >= .90",
    "f1": "F1",
    "probe_1": "probe 1",
    "probe_2": "probe 2",
    "probe_5": "probe 5",
    "lms_smi": "LMS SMI",
    "lms_spn": "LMS SPN",
    "msas_smi": "MSAS SMI",
    "msas_spn": "MSAS SPN",
    "msgs_smi": "MSGS SMI",
    "msgs_spn": "MSGS SPN",
    "msgs_smi_distinct": "MSGS SMI, no duplicates",
}
LABEL = "label"


def cells(name: str) -> tuple[object, np.ndarray | None]:
    """Cells with ``X_pca`` and their types in ``obs["label"]``, missing where they are not to be trusted."""
    adata, labels, batches = load(name)
    known = ~pd.Series(labels).str.startswith(UNLABELLED).to_numpy()
    if name == "Kang IFN-beta":  # the other labels were predicted from these very counts
        known &= (adata.obs["label_origin"] == "original").to_numpy()
    adata.obs[LABEL] = pd.Categorical(pd.Series(labels).where(known))
    return adata, batches


def embeddings(adata: object, name: str, batches: np.ndarray | None, options: argparse.Namespace) -> list[str]:
    """Entries of ``obsm`` that codes are fitted to; those of scVI and DRVI are written here."""
    found, file = ["X_pca"], DATA[name][0]
    if options.scvi:
        adata.obsm["X_scVI"] = scvi_latent(adata, batches, options.cache / f"{file}.npy").astype(np.float32)
        found.append("X_scVI")
    if options.drvi:
        cache = options.cache / f"{file}_drvi.npy"
        latent = scvi_latent(adata, batches, cache, drvi=True, max_epochs=150, n_latent=32)
        adata.obsm["X_DRVI"] = latent.astype(np.float32)
        found.append("X_DRVI")
    return found


def nmf_of_expression(adata: object, width: int, seed: int) -> np.ndarray:
    """Factors of the log-normalized, highly variable genes."""
    from sklearn.decomposition import NMF

    part = adata[:, adata.var["highly_variable"]] if "highly_variable" in adata.var else adata
    return NMF(width, init="nndsvda", random_state=seed, max_iter=100).fit_transform(part.X)


def one(adata: object, use_reps: list[str], seed: int, n_permutations: int) -> Iterator[pd.DataFrame]:
    """Scores of one seed: the embedding's dimensions, our code and controls, for every embedding."""
    import sparsesc as ssc

    for use_rep in use_reps:
        title = use_rep.removeprefix("X_")
        title = "PCA" if title == "pca" else title
        ssc.tl.fit_sae(adata, use_rep=use_rep, rng=seed, progress_bar=False)
        use_reps = {"sparsesc": "X_sae", "its own dimensions": use_rep}
        if use_rep == "X_pca":
            use_reps["NMF of expression"] = nmf_of_expression(adata, adata.obsm[use_rep].shape[1], seed)
        table = ssc.tl.compare_representations(
            adata,
            use_reps,
            LABEL,
            controls=("ica", "nmf", "random_sae"),
            use_rep=use_rep,
            n_permutations=n_permutations,
            rng=seed,
            progress_bar=False,
        )
        names = {"ica": "ICA", "nmf": "NMF of the embedding", "random_sae": "untrained code"}
        code = table["representation"].astype(str).replace(names)
        yield table.assign(representation=code, metric=table["metric"].astype(str), embedding=title, seed=seed)


def study(names: list[str], options: argparse.Namespace) -> Iterator[pd.DataFrame]:
    """Everything so far, handed out after each seed of each data set."""
    parts: list[pd.DataFrame] = []
    for name in names:
        adata, batches = cells(name)
        use_reps = embeddings(adata, name, batches, options)
        for seed in range(options.seeds):
            begun = time.perf_counter()
            parts += [t.assign(data=name) for t in one(adata, use_reps, seed, options.permutations)]
            print(f"{name}, seed {seed}: {time.perf_counter() - begun:.0f} s", flush=True)
            yield pd.concat(parts, ignore_index=True)


def report(table: pd.DataFrame, command: str) -> str:
    """Markdown: sparseSC's count, mean ratios to PCA, then all scores by data set and embedding."""
    keys = ["data", "embedding", "representation"]
    grouped = table.groupby([*keys, "metric"], sort=False)
    mean = grouped["value"].mean().unstack("metric")
    sd = grouped["value"].std().unstack("metric")
    null = grouped["null_mean"].mean().unstack("metric")
    width = table[table["metric"] == "auroc"].groupby(keys, sort=False)["n_features"].first()
    n_labels = table.groupby("data", sort=False)["n_labels"].first()
    seeds = table["seed"].nunique()
    lines = ["# What single features stand for, compared with controls", "", f"Machine: {machine()}.", ""]
    lines += [f"Command: `{command}`.", ""]
    over = f"Means over {seeds} seeds" if seeds > 1 else "One seed, without intervals"
    lines += [
        f"{over} (fits, controls and splits){'; standard deviation in brackets' if seeds > 1 else ''}. Features are",
        "chosen on half of the cells and scored on the other half. `sparsesc` is `fit_sae` with its defaults; an",
        "untrained code has the same width and sparsity. ICA and NMF have as many components as the embedding has",
        "dimensions.",
        "Embeddings and codes are fitted to all cells, without labels.",
        "",
        "## Strong singular correlations: sparseSC's count",
        "",
        "Features with |Pearson r| > 0.5 to exactly one cell type, over all cells.",
        "",
        "| data | embedding | representation | features | count | share of features | different labels | labels | "
        "count, shuffled labels |",
        "|---" * 9 + "|",
    ]
    for place, row in mean.iterrows():
        lines.append(
            f"| {' | '.join(place)} | {width[place]} | {row['singular']:.1f} | {row['singular_share']:.1%} | "
            f"{row['singular_labels']:.1f} | {n_labels[place[0]]} | {null.loc[place, 'singular']:.2f} |"
        )
    lines += ["", "## Mean ratio to PCA, over data sets", ""]
    lines += ["| embedding | representation | data sets | " + " | ".join(SHOWN[m] for m in DRVI_METRICS) + " |"]
    lines += ["|---" * (len(DRVI_METRICS) + 3) + "|"]
    metrics = list(DRVI_METRICS)
    pca = mean.xs(("PCA", "its own dimensions"), level=("embedding", "representation"))[metrics]
    ratio = mean[metrics] / pca.reindex(mean.index.get_level_values("data")).to_numpy()
    for place, part in ratio.groupby(["embedding", "representation"], sort=False):
        lines.append(f"| {' | '.join(place)} | {len(part)} | " + " | ".join(f"{v:.2f}" for v in part.mean()) + " |")
    for (data, embedding), part in mean.groupby(["data", "embedding"], sort=False):
        lines += ["", f"## {data}, {embedding} ({n_labels[data]} labels)", ""]
        lines += ["| representation | " + " | ".join(SHOWN.values()) + " |", "|---" * (len(SHOWN) + 1) + "|"]
        for place, row in part.iterrows():
            values = [number(row[m], sd.loc[place, m]) for m in SHOWN]
            lines.append(f"| {place[2]} | " + " | ".join(values) + " |")
        shuffled = null.loc[part.index].mean()
        lines.append("| (shuffled labels, mean) | " + " | ".join(number(shuffled[m], np.nan) for m in SHOWN) + " |")
        lines += ["", *losses(part.droplevel([0, 1]))]
    return "\n".join(lines) + "\n"


def number(mean: float, sd: float) -> str:
    return f"{mean:.3f}" + ("" if np.isnan(sd) else f" ({sd:.3f})")


def losses(part: pd.DataFrame) -> list[str]:
    """Where our code is below the best of the others."""
    ours, others = part.loc["sparsesc"], part.drop(index="sparsesc")
    lost = [
        f"{SHOWN[m]} {ours[m]:.3f} (best {others[m].max():.3f}, {others[m].idxmax()})"
        for m in SHOWN
        if ours[m] < others[m].max()
    ]
    return [f"`sparsesc` is below the best of the others in: {'; '.join(lost) or 'nothing'}."]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", choices=SETS, default=list(SETS))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--permutations", type=int, default=20, help="shuffled labels a seed")
    parser.add_argument("--scvi", action="store_true", help="also scVI's latent (trained unless it is in --cache)")
    parser.add_argument("--drvi", action="store_true", help="also DRVI's latent (trained unless it is in --cache)")
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "sparsesc" / "scvi")
    parser.add_argument("--quick", action="store_true", help="one data set, one seed: does it run?")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("representations.md"))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("scvi").setLevel(logging.ERROR)
    if arguments.quick:
        arguments.data, arguments.seeds, arguments.permutations = ["PBMC, 3 technologies"], 1, 2
    said = shlex.join(["python", "-m", "benchmarks.representations", *sys.argv[1:]])
    text = ""
    for results in study(arguments.data, arguments):
        text = report(results, said)
        if not arguments.quick:
            arguments.out.write_text(text)
    print(text)
