"""Do features come back: over seeds, and in other cells? Every architecture and start, and what moves the default.

    uv run python -m benchmarks.stability [--seeds 3] [--quick]

Fits of one code differ in the seed only (the same training and held-out cells), as in ``ssc.tl.stability``; or in the
order of the training cells as well, from which k-means then draws other centers; or they are fits to disjoint halves of
the training cells. So the start that the cells determine can be told from the dictionary that they determine. Features
that are alive are matched one to one by the cosine of their decoder rows. Labels judge codes as in
``benchmarks/defaults.py``. Writes ``benchmarks/stability.md``.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from ._machine import machine
from ._scores import scores
from .defaults import DATA, load, scvi_latent

EMBEDDINGS = [("pbmc3k", "PCA"), ("mouse marrow", "PCA"), ("pbmc3k", "scVI")]
SHOWN = ["seeds", "order", "halves", "random", "shaped", "above90", "fvu", "dead", "l0", "auroc", "f1", "lms", "msas"]
HEAD = {
    "seeds": "stability over seeds",
    "order": "over orders",
    "halves": "over halves",
    "above90": "features above .9",
}


def architectures() -> Iterator[tuple[str, dict]]:
    for name in ("matryoshka", "batchtopk", "topk", "relu", "jumprelu", "gated"):
        for init in ("kmeans", "random"):
            yield f"{name}, {init}", {"architecture": name, "init": init}
    yield "archetypal", {"architecture": "archetypal"}


def changes() -> Iterator[tuple[str, dict]]:
    """What could move the default; tried on the first embedding."""
    yield "default, half the width", {"width": 0.5}
    yield "default, twice the width", {"width": 2}
    yield "default, without noise", {"noise": 0.0}
    yield "default, noise 1", {"noise": 1.0}
    yield "default, pull 60", {"tie_strength": 60.0}
    yield "default, four times the steps", {"longer": 4}


def fits(parts: list[np.ndarray], X_validation: np.ndarray, change: dict, n_cells: int) -> list:
    """One autoencoder for each of ``parts``, cells of an embedding of ``n_cells``, whose width all have."""
    from sparsesc._train_config import default_k, default_n_features, default_steps
    from sparsesc.nn import TrainConfig, train

    d = parts[0].shape[1]
    change = {"init": "kmeans"} | change
    n_features = int(default_n_features(n_cells, d) * change.pop("width", 1))
    config = TrainConfig(n_features=n_features, k=default_k(d, n_features))
    longer = change.pop("longer", 1)
    if longer > 1:
        steps = default_steps(len(parts[0]), config.complete(*parts[0].shape).batch_size or 1)
        change |= {"max_steps": longer * steps}
    config = TrainConfig(**({"n_features": n_features, "k": config.k} | change))
    rngs = [np.random.default_rng(seed) for seed in range(len(parts))]
    return [train(X, config, X_validation=X_validation, rng=r).sae for X, r in zip(parts, rngs, strict=True)]


def alive_rows(sae: object, X: np.ndarray) -> np.ndarray:
    return sae.W_dec[np.bincount(sae.encode(X).indices, minlength=sae.n_features) > 0]


def judge(X: np.ndarray, labels: np.ndarray, seeds: int, change: dict) -> dict[str, float]:
    """Stability over seeds and halves, with its baselines, and the mean scores of the fits."""
    from sparsesc.nn._metrics import fit_metrics
    from sparsesc.stats import dictionary_stability

    order = np.random.default_rng(0).permutation(len(X))
    held_out, rest = X[order[: len(X) // 10]], X[order[len(X) // 10 :]]
    saes = fits([rest] * seeds, held_out, change, len(X))
    rows = [alive_rows(sae, X) for sae in saes]
    rng = np.random.default_rng([0, 1])  # not a stream that a fit began with
    found = dictionary_stability(rows, rng=rng)
    other = {
        "order": [rest[np.random.default_rng([seed, 2]).permutation(len(rest))] for seed in range(seeds)],
        "halves": [rest[i::2] for i in range(2)],
    }
    pairs = {
        name: dictionary_stability([alive_rows(s, X) for s in fits(parts, held_out, change, len(X))], rng=rng).pairs
        for name, parts in other.items()
    }
    metrics = pd.DataFrame([fit_metrics(sae, held_out) for sae in saes]).mean()
    judged = [scores(s.encode(X).toarray(), labels, rng=np.random.default_rng(i)) for i, s in enumerate(saes)]
    return {
        "seeds": found.pairs[np.triu_indices(seeds, 1)].mean(),
        "random": found.random.mean(),
        "shaped": found.shaped.mean(),
        "above90": (found.features > 0.9).mean(),
        **{name: values[np.triu_indices(len(values), 1)].mean() for name, values in pairs.items()},
        "fvu": metrics["fvu"],
        "l0": metrics["l0"],
        "dead": 1 - np.mean([len(r) for r in rows]) / saes[0].n_features,
        **pd.DataFrame(judged).mean().to_dict(),
    }


def study(seeds: int, embeddings: list[tuple[str, str]], cache: Path, *, quick: bool) -> Iterator[pd.DataFrame]:
    """One row an embedding and code, handed out as it grows."""
    rows = []
    for name, embedding in embeddings:
        adata, labels, batches = load(name)
        if embedding == "PCA":
            X = np.ascontiguousarray(adata.obsm["X_pca"], np.float32)
        else:
            X = scvi_latent(adata, batches, cache / f"{DATA[name][0]}.npy", max_epochs=60).astype(np.float32)
        first = (name, embedding) == embeddings[0]
        codes = [*architectures(), *(changes() if first else [])]
        for label, change in codes[: 2 if quick else None]:
            change = change | ({"max_steps": 50} if quick else {})
            found = judge(X, labels, seeds, change)
            rows.append({"data": name, "embedding": embedding, "shape": X.shape, "code": label, **found})
            print(name, embedding, label, f"seeds {found['seeds']:.3f} halves {found['halves']:.3f}", flush=True)
            yield pd.DataFrame(rows)


def report(table: pd.DataFrame, seeds: int) -> str:
    """Markdown: one table an embedding."""
    lines = ["# Stability of features", "", f"Machine: {machine()}.", ""]
    lines += [f"Command: `uv run python -m benchmarks.stability --seeds {seeds}`.", "", *READING, ""]
    for (data, embedding), part in table.groupby(["data", "embedding"], sort=False):
        n, d = part["shape"].iloc[0]
        lines += [f"## {data}, {embedding} ({n} cells x {d})", ""]
        lines += ["| code | " + " | ".join(HEAD.get(c, c) for c in SHOWN) + " |", "|---" * (len(SHOWN) + 1) + "|"]
        for row in part.to_dict("records"):
            lines.append(f"| {row['code']} | " + " | ".join(_figure(c, row[c]) for c in SHOWN) + " |")
        lines.append("")
    return "\n".join(lines)


def _figure(column: str, value: float) -> str:
    return f"{value:.1f}" if column == "l0" else f"{value:.3f}" if column == "fvu" else f"{value:.2f}"


READING = [
    "Stability is the mean cosine of features matched one to one between two fits. Over seeds: the same training and",
    "held-out cells. Over orders: the same cells in another order, so that k-means draws other centers. Over halves:",
    "fits to disjoint halves of the training cells. `random`: the same for random directions; `shaped`: for random",
    "directions with the second moments of the dictionary. FVU is on held-out cells; dead features are active in no",
    "cell; AUROC, F1, LMS, MSAS as in `benchmarks/_scores.py`.",
]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache" / "sparsesc" / "scvi")
    parser.add_argument("--quick", "--smoke", action="store_true", help="one data set, two codes: does it run?")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("stability.md"))
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    n_fits = 2 if options.quick else options.seeds
    where = [("pbmc68k_reduced", "PCA")] if options.quick else EMBEDDINGS
    for results in study(n_fits, where, options.cache, quick=options.quick):
        text = report(results, n_fits)
        if not options.quick:
            options.out.write_text(text)
    print(text)
