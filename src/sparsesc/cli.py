"""The command ``sparsesc``: a demonstration that needs no files and no network."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

_FAILED = 2
_INTERRUPTED = 130
_N_STEPS = 7
_CLEAR = 0.9


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (default: the command line's) and return its exit status."""
    from . import __version__

    parser = argparse.ArgumentParser(
        prog="sparsesc", description="Sparse, named and tested biological features from any single-cell embedding."
    )
    parser.add_argument("--version", action="version", version=f"sparsesc {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="fit, name and test features of 700 blood cells, offline, in about a minute",
        description="Fit features to 700 blood cells that come with scanpy, find the cell types, genes and gene sets "
        "they stand for, and write tables and figures to a folder. Needs no network.",
    )
    demo.add_argument("--out", type=Path, default=Path("sparsesc-demo"), help="folder for the results (%(default)s)")
    demo.add_argument("--rng", type=_seed, default=0, help="seed; the same gives the same result (%(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 0
    problem = _why_not_writable(arguments.out)
    if problem:
        print(f"sparsesc demo: cannot write to the folder {arguments.out}: {problem}.", file=sys.stderr)
        print("Name another one: sparsesc demo --out FOLDER", file=sys.stderr)
        return _FAILED
    try:
        _demo(arguments.out, arguments.rng)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return _INTERRUPTED
    return 0


def _demo(out: Path, rng: int) -> None:
    start = time.perf_counter()
    from . import __version__

    print(f"sparsesc {__version__}: the features of 700 blood cells\n")
    step = _Steps()
    step("Load", "blood cells that come with scanpy")
    import matplotlib as mpl

    mpl.use("Agg")  # files only: a window would stop the run
    from . import _demo

    adata = _demo.load()
    n_labels = adata.obs[_demo.LABEL_KEY].nunique()
    step.done(f"{adata.n_obs} cells, embedding {_demo.USE_REP}, {n_labels} labels in {_demo.LABEL_KEY}")

    step("Fit", "a sparse autoencoder; it sees neither labels nor genes")
    metrics = _demo.fit(adata, rng, progress_bar=sys.stderr.isatty())
    step.done(f"{metrics['n_features']:.0f} features, {metrics['l0']:.1f} of them active in a cell")

    step("Associate", f"every feature with every label of {_demo.LABEL_KEY}")
    _demo.associate(adata, rng)
    labels = _demo.labels(adata, rng)
    step.done(f"{metrics['n_features'] * n_labels:,.0f} tests")

    step("Genes", "that differ where a feature is active")
    _demo.find_genes(adata, rng)
    step.done(f"{metrics['n_features'] * adata.raw.n_vars:,.0f} tests")

    step("Gene sets", "immune markers that come with sparsesc")
    n_terms = _demo.find_terms(adata)
    step.done(f"{n_terms} sets of which enough genes were measured")

    step("Name", "where every feature is on, and what is expressed there")
    levels = _demo.name(adata, rng)
    tables = _demo.tables(adata) | {"labels": labels}
    step.done("confidence " + ", ".join(f"{level} {n}" for level, n in levels.items()))

    step("Write", f"tables, figures and cells to {out}")
    clearest = _demo.clearest(adata)
    figures = _demo.draw(adata, list(dict.fromkeys(labels["feature"].astype(str))), out / "figures")
    for name, table in tables.items():
        table.to_csv(out / f"{name}.csv", index=False)
    adata.write_h5ad(out / "cells.h5ad")
    step.done(f"{len(tables)} tables, {len(figures)} figures")

    _report(metrics, clearest, labels, _demo.small_labels(adata))
    print(f"\nRESULTS in {out.resolve()}")
    print(f"  {', '.join(f'{name}.csv' for name in tables)}")
    print(f"  figures/ ({', '.join(path.stem for path in figures)})")
    print('  cells.h5ad: go on with anndata.read_h5ad("cells.h5ad") and ssc.pl.feature_card(adata, "sae_0")')
    print(f"\nDone in {time.perf_counter() - start:.0f} s.")


class _Steps:
    """Numbered lines: what is being done, then what came out of it and how long it took."""

    def __init__(self) -> None:
        self._count = 0
        self._since = 0.0

    def __call__(self, name: str, what: str) -> None:
        self._count += 1
        self._since = time.perf_counter()
        print(f"[{self._count}/{_N_STEPS}] {name:<10} {what}", flush=True)

    def done(self, outcome: str) -> None:
        print(f"      {'':<10} {outcome} ({time.perf_counter() - self._since:.1f} s)", flush=True)


def _report(metrics: dict[str, float], clearest: pd.DataFrame, labels: pd.DataFrame, small: dict[str, int]) -> None:
    """The results, and how to read them."""
    from ._demo import FEWEST_CELLS, LABEL_KEY

    n_validation, n_held_out = int(metrics["n_validation"]), int(labels["n_heldout"].sum())
    print(f"\nTHE FIT, on {n_validation} cells that training did not use")
    for name, value in [
        ("explained variance", f"{metrics['explained_variance']:.1%}"),
        ("cosine similarity", f"{metrics['cosine']:.3f}"),
        ("active features per cell", f"{metrics['l0']:.1f} of {metrics['n_features']:.0f}"),
        ("features never active", f"{metrics['dead_fraction']:.1%}"),
    ]:
        print(f"  {name:<26}{value}")

    print(f"\nTHE {len(clearest)} FEATURES WITH THE BEST EVIDENCE FOR THEIR NAME, by F1 of its label on held-out cells")
    rows = clearest.rename_axis("feature").reset_index()
    columns = ["feature", "name", "confidence", "n_on", "where_f1", "where_f1_null", "marker_genes"]
    names = ["feature", "name", "confidence", "cells", "F1", "by chance", "marker genes"]
    _table(rows[columns].set_axis(names, axis=1))

    print(f"\nTHE BEST FEATURE OF EVERY LABEL with {FEWEST_CELLS} cells or more, and the best single input dimension")
    columns = ["category", "n_cells", "n_heldout", "feature", "auroc_heldout", "f1_heldout", "auroc_heldout_dimension"]
    names = ["label", "cells", "held out", "feature", "AUROC", "F1", "dimension's AUROC"]
    _table(labels[columns].set_axis(names, axis=1))
    by_feature, by_dimension = ((labels[c] >= _CLEAR).sum() for c in ["auroc_heldout", "auroc_heldout_dimension"])
    smallest = labels.loc[labels["n_heldout"].idxmin()]
    print(f"  AUROC of {_CLEAR:.2f} or more: {by_feature} of {len(labels)} labels (a dimension: {by_dimension}).")
    if small:
        print(f"  Too few cells: {', '.join(f'{name} ({n})' for name, n in small.items())}.")
    print(f"""
READ WITH CARE
  - A name is chosen on one half of the cells and scored on the other: every AUROC and F1 above is of held-out cells,
    {n_held_out} in all, but only {smallest["n_heldout"]} of {smallest["category"]}: scores of small labels are rough.
  - The fit saw no label, but it saw the embedding of all cells except for the {n_validation} above.
  - The first table has the best ten of {metrics["n_features"]:.0f}: some of that is luck. A name says where a feature
    is on and what is expressed there, not that training was needed to find it: compare with an untrained code.
  - Tests take cells as independent. These come from one donor: a small p-value says that a feature separates these
    cells, not that it would in another donor.
  - {LABEL_KEY} were assigned by similarity to bulk profiles, and are least sure among T cells.""")


def _table(rows: pd.DataFrame) -> None:
    """Columns as wide as they must be, under a rule; numbers on the right."""
    columns = []
    for name, kind in rows.dtypes.items():
        cells = [f"{value:.2f}" if kind.kind == "f" else str(value) for value in rows[name]]
        width = max(map(len, [str(name), *cells]))
        side = ">" if kind.kind in "if" else "<"
        columns.append([f"{cell:{side}{width}}" for cell in (name, "-" * width, *cells)])
    for row in zip(*columns, strict=True):
        print(("  " + "  ".join(row)).rstrip())


def _why_not_writable(folder: Path) -> str | None:
    """What the system says against writing there: known before the work, not after."""
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _seed(text: str) -> int:
    if not text.isdigit():
        msg = f"expected a whole number of at least 0, found {text!r}"
        raise argparse.ArgumentTypeError(msg)
    return int(text)
