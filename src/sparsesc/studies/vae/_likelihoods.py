"""Log-likelihoods of one gene's counts under four families, with their gradients, and a quasi-Newton search.

A gene consists of weighted observations: count `x`, relative size `s` and weight `w` of a cell (cells without a count
are joined if their sizes are nearly equal), and its group `g`, which has a rate. Parameters are on scales without
bounds: first one for each group, then those that all cells share.

- negative binomial: log rates, log overdispersion;
- zero-inflated negative binomial: log rates, log overdispersion, logit of the inflation;
- log-normal: log1p(x / s) is a normal variable, rounded to the values that counts can have (everything below half a
  count is a zero). Means over standard deviation, log of one over the standard deviation: concave in this form.
"""

from __future__ import annotations

import math

import numpy as np

from sparsesc._compiled import compiled

NEGATIVE_BINOMIAL, ZERO_INFLATED, LOG_NORMAL = range(3)

_LARGEST_STEP = 2.0
_MAX_ITERATIONS = 200
_TOLERANCE = 1e-6  # change of the log-likelihood that ends the search
_SHORTEST = 1e-9  # step to try
# Beyond these, a family equals its limit: Poisson, no inflation, all inflation.
_LEAST_LOG, _LARGEST_LOG = -16.0, 12.0
_NONE = -10.0  # logit of an inflation that no longer makes a difference
_TINY = 1e-280


@compiled
def _curvature(u: float) -> float:
    """(log1p(u) - u / (1 + u)) / u^2, and its limit at 0."""
    if u < 1e-3:
        return 0.5 - u * (2.0 / 3.0 - u * 0.75)
    return (math.log1p(u) - u / (1.0 + u)) / (u * u)


@compiled
def _negative_binomial(
    theta: np.ndarray,
    x: np.ndarray,
    s: np.ndarray,
    w: np.ndarray,
    g: np.ndarray,
    above: np.ndarray,
    inflated: bool,
    grad: np.ndarray,
) -> float:
    """Minus log-likelihood (without log x!), zero-inflated or not; `above[k]` cells have more than k counts."""
    n_groups = len(theta) - (2 if inflated else 1)
    phi = math.exp(theta[n_groups])
    odds, share, rest = 0.0, 0.0, 0.0
    if inflated:
        odds = math.exp(theta[n_groups + 1])
        share, rest = odds / (1.0 + odds), -math.log1p(odds)
    value, d_phi = 0.0, 0.0
    grad[:] = 0.0
    for k in range(1, len(above)):
        value += above[k] * math.log1p(phi * k)
        d_phi += above[k] * k / (1.0 + phi * k)
    for i in range(len(x)):
        if w[i] <= 0.0:
            continue
        mu = s[i] * math.exp(theta[g[i]])
        u = phi * mu
        log1p_u = math.log1p(u)
        bend = mu * mu * _curvature(u)
        if x[i] > 0.0:
            value += w[i] * (x[i] * math.log(mu) - (x[i] + 1.0 / phi) * log1p_u + rest)
            grad[g[i]] += w[i] * (x[i] - mu) / (1.0 + u)
            d_phi += w[i] * (bend - x[i] * mu / (1.0 + u))
            if inflated:
                grad[n_groups + 1] -= w[i] * share
            continue
        log_p = -log1p_u / phi
        counted = 1.0  # probability that this zero is one of the negative binomial
        if inflated:
            p = math.exp(log_p)
            counted = p / (odds + p)
            value += w[i] * (math.log(odds + p) + rest)
            grad[n_groups + 1] += w[i] * (1.0 - counted - share)
        else:
            value += w[i] * log_p
        grad[g[i]] -= w[i] * counted * mu / (1.0 + u)
        d_phi += w[i] * counted * bend
    grad[n_groups] = phi * d_phi
    grad *= -1.0
    return -value


@compiled
def _density(z: float) -> float:
    return math.exp(-0.5 * z * z) * 0.3989422804014327


@compiled
def _between(low: float, high: float) -> float:
    """Probability that a normal variable lies between two bounds, exact in both tails."""
    if low > 0.0:
        low, high = -high, -low
    return 0.5 * (math.erfc(-high * 0.7071067811865476) - math.erfc(-low * 0.7071067811865476))


