"""How well distances separate groups: effect sizes over medians of pairs of groups, with intervals over groups."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate with the ends of its interval."""

    value: float
    low: float
    high: float

    def columns(self, name: str) -> dict[str, float]:
        """Columns of a table: the estimate under this name, and both ends."""
        return {name: self.value, f"{name}_low": self.low, f"{name}_high": self.high}


@dataclass(frozen=True)
class Separation:
    """Median distances within groups against those between groups."""

    n_within: int
    n_between: int
    within: float
    """Median over groups of the median distance within."""
    between: float
    """Median over pairs of groups of the median distance between."""
    draws: dict[str, np.ndarray]
    """Each effect size in resampled groups."""
    effects: dict[str, Interval]
    """``auroc``, ``cohen_d`` and ``ratio``."""

    def columns(self) -> dict[str, float]:
        """Columns of a table: both medians, and the effect sizes."""
        row = {"within": self.within, "between": self.between}
        for name, effect in self.effects.items():
            row |= effect.columns(name)
        return row

    def against(self, reference: Separation, name: str) -> dict[str, float]:
        """Columns of the difference from another measure of this name, over the same samples of groups."""
        row: dict[str, float] = {}
        for effect in EFFECTS:
            row |= interval(self.draws[effect] - reference.draws[effect]).columns(f"{effect}_vs_{name}")
        return row


EFFECTS = ("auroc", "cohen_d", "ratio")


def group_weights(n_groups: int, n_draws: int, rng: np.random.Generator) -> np.ndarray:
    """How often each group is in each bootstrap sample, draws x groups; the first row is the data themselves."""
    drawn = rng.multinomial(n_groups, np.full(n_groups, 1 / n_groups), size=n_draws)
    return np.vstack([np.ones(n_groups, drawn.dtype), drawn])


def separation(median: np.ndarray, weights: np.ndarray) -> Separation:
    """Effect sizes of distances within against between groups.

    Parameters
    ----------
    median
        Median distances, groups x groups, NaN where there are no pairs.
    weights
        From :func:`group_weights`. The weight of a pair of groups is the product of theirs, so that pairs that share a
        group do not count as independent.

    Returns
    -------
    ``auroc``: probability that a median within a group is smaller than one between two groups (ties one half);
    ``cohen_d``: difference of means over the pooled standard deviation, positive when groups are tight; ``ratio``:
    median within over median between, small when groups are tight. Intervals of 95 % are percentiles over `weights`.
    """
    n_groups = len(median)
    a, b = np.triu_indices(n_groups, 1)
    keep = np.isfinite(median[a, b])
    a, b = a[keep], b[keep]
    usable = np.flatnonzero(np.isfinite(np.diag(median)))
    within, between = np.diag(median)[usable], median[a, b]
    if not len(within) or not len(between):
        nothing = Interval(np.nan, np.nan, np.nan)
        draws = {name: np.full(len(weights), np.nan) for name in EFFECTS}
        return Separation(len(within), len(between), np.nan, np.nan, draws, dict.fromkeys(EFFECTS, nothing))
    w_in, w_out = weights[:, usable].astype(np.float64), (weights[:, a] * weights[:, b]).astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):  # samples of one group repeated have no pairs
        draws = {
            "auroc": _auroc(within, w_in, between, w_out),
            "cohen_d": _cohen_d(within, w_in, between, w_out),
            "ratio": _median(within, w_in) / _median(between, w_out),
        }
    effects = {name: interval(values) for name, values in draws.items()}
    return Separation(len(within), len(between), float(np.median(within)), float(np.median(between)), draws, effects)


def interval(draws: np.ndarray) -> Interval:
    """The first value, and percentiles of the others."""
    finite = draws[1:][np.isfinite(draws[1:])]
    tail = 50 * (1 - LEVEL)
    low, high = np.percentile(finite, [tail, 100 - tail]) if len(finite) else (np.nan, np.nan)
    return Interval(float(draws[0]), float(low), float(high))


def _auroc(within: np.ndarray, w_in: np.ndarray, between: np.ndarray, w_out: np.ndarray) -> np.ndarray:
    """Weight of pairs (within, between) in ascending order, over that of all pairs; draws x values each."""
    order = np.argsort(between)
    ends = np.hstack([np.zeros((len(w_out), 1)), np.cumsum(w_out[:, order], axis=1)])
    first, last = (np.searchsorted(between[order], within, side=side) for side in ("left", "right"))
    total = ends[:, -1:]
    above = (total - ends[:, last]) + 0.5 * (ends[:, last] - ends[:, first])
    return (w_in * above).sum(1) / (w_in.sum(1) * total[:, 0])


def _cohen_d(within: np.ndarray, w_in: np.ndarray, between: np.ndarray, w_out: np.ndarray) -> np.ndarray:
    n_in, n_out = w_in.sum(1), w_out.sum(1)
    mean_in, mean_out = w_in @ within / n_in, w_out @ between / n_out
    # centered first, so that little is lost when squares are subtracted
    center = between.mean()
    squares = w_in @ (within - center) ** 2 - n_in * (mean_in - center) ** 2
    squares += w_out @ (between - center) ** 2 - n_out * (mean_out - center) ** 2
    pooled = np.sqrt(np.maximum(squares, 0.0) / (n_in + n_out - 2))
    return np.where((n_in >= 2) & (n_out >= 2) & (pooled > 0), (mean_out - mean_in) / pooled, np.nan)


def _median(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Median of repeated values, by draw."""
    order = np.argsort(values)
    values, ends = values[order], np.cumsum(weights[:, order], axis=1)
    half = 0.5 * ends[:, -1:]
    lower, upper = (values[np.argmax(past, axis=1)] for past in (ends >= half, ends > half))
    return np.where(half[:, 0] > 0, 0.5 * (lower + upper), np.nan)


def outlier_scores(median: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How strange each pair of groups is, in robust standard deviations.

    Parameters
    ----------
    median
        Median distances, groups x groups.

    Returns
    -------
    ``alike``, groups x groups (NaN on the diagonal): how much closer two groups are than pairs of groups usually are;
    ``loose``, one value per group: how much farther apart its rows are than those of other groups.
    """
    n_groups = len(median)
    off = ~np.eye(n_groups, dtype=bool)
    alike = np.full_like(median, np.nan)
    alike[off] = -_robust_z(median[off])
    return alike, _robust_z(np.diag(median))


def _robust_z(values: np.ndarray) -> np.ndarray:
    center = np.nanmedian(values)
    spread = 1.4826 * np.nanmedian(np.abs(values - center))
    return (values - center) / spread if spread > 0 else np.zeros_like(values)
