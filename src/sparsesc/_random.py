"""Randomness: every function takes ``rng`` and nothing touches global state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

type RNGLike = np.random.Generator | np.random.BitGenerator
type SeedLike = int | np.integer | Sequence[int] | np.random.SeedSequence


def as_generator(rng: SeedLike | RNGLike | None) -> np.random.Generator:
    """A numpy Generator from whatever the user gave (``None`` draws fresh entropy)."""
    if isinstance(rng, bool):
        msg = f"rng must be an int, a SeedSequence or a numpy Generator, got the bool {rng}."
        raise TypeError(msg)
    return np.random.default_rng(rng)


def apart(rng: np.random.Generator) -> np.random.Generator:
    """A generator with a separate stream, seeded by ``rng``.

    Cells are often simulated from the same small seed that a training gets. Drawn from one stream, the initial
    dictionary would then be the true directions of such a simulation, number by number.
    """
    return np.random.default_rng(rng.integers(2**63 - 1, size=4))


def torch_seed(rng: np.random.Generator) -> int:
    """A seed for a torch Generator, drawn from ``rng``."""
    return int(rng.integers(2**63 - 1))


def several_seeds(rng: int | Sequence[int]) -> list[int]:
    """One seed or several, as a list without repeats.

    Raises
    ------
    TypeError
        If one is no seed.
    ValueError
        If there are none.
    """
    seeds = [rng] if not isinstance(rng, Iterable) or isinstance(rng, str) else list(dict.fromkeys(rng))
    for seed in seeds:
        if isinstance(seed, bool) or not isinstance(seed, int | np.integer) or seed < 0:
            msg = f"rng must be a seed (a non-negative integer) or several, found {seed!r}."
            raise TypeError(msg)
    if not seeds:
        msg = "rng is an empty list. Give at least one seed."
        raise ValueError(msg)
    return [int(seed) for seed in seeds]


def describe(rng: SeedLike | RNGLike | None) -> str:
    """The rng of a call, as text that survives a file (a Generator has no short description)."""
    return str(rng) if isinstance(rng, int | np.integer) else type(rng).__name__
