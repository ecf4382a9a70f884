"""Training: samples per second, quality and memory, compared with other packages on the same cells.

    uv run --group bench python -m benchmarks.train [--repeats 5] [--sizes 10 32 512 8192] [--quick]

Writes ``benchmarks/train.md``. Competitors take turns in one run, each in a separate process with the same number of
threads. ``--peers-python`` names the interpreter of an environment that holds the other packages, if not this one.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ._cells import simulate, split
from ._machine import machine

CELLS = 20_000
TIME_LIMIT = 600  # seconds for one run of a peer
PURSUIT = ("sklearn",)  # codes by an optimization for each cell, with signs: another problem, shown for its time alone
SLOW = 1.1  # times the fastest peer: slower ones run once


class Size(NamedTuple):
    """A problem: the same for all."""

    d: int
    n_features: int
    k: int
    batch_size: int
    epochs: int


SIZES = {
    "10": Size(10, 512, 8, 1024, 40),
    "32": Size(32, 1024, 16, 1024, 40),
    "512": Size(512, 4096, 32, 4096, 10),
    "8192": Size(512, 8192, 64, 4096, 5),
}
PEERS = {
    "topk": ["sae_lens", "dictionary_learning", "sparsify", "overcomplete", "sklearn"],
    "batchtopk": ["sae_lens", "dictionary_learning", "overcomplete"],
}
# The defaults favor labels: noise on the encoder's input and a pull toward the decoder cost reconstruction. These favor
# reconstruction, as the peers' defaults do. By architecture and size.
RECONSTRUCTION: dict[str, dict[str, dict[str, Any]]] = {
    "topk": {
        "10": {"noise": 0.3, "lr": 8e-4},
        "32": {"noise": 0.1, "lr": 1.5e-3},
        "512": {"noise": 0.3, "lr": 4e-3},
        "8192": {"noise": 0.3, "lr": 4e-3},
    },
    "batchtopk": {
        "10": {"noise": 0.0, "tie_strength": 0.0, "lr": 4e-3, "resample_dead": True},
        "32": {"noise": 0.0, "tie_strength": 0.0, "lr": 4e-3, "resample_dead": True},
        "512": {"noise": 0.3, "lr": 4e-3},
        "8192": {"noise": 0.3, "lr": 4e-3},
    },
}


def peer_lr(n_features: int) -> float:
    """2e-4 sqrt(2^14 / F) (Gao et al. 2024), which all peers get."""
    return 2e-4 * (2**14 / n_features) ** 0.5


def ours(name: str, path: str, options: dict[str, Any]) -> dict[str, float]:
    """Train sparsesc in this process."""
    import torch

    from sparsesc.nn import TrainConfig, train
    from sparsesc.nn._metrics import fraction_unexplained

    data = np.load(path)
    X, V = data["X"], data["V"]
    shared = {name: options[name] for name in ("n_features", "k", "batch_size")} | options["settings"]
    config = TrainConfig(init="random", architecture=name, max_steps=options["steps"], patience=None, **shared)
    short = TrainConfig(init="random", architecture=name, max_steps=2, **shared)
    train(X, short, X_validation=V, rng=np.random.default_rng(0))  # compile
    begun = time.perf_counter()
    sae = train(X, config, rng=np.random.default_rng(0)).sae
    seconds = time.perf_counter() - begun
    codes = sae.encode(V)
    fvu = fraction_unexplained(V, sae.decode(codes))
    dead = float((np.bincount(codes.indices, minlength=sae.n_features) == 0).mean())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    # When the held-out error first reached the best peer's: the history of another run that looks at them.
    watched = train(X, config, X_validation=V, rng=np.random.default_rng(0)).history
    below = np.flatnonzero(watched["validation_fvu"] <= options["goal"])
    reached = float(watched["seconds"][: below[0] + 1].sum()) if len(below) else float("nan")
    # The physical limit: the encoder product alone.
    batch, weight = torch.from_numpy(X[: options["batch_size"]]), torch.from_numpy(sae.W_enc)
    out = torch.empty(len(batch), sae.n_features)
    times = []
    for _ in range(30):
        start = time.perf_counter()
        torch.mm(batch, weight, out=out)
        times.append(time.perf_counter() - start)
    product = statistics.median(times)
    result = {"seconds": seconds, "peak_mib": peak, "fvu": fvu, "dead": dead, "l0": codes.nnz / len(V)}
    return result | {"reached": reached, "product": product}


def run(command: list[str], threads: int) -> dict[str, float] | None:
    """One competitor in a process of its own; ``None`` if it failed or took too long."""
    names = ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = os.environ | dict.fromkeys(names, str(threads)) | {"SPARSIFY_DISABLE_TRITON": "1"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT, env=environment, check=False)
    except subprocess.TimeoutExpired:
        print(f"  {' '.join(command[-3:-2])}: stopped after {TIME_LIMIT} s", flush=True)
        return None
    if done.returncode:
        print(f"  {' '.join(command[-3:-2])}: {done.stderr.strip().splitlines()[-1:]}", flush=True)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(key: str, architecture: str, options: argparse.Namespace) -> list[str]:
    """Rows of the table for one problem."""
    size = SIZES[key]
    n = 4000 if options.quick else CELLS
    X, V = split(simulate(n, size.d))
    steps = size.epochs * (len(X) // size.batch_size) if not options.quick else 4
    asked = {"n_features": size.n_features, "k": size.k, "batch_size": min(size.batch_size, len(X))}
    asked |= {"steps": steps, "lr": peer_lr(size.n_features), "threads": options.threads, "goal": 0.0}
    results: dict[str, list[dict[str, float]]] = {}
    peers = [] if options.quick else PEERS[architecture]
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "cells.npz")
        np.savez(path, X=X, V=V)
        here = [sys.executable, "-m", "benchmarks.train", "--one", architecture, path]
        for _ in range(1 if options.quick else options.repeats):
            for peer in [p for p in peers if p != "sklearn" or size.d == 10]:
                command = [options.peers_python, "benchmarks/_peers.py", f"{peer}:{architecture}", path]
                result = run([*command, json.dumps(asked)], options.threads)
                results.setdefault(peer, []).extend([result] if result else [])
            # Only what may turn out the fastest is worth more runs.
            first = {p: rs[0]["seconds"] for p, rs in results.items() if "sparsesc" not in p and rs}
            peers = [p for p in peers if p in first and first[p] < SLOW * min(first.values())]
            done = [r for p, rs in results.items() if "sparsesc" not in p and p not in PURSUIT for r in rs]
            goal = min((r["fvu"] for r in done), default=0.0)
            reconstruction = RECONSTRUCTION[architecture][key]
            variants = {"defaults": {}, "reconstruction": reconstruction}
            if size.d > 64:  # below, half precision is never chosen
                variants["reconstruction, float32"] = reconstruction | {"precision": "float32"}
            for label, settings in variants.items():
                result = run([*here, json.dumps(asked | {"goal": goal, "settings": settings})], options.threads)
                results.setdefault(f"sparsesc, {label}", []).extend([result] if result else [])

    def middle(name: str, field: str) -> float:
        return statistics.median(r[field] for r in results[name])

    results = {name: rs for name, rs in results.items() if rs}
    rivals = [name for name in results if "sparsesc" not in name]
    samples = steps * asked["batch_size"]
    speed = {name: samples / middle(name, "seconds") for name in results}
    fastest = max((speed[name] for name in rivals), default=float("nan"))
    best = min((p for p in rivals if p not in PURSUIT), key=lambda name: middle(name, "fvu"), default=None)
    rows = []
    for name in sorted(results, key=speed.__getitem__):
        row = f"| {name} | {speed[name]:,.0f} | {speed[name] / fastest:.2f} | {middle(name, 'fvu'):.4f} | "
        row += f"{middle(name, 'dead'):.1%} | {middle(name, 'l0'):.1f} | {middle(name, 'peak_mib'):,.0f} | "
        if name in rivals:
            rows.append(row + " | |")
            continue
        step = middle(name, "seconds") / steps / middle(name, "product")
        reached = middle(name, "reached")
        sooner = middle(best, "seconds") / reached if best and reached == reached else float("nan")
        rows.append(row + f"{step:.2f} | {f'{sooner:.1f} x' if sooner == sooner else 'not reached'} |")
    title = f"## {architecture}: d {size.d}, F {size.n_features}, k {size.k}"
    title += f" (batch {asked['batch_size']}, {steps} steps)"
    columns = "| | samples / s | against the fastest peer | held-out FVU | dead | L0 | peak MiB | step / product |"
    lines = [title, "", columns + " sooner at the best peer's FVU |", "|---" * 9 + "|", *rows, ""]
    print("\n".join(lines), flush=True)
    return lines


def main() -> None:
    """Run every problem and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="*", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--architectures", nargs="*", default=list(PEERS), choices=list(PEERS))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--peers-python", default=sys.executable)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".md"))
    parser.add_argument("--quick", action="store_true", help="us alone on few cells, nothing written")
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(ours(options.one[0], options.one[1], json.loads(options.one[2]))))
        return
    lines = ["# Training compared with other packages", "", f"Machine: {machine()}; {options.threads} threads.", ""]
    lines += ["Command: `uv run --group bench python -m benchmarks.train`.", "", *__doc__.splitlines()[4:6], ""]
    lines += [
        f"{CELLS:,} simulated cells, a tenth held out; same cells, k, F, batches and epochs for all; medians of "
        f"{options.repeats} runs (peers slower than {SLOW} times the fastest one ran once). *Dead*: features that fire "
        "in no held-out cell. *Step / product*: the time of a whole training over its steps, against the encoder "
        "product of a batch alone. *Sooner*: seconds of the peer with the lowest FVU over the seconds until ours "
        "reached that FVU. *reconstruction*: settings without the noise and the pull that favor labels "
        "(`RECONSTRUCTION` in the source). scikit-learn codes each cell by orthogonal matching pursuit, with signs and "
        "without an encoder: its FVU is not compared.",
        "",
    ]
    for key in options.sizes[: 1 if options.quick else None]:
        for architecture in options.architectures:
            lines += compare(key, architecture, options)
            if not options.quick:
                options.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
