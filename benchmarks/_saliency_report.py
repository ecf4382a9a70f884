"""The page of ``benchmarks/saliency.py``."""

from __future__ import annotations

import resource

import numpy as np
import pandas as pd

from benchmarks._machine import machine


def report(
    places: pd.DataFrame,
    facts: pd.DataFrame,
    agreed: pd.DataFrame,
    *,
    command: str,
    reading: str,
    n_units: int,
    n_top: int,
) -> str:
    """Tables in Markdown, with what was read from them."""
    lines = ["# Saliency: do the gene sets of a unit fit its cells?", "", f"Machine: {machine()}.", ""]
    lines += [f"Command: `{command}`. Other models and methods: seed 0.", ""]
    lines += [reading.strip(), ""] if reading.strip() else []
    lines += [
        f"For each type, the unit that is larger in it than in other cells most clearly, among the {n_units} that",
        "vary most (chosen on half of the cells; quality: AUROC, for proliferation Pearson r, on the other half).",
        "Rank: place of the expected set among all sets by its score on that unit, the best over the sets named;",
        "others: the median of this rank over other units. Expectations were written down before. `scaled` is the",
        "published measure, marked above .7.",
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
    lines += ["", "## Orthogonality", "", "Seed 0.", ""]
    lines += [
        "| data | model | norm of I - W W^T | held-out NLL per cell | epochs | silent units |",
        "|---|---|---|---|---|---|",
    ]
    for (data, model), part in facts[facts["gap"].notna() & (facts["seed"] == 0)].groupby(
        ["data", "model"], sort=False
    ):
        here = part[part["method"] == "guided"]
        lines.append(
            f"| {data} | {model} | {here['gap'].mean():.3f} | {here['held_out'].mean():.0f} "
            f"| {here['epochs'].mean():.0f} | {here['silent'].mean():.0f} of {here['units'].mean():.0f} |"
        )
    lines += ["", "## Agreement of methods", ""]
    lines += [
        "Mean absolute saliency, medians over units, seed 0: Spearman's coefficient over genes, and the share that is",
        f"common of {n_top} leading genes. Two units of one network are beside it: methods should agree better.",
        "",
        "| data | method | compared with | Spearman | shared leading genes |",
        "|---|---|---|---|---|",
    ]
    for row in agreed.itertuples():
        lines.append(f"| {row.data} | {row.first} | {row.second} | {row.spearman:.2f} | {row.shared:.0%} |")
    lines += ["", "## How many sets have an impact", ""]
    lines += [
        f"Over the {n_units} units that vary most and all sets, guided backpropagation, seed 0. Both marks: sets of a",
        "unit with padj < .05 and scaled above .7, mean over units.",
        "",
        "| data | model | p < .05 | padj < .05 | both marks, sets a unit |",
        "|---|---|---|---|---|",
    ]
    for row in facts[(facts["seed"] == 0) & (facts["method"] == "guided")].to_dict("records"):
        lines.append(
            f"| {row['data']} | {row['model']} | {row['p<.05']:.2f} | {row['found']:.2f} | {row['both marks']:.1f} |"
        )
    lines += ["", "## Levels", ""]
    lines += [
        "Share of p < .05 among random sets of genes, and among all real sets by what random sets have in common with"
    ]
    lines += ["them (eight units); rank correlation of saliency and expression over genes. Guided, seed 0.", ""]
    lines += ["| data | model | random sets | real, none | expression | detection | correlation |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for row in facts[facts["seed"] == 0].to_dict("records"):
        if "random sets" in row and np.isfinite(row["random sets"]):
            lines.append(
                f"| {row['data']} | {row['model']} | {row['random sets']:.3f} | {row['p<.05, none']:.2f} "
                f"| {row['p<.05, expression']:.2f} | {row['p<.05, detection']:.2f} "
                f"| {row['correlation with expression']:.2f} |"
            )
    lines += ["", "## Time and size", "", "Seconds of processor.", ""]
    lines += [
        "| data | model | method | training | saliency | impact | stored MB |",
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
