"""Encoding: seconds compared with the encoder product alone and with other packages, and the memory it takes.

    uv run --group bench python -m benchmarks.encode [--cells 1000000] [--repeats 5] [--quick]

Writes ``benchmarks/encode.md``. Every run is a process of its own with the same number of threads.
``--peers-python`` names the interpreter of an environment that holds the other packages, if not this one.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np

from ._machine import machine
from .memory import ACTIVE, DIMENSIONS, FEATURES, cells, measure
from .train import peer_lr, run

CODES = {"batchtopk": "one threshold", "topk": "top-k"}
PEERS = ["sae_lens", "dictionary_learning", "sparsify", "overcomplete"]
PEER_CELLS, PEER_STEPS = 50_000, 20


def ours(n: int, repeats: int, threads: int) -> tuple[list[str], dict[str, float]]:
    """Rows of the table of both codes, and the seconds a cell of each."""
    rows, each = [], {}
    for architecture, label in CODES.items():
        m = run([sys.executable, "-m", "benchmarks.encode", "--one", architecture, str(n), str(repeats)], threads)
        if m is None:
            sys.exit(f"Encoding with {label} failed.")
        each[architecture] = m["seconds"] / n
        beyond = m["extra_mib"] - m["result_mib"]
        rows.append(
            f"| {label} | {m['active']:.1f} | {m['seconds']:.2f} | {m['product']:.2f} | "
            f"{m['seconds'] / m['product']:.2f} | {m['extra_mib']:,.0f} | {m['result_mib']:,.0f} | {beyond:,.0f} |"
        )
        print(rows[-1], flush=True)
    return rows, each


def theirs(options: argparse.Namespace, each: dict[str, float]) -> list[str]:
    """Rows of the table of the other packages, trained for a few steps: time does not depend on the weights."""
    asked = {"n_features": FEATURES, "k": ACTIVE, "batch_size": 4096, "steps": PEER_STEPS, "lr": peer_lr(FEATURES)}
    asked |= {"threads": options.threads, "encode": True}
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "cells.npz")
        X = cells(PEER_CELLS + 1024)
        np.savez(path, X=X[:PEER_CELLS], V=X[PEER_CELLS:])
        for architecture in CODES:
            for peer in PEERS:
                if (peer, architecture) == ("sparsify", "batchtopk"):  # it has top-k only
                    continue
                command = [options.peers_python, "benchmarks/_peers.py", f"{peer}:{architecture}", path]
                done = [run([*command, json.dumps(asked)], options.threads) for _ in range(options.repeats)]
                seconds = [r["encode_seconds"] / PEER_CELLS for r in done if r]
                if not seconds:
                    continue
                middle = statistics.median(seconds)
                rows.append(f"| {peer} | {architecture} | {1e6 * middle:.1f} | {middle / each[architecture]:.1f} |")
                print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Run everything and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--quick", action="store_true", help="us alone on 20,000 cells, nothing written")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        architecture, n, repeats = options.one
        print(json.dumps(measure(int(n), int(repeats), architecture)))
        return
    n, repeats = (20_000, 1) if options.quick else (options.cells, options.repeats)
    rows, each = ours(n, repeats, options.threads)
    if options.quick:
        return
    lines = ["# Encoding compared with the encoder product and other packages", ""]
    lines += [f"Machine: {machine()}; {options.threads} threads.", ""]
    lines += [f"Command: `uv run --group bench python -m benchmarks.encode --cells {n}`.", ""]
    lines += [
        f"{n:,} cells, {DIMENSIONS} dimensions, {FEATURES} features, {ACTIVE} active per cell; medians of {repeats}. "
        "*Product alone*: the encoder product by torch in blocks of 512 cells into one buffer, without codes; "
        "where the package's multiplication is faster than torch, the ratio is below 1. "
        "*Extra memory*: the peak of the process minus what it was before encoding.",
        "",
        "| code | active per cell | seconds | product alone | ratio | extra memory (MiB) | CSR result | beyond it |",
        "|---" * 8 + "|",
        *rows,
        "",
        f"Other packages on {PEER_CELLS:,} of the cells, in blocks of 4,096; they give dense codes.",
        "",
        "| package | architecture | microseconds per cell | times ours |",
        "|---" * 4 + "|",
    ]
    lines += [f"| sparsesc | {name} | {1e6 * seconds:.1f} | 1.0 |" for name, seconds in each.items()]
    lines += theirs(options, each)
    Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
