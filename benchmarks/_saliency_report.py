"""The page of ``benchmarks/saliency.py``."""

from __future__ import annotations

import resource

import numpy as np
import pandas as pd

from benchmarks._machine import machine
from benchmarks._markdown import markdown


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
        f"For each type, the unit that is most clearly larger in it than in other cells, among the {n_units} that",
        "vary most (chosen on half of the cells; quality: AUROC, for proliferation Pearson r, on the other half).",
        "Rank: place of the expected set among all sets by its score on that unit, the best if several sets are named;",
        "others: the median of this rank over other units. Expectations were written down beforehand. `scaled` is the",
        "published measure, marked above .7.",
        "",
    ]
    main = places[(places["model"] == "penalty .05") & (places["method"] == "guided")]
    for data, part in main.groupby("data", sort=False):
        rows = [
            f"{row.cells} | {row.seed} | {row.quality:.2f} | {row.term} | {row.rank} of {row.n_sets} | "
            f"{row.others:.0f} | {row.padj:.2g} | {row.scaled:.2f} | {row.top}"
            for row in part.sort_values(["cells", "seed"], kind="stable").itertuples()
        ]
        head = "cells | seed | quality | expected set | rank | others | padj | scaled | top three sets of the unit"
        lines += [f"## {data}: OrthogonalAE, guided backpropagation", *markdown(head, rows), ""]
    lines += [
        "## Models and methods",
        "",
        "Over all expectations and seeds; a rank is divided by the number of sets (chance: about .5, and less where",
        "several sets were named).",
    ]
    rows = [
        f"{data} | {model} | {method} | {(part['rank'] / part['n_sets']).median():.2f} | "
        f"{(part['others'] / part['n_sets']).median():.2f} | {(part['rank'] <= 3).mean():.0%} | "
        f"{(part['padj'] < 0.05).mean():.0%} | {part['quality'].median():.2f}"
        for (data, model, method), part in places.groupby(["data", "model", "method"], sort=False)
    ]
    lines += markdown("data | model | method | median rank | in other units | first three | padj < .05 | quality", rows)
    first = facts[facts["seed"] == 0]
    guided = first[first["method"] == "guided"]
    rows = [
        f"{data} | {model} | {part['gap'].mean():.3f} | {part['held_out'].mean():.0f} | {part['epochs'].mean():.0f} | "
        f"{part['silent'].mean():.0f} of {part['units'].mean():.0f}"
        for (data, model), part in guided[guided["gap"].notna()].groupby(["data", "model"], sort=False)
    ]
    head = "data | model | norm of I - W W^T | held-out NLL per cell | epochs | silent units"
    lines += ["", "## Orthogonality", "", "Seed 0.", *markdown(head, rows)]
    lines += [
        "",
        "## Agreement of methods",
        "",
        "Mean absolute saliency, medians over units, seed 0: Spearman's coefficient over genes, and the shared part",
        f"of {n_top} leading genes. Two units of one network are a baseline: methods should agree better than these.",
    ]
    rows = [
        f"{row.data} | {row.first} | {row.second} | {row.spearman:.2f} | {row.shared:.0%}"
        for row in agreed.itertuples()
    ]
    lines += markdown("data | method | compared with | Spearman | shared leading genes", rows)
    lines += [
        "",
        "## How many sets have an impact",
        "",
        f"Over the {n_units} units that vary most and all sets, guided backpropagation, seed 0. Both marks: sets of a",
        "unit with padj < .05 and scaled above .7, mean over units.",
    ]
    rows = [
        f"{row['data']} | {row['model']} | {row['p<.05']:.2f} | {row['found']:.2f} | {row['both marks']:.1f}"
        for row in guided.to_dict("records")
    ]
    lines += markdown("data | model | p < .05 | padj < .05 | both marks, sets a unit", rows)
    lines += [
        "",
        "## Levels",
        "",
        "Share of p < .05 among random sets of genes, and among all real sets by what random sets have in common with",
        "them (eight units); rank correlation of saliency and expression over genes. Guided, seed 0.",
    ]
    rows = [
        f"{row['data']} | {row['model']} | {row['random sets']:.3f} | {row['p<.05, none']:.2f} | "
        f"{row['p<.05, expression']:.2f} | {row['p<.05, detection']:.2f} | {row['correlation with expression']:.2f}"
        for row in first.to_dict("records")
        if np.isfinite(row.get("random sets", np.nan))
    ]
    lines += markdown("data | model | random sets | real, none | expression | detection | correlation", rows)
    rows = [
        f"{data} | {model} | {method} | {part['train'].mean():.0f} | {part['saliency'].mean():.1f} | "
        f"{part['impact'].mean():.0f} | {part['bytes'].mean() / 1e6:.1f}"
        for (data, model, method), part in facts.groupby(["data", "model", "method"], sort=False)
    ]
    head = "data | model | method | training | saliency | impact | stored MB"
    lines += ["", "## Time and size", "", "Seconds of processor time.", *markdown(head, rows)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    lines += ["", f"Peak memory of the whole run: {peak:.1f} GiB.", ""]
    return "\n".join(lines)
