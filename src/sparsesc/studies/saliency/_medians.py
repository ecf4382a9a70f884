"""Medians of sets of genes, and of very many random sets: the null distribution of a median.

Random sets of all sizes come from one order of genes: its first m genes are a random set of m. Such an order, with the
sizes to stop at, is a *ladder*. The medians of all its sizes cost one sort of its genes and one step per gene, because
they are computed backwards: genes leave a linked list one by one, and the median moves by one place at most.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sparsesc._compiled import compiled

_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)


def _bit_places() -> np.ndarray:
    table = np.zeros(64, np.int64)
    for bit in range(64):
        table[((1 << bit) * int(_DE_BRUIJN) & (2**64 - 1)) >> 58] = bit
    return table


_PLACE = _bit_places()


@dataclass(frozen=True)
class Ladders:
    """Orders of genes, and the sizes to compute medians at."""

    members: np.ndarray
    """Genes of all ladders, one after the other; no gene twice in a ladder."""
    starts: np.ndarray
    """Where each ladder starts in `members`, and the end."""
    sizes: np.ndarray
    """Sizes of all ladders, ascending within each; the last is the length of the ladder."""
    size_starts: np.ndarray
    """Where each ladder starts in `sizes`, and the end."""

    @classmethod
    def of_sets(cls, sets: list[np.ndarray]) -> Ladders:
        """One ladder for each set, with the whole set as its only size."""
        return cls.single(np.concatenate(sets), np.array([len(s) for s in sets]))

    @classmethod
    def single(cls, members: np.ndarray, lengths: np.ndarray) -> Ladders:
        """The same, from sets that are already joined."""
        lengths = np.asarray(lengths, dtype=np.int64)
        ones = np.arange(len(lengths) + 1, dtype=np.int64)
        return cls(np.asarray(members, dtype=np.int32), np.append(0, np.cumsum(lengths)), lengths, ones)

    @classmethod
    def nested(cls, orders: np.ndarray, sizes: np.ndarray) -> Ladders:
        """From orders, ladders x genes, with the same ascending `sizes`, the last of which is the number of columns."""
        n, m = orders.shape
        return cls(
            np.ascontiguousarray(orders, dtype=np.int32).ravel(),
            np.arange(n + 1, dtype=np.int64) * m,
            np.tile(np.asarray(sizes, dtype=np.int64), n),
            np.arange(n + 1, dtype=np.int64) * len(sizes),
        )


def summed_medians(values: np.ndarray, ladders: Ladders, group: np.ndarray, n_groups: int) -> np.ndarray:
    """Medians of the sets of all ladders, summed over rows of the same group.

    Parameters
    ----------
    values
        Rows x genes.
    ladders
        The sets.
    group
        Group of each row, ``0 ...``; rows with -1 are left out.
    n_groups
        How many groups there are.

    Returns
    -------
    Groups x sizes of all ladders, float64. The median of an even number is the mean of the middle two.
    """
    out = np.zeros((n_groups, len(ladders.sizes)))
    _summed_medians(
        np.ascontiguousarray(values, dtype=np.float32), ladders.members, ladders.starts, ladders.sizes,
        ladders.size_starts, np.asarray(group, dtype=np.int64), out,
    )  # fmt: skip
    return out


@compiled
def _summed_medians(
    values: np.ndarray,
    members: np.ndarray,
    starts: np.ndarray,
    sizes: np.ndarray,
    size_starts: np.ndarray,
    group: np.ndarray,
    out: np.ndarray,
) -> None:
    n_genes = values.shape[1]
    n_words = (n_genes + 63) // 64
    bits = np.zeros(n_words, np.uint64)
    arrived = np.empty(n_genes, np.int32)  # by rank: when the gene came into its ladder
    rank = np.empty(n_genes, np.int32)
    longest = 0
    for i in range(len(starts) - 1):
        longest = max(longest, starts[i + 1] - starts[i])
    by_rank = np.empty(longest, np.int64)  # ranks of a ladder, ascending
    place = np.empty(longest, np.int64)  # by arrival: position in by_rank
    after = np.empty(longest, np.int64)
    before = np.empty(longest, np.int64)
    for row in range(len(values)):
        if group[row] < 0:
            continue
        order = np.argsort(values[row])
        for i in range(n_genes):
            rank[order[i]] = i
        ascending = values[row][order]
        sums = out[group[row]]
        for ladder in range(len(starts) - 1):
            first, m = starts[ladder], starts[ladder + 1] - starts[ladder]
            rung = size_starts[ladder + 1] - 1
            alone = rung == size_starts[ladder]
            for i in range(m):
                r = rank[members[first + i]]
                bits[r >> 6] |= np.uint64(1) << np.uint64(r & 63)
                if not alone:
                    arrived[r] = i
            middle = (m - 1) // 2
            # bits in ascending order: a sort without comparisons; of a single set, up to the upper of the middle two
            wanted = middle + 2 - (m & 1) if alone else m
            n_seen = 0
            for word in range(n_words):
                w = bits[word]
                bits[word] = np.uint64(0)
                while w != np.uint64(0) and n_seen < wanted:
                    low = w & (~w + np.uint64(1))
                    by_rank[n_seen] = (word << 6) + _PLACE[np.int64((low * _DE_BRUIJN) >> np.uint64(58))]
                    n_seen += 1
                    w ^= low
            if alone:
                upper = wanted - 1
                sums[rung] += 0.5 * (np.float64(ascending[by_rank[middle]]) + np.float64(ascending[by_rank[upper]]))
                continue
            for i in range(m):
                place[arrived[by_rank[i]]] = i
                after[i] = i + 1
                before[i] = i - 1
            n = m
            while True:
                if n == sizes[rung]:
                    upper = middle if n & 1 else after[middle]
                    sums[rung] += 0.5 * (np.float64(ascending[by_rank[middle]]) + np.float64(ascending[by_rank[upper]]))
                    rung -= 1
                    if rung < size_starts[ladder]:
                        break
                leaving = place[n - 1]
                if n & 1:  # of 5 the third, of 4 the second: one down, unless what leaves is below
                    if leaving >= middle:
                        middle = before[middle]
                elif leaving <= middle:  # of 4 the second, of 3 the second
                    middle = after[middle]
                if before[leaving] >= 0:
                    after[before[leaving]] = after[leaving]
                if after[leaving] < m:
                    before[after[leaving]] = before[leaving]
                n -= 1


def upper_tail(observed: np.ndarray, null: np.ndarray, *, n_tail: int = 20, share: float = 0.05) -> np.ndarray:
    """P-values of observed values among draws under the null hypothesis: large values get a small p.

    Where draws reach the observed value, p is their share, the observed value counted as a draw: exact, however few
    draws there are. Beyond all draws, where p would be the same for all values, a generalized Pareto distribution
    continues the tail of the draws. It falls off exponentially or more slowly: lighter tails are not trusted, so that
    p is too large there rather than too small.

    Parameters
    ----------
    observed
        Values, (n,).
    null
        Draws for each of them, n x draws.
    n_tail, share
        The tail is fitted to this number, or this share if it is more, of the draws.

    Returns
    -------
    P-values, (n,), positive.

    References
    ----------
    Phipson and Smyth (2010), Statistical Applications in Genetics and Molecular Biology 9:39 (why no p is 0).
    Knijnenburg et al. (2009), Bioinformatics 25:i161 (tails).
    """
    n_draws = null.shape[1]
    reached = (null >= observed[:, None]).sum(1)
    p = (reached + 1.0) / (n_draws + 1.0)
    n_tail = max(int(share * n_draws), n_tail)
    beyond = np.flatnonzero(reached == 0)
    if not len(beyond) or n_draws <= n_tail:
        return p
    largest = np.sort(np.partition(null[beyond], n_draws - n_tail - 1, axis=1)[:, n_draws - n_tail - 1 :], axis=1)
    limit, excess = largest[:, 0], largest[:, 1:] - largest[:, :1]
    mean, variance = excess.mean(1), excess.var(1)
    flat = mean <= 1e-12 * np.abs(limit)
    mean = np.where(flat, 1.0, mean)
    # moments of the generalized Pareto distribution: m^2 / v = 1 - 2 shape
    shape = np.clip(0.5 * (1 - mean**2 / np.where(flat, 1.0, np.maximum(variance, 1e-300))), 0.0, 0.45)
    scaled = (observed[beyond] - limit) / (mean * (1 - shape))
    thin = shape < 1e-3
    power = np.where(thin, 1.0, shape)
    log_tail = np.where(thin, -scaled, -np.log1p(power * np.maximum(scaled, 0)) / power)
    tail_p = (n_tail + 1.0) / (n_draws + 1.0) * np.exp(np.minimum(log_tail, 0.0))
    p[beyond] = np.where(flat, p[beyond], np.maximum(np.minimum(tail_p, p[beyond]), np.finfo(float).tiny))
    return p
