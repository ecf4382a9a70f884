"""How rare is a statistic with known skewness? Two-sided p by the gamma (Pearson type III) distribution.

Under random relabeling of cells the mean, variance and skewness of a difference of means, or of a correlation, are
known exactly without drawing a single permutation. The gamma distribution that shares them is far nearer to the
permutation distribution than a normal or t where expression is mostly zeros and groups are small.
"""

from __future__ import annotations

import math

import numpy as np

from sparsesc._compiled import compiled

from ._student import log_normal_tail

_LARGE_SHAPE = 200.0


@compiled
def _log_lower_series(k: float, x: float) -> float:
    """Log of the series of the regularized lower incomplete gamma function, without x^k e^-x / Gamma(k)."""
    term = 1.0 / k
    total = term
    a = k
    for _ in range(10_000):
        a += 1.0
        term *= x / a
        total += term
        if term < 1e-12 * total:
            break
    return math.log(total)


@compiled
def _log_upper_fraction(k: float, x: float) -> float:
    """Log of the continued fraction of the regularized upper incomplete gamma function, without x^k e^-x / Gamma(k)."""
    b = x + 1.0 - k
    c = 1e300
    d = 1.0 / b
    h = d
    for i in range(1, 10_000):
        an = -i * (i - k)
        b += 2.0
        d = 1.0 / (an * d + b)
        c = b + an / c
        step = d * c
        h *= step
        if abs(step - 1.0) < 1e-12:
            break
    return math.log(h)


@compiled
def _log_tail_uniform(k: float, x: float) -> float:
    """Temme's expansion for large k: log of the tail beyond x (upper for x > k, lower for x < k)."""
    mu = (x - k) / k
    if abs(mu) < 1e-4:
        eta = mu * (1.0 - mu / 3.0 + 7.0 * mu * mu / 36.0)
    else:
        eta = math.copysign(math.sqrt(2.0 * (mu - math.log1p(mu))), mu)
    if abs(eta) < 0.02:
        c0 = -1.0 / 3.0 + eta * (1.0 / 12.0 - eta * (2.0 / 135.0 - eta / 864.0))
        c1 = -1.0 / 540.0 - eta / 288.0
    else:
        c0 = 1.0 / mu - 1.0 / eta
        c1 = 1.0 / eta**3 - 1.0 / mu**3 - 1.0 / mu**2 - 1.0 / (12.0 * mu)
    front = -0.5 * k * eta * eta
    rest = (c0 + c1 / k) / math.sqrt(2.0 * math.pi * k)
    if mu < 0.0:
        rest = -rest
    return front + math.log(math.exp(log_normal_tail(abs(eta) * math.sqrt(k)) - front) + rest)


@compiled
def log_p_pearson3(z: float, skewness: float) -> float:
    """Logarithm of P(|Z| >= |z|) for Z of mean 0, variance 1 and the given skewness."""
    z = abs(z)
    if z == 0.0:
        return 0.0
    g = max(abs(skewness), 1e-6)
    k = 4.0 / (g * g)
    root = 2.0 / g
    high, low = k + z * root, k - z * root
    if k > _LARGE_SHAPE:
        upper = _log_tail_uniform(k, high)
        if low <= 0.0:
            return min(upper, 0.0)
        lower = _log_tail_uniform(k, low)
        return min(upper + math.log1p(math.exp(lower - upper)), 0.0)
    norm = math.lgamma(k)
    front = k * math.log(high) - high - norm
    if high < k + 1.0:
        upper_p = max(1.0 - math.exp(front + _log_lower_series(k, high)), 0.0)
    else:
        log_upper = front + _log_upper_fraction(k, high)
        if low <= 0.0:
            return min(log_upper, 0.0)
        log_lower = k * math.log(low) - low - norm + _log_lower_series(k, low)
        return min(log_upper + math.log1p(math.exp(log_lower - log_upper)), 0.0)
    if low > 0.0:
        upper_p += math.exp(k * math.log(low) - low - norm + _log_lower_series(k, low))
    return math.log(min(upper_p, 1.0)) if upper_p > 0.0 else 0.0


@compiled
def log_p_relabeled(r: float, skewness: float, n: float) -> float:
    """Logarithm of the two-sided p of a Pearson r between two lists of n values when either list is shuffled.

    ``skewness`` is the product of the population skewnesses of both lists. Over all shufflings r has mean 0, variance
    1 / (n - 1) and third moment as used here, exactly.
    """
    if n < 3.0:  # one value each way: nothing to shuffle
        return 0.0
    return log_p_pearson3(r * math.sqrt(n - 1.0), skewness * math.sqrt(n - 1.0) / (n - 2.0))


@compiled
def _flat(z: np.ndarray, skewness: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(z)):
        out[i] = log_p_pearson3(z[i], skewness[i])


def log_p_of_r(r: np.ndarray, skewness: np.ndarray, n: int) -> np.ndarray:
    """:func:`log_p_relabeled` of each Pearson r; `skewness` has its shape."""
    if n < 3:
        return np.zeros(r.shape)
    return log_p_skewed(r * np.sqrt(n - 1.0), skewness * np.sqrt(n - 1.0) / (n - 2.0))


def log_p_skewed(z: np.ndarray, skewness: np.ndarray | float) -> np.ndarray:
    """Natural logarithm of the two-sided p-value of each ``z``; `skewness` broadcasts to its shape."""
    z = np.asarray(z, dtype=np.float64)
    skewness = np.broadcast_to(np.asarray(skewness, dtype=np.float64), z.shape)
    out = np.empty(z.size)
    _flat(z.ravel(), skewness.ravel(), out)
    return out.reshape(z.shape)
