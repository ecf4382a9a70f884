"""Noise for the encoder's input, at almost no cost."""

from __future__ import annotations

import numpy as np

_N_OFFSETS = 2**18


class NoisePool:
    """Gaussian numbers drawn once; every batch uses a segment of them, from a random offset.

    The numbers meet the cells in another alignment each time, so training cannot learn from their reuse. A draw costs
    one random integer instead of a batch of normal deviates.
    """

    def __init__(self, scale: float, size: int, rng: np.random.Generator) -> None:
        self.values = (scale * rng.standard_normal(size + _N_OFFSETS, dtype=np.float32)).astype(np.float32)
        self._rng = rng

    def offsets(self, n: int) -> np.ndarray:
        """Offset of the noise of each of the next ``n`` batches."""
        return self._rng.integers(_N_OFFSETS, size=n)
