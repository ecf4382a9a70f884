"""Time and peak memory of encoding, compared with the encoder product alone.

    uv run python -m benchmarks.memory [--cells 200000] [--quick]

Writes ``benchmarks/memory.md``. Each row runs in a process of its own, because a peak cannot be taken back.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from ._machine import machine

DIMENSIONS, FEATURES, ACTIVE = 50, 4096, 32


def peak_mib() -> float:
    """Largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def cells(n: int) -> np.ndarray:
    """Cells of 40 kinds, made in blocks so that making them sets no peak."""
    rng = np.random.default_rng(0)
    centers = rng.normal(size=(40, DIMENSIONS)).astype(np.float32)
    X = np.empty((n, DIMENSIONS), np.float32)
    for i in range(0, n, 10_000):
        X[i : i + 10_000] = rng.standard_normal(X[i : i + 10_000].shape, dtype=np.float32)
        X[i : i + 10_000] += centers[rng.integers(40, size=len(X[i : i + 10_000]))]
    return X


def measure(n: int, repeats: int, architecture: str = "batchtopk") -> dict[str, float]:
    """Encode ``n`` cells by a threshold, or with ``"topk"``: extra memory over what was there before, and seconds.

    Also the seconds of the encoder product alone, in blocks of 512 cells into one buffer.
    """
    import torch

    from sparsesc.nn import SparseAutoencoder
    from sparsesc.nn._threshold import exact_threshold

    X = cells(n)
    D = np.random.default_rng(1).normal(size=(FEATURES, DIMENSIONS)).astype(np.float32)
    D /= np.linalg.norm(D, axis=1, keepdims=True)
    weights = {"E": D, "b_enc": np.zeros(FEATURES, np.float32), "D": D, "b_dec": X[:10_000].mean(0)}
    limit = exact_threshold(weights, X[:4096], ACTIVE)
    sae = SparseAutoencoder(
        D.T,
        weights["b_enc"],
        D,
        weights["b_dec"],
        np.full(FEATURES, 0 if architecture == "topk" else limit),
        k=ACTIVE,
        architecture=architecture,
    )
    sae.encode(X[:8192])  # compile
    weight, out, rows = torch.from_numpy(sae.W_enc), torch.empty((512, FEATURES)), torch.from_numpy(X)
    before, encoding, product = peak_mib(), [], []
    for _ in range(repeats):
        start = time.perf_counter()
        codes = sae.encode(X)
        encoding.append(time.perf_counter() - start)
        size = (codes.data.nbytes + codes.indices.nbytes + codes.indptr.nbytes) / 2**20
        active = codes.nnz / n
        del codes
        start = time.perf_counter()
        for i in range(0, n - 511, 512):
            torch.mm(rows[i : i + 512], weight, out=out)
        product.append(time.perf_counter() - start)
    return {
        "extra_mib": peak_mib() - before,
        "result_mib": size,
        "active": active,
        "seconds": statistics.median(encoding),
        "product": statistics.median(product),
    }


def main() -> None:
    """Run every size in a process of its own and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cells", type=int, nargs="*", default=[50_000, 200_000, 1_000_000])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="20,000 cells, one repeat, nothing written")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.repeats)))
        return
    sizes, repeats = ([20_000], 1) if options.quick else (options.cells, options.repeats)
    lines = ["# Encoding: time and memory", "", f"Machine: {machine()}.", ""]
    lines += ["Command: `uv run python -m benchmarks.memory`.", ""]
    lines += [
        f"{DIMENSIONS} dimensions, {FEATURES} features, about {ACTIVE} active per cell; medians of {repeats}.",
        "",
    ]
    lines += [
        "| cells | active per cell | seconds | product alone | ratio | extra memory (MiB) | of which the result |"
        " dense codes would be |",
        "|---" * 8 + "|",
    ]
    for n in sizes:
        command = [sys.executable, "-m", "benchmarks.memory", "--one", str(n), "--repeats", str(repeats)]
        m = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        ratio, dense = m["seconds"] / m["product"], n * FEATURES * 4 / 2**20
        lines.append(
            f"| {n:,} | {m['active']:.1f} | {m['seconds']:.2f} | {m['product']:.2f} | {ratio:.2f} | "
            f"{m['extra_mib']:.0f} | {m['result_mib']:.0f} | {dense:,.0f} |"
        )
        print(lines[-1], flush=True)
        if m["extra_mib"] > 2048 and n <= 200_000:
            sys.exit(f"{n} cells took {m['extra_mib']:.0f} MiB of extra memory: more than 2 GiB.")
    if not options.quick:
        Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
