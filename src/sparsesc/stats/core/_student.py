"""How rare is a t? Logarithms of two-sided p, fast enough for every feature x gene, and free of underflow."""

from __future__ import annotations

import math

import numpy as np

from sparsesc._compiled import compiled

LOG_2 = math.log(2.0)
_HALF_LOG_PI = 0.5 * math.log(math.pi)
_TINY = 1e-300


@compiled
def log_normal_tail(z: float) -> float:
    """Logarithm of P(Z >= z) for z >= 0."""
    if z < 25.0:
        return math.log(0.5 * math.erfc(z / math.sqrt(2.0)))
    # beyond: the asymptotic series, exact to double precision here
    w = 1.0 / (z * z)
    series = 1.0 - w * (1.0 - 3.0 * w * (1.0 - 5.0 * w * (1.0 - 7.0 * w)))
    return -0.5 * z * z - math.log(z) - 0.5 * math.log(2.0 * math.pi) + math.log(series)


@compiled
def _log_beta_half(a: float) -> float:
    """Logarithm of B(a, 1/2)."""
    return math.lgamma(a) + _HALF_LOG_PI - math.lgamma(a + 0.5)


@compiled
def _beta_fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's recursion."""
    c = 1.0
    d = 1.0 - (a + b) * x / (a + 1.0)
    d = 1.0 / (d if abs(d) > _TINY else _TINY)
    h = d
    for m in range(1, 1000):
        even = m * (b - m) * x / ((a + 2.0 * m - 1.0) * (a + 2.0 * m))
        d = 1.0 + even * d
        d = 1.0 / (d if abs(d) > _TINY else _TINY)
        c = 1.0 + even / c
        c = c if abs(c) > _TINY else _TINY
        h *= d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2.0 * m) * (a + 2.0 * m + 1.0))
        d = 1.0 + odd * d
        d = 1.0 / (d if abs(d) > _TINY else _TINY)
        c = 1.0 + odd / c
        c = c if abs(c) > _TINY else _TINY
        step = d * c
        h *= step
        if abs(step - 1.0) < 1e-14:
            break
    return h


@compiled
def log_p_t(t: float, df: float) -> float:
    """Logarithm of P(|T| >= |t|) with ``df`` degrees of freedom (any positive number); p is good to 2e-8 (relative)."""
    t = abs(t)
    if t == 0.0:
        return 0.0
    if df >= 20.0 and t * t <= df:
        # Hill's expansion of t to a normal deviate: a few flops, where p is good to a few 1e-8
        a = df - 0.5
        b = 48.0 * a * a
        y = a * math.log1p(t * t / df)
        z = (((((-0.4 * y - 3.3) * y - 24.0) * y - 85.5) / (0.8 * y * y + 100.0 + b) + y + 3.0) / b + 1.0) * math.sqrt(
            y
        )
        return LOG_2 + log_normal_tail(z)
    a = 0.5 * df
    x = df / (df + t * t)
    front = a * math.log(x) + 0.5 * math.log(t * t / (df + t * t)) - _log_beta_half(a)
    if x < (a + 1.0) / (a + 2.5):
        return front + math.log(_beta_fraction(a, 0.5, x) / a)
    return math.log1p(-math.exp(front) * _beta_fraction(0.5, a, 1.0 - x) / 0.5)


@compiled
def t_of_normal(z: float, df: float) -> float:
    """The positive t with the same tail as a normal deviate; log p is good to 1e-7 (relative)."""
    if z <= 0.0:
        return 0.0
    wanted = LOG_2 + log_normal_tail(z)
    # Wallace's approximation is near enough to start from; log p is nearly linear in log t
    log_t = 0.5 * math.log(df * math.expm1(min((z * (8.0 * df + 3.0) / (8.0 * df + 1.0)) ** 2 / df, 500.0)))
    for _ in range(50):
        t = math.exp(log_t)
        log_p = log_p_t(t, df)
        if abs(log_p - wanted) <= 1e-7 * max(1.0, -wanted):
            break
        log_density = -_log_beta_half(0.5 * df) - 0.5 * math.log(df) - 0.5 * (df + 1.0) * math.log1p(t * t / df)
        log_t += (log_p - wanted) / math.exp(log_t + LOG_2 + log_density - log_p)
    return t


@compiled
def _log_p_flat(t: np.ndarray, df: np.ndarray, out: np.ndarray) -> None:
    for i in range(len(t)):
        out[i] = log_p_t(t[i], df[i])


def log_p_two_sided(t: np.ndarray, df: np.ndarray | float) -> np.ndarray:
    """Natural logarithm of the two-sided p-value of each ``t``.

    Parameters
    ----------
    t
        Statistics of any shape.
    df
        Degrees of freedom, of a shape that broadcasts to that of ``t``.
    """
    t = np.asarray(t, dtype=np.float64)
    df = np.broadcast_to(np.asarray(df, dtype=np.float64), t.shape)
    out = np.empty(t.size)
    _log_p_flat(t.ravel(), df.ravel(), out)
    return out.reshape(t.shape)
