"""How much of a dictionary comes back in other dictionaries, beside what chance gives?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ._matching import match_features, unit_rows


@dataclass(frozen=True)
class DictionaryStability:
    """How well every feature comes back in other dictionaries, and how well random directions do.

    See Also
    --------
    sparsesc.stats.dictionary_stability : work this out

    Examples
    --------
    >>> import numpy as np
    >>> import sparsesc as ssc
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.normal(size=(20, 30))
    >>> ssc.stats.dictionary_stability([rows, rows], rng=rng).pairs.round(6).tolist()
    [[1.0, 1.0], [1.0, 1.0]]
    """

    features: np.ndarray
    """Mean over the other dictionaries of the cosine with the matched feature, one a row of the first, (F,)."""
    random: np.ndarray
    """The same with as many random directions in place of the others, (F,)."""
    shaped: np.ndarray
    """The same with random directions that have the second moments of the others, (F,)."""
    pairs: np.ndarray
    """Mean cosine of matched features for every pair of dictionaries; 1 on the diagonal."""


def dictionary_stability(
    dictionaries: Sequence[np.ndarray], *, rng: np.random.Generator, absolute: bool = False
) -> DictionaryStability:
    r"""How well the features of one dictionary come back in others, beside what chance gives.

    Parameters
    ----------
    dictionaries
        Two or more, each (features, d): decoder rows of the features that are alive.
    rng
        Draws the random dictionaries.
    absolute
        Take \|cos\| (see :func:`match_features`).

    Returns
    -------
    Scores of the features of the first dictionary, two baselines for them, and the mean over matched features for all
    pairs. A feature that is left over, because another dictionary is smaller, counts 0 there; means of pairs are over
    the features that are matched.

    Raises
    ------
    ValueError
        If there are fewer than two dictionaries, or they cannot be matched.

    See Also
    --------
    sparsesc.stats.match_features : the matching of two dictionaries
    sparsesc.tl.stability : refit an AnnData and score its features

    Notes
    -----
    Of feature i with its partner :math:`\phi_k(i)` in each of :math:`K` other dictionaries,

    .. math::
        s_i = \frac{1}{K} \sum_k \cos\left(w_i, w^{(k)}_{\phi_k(i)}\right) .

    Two baselines, as the cosine alone says little: ``random`` directions are uniform on the sphere, what training
    starts from. Embeddings have a few long axes, and features lean toward them; ``shaped`` directions are normal with
    the second moments of the dictionary in whose place they stand, so they lean as much. Only what exceeds them
    belongs to the single features.

    Two fits agree for two reasons: the cells determine the feature, or the fits started in the same place. From equal
    starts, high stability is no evidence.

    References
    ----------
    Fel et al. (2025), Archetypal SAE: adaptive and stable dictionary learning for concept extraction in large vision
    models. Paulo and Belrose (2025), Sparse autoencoders trained on the same data learn different features.

    Examples
    --------
    >>> import numpy as np
    >>> import sparsesc as ssc
    >>> rng = np.random.default_rng(0)
    >>> rows = rng.normal(size=(20, 30))
    >>> scores = ssc.stats.dictionary_stability([rows, rows + 0.1 * rng.normal(size=rows.shape)], rng=rng)
    >>> bool(scores.features.mean() > 0.98 > 0.5 > scores.random.mean())
    True
    """
    units = [unit_rows(rows, name=f"dictionary {i}") for i, rows in enumerate(dictionaries)]
    if len(units) < 2:
        msg = f"Stability needs two dictionaries or more, found {len(units)}."
        raise ValueError(msg)
    n = len(units)
    pairs, scores = np.eye(n), np.zeros((n - 1, len(units[0])))
    for i in range(n):
        for j in range(i + 1, n):
            partner, cosine = match_features(units[i], units[j], absolute=absolute)
            pairs[i, j] = pairs[j, i] = cosine[partner >= 0].mean()
            if i == 0:
                scores[j - 1] = cosine
    chance = [
        [match_features(units[0], draw(rows, rng), absolute=absolute)[1] for rows in units[1:]]
        for draw in (_random, _shaped)
    ]
    return DictionaryStability(scores.mean(0), np.mean(chance[0], axis=0), np.mean(chance[1], axis=0), pairs)


def _random(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many directions, uniform on the sphere."""
    return rng.normal(size=rows.shape)


def _shaped(rows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many directions of a normal distribution with the mean and the second moments of the rows."""
    # Gaussian mixtures of the centered rows have their covariance exactly; no factorization, any rank.
    mean = rows.mean(0)
    return mean + rng.normal(size=(len(rows), len(rows))) @ (rows - mean) / np.sqrt(len(rows))
