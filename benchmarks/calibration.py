"""Are the p-values of the package's tests calibrated, without signal and in mixtures with a known truth?

    python -m benchmarks.calibration [--only genes] [--keep FILE] [--quick]

Every test is called through the public function that users call. Without signal: how often p is below .05, .01 and
.001, and how often a whole data set has an adjusted p below .05. In mixtures: the share of false discoveries at an
adjusted p below .05, and the share of planted pairs that are found. The tests are in ``_calibrated.py``, the data sets
in ``_known_truth.py`` and ``_real_cells.py``. With ``--keep`` results are kept in a file, and tests that are in it are
not run again. Writes ``benchmarks/calibration.md``; ends with an error when a test that should hold does not.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import scanpy as sc

from benchmarks._calibrated import FAMILIES, TESTS
from benchmarks._keep import Kept
from benchmarks._known_truth import CELLS, FEATURES, GENES
from benchmarks._machine import machine
from sparsesc.stats import benjamini_hochberg

LEVELS = (0.05, 0.01, 0.001)


# -- how the tests behave ---------------------------------------------------------------------------------------------


def adjusted(table: pd.DataFrame) -> np.ndarray:
    if "padj" in table:
        return table["padj"].to_numpy()
    return benjamini_hochberg(table["pval"].to_numpy())


def measure(name: str, *, quick: bool) -> dict[str, object]:
    test = TESTS[name]
    family = FAMILIES[test.family]

    def draws(n: int, least: int = 1) -> int:
        return 1 if quick else max(min(n, least), int(np.ceil(n * test.share)))

    begun = time.process_time()
    p, any_found = [], []
    for seed in range(draws(family.n_permutations)):
        draw = family.null(np.random.default_rng([1, seed]))
        draw.seed = seed
        table = test.run(draw)
        p.append(table["pval"].dropna().to_numpy(dtype=np.float64))  # NaN: not tested
        any_found += [(adjusted(call) < 0.05).any() for call in calls(table)]
    p = np.concatenate(p)
    false, power = [], []
    # a mixture has only one share of false discoveries: all of them
    for seed in range(draws(family.n_mixture, 20) if family.mixture and test.mixtures else 0):
        draw = family.mixture(np.random.default_rng([2, seed]))
        draw.seed = seed
        table = test.run(draw)
        for call in calls(table):
            found = adjusted(call) < 0.05
            false.append((found & ~is_true(call, draw.truth)).sum() / max(found.sum(), 1))
        found = np.concatenate([adjusted(call) < 0.05 for call in calls(table)])
        power.append(found_share(table, found & is_true(table, draw.truth), draw.truth))
    return {
        "test": name,
        "family": test.family,
        "holds": test.holds,
        "n": p.size,
        **{f"{level:g}": float((p <= level).mean()) for level in LEVELS},
        "any": float(np.mean(any_found)),
        "sets": len(any_found),
        "fdr": float(np.mean(false)) if false else np.nan,
        "fdr_se": float(np.std(false, ddof=1) / np.sqrt(len(false))) if len(false) > 1 else np.nan,
        "power": float(np.mean(power)) if power else np.nan,
        "seconds": time.process_time() - begun,
    }


def calls(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Tests that are adjusted together: all, unless the function was called more than once."""
    return [part for _, part in table.groupby("call", sort=False)] if "call" in table else [table]


def is_true(table: pd.DataFrame, truth: set) -> np.ndarray:
    pairs = zip(table["feature"].astype(str), table["target"].astype(str), strict=True)
    return np.array([pair in truth or not truth.isdisjoint(pair) for pair in pairs])


def found_share(table: pd.DataFrame, found: np.ndarray, truth: set) -> float:
    """Share of what was planted that was found: pairs, or features or genes where these are planted as a whole."""
    features, targets = (table[column].astype(str)[found] for column in ("feature", "target"))
    return len((set(features) | set(targets) | set(zip(features, targets, strict=True))) & truth) / len(truth)


