"""The architectures by name."""

from __future__ import annotations

from ._archetypal import Archetypal
from ._base import Architecture, Code
from ._batchtopk import BatchTopK
from ._gated import Gated
from ._jumprelu import JumpReLU
from ._matryoshka import Matryoshka
from ._relu import ReLU
from ._topk import TopK

ARCHITECTURES: dict[str, type[Architecture]] = {
    a.name: a for a in (BatchTopK, Matryoshka, TopK, ReLU, JumpReLU, Gated, Archetypal)
}

__all__ = [
    "ARCHITECTURES",
    "Archetypal",
    "Architecture",
    "BatchTopK",
    "Code",
    "Gated",
    "JumpReLU",
    "Matryoshka",
    "ReLU",
    "TopK",
]
