"""Steering control cells to look stimulated: few features against random moves and the plain difference of means.

    SPARSESC_DATA_DIR=... python -m benchmarks.steering [--seeds 3] [--quick] [--rows rows.csv]

Kang et al. (2018): blood cells of eight donors with and without interferon beta. Features are set, in control cells, to
their mean in stimulated cells of the same type. Which features, and to which means, is decided on half of the donors;
the control cells of the other half are moved and scored, and the halves swapped. Then the same with embedding and
autoencoder of the choosing half alone. ``--rows`` keeps what is done, so that a run can resume where it stopped.
``--quick`` runs one small fit and writes nothing. Writes ``steering.md``.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ._machine import machine
from ._markdown import markdown

REFERENCE = "F 256, k 8"
LONG = "F 256, k 8, no noise, to the end"
DEFAULT = "defaults (F 128, k 17)"
SHAPE: dict[str, Any] = {"n_features": 256, "k": 8}
TO_THE_END: dict[str, Any] = {"noise": 0.0, "max_steps": 6000, "patience": None}
FITS: dict[str, dict[str, Any]] = {
    REFERENCE: SHAPE,
    "F 256, k 8, random starts": SHAPE | {"init": "random"},
    "F 256, k 8, no noise": SHAPE | {"noise": 0.0},
    LONG: SHAPE | TO_THE_END,
    "F 256, k 8, no noise, to the end, random starts": SHAPE | TO_THE_END | {"init": "random"},
    DEFAULT: {},
    "F 128, k 17, no noise, to the end": TO_THE_END,
    "F 64, k 4": {"n_features": 64, "k": 4},
    "F 64, k 4, equal weights": {"n_features": 64, "k": 4, "full_width_weight": 0.2},
    "untrained, F 256, k 8": {"untrained": True} | SHAPE,
}
QUICK = {"quick": {"n_features": 64, "k": 4, "max_steps": 60}}
COUNTS = (1, 2, 3, 5)
SHORTER = (0.5, 0.6, 0.7, 0.8)  # of the plain difference: how much of it does it take?
LONGER = (1.5, 2.0)
HARDER = (1, 3)
INTERFERON = "interferon"
TEXT = """
## What follows

- Three features, chosen within types, steer as intended with the default fit and most others: they move more than nine
  tenths of the cells, while random directions and random features of the same length move almost none, and they beat
  the plain difference of all means. The difference of means within types moves all dimensions at once and remains the
  upper limit: features come near it, and say what changes. The exceptions, with 73 and 78 %, are codes whose nested
  widths have little weight and that are narrow or start at random: they have no broad features.
- One feature of a fit with the default training does not: it moves fewer than 65 % of the cells, and how many depends
  on the seed. Landing takes about six tenths of the difference of the means (third table), and one feature carries
  less. There are two reasons why a response is divided. Features that start at centers of the cells start at control
  cells and at stimulated cells of a type, so that one feature is lost where another is gained, and each carries half;
  and noise on the encoder's input keeps activations and steps small. Without noise, trained to the end, one feature
  carries enough from either start (78 to 84 %), and so does one of a narrow code whose nested widths weigh as much as
  the whole dictionary (83 %): its fewer and broader features share a response less.
- That is no reason to change the defaults, which were chosen for features that stand for labels in cells that did not
  choose them (`docs/defaults.md`). To steer with the defaults, use two or three features, or a dose of 1.5 to 2; to
  steer with a single feature, fit for that purpose: `n_features=64, k=4, full_width_weight=0.2`, or `noise=0,
  max_steps=6000, patience=None`.
- In the strict setting, three features move 70 to 95 % of the cells, and no setting is reliable for a single feature.
- One choice for all types needs about five features to beat the plain difference, and moves farther away from real
  cells.
- Features were chosen along the difference of the groups, so even those of an untrained code decode to interferon genes
  while moving almost no cells: enrichment alone is no evidence for features.