def broken(row: dict) -> list[str]:
    """What a test that is meant to hold does not hold."""
    n = row["n"]
    faults = []
    for level in LEVELS:
        allowed = (1.2 if level == 0.05 else 1.3) * level + 4 * np.sqrt(level / n)
        if row[f"{level:g}"] > allowed:
            faults.append(f"{row[f'{level:g}']:.4f} of null p at or below {level:g}")
    if row["fdr"] > 0.07 and row["fdr"] - 2 * row["fdr_se"] > 0.05:
        faults.append(f"false discoveries {row['fdr']:.3f}")
    return [f"{row['test']}: {fault}" for fault in faults] if row["holds"] else []


# -- the report -------------------------------------------------------------------------------------------------------

# Every column of p-values that the package writes, and the tests here that start with these words.
WRITTEN = {
    '`uns[key]["association"]`: `pval`, `pval_asymptotic`': (
        "association: Mann-Whitney; with `strata`: within donors; with `sample_key`: donors as replicates"
    ),
    '`uns[key]["association_numeric"]`: `pval` and `pval_pearson`, each also `_asymptotic`': (
        "association: Spearman, association: Pearson"
    ),
    '`uns[key]["features"]`: `where_pval`; `uns[key]["annotation"]`: `pval` of labels (of genes and sets: copied)': (
        "annotation"
    ),
    '`uns[key]["params"]["annotate_features"]`: `smooth_pval`': "[names](names.md)",
    '`uns[key]["locality"]`: `pval`': "locality",
    '`uns[key]["absorption"]`: `pval`': "absorption",
    '`uns[key]["similarity"]`: `pval`': "similarity: co-activation",
    '`uns[key]["same_label"]`: `pval` (its genes: `tests/tl/test_calibration_mixtures.py`)': (
        "similarity: co-activation within a label"
    ),
    '`uns[key]["genes"]`: `pval`, `pval_parametric`': "genes",
    '`uns[key]["features"]`: `genes_coherence_pval`': "genes: coherence",
    '`uns[key]["enrichment"]`: `pval`, `pval_parametric`': "gene sets",
    '`uns[key]["steering"]["enrichment"]`: `pval`': "gene sets: steering",
    '`uns[key]["differential"]`: `pval`': "conditions",
    "the table of `compare_representations`: `pval`": "representations",
    '`uns[key]["suppression"]["features"]`: `pval`, `pval_heldout`': "batches",
    '`uns["latent_diagnostics"]["dependence"]`: `pval`': "latent dimensions",
    '`uns["count_diagnostics"]["genes"]`: `pval_nb`, `pval_zinb`': "counts",
    '`uns["saliency"]["impact"]`, `["impact_contrast"]`: `pval`': "impact of gene sets on units",
    '`obs["{key}_residual_pval"]`, `uns[key]["drift"]`: `pval`': "drift",
    '`uns[key]["features"]` of a crosscoder: `pairing_pval`': "crosscoder",
}


HOW_TO_READ = """
Without signal, a share of .05 of the p-values should be at or below .05 (less for tests with discrete p-values), .01 at
or below .01, .001 at or below .001. *A discovery*: the share of data sets without signal in which any adjusted p is
below .05; it should be at most .05. *False*: the mean share of false discoveries in mixtures with a known truth
(adjusted p below .05), with its standard error; at most .05. *Found*: the share of the planted effects that were
detected. Tests under "not to be trusted here" are shown because they are in use: do not take their p-values at face
value in that setting.
"""

