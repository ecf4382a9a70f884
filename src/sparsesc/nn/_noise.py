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
        self.values = (scale * rng.standard_normal(size + _SHIFTS, dtype=np.float32)).astype(np.float32)
        self._rng = rng

    def places(self, n: int) -> np.ndarray:
        """Where the noise of each of the next ``n`` batches begins."""
        return self._rng.integers(_SHIFTS, size=n)