"""
GROUPS = {"groupby": "condition", "from_group": "ctrl", "to_group": "stim"}


def kang() -> Any:
    """Log-normalized counts; the 26 cells without a donor are left out."""
    import scanpy as sc

    import sparsesc as ssc

    adata = ssc.datasets.kang2018()
    adata = adata[adata.obs["donor"].astype(str) != "NA"].copy()
    adata.obs["donor"] = adata.obs["donor"].astype(str)
    sc.pp.normalize_total(adata, target_sum=1e4)
    sc.pp.log1p(adata)
    return adata


def embed(adata: Any, reference: np.ndarray | None = None) -> None:
    """PCA-50 of 2,000 variable genes, of all cells or of the `reference` ones, to which the others are projected."""
    import scanpy as sc

    part = adata if reference is None else adata[reference].copy()
    sc.pp.highly_variable_genes(part, n_top_genes=2000)
    sc.pp.pca(part, n_comps=50)
    if reference is not None:
        used = part.var["highly_variable"].to_numpy()
        loadings = part.varm["PCs"][used]
        center = np.asarray(part.X[:, used].mean(0))
        adata.obsm["X_pca"] = np.asarray(adata.X[:, used] @ loadings - center @ loadings, dtype=np.float32)
        adata.varm["PCs"] = part.varm["PCs"]


def fit(adata: Any, seed: int, *, untrained: bool = False, **options: Any) -> None:
    import sparsesc as ssc

    if not untrained:
        ssc.tl.fit_sae(adata, use_rep="X_pca", rng=seed, progress_bar=False, **options)
        return
    X = adata.obsm["X_pca"]
    F = int(options["n_features"])
    W = np.random.default_rng(seed).normal(size=(F, X.shape[1])).astype(np.float32)
    W /= np.linalg.norm(W, axis=1, keepdims=True)
    model = ssc.nn.SparseAutoencoder(
        W.T, np.zeros(F), W, X.mean(0), np.zeros(F), k=int(options["k"]), architecture="topk"
    )
    ssc.tl.apply_sae(adata, model, use_rep="X_pca")


def steer(adata: Any, reference: np.ndarray, **options: Any) -> dict[str, Any]:
    import sparsesc as ssc

    ssc.tl.steer(
        adata, **{"cells": ~reference, "reference_cells": reference, "doses": [0], "n_controls": 3} | GROUPS | options
    )
    return adata.uns["sae"]["steering"]


def score(adata: Any, reference: np.ndarray, **options: Any) -> dict[str, float]:
    """Shares that land among stimulated cells, and how far off the cells are."""
    found = steer(adata, reference, **options)
    full = found["doses"].query("dose == 1").groupby("control")[["landed", "percentile", "norm"]].mean()
    out = {f"{name} {column}": float(full.loc[name, column]) for name in full.index for column in full}
    landed = found["doses"].groupby(["control", "dose"])["landed"].mean()
    out["unmoved landed"] = float(landed["steered", 0])
    out |= {f"within at {d}": value for (name, d), value in landed.items() if name.endswith("within") and d in SHORTER}
    out |= {f"steered at {d}": value for (name, d), value in landed.items() if name == "steered" and d in LONGER}
    table = found["features"]
    strata = table.groupby("stratum").agg(cells=("n_cells", "first"), share=("share_of_difference", "sum"))
    out["share"] = float(np.average(strata["share"], weights=strata["cells"]))
    out["rising"] = float((table["after"] > table["before"]).mean())
    if "enrichment" in found:
        terms = found["enrichment"].sort_values("pval", kind="stable").reset_index(drop=True)
        hits = terms[terms["term"].str.contains(INTERFERON, case=False) & (terms["score"] > 0)]
        out["interferon rank"] = float(hits.index[0] + 1) if len(hits) else np.nan
        out["interferon padj"] = float(hits["padj"].iloc[0]) if len(hits) else 1.0
    return out


def harder(adata: Any, reference: np.ndarray) -> dict[str, float]:
    """Of the cells that were just steered: neighbors of the scored donors alone, types kept, genes against truth."""
    from sparsesc.stats.features._manifold import Manifold

    stimulated = (adata.obs["condition"] == "stim").to_numpy()
    kind = pd.Categorical(adata.obs["cell_type"].astype(str)).codes
    moved = np.flatnonzero(~reference & ~stimulated)
    out = {}
    for name, real in (("all donors", np.arange(adata.n_obs)), ("scored donors", np.flatnonzero(~reference))):
        search = Manifold(adata.obsm["X_pca"][real], n_neighbors=15)
        place = pd.Index(real).get_indexer(moved)
        for state, slot in (("", "X_pca_steered"), ("unmoved ", "X_pca")):
            near = real[search.neighbors(adata.obsm[slot][moved], place)[1]]
            landed = stimulated[near].mean(1) > 0.5
            same = (kind[near] == kind[moved, None]).mean(1) > 0.5
            out |= {f"{state}{name} landed": landed.mean(), f"{state}{name} type": same.mean()}
            out[f"{state}{name} both"] = (landed & same).mean()
    # the change of each type, weighted as the moved cells are: in the scored donors, and in those that chose
    changes = {}
    for name, cells in (("scored", ~reference), ("choosing", reference)):
        total = np.zeros(adata.n_vars)
        for code in np.unique(kind[moved]):
            sides = [cells & (kind == code) & side for side in (stimulated, ~stimulated)]
            if all(side.any() for side in sides):
                means = [np.asarray(adata.X[side].mean(0)).ravel() for side in sides]
                total += (kind[moved] == code).mean() * np.subtract(*means)
        changes[name] = pd.Series(total, adata.var_names)
    effects = adata.uns["sae"]["steering"]["effects"].set_index("gene")["logfc"]
    truth = changes["scored"][effects.index]
    out["genes r"] = float(np.corrcoef(effects, truth)[0, 1])
    out["plain genes r"] = float(np.corrcoef(changes["choosing"][effects.index], truth)[0, 1])
    return out


def halves(donors: np.ndarray, seed: int) -> Iterator[np.ndarray]:
    """Cells of a random half of the donors, then those of the other half."""
    names = sorted(set(donors))
    drawn = np.random.default_rng(seed).permutation(names)[: len(names) // 2]
    yield from (np.isin(donors, drawn), ~np.isin(donors, drawn))


def stimulation(seed: int, options: dict, *, adata: Any, full: bool) -> Iterator[dict]:
    """Features of all cells; donors that choose, and donors that are scored."""
    import sparsesc as ssc

    fit(adata, seed, **options)
    for reference in halves(adata.obs["donor"].to_numpy(), seed):
        for n in COUNTS:
            doses = [0, *SHORTER, *LONGER] if n == 1 else [0]
            net = ssc.datasets.gene_sets("hallmark") if n == 3 else None
            found = score(adata, reference, n_steered=n, within="cell_type", net=net, doses=doses)
            if full and n in HARDER:
                found |= harder(adata, reference)
            yield {"study": "within", "n": n} | found
            yield {"study": "global", "n": n} | score(adata, reference, n_steered=n)


def strict(seed: int, options: dict, *, adata: Any) -> Iterator[dict]:
    """Variable genes, components and features of the choosing donors; the others are projected and encoded."""
    import sparsesc as ssc

    for reference in halves(adata.obs["donor"].to_numpy(), seed):
        cells = adata.copy()
        embed(cells, reference)
        part = cells[reference].copy()
        fit(part, seed, **options)
        ssc.tl.apply_sae(cells, part, use_rep="X_pca")
        for n in HARDER:
            found = score(cells, reference, n_steered=n, within="cell_type")
            yield {"study": "strict", "n": n} | found | harder(cells, reference)


def study(seeds: int, kept: Path | None, *, quick: bool) -> pd.DataFrame:
    done = pd.read_csv(kept) if kept is not None and kept.exists() else pd.DataFrame(columns=["part", "fit", "seed"])
    tables = [done]

    def add(part: str, name: str, seed: int, rows: Callable[[], Iterator[dict]]) -> None:
        if ((done["part"] == part) & (done["fit"] == name) & (done["seed"] == seed)).any():
            return
        begun = time.perf_counter()
        tables.append(pd.DataFrame([{"part": part, "fit": name, "seed": seed} | row for row in rows()]))
        if kept is not None:
            pd.concat(tables).to_csv(kept, index=False)
        print(f"{part}, {name}, seed {seed}: {time.perf_counter() - begun:.0f} s", flush=True)

    adata = kang()
    raw = adata.copy()
    embed(adata)
    for seed in range(seeds):
        for name, options in (QUICK if quick else FITS).items():
            full = name in (REFERENCE, LONG, DEFAULT) or quick
            add("all cells", name, seed, lambda o=options, s=seed, f=full: stimulation(s, o, adata=adata, full=f))
            if full:
                add("strict", name, seed, lambda o=options, s=seed: strict(s, o, adata=raw))
    return pd.concat(tables, ignore_index=True)


def spread(values: pd.Series) -> str:
    return f"{values.mean():.0%} ({values.min():.0%} to {values.max():.0%})"


def moves(rows: pd.DataFrame) -> list[str]:
    """One line for each fit and number of features."""
    return [
        f"{name} | {n:.0f} | {spread(part['steered landed'])} | {part['random_direction landed'].mean():.1%} | "
        f"{part['random_features landed'].mean():.1%} | {part['steered percentile'].mean():.2f} | "
        f"{part['random_direction percentile'].mean():.2f}"
        for (name, n), part in rows.groupby(["fit", "n"], sort=False)
    ]


def report(table: pd.DataFrame, command: str) -> str:
    table = table.assign(order=table["fit"].map({name: i for i, name in enumerate(FITS)}))
    table = table.sort_values(["order", "n"], kind="stable")
    within, everywhere, strictly = (table[table["study"] == name] for name in ("within", "global", "strict"))
    seeds = table["seed"].nunique()
    head = "fit | features | landed | random directions | random features | percentile | random's"
    lines = [
        "# Steering by features, compared with what it has to beat",
        "",
        f"Machine: {machine()}.",
        "",
        f"Command: `{command}`.",
        "",
        f"Control cells of the Kang cells moved to look stimulated; mean over {seeds} fits x 2 halves of the donors",
        "(smallest and largest in brackets). The embedding (PCA-50) and the autoencoder saw all cells without labels;",
        "features and the means they are set to come from donors whose cells are not scored. A cell has landed when",
        "more than half of its 15 nearest real cells, of all donors, are stimulated. Random moves have the length of",
        "the steered one for every cell. Percentile: share of real cells that are nearer to their neighbors (0.5:",
        "typical), for the steered cells and, next to it, for random directions.",
        "",
        "## Features chosen, and set to the mean, within each cell type",
        *markdown(head, moves(within)),
        "",
        "## One choice of features and one mean for all cells",
        *markdown(head, moves(everywhere)),
        "",
        "## Without features",
    ]
    plain = [
        f"none | {table['unmoved landed'].mean():.1%} | ",
        f"difference of the two means | {table['difference_of_means landed'].mean():.0%} | "
        f"{table['difference_of_means percentile'].mean():.2f}",
        f"difference of the two means of the cell type | {within['difference_of_means_within landed'].mean():.0%} | "
        f"{within['difference_of_means_within percentile'].mean():.2f}",
    ]
    one = within[within["n"] == 1]
    plain += [
        f"{dose:.0%} of the difference of the two means of the cell type | {one[f'within at {dose}'].mean():.0%} | "
        for dose in SHORTER
    ]
    lines += [*markdown("move | landed | percentile", plain)]
    lines += ["", "## One feature: how much it carries, and more of it", ""]
    lines += [
        "Share: how much of the squared difference of the means (of the cell type) the change of the feature",
        "accounts for. Rising: share of cell types in which stimulated cells gain the feature; in the others",
        "they lose it. Doses are multiples of the move to the mean.",
    ]
    rows = [
        f"{name} | {part['share'].mean():.2f} | {part['rising'].mean():.0%} | {spread(part['steered landed'])} | "
        + " | ".join(spread(part[f"steered at {dose}"]) for dose in LONGER)
        for name, part in one.groupby("fit", sort=False)
    ]
    doses = " | ".join(f"dose {dose:g}" for dose in LONGER)
    lines += markdown(f"fit | share | rising | dose 1 | {doses}", rows)
    lines += ["", "## Harder questions", ""]
    lines += [
        "Both: landed among stimulated cells, and among cells of the same type. Scored donors: only their cells are",
        "neighbors. Strict: variable genes, components and autoencoder from the choosing donors alone. Genes:",
        "correlation over genes of the decoded effect with the change that the scored donors show (within types), and",
        "next to it that of the change that the choosing donors show.",
    ]
    rows = []
    for study, part in (("all cells", within.dropna(subset=["genes r"])), ("strict", strictly)):
        for (name, n), fits in part.groupby(["fit", "n"], sort=False):
            shown = ("all donors landed", "all donors both", "scored donors landed", "scored donors both")
            found = " | ".join(f"{fits[column].mean():.0%}" for column in shown)
            genes = f"{fits['genes r'].mean():.2f} | {fits['plain genes r'].mean():.2f}"
            rows.append(f"{study} | {name} | {n:.0f} | {found} | {genes}")
    lines += markdown(
        "embedding and fit from | fit | features | landed | both | landed, scored donors | both, scored donors | "
        "genes | plain change",
        rows,
    )
    lines += ["", "## Decoded genes of three features, within types"]
    sets = within.dropna(subset=["interferon padj"]).groupby("fit", sort=False)
    rows = [f"{name} | {g['interferon rank'].max():.0f} | {g['interferon padj'].max():.1e}" for name, g in sets]
    lines += markdown("fit | rank of the best interferon set, at worst | its largest adjusted p", rows)
    return "\n".join(lines) + "\n" + TEXT


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one small fit, nothing written: does it run?")
    parser.add_argument("--rows", type=Path, default=None, help="a CSV file to keep what is done, and to go on from")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("steering.md"))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    given = [Path(word).name if word.endswith(".csv") else word for word in sys.argv[1:]]
    command = shlex.join(["python", "-m", "benchmarks.steering", *given])
    seeds = 1 if arguments.quick else arguments.seeds
    results = study(seeds, arguments.rows, quick=arguments.quick)
    text = report(results, command)
    if not arguments.quick:
        arguments.out.write_text(text)
    print(text)