@compiled
def _log_normal(
    theta: np.ndarray, x: np.ndarray, s: np.ndarray, w: np.ndarray, g: np.ndarray, grad: np.ndarray
) -> float:
    """Minus log-likelihood of a normal variable on the scale log1p(x / s), rounded to counts."""
    n_groups = len(theta) - 1
    scale = math.exp(theta[n_groups])
    value = 0.0
    grad[:] = 0.0
    for i in range(len(x)):
        if w[i] <= 0.0:
            continue
        top = scale * math.log1p((x[i] + 0.5) / s[i])
        high = top - theta[g[i]]
        if x[i] > 0.0:
            bottom = scale * math.log1p((x[i] - 0.5) / s[i])
            low = bottom - theta[g[i]]
            p = _between(low, high)
            if p > _TINY and high - low > 1e-6:
                value += w[i] * math.log(p)
                d_low, d_high = _density(low) / p, _density(high) / p
                grad[g[i]] -= w[i] * (d_high - d_low)
                grad[n_groups] += w[i] * (d_high * top - d_low * bottom)
            else:  # so narrow or so far out that the density in the middle is enough
                z = 0.5 * (low + high)
                value += w[i] * (math.log(high - low) - 0.5 * z * z - 0.9189385332046727)
                grad[g[i]] += w[i] * z
                grad[n_groups] += w[i] * (1.0 - z * 0.5 * (top + bottom))
            continue
        p = 0.5 * math.erfc(-high * 0.7071067811865476)
        if p > _TINY:
            value += w[i] * math.log(p)
            ratio = _density(high) / p
        else:
            value += w[i] * (-0.5 * high * high - math.log(-high) - 0.9189385332046727)
            ratio = -high
        grad[g[i]] -= w[i] * ratio
        grad[n_groups] += w[i] * ratio * top
    grad *= -1.0
    return -value


@compiled
def objective(
    family: int,
    theta: np.ndarray,
    x: np.ndarray,
    s: np.ndarray,
    w: np.ndarray,
    g: np.ndarray,
    above: np.ndarray,
    grad: np.ndarray,
) -> float:
    """Minus the log-likelihood of a family, and its gradient in `grad`."""
    if family == LOG_NORMAL:
        return _log_normal(theta, x, s, w, g, grad)
    return _negative_binomial(theta, x, s, w, g, above, family == ZERO_INFLATED, grad)


@compiled
def _update(inverse: np.ndarray, move: np.ndarray, change: np.ndarray, bend: float) -> None:
    """The inverse curvature after a step: updated along the step, and as before across it."""
    n = len(move)
    turned = np.zeros(n)
    for i in range(n):
        for j in range(n):
            turned[i] += inverse[i, j] * change[j]
    along = bend
    for i in range(n):
        along += change[i] * turned[i]
    for i in range(n):
        for j in range(n):
            inverse[i, j] += (move[i] * move[j] * along / bend - turned[i] * move[j] - move[i] * turned[j]) / bend


@compiled
def maximize(
    family: int,
    theta: np.ndarray,
    spread: np.ndarray,
    x: np.ndarray,
    s: np.ndarray,
    w: np.ndarray,
    g: np.ndarray,
    above: np.ndarray,
) -> float:
    """The largest log-likelihood, by BFGS from `theta`, which is moved to the maximum.

    `spread` is a first guess of the variance of each parameter: its inverse is the initial curvature.
    """
    n = len(theta)
    first_shared = n - (2 if family == ZERO_INFLATED else 1)
    grad, new_grad, trial, step = np.empty(n), np.empty(n), np.empty(n), np.empty(n)
    inverse = np.zeros((n, n))
    value = objective(family, theta, x, s, w, g, above, grad)
    fresh, restart = True, True
    for _ in range(_MAX_ITERATIONS):
        slope, largest = 0.0, 1e-300
        for attempt in range(2):
            if restart:
                inverse[:] = 0.0
                for i in range(n):
                    inverse[i, i] = spread[i]
                fresh, restart = True, False
            slope, largest = 0.0, 1e-300
            for i in range(n):
                step[i] = 0.0
                for j in range(n):
                    step[i] -= inverse[i, j] * grad[j]
                slope += grad[i] * step[i]
                largest = max(largest, abs(step[i]))
            restart = slope >= 0.0 and attempt == 0
            if not restart:
                break
        length, accepted = min(1.0, _LARGEST_STEP / largest), False
        new_value = value
        while length > _SHORTEST:
            for j in range(n):
                trial[j] = theta[j] + length * step[j]
                if j >= first_shared:
                    trial[j] = min(max(trial[j], _LEAST_LOG), _LARGEST_LOG)
            new_value = objective(family, trial, x, s, w, g, above, new_grad)
            if new_value <= value + 1e-4 * length * slope:
                accepted = True
                break
            length *= 0.25
        if not accepted:
            if fresh:
                break
            restart = True
            continue
        bend, stiff = 0.0, 0.0
        for j in range(n):
            step[j] = trial[j] - theta[j]  # the actual step, within bounds
            theta[j] = trial[j]
            trial[j] = new_grad[j] - grad[j]  # the change of the gradient
            grad[j] = new_grad[j]
            bend += step[j] * trial[j]
            stiff += spread[j] * trial[j] * trial[j]
        gain = value - new_value
        value = new_value
        if bend > 1e-12:
            if fresh:  # the first step shows how far off the scale of the guess is
                factor = min(max(bend / stiff, 1e-3), 1e3)
                for j in range(n):
                    inverse[j, j] *= factor
            _update(inverse, step, trial, bend)
            fresh = False
        if family == ZERO_INFLATED and theta[n - 1] < _NONE:
            break
        if gain < _TOLERANCE:
            rest = 0.0
            for i in range(n):
                for j in range(n):
                    rest += grad[i] * inverse[i, j] * grad[j]
            if 0.5 * rest < 10.0 * _TOLERANCE:
                break
    return -value
