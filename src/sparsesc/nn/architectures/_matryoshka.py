"""Nested dictionaries: the first features of every width must reconstruct by themselves (Bussmann et al. 2025)."""

from __future__ import annotations

from typing import ClassVar

from ._batchtopk import BatchTopK


class Matryoshka(BatchTopK):
    r"""BatchTopK whose loss is a weighted mean over nested widths of the dictionary, ``config.matryoshka_widths``.

    Early features have to represent the broad structure, so late features can split it without absorbing it.

    Notes
    -----
    With the code :math:`f` of BatchTopK, P widths :math:`m_1 < \dots < m_P = F` and weights :math:`w` that sum to one,

    .. math::

        \mathcal{L} = \frac{1}{d} \sum_{j=1}^{P} w_j \, \Big| x - b_{dec} - \sum_{i \le m_j} f_i D_i \Big|^2

    averaged over cells. ``config.full_width_weight`` is :math:`w_P`; the narrower widths share the rest equally.

    References
    ----------
    Bussmann, B. et al. (2025). Learning multi-level features with matryoshka sparse autoencoders. arXiv:2503.17547.
    """

    name: ClassVar[str] = "matryoshka"
