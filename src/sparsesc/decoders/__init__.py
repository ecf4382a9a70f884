"""From an embedding to genes: one protocol for models of scvi-tools, loadings and any differentiable function."""

from __future__ import annotations

from ._base import Decoder, log2_expression
from ._function import FunctionDecoder
from ._linear import LinearDecoder
from ._resolve import as_decoder
from ._scvi import ScviDecoder
from ._torch import TorchDecoder

__all__ = [
    "Decoder",
    "FunctionDecoder",
    "LinearDecoder",
    "ScviDecoder",
    "TorchDecoder",
    "as_decoder",
    "log2_expression",
]
