"""The k largest pre-activations of each cell (Gao et al. 2024)."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from ._base import Architecture

if TYPE_CHECKING:
    import torch

    from ._base import Parameters


class TopK(Architecture):
    """Exactly k active features in every cell (fewer when fewer are positive)."""

    name: ClassVar[str] = "topk"
    by_batch: ClassVar[bool | None] = False

    def activate(self, p: Parameters, pre: torch.Tensor) -> torch.Tensor:
        """Keep the k largest of each row."""
        import torch

        value, index = pre.clamp_min(0).topk(self.config.k, dim=1, sorted=False)
        return torch.zeros_like(pre).scatter(1, index, value)
