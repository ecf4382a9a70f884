"""Models of expression with a latent space of their own, on the base classes of scvi-tools."""

from __future__ import annotations

__all__: list[str] = []
