from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import numpy as np
import pandas as pd


class FunctionDecoder:
    """Any function from an embedding to expression as decoder; derivatives by central differences.

    Parameters
    ----------
    function
        Maps an array of cells x dimensions (float64) to one of cells x genes.
    genes
        Names of the genes.
    scale
        Scale of the result: ``"log1p"``, ``"proportions"`` or ``"linear"``.
    step
        Step of the differences, in units of the embedding.

    See Also
    --------
    sparsesc.decoders.TorchDecoder : For functions of tensors; its derivatives are exact.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsesc as ssc
    >>> decoder = ssc.decoders.FunctionDecoder(lambda Z: Z**2, ["CD3D", "MS4A1"])
    >>> values, slopes = decoder.jvp(np.array([[1.0, 3.0]]), np.array([[1.0, 0.0]]))
    >>> slopes.round(3).tolist()
    [[2.0, 0.0]]
    """

    def __init__(
        self,
        function: Callable[[np.ndarray], np.ndarray],
        genes: Iterable[str],
        *,
        scale: Literal["log1p", "proportions", "linear"] = "log1p",
        step: float = 1e-3,
    ) -> None:
        self._function = function
        self._step = step
        self.genes = pd.Index(genes).astype(str)
        self.scale: str = scale

    def covariates(self, cells: pd.Index) -> None:
        """Nothing: all cells are decoded in the same way."""

    def decode(self, Z: np.ndarray, covariates: Any = None) -> np.ndarray:
        """Expression of cells, cells x genes."""
        return np.asarray(self._function(np.asarray(Z, dtype=np.float64)))

    def jvp(self, Z: np.ndarray, V: np.ndarray, covariates: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Expression of cells, and its derivative along `V`."""
        Z, V = np.asarray(Z, dtype=np.float64), np.asarray(V, dtype=np.float64)
        length = np.linalg.norm(V, axis=1, keepdims=True)
        step = self._step / np.where(length > 0, length, 1)
        rise = self.decode(Z + step * V) - self.decode(Z - step * V)
        return self.decode(Z), rise / (2 * step)
