"""Noise for the encoder's input, cheap enough to be free."""

from __future__ import annotations

import numpy as np

_SHIFTS = 2**18


class NoisePool:
    """Gaussian numbers drawn once; every batch gets a stretch of them from a random place.

    Cells meet a stretch in ever new alignments, so that nothing can be learned from its reuse, and drawing costs one
    random integer instead of a batch of normal deviates.
    """

    def __init__(self, scale: float, size: int, rng: np.random.Generator) -> None:
        self._values = (scale * rng.standard_normal(size + _SHIFTS, dtype=np.float32)).astype(np.float32)
        self._size, self._rng = size, rng

    def batch(self, n_cells: int, n_dimensions: int) -> np.ndarray:
        """Noise for a batch of at most the size that was announced, (n_cells, n_dimensions)."""
        at = int(self._rng.integers(_SHIFTS))
        return self._values[at : at + n_cells * n_dimensions].reshape(n_cells, n_dimensions)
