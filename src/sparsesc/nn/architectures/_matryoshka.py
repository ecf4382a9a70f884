"""Nested dictionaries: every prefix of the features must reconstruct by itself (Bussmann et al. 2025)."""

from __future__ import annotations

from typing import ClassVar

from ._batchtopk import BatchTopK


class Matryoshka(BatchTopK):
    """BatchTopK whose loss is a weighted mean over nested widths of the dictionary, ``config.matryoshka_widths``.

    Early features have to carry the broad structure, so that late ones can split it without absorbing it.
    """

    name: ClassVar[str] = "matryoshka"
