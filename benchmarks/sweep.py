"""Many autoencoders at once: compared with one alone, one after another, and the encoder products alone.

    uv run --group bench python -m benchmarks.sweep [--count 16] [--repeats 5] [--quick]

Writes ``benchmarks/sweep.md``. Every repeat runs in a separate process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ._cells import simulate, split
from ._machine import machine
from .train import CELLS, SIZES, run

SIZE = SIZES["32"]


def timed(work: Callable[[], Any]) -> float:
    """Seconds of one call."""
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def measure(architecture: str, n: int, steps: int, count: int) -> dict[str, float]:
    """Seconds of one training, of ``count`` together and in turn, and of their encoder products."""
    import torch

    from sparsesc.nn import TrainConfig, train, train_many

    X, _ = split(simulate(n, SIZE.d))
    shared: dict[str, Any] = {"architecture": architecture, "n_features": SIZE.n_features, "k": SIZE.k}
    shared |= {"batch_size": SIZE.batch_size, "patience": None}
    config, short = (
        TrainConfig(init="random", max_steps=steps, **shared),
        TrainConfig(init="random", max_steps=2, **shared),
    )

    def together(config: TrainConfig, count: int) -> None:
        train_many(X, [config] * count, rngs=[np.random.default_rng(i) for i in range(count)])

    def in_turn(config: TrainConfig, count: int) -> None:
        for i in range(count):
            train(X, config, rng=np.random.default_rng(i))

    in_turn(short, 1)  # compile
    together(short, 2)
    batch = torch.from_numpy(X[: SIZE.batch_size])
    weight, out = torch.randn(SIZE.d, SIZE.n_features), torch.empty(SIZE.batch_size, SIZE.n_features)

    def products() -> None:
        for _ in range(count * steps):
            torch.mm(batch, weight, out=out)

    return {
        "one": timed(lambda: in_turn(config, 1)),
        "together": timed(lambda: together(config, count)),
        "in_turn": timed(lambda: in_turn(config, count)),
        "products": timed(products),
    }


def main() -> None:
    """Run both architectures and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--quick", action="store_true", help="few cells and steps, nothing written")
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        architecture, *numbers = options.one
        print(json.dumps(measure(architecture, *map(int, numbers))))
        return
    n, repeats = (4000, 1) if options.quick else (CELLS, options.repeats)
    steps = 6 if options.quick else SIZE.epochs * (int(0.9 * CELLS) // SIZE.batch_size)
    lines = ["# Many autoencoders at once", "", f"Machine: {machine()}; {options.threads} threads.", ""]
    lines += ["Command: `uv run --group bench python -m benchmarks.sweep`.", ""]
    lines += [
        f"{options.count} autoencoders of {SIZE.n_features} features, {SIZE.k} active, over {SIZE.d} dimensions; "
        f"{n:,} simulated cells, a tenth held out; batches of {SIZE.batch_size}, {steps} steps each; medians of "
        f"{repeats}. *One*: a single training that has all threads. *Products*: the encoder products of all "
        "steps of all of them, which any training has to compute. The trainings share nothing but the "
        f"cells: if {options.threads} threads speed up one training s times, all of them together take at least "
        f"{options.count} s / {options.threads} times as long as one, unless a single training leaves processors idle.",
        "",
        "| architecture | one (s) | together (s) | together / one | one after another / together | products (s) | "
        "together / products |",
        "|---" * 7 + "|",
    ]
    for architecture in ("topk", "batchtopk"):
        asked = [architecture, str(n), str(steps), str(options.count)]
        command = [sys.executable, "-m", "benchmarks.sweep", "--one", *asked]
        done = [r for r in (run(command, options.threads) for _ in range(repeats)) if r]
        if not done:
            sys.exit(f"{architecture}: no run finished.")
        m = {name: statistics.median(r[name] for r in done) for name in done[0]}
        lines.append(
            f"| {architecture} | {m['one']:.2f} | {m['together']:.2f} | {m['together'] / m['one']:.2f} | "
            f"{m['in_turn'] / m['together']:.2f} | {m['products']:.2f} | {m['together'] / m['products']:.2f} |"
        )
        print(lines[-1], flush=True)
    if not options.quick:
        Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
