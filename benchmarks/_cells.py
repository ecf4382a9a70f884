"""Cell-like embeddings of any size for timing: types that use a few of many directions, and noise."""

from __future__ import annotations

import numpy as np

TYPES = 40
NOISE = 0.05
PROGRAMS = {10: (100, 3), 32: (300, 6), 512: (2000, 16)}  # by dimension: directions there are, directions in a cell


def simulate(n: int, d: int, *, seed: int = 0) -> np.ndarray:
    """(n, d) float32: every cell is a sum of a few directions, which its type prefers, with gamma weights."""
    n_programs, active = PROGRAMS.get(d, (4 * d, max(2, d // 16)))
    rng = np.random.default_rng(seed)
    directions = rng.normal(size=(n_programs, d))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    preference = rng.dirichlet(np.full(n_programs, 0.3), size=TYPES) + 1e-4
    kinds = rng.integers(TYPES, size=n)
    # The largest of log p + Gumbel noise: a draw without replacement, for all cells at once.
    score = np.log(preference)[kinds] + rng.gumbel(size=(n, n_programs))
    used = np.argpartition(-score, active, axis=1)[:, :active]
    weights = rng.gamma(2, 1, size=used.shape)
    X = NOISE * rng.normal(size=(n, d))
    for j in range(active):
        X += weights[:, j, None] * directions[used[:, j]]
    return X.astype(np.float32)


def split(X: np.ndarray, *, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Training cells and a tenth held out, in units of the training cells."""
    order = np.random.default_rng(seed).permutation(len(X))
    held, rest = X[order[: len(X) // 10]], X[order[len(X) // 10 :]]
    mean, scale = rest.mean(0), rest.std()
    return ((rest - mean) / scale).astype(np.float32), ((held - mean) / scale).astype(np.float32)
