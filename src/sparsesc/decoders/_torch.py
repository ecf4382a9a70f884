from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    import torch


class TorchDecoder:
    """A torch module, or a function of tensors, as decoder; its derivatives are exact.

    Parameters
    ----------
    function
        Maps a tensor of cells x dimensions to one of cells x genes. A module is used in evaluation mode (without
        dropout), and its mode is restored.
    genes
        Names of the genes.
    scale
        Scale of the result: ``"log1p"``, ``"proportions"`` or ``"linear"``.

    See Also
    --------
    sparsesc.decoders.FunctionDecoder : For functions of numpy arrays.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsesc as ssc
    >>> decoder = ssc.decoders.TorchDecoder(lambda z: z**2, ["CD3D", "MS4A1"])
    >>> decoder.decode(np.array([[1.0, 3.0]])).tolist()
    [[1.0, 9.0]]
    """

    def __init__(
        self,
        function: Callable[[torch.Tensor], torch.Tensor],
        genes: Iterable[str],
        *,
        scale: Literal["log1p", "proportions", "linear"] = "log1p",
    ) -> None:
        self._function = function
        self.genes = pd.Index(genes).astype(str)
        self.scale: str = scale

    def covariates(self, cells: pd.Index) -> None:
        """Nothing: all cells are decoded in the same way."""

    def decode(self, Z: np.ndarray, covariates: Any = None) -> np.ndarray:
        """Expression of cells, cells x genes."""
        with evaluating(self._function):
            return run(self._function, Z)

    def jvp(self, Z: np.ndarray, V: np.ndarray, covariates: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """Expression of cells, and its derivative along `V`."""
        with evaluating(self._function):
            return run_jvp(self._function, Z, V)


def run(function: Callable[[torch.Tensor], torch.Tensor], Z: np.ndarray, device: Any = None) -> np.ndarray:
    """A function of tensors on an array, without derivatives."""
    import torch

    with torch.no_grad():
        return function(_tensor(function, Z, device)).cpu().numpy()


def run_jvp(
    function: Callable[[torch.Tensor], torch.Tensor], Z: np.ndarray, V: np.ndarray, device: Any = None
) -> tuple[np.ndarray, np.ndarray]:
    """A function of tensors on an array, and its derivative along `V`."""
    import torch

    with torch.no_grad(), warnings.catch_warnings():
        # the first forward-mode derivative makes torch load code that it deprecates itself
        warnings.filterwarnings("ignore", message="`torch.jit")
        value, slope, *_ = torch.func.jvp(function, (_tensor(function, Z, device),), (_tensor(function, V, device),))
    return value.cpu().numpy(), slope.cpu().numpy()


@contextmanager
def evaluating(function: Any) -> Iterator[None]:
    """Modules in evaluation mode for a while: dropout would make two decodings of one cell differ."""
    import torch

    modules = list(function.modules()) if isinstance(function, torch.nn.Module) else []
    trained = [module for module in modules if module.training]
    for module in trained:
        module.training = False
    try:
        yield
    finally:
        for module in trained:
            module.training = True


def _tensor(function: Any, values: np.ndarray, device: Any) -> torch.Tensor:
    """A tensor with the type and device of the weights of a module, if it has any."""
    import torch

    first = next(function.parameters(), None) if isinstance(function, torch.nn.Module) else None
    dtype = torch.float32 if first is None or not first.is_floating_point() else first.dtype
    if device is None and first is not None:
        device = first.device
    return torch.as_tensor(np.ascontiguousarray(values), dtype=dtype, device=device)