DATA_SETS = f"""
Whether names are right, and what is named where there is nothing to name, is measured in [names](names.md). Other
scores (F1, held-out r, MCC, LMS, stability, rank fidelity) come with a null or a baseline, but without p-values;
so do the genes of a decoder. In the test suite, levels and mixtures are tested in `tests/tl/test_calibration.py`,
`tests/tl/test_calibration_mixtures.py` and the tests of absorption, drift, impact, counts, latent dimensions, genes
over samples (`test_feature_genes_split.py`) and representations (`tests/stats/groups/test_representation.py`).

## What the data sets are

Without anything to detect:

- labels, numbers, genes, pairs of features: 700 real blood cells (765 genes, 10 labels of 8 to 240 cells) with an
  untrained code of 64 features, the cells of every feature shuffled separately; numbers with a long tail.
- genes, five samples: the same, in five random samples.
- labels, best of many: the same; for each feature, one label or union of labels is chosen on half of the cells.
- labels, all features together: 200 of these cells with random labels, scored by the best of 16 features; the p-values
  of eleven metrics.
- categories: labels, each with a feature that misses a tenth of its cells at random. An absorber is hardly ever chosen;
  if none is, p is 1.
- pairs of features of a label: eight features of each of five labels, active in half of its cells.
- random gene sets: real gene scores of the same code, unshuffled, against 40 random sets of 10 to 59 genes.
- effects of features: the decoded effect, by principal components, of removing 32 of these features one at a time (each
  is a separate data set), against such sets.
- gene sets that vary together: gene scores of shuffled cells, against 12 sets of markers of cell types and k-means
  clusters of genes that vary together. There is nothing to detect, but by chance all genes of a set score alike.
- sets of highly expressed genes: the scores of random gene sets, against 40 sets drawn from the upper tenth of the
  genes by mean expression.
- permuted genes: each gene of the 700 cells permuted over them on its own; components and code are those of the
  permuted genes.
- cells alike: 1,000 cells of one profile of 1,000 genes, at depths drawn from 2,700 blood cells or with a log-normal
  spread of 1; counts in two halves, and an untrained code of 50 components of one of them.
- GO sets: gene scores of shuffled cells with 2,700 blood cells, 2,000 genes and the biological processes of GO.
- types shuffled within donors, labels whose shares differ by donor: {CELLS:,} simulated cells of eight donors of
  unlike size, composition and depth. Features follow donor, type and depth of a cell, and nothing else; labels are the
  types, shuffled within donors, or drawn by lot with other shares in each donor.
- samples that differ, 2 or 3 against as many samples, three conditions: {CELLS:,} simulated cells of 12 (4, 6) samples,
  which differ in how often each feature is active (or genes are expressed), but not by condition. For drift, one
  condition is the query. Both conditions in each sample: samples also differ in their response. Samples of different
  ages: age affects all features, and the samples of one condition are older. Samples with two cell types: the types are
  tested separately; with other shares of types, one type is more frequent in a condition.
- batches: features that follow the label, and batches with different shares of the labels. P-values are for one
  feature, adjusted ones for the whole family; the package does not adjust those of held-out cells.
- loadings: {FEATURES} principal components with random loadings of {GENES} genes, 60 random gene sets. Loadings of
  samples: saliency that differs between cells, and more so between 12 samples of two conditions.
- unrelated embeddings: two of 20 dimensions with a long tail, and a crosscoder that is hardly trained.
- latent dimensions: 200 numbers that differ between 20 samples, and a condition of samples.
- Poisson counts, NB counts: 200 genes of 600 cells that follow the simpler model.
- features of the counts tested: 600 cells of 300 genes, all alike (Poisson counts), and an untrained code of 40
  features of 10 principal components of the same counts, or of one half of them by `ssc.pp.thin_counts`.

Mixtures are {CELLS:,} simulated cells, {GENES} genes (Poisson counts with cell sizes) and {FEATURES} features of which
10 (gene sets: 20) have an effect: a label in which they are more often active, a number that grows with them, a
condition or a query that makes them more frequent, the batch besides the label, 20 genes with 2.5 times the counts
where they are active, or a set of 20 genes that contains 8 of these (next to random sets or, for genes that vary
together, ten sets of 20 genes that do so independently of the features). Others: four of eight labels have cells that
are absorbed by another feature; 10 pairs of features (5 within labels) are active together; 20 components, or features
that move cells, have larger loadings in half or all of the 20 genes of a set; 10 components have twice the saliency in
one condition; 60 cells of the query are of an unknown kind; the condition affects 20 of 200 latent dimensions; 40 of
200 genes do not follow the simpler model; two kinds of cells differ in 40 of the counts tested.

With samples as replicates, genes are also compared with random draws of the strong cells within each sample, if there
are few strong cells for such a rare gene (`skew_guard`). The plain paired t test is not to be trusted there: over five
samples of real cells, a fifth of the genes that fewer than one cell in twenty expresses get a p below .05, because a
gene that is missing in all strong cells differs by nearly the same amount in every sample.

P-values of `gsea` are estimated from random draws, with a relative error of about a fifth below .001.
Benjamini-Hochberg picks those that are too small by chance, so the share of false discoveries is slightly above
nominal.

scFeatureLens reports half the two-sided p of a Mann-Whitney test of each gene set as the p-value and corrects neither
over sets nor over features: twice as many null p-values are below any level, and every p below .05 counts as a finding
(columns *a discovery* and *false*).
"""


