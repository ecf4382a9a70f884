"""Random sets of genes that replace given ones, and the medians of values over them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sparsesc._compiled import compiled

from ._medians import Ladders, summed_medians

_MEMBERS_AT_ONCE = 2**22


@compiled
def _draw(
    rng: np.random.Generator, pool: np.ndarray, starts: np.ndarray, wanted: np.ndarray, n_draws: int, out: np.ndarray
) -> None:
    """Draws without replacement: ``wanted[s]`` genes of each stratum ``pool[starts[s] : starts[s + 1]]``."""
    place = 0
    for _ in range(n_draws):
        for s in range(len(wanted)):
            first, size = starts[s], starts[s + 1] - starts[s]
            for i in range(wanted[s]):  # a shuffle that stops early; the pool may stay shuffled
                j = i + min(int(rng.random() * (size - i)), size - i - 1)
                pool[first + i], pool[first + j] = pool[first + j], pool[first + i]
                out[place] = pool[first + i]
                place += 1


@dataclass(frozen=True)
class Strata:
    """Genes in groups; a gene can be exchanged for others of its group."""

    genes: np.ndarray
    """All genes, sorted by stratum."""
    starts: np.ndarray
    """Where each stratum starts in `genes`, and the end."""

    @classmethod
    def one(cls, n_genes: int) -> Strata:
        """All genes in one stratum."""
        return cls(np.arange(n_genes, dtype=np.int64), np.array([0, n_genes]))

    @classmethod
    def by_rank(cls, values: np.ndarray, n_strata: int) -> Strata:
        """Strata of nearly equal size, cut along the ranks of values; equal values are in the order of the genes."""
        order = np.argsort(values, kind="stable")
        return cls(order, np.linspace(0, len(values), min(n_strata, len(values)) + 1).round().astype(np.int64))

    def of_genes(self) -> np.ndarray:
        """Stratum of each gene."""
        out = np.empty(len(self.genes), np.int64)
        out[self.genes] = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        return out


class RandomSets:
    """Sets of the same size as given ones, with as many genes of each stratum, drawn without replacement.

    Parameters
    ----------
    sets
        Genes of each set, as positions.
    strata
        Groups of genes that can be exchanged.
    seed
        The same seed gives the same sets.
    """

    def __init__(self, sets: list[np.ndarray], strata: Strata, *, seed: int) -> None:
        self.size = np.array([len(s) for s in sets], dtype=np.int64)
        self._strata = strata
        self._seed = seed
        n_strata = len(strata.starts) - 1
        of = strata.of_genes()
        self._wanted = np.array([np.bincount(of[s], minlength=n_strata) for s in sets]).reshape(-1, n_strata)

    @property
    def nested(self) -> bool:
        """Whether small sets can be the first genes of large ones, which makes medians of all sizes cheap."""
        return len(self._strata.starts) == 2

    def medians(
        self, values: np.ndarray, group: np.ndarray, n_groups: int, *, which: np.ndarray, first: int, stop: int
    ) -> np.ndarray:
        """Medians of drawn sets, summed over rows of the same group.

        Parameters
        ----------
        values
            Rows x genes.
        group
            Group of each row, -1 to leave it out.
        n_groups
            How many groups there are.
        which
            Positions of the sets to draw for.
        first, stop
            Which draws: the same `first` gives the same sets, whatever the other options.

        Returns
        -------
        Groups x sets x draws, float64.
        """
        out = np.empty((n_groups, len(which), stop - first))
        if self.nested:
            sizes, size_of = np.unique(self.size[which], return_inverse=True)
            longest = int(self.size.max())  # of all sets, so that draws do not depend on `which`
            steps = sizes if sizes[-1] == longest else np.append(sizes, longest)
            orders = self._drawn(0, np.array([longest]), first, stop).reshape(stop - first, longest)
            sums = summed_medians(values, Ladders.nested(orders, steps), group, n_groups)
            out[:] = sums.reshape(n_groups, stop - first, len(steps))[:, :, size_of].transpose(0, 2, 1)
            return out
        for block in self._blocks(which, stop - first):
            drawn = np.concatenate([self._drawn(int(s), self._wanted[s], first, stop) for s in which[block]])
            ladders = Ladders.single(drawn, np.repeat(self.size[which[block]], stop - first))
            sums = summed_medians(values, ladders, group, n_groups)
            out[:, block] = sums.reshape(n_groups, -1, stop - first)
        return out

    def _drawn(self, number: int, wanted: np.ndarray, first: int, stop: int) -> np.ndarray:
        """Members of draws `first` to `stop`, one after the other."""
        rng = np.random.default_rng([self._seed, number, first])
        out = np.empty(int(wanted.sum()) * (stop - first), np.int32)
        _draw(rng, self._strata.genes.copy(), self._strata.starts, wanted, stop - first, out)
        return out

    def _blocks(self, which: np.ndarray, n_draws: int) -> Iterator[slice]:
        """Runs of sets whose draws fit in memory together."""
        start = 0
        while start < len(which):
            members = np.cumsum(self.size[which[start:]]) * n_draws
            stop = start + max(int(np.searchsorted(members, _MEMBERS_AT_ONCE, side="right")), 1)
            yield slice(start, stop)
            start = stop
