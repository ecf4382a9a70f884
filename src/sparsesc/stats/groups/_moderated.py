"""Do many responses differ, with few units? Linear models whose variances borrow strength from each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from sparsesc.stats.core._student import log_p_two_sided

_FEWEST = 3
_FEWEST_FOR_TREND = 30
_TINY = 1e-10
_MOST_WEIGHT = 0.5  # of the prior: so much, times the residual degrees of freedom, of what the response itself counts


@dataclass(frozen=True)
class LinearFit:
    """Least squares of many responses on one design."""

    effect: np.ndarray
    """Coefficients of interest x responses."""
    unscaled: np.ndarray
    """Standard errors of these coefficients for a residual variance of 1."""
    variance: np.ndarray
    """Residual variance of each response."""
    df: int
    """Residual degrees of freedom."""
    mean: np.ndarray
    """Mean of each response."""
    n_independent: float
    """To how many independent responses they amount, as their residuals go together."""


@dataclass(frozen=True)
class ModeratedTests:
    """One test a coefficient and response."""

    t: np.ndarray
    se: np.ndarray
    log_p: np.ndarray
    df: float
    """Degrees of freedom of t, with what the prior adds."""


def fit_linear(values: np.ndarray, columns: np.ndarray, others: np.ndarray) -> LinearFit:
    """Fit an intercept, `columns` and `others`; report the coefficients of `columns`.

    Parameters
    ----------
    values
        Units x responses.
    columns
        Units x coefficients of interest.
    others
        Units x covariates. They may depend on each other and on the intercept, but `columns` must not depend on them.

    Raises
    ------
    ValueError
        If `columns` are collinear with the intercept and `others`, or no degrees of freedom are left.
    """
    n = len(values)
    basis = _orthonormal(np.column_stack([np.ones(n), others]))
    # what the covariates leave of the columns decides their coefficients (Frisch, Waugh and Lovell)
    left = columns - basis @ (basis.T @ columns)
    scale = np.maximum(np.sqrt((columns**2).sum(0)), _TINY)
    if np.linalg.matrix_rank(left / scale, tol=1e-8) < columns.shape[1]:
        msg = "The coefficients cannot be told apart from the covariates."
        raise ValueError(msg)
    df = n - basis.shape[1] - columns.shape[1]
    if df < 1:
        msg = f"{n} units leave no degrees of freedom for {basis.shape[1] + columns.shape[1]} parameters."
        raise ValueError(msg)
    inverse = np.linalg.inv(left.T @ left)
    cleaned = values - basis @ (basis.T @ values)
    effect = inverse @ (left.T @ values)
    residual = cleaned - left @ effect
    variance = (residual**2).sum(0) / df
    together = _independent(residual, df)
    return LinearFit(effect, np.sqrt(np.diag(inverse)), variance, df, values.mean(0), together)


def _independent(residual: np.ndarray, df: int) -> float:
    r"""How many independent responses vary as much together: :math:`1 / \overline{\rho^2}`, over all pairs.

    Residuals of independent responses have squared correlations of 1 / df on average, which is taken off.
    """
    length = np.sqrt((residual**2).sum(0))
    directions = residual[:, length > _TINY * length.max(initial=0)] / length[length > _TINY * length.max(initial=0)]
    n = directions.shape[1]
    if n < 2 or df < 2:
        return 1.0
    observed = (((directions @ directions.T) ** 2).sum() - n) / (n * (n - 1.0))
    shared = max(observed - 1.0 / df, 0.0) / (1.0 - 1.0 / df)
    return n / (1.0 + (n - 1.0) * shared)


def _orthonormal(columns: np.ndarray) -> np.ndarray:
    """An orthonormal basis of what the columns span."""
    scale = np.maximum(np.sqrt((columns**2).sum(0)), _TINY)
    u, s, _ = np.linalg.svd(columns / scale, full_matrices=False)
    return u[:, s > 1e-8 * s[0]]


def t_tests(
    fit: LinearFit, *, moderate: bool = True, trend: bool = True, least: np.ndarray | None = None
) -> ModeratedTests:
    """Two-sided tests of all coefficients of a fit.

    Parameters
    ----------
    fit
        Of all responses that share a prior.
    moderate
        Whether residual variances are drawn toward their prior; otherwise these are the t-tests of least squares.
    trend
        Whether the prior depends on the mean of the response.
    least
        Variances that residual ones cannot be below, by response, such as what the cells of a unit alone make its mean
        vary. Few units may agree by chance.

    Notes
    -----
    The prior is what all responses say of their variances. Where they rise and fall together, they say less: it is
    given no more degrees of freedom than `n_independent` responses have besides the one that is tested. Nor more than
    half the square of the residual ones, such as 2 (besides 2) for two units against two, and 8 (besides 4) for three
    against three. Limma has no such limits. But units such as donors have outliers, in many responses at once, which a
    few units do not show: without limits, one in eight comparisons of nothing between two and two real donors called a
    feature.
    """
    variance, df = fit.variance, float(fit.df)
    if moderate:
        prior, prior_df = prior_variance(variance, fit.df, covariate=fit.mean if trend else None)
        prior_df = min(prior_df, fit.df * (fit.n_independent - 1.0), _MOST_WEIGHT * fit.df**2)
        variance = (prior_df * prior + fit.df * variance) / (prior_df + fit.df)
        df = prior_df + fit.df
    if least is not None:
        variance = np.maximum(variance, least)
    se = fit.unscaled[:, None] * np.sqrt(variance)
    t = np.divide(fit.effect, se, out=np.zeros_like(fit.effect), where=se > 0)
    return ModeratedTests(t, se, log_p_two_sided(t, df), df)


def prior_variance(variance: np.ndarray, df: int, *, covariate: np.ndarray | None = None) -> tuple[np.ndarray, float]:
    r"""The distribution that variances come from: :math:`\sigma^2 \sim d_0 s_0^2 / \chi^2_{d_0}`.

    The logarithm of an estimated variance has a known spread when all true ones are equal; what there is beyond it is
    the spread of the true ones, and gives :math:`d_0` (infinite, when there is none).

    Parameters
    ----------
    variance
        Residual variances, one a response.
    df
        Their degrees of freedom.
    covariate
        What :math:`s_0^2` depends on, one value a response; ``None``, or few responses: it is the same for all.

    Returns
    -------
    :math:`s_0^2` of each response, and :math:`d_0`; 0 when there are too few responses to tell.

    References
    ----------
    Smyth (2004), Statistical Applications in Genetics and Molecular Biology 3:3.
    """
    positive = variance[variance > 0]
    usable = variance > _TINY * np.median(positive) if len(positive) else np.zeros(len(variance), bool)
    if usable.sum() < _FEWEST:
        return variance.copy(), 0.0
    z = np.log(variance[usable]) - special.digamma(df / 2) + np.log(df / 2)
    basis = np.ones((len(variance), 1))
    if covariate is not None and usable.sum() >= _FEWEST_FOR_TREND:
        basis = _natural_spline(covariate, covariate[usable])
    coefficients, *_ = np.linalg.lstsq(basis[usable], z, rcond=None)
    fitted = basis @ coefficients
    rank = np.linalg.matrix_rank(basis[usable])
    spread = ((z - fitted[usable]) ** 2).sum() / (len(z) - rank) - special.polygamma(1, df / 2)
    if spread <= 0:
        return np.exp(fitted), np.inf
    prior_df = 2 * _inverse_trigamma(float(spread))
    return np.exp(fitted + special.digamma(prior_df / 2) - np.log(prior_df / 2)), prior_df


def _inverse_trigamma(value: float) -> float:
    """The number whose trigamma is `value`; trigamma falls from infinity to 0."""
    log_value = optimize.brentq(lambda x: np.log(special.polygamma(1, np.exp(x))) - np.log(value), -20.0, 20.0)
    return float(np.exp(log_value))


def _natural_spline(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Values x 5: cubic in the ranks between knots at quartiles of `inside`, linear outside."""
    # ranks, since means of features range over orders of magnitude
    x = np.searchsorted(np.sort(inside), values) / len(inside)
    knots = np.array([0.0, 0.25, 0.5, 0.75, 1.0])

    def bent(knot: float) -> np.ndarray:
        cubes = np.maximum(x - knot, 0) ** 3 - np.maximum(x - knots[-1], 0) ** 3
        return cubes / (knots[-1] - knot)

    last = bent(knots[-2])
    return np.column_stack([np.ones_like(x), x, *[bent(knot) - last for knot in knots[:-2]]])