def report(rows: list[dict]) -> str:
    minutes = sum(row["seconds"] for row in rows) / 60
    lines = [
        "# Are the p-values calibrated?",
        "",
        "Command: `uv run python -m benchmarks.calibration`"
        f" ({minutes:.0f} minutes of one core). Machine: {machine()}.",
        "",
        *HOW_TO_READ.strip().splitlines(),
        "",
    ]
    for holds, title in ((True, "Tests that hold"), (False, "Not to be trusted here")):
        chosen = [row for row in rows if row["holds"] == holds]
        if not chosen:
            continue
        lines += [
            f"## {title}",
            "",
            "| test | on | null tests | ≤ .05 | ≤ .01 | ≤ .001 | a discovery | of data sets | false | found |",
        ]
        lines.append("|---" * 10 + "|")
        for row in chosen:
            shares = [f"{row[f'{level:g}']:.4f}" for level in LEVELS]
            false = "–" if np.isnan(row["fdr"]) else f"{row['fdr']:.3f} ± {row['fdr_se']:.3f}"
            rest = [f"{row['any']:.3f}", f"{row['sets']}", false]
            rest.append("–" if np.isnan(row["power"]) else f"{row['power']:.3f}")
            lines.append("| " + " | ".join([row["test"], row["family"], f"{row['n']:,}", *shares, *rest]) + " |")
        lines.append("")
    left = [name for name in TESTS if name not in {row["test"] for row in rows}]
    if left:
        lines += [f"Not run here: {'; '.join(left)}.", ""]
    lines += ["## Where p-values are written", "", "| column | tests above |", "|---|---|"]
    lines += [f"| {column} | {tests} |" for column, tests in WRITTEN.items()]
    lines += ["", *DATA_SETS.strip().splitlines()]
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="", help="tests whose name or family holds this text; nothing is written")
    parser.add_argument("--keep", type=Path, help="file of results, one a line; what is in it is not run again")
    parser.add_argument("--quick", "--smoke", action="store_true", help="one data set a test, nothing written")
    options = parser.parse_args()
    sc.settings.verbosity = 0
    kept = Kept(None if options.quick else options.keep)
    rows = []
    for name, test in TESTS.items():
        if options.only and options.only not in f"{name} {test.family}":
            continue
        if FAMILIES[test.family].needs_data and (options.quick or not os.environ.get("SPARSESC_DATA_DIR")):
            print(f"{name}: left out, it needs SPARSESC_DATA_DIR, and a minute")
            continue
        if name not in kept:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                kept.add(name, measure(name, quick=options.quick))
            print(pd.Series(kept[name]).drop("holds").to_dict(), flush=True)
        rows.append(kept[name])
    if not (options.only or options.quick):
        Path(__file__).with_suffix(".md").write_text(report(rows))
    faults = [fault for row in rows for fault in broken(row)]
    print("\n".join(faults) or "all tests that should hold do")
    # one data set is too little to judge
    return 0 if options.quick else int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
