"""Which gene sets are the best of every feature? With p-values adjusted for all features x sets."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np
from scipy import sparse

from sparsesc.stats.core._largest import largest_in_rows
from sparsesc.stats.core._pvalue_pool import PValuePool

from ._enrichment import SetTest, leading_genes


@dataclass(frozen=True)
class TopTerms:
    """Pairs of feature and set, best first within each feature."""

    feature: np.ndarray
    term: np.ndarray
    score: np.ndarray
    pval: np.ndarray
    padj: np.ndarray
    genes: np.ndarray
    """Pairs x most: positions of the genes that carry the score, -1 where there are no more."""
    tested: np.ndarray
    """Positions of all features that were tested."""
    best_positive: np.ndarray
    """For each of these: the set with the smallest p among positive scores, -1 without one."""
    best_padj: np.ndarray
    """Its adjusted p."""


class TermReducer:
    """Tests blocks of features and keeps what the table needs; safe to call from several threads.

    Parameters
    ----------
    test
        The method.
    sets
        Sets x genes, as the method has them: decides which genes can carry a score.
    n_tests
        Features that will come x sets.
    n_top
        Pairs to keep for each feature; ``None`` keeps all.
    n_leading
        Genes to name for each pair.
    max_bytes
        Memory for p-values.
    """

    def __init__(
        self,
        test: SetTest,
        sets: sparse.csr_matrix,
        *,
        n_tests: int,
        n_top: int | None,
        n_leading: int,
        max_bytes: float,
    ) -> None:
        self._test = test
        self._sets = sets
        self._n_top = n_top
        self._n_leading = n_leading
        self._pool = PValuePool(n_tests, max_bytes=max_bytes)

    def __call__(self, features: np.ndarray, statistic: np.ndarray) -> dict[str, np.ndarray]:
        """Test the features at these positions, given their gene statistics."""
        score, log_p, evidence = self._test(np.asarray(statistic, dtype=np.float64))
        self._pool.add(log_p)
        rows, terms, _ = largest_in_rows(-log_p, self._n_top, "both")
        # equal p-values (of a discrete test) are ordered by the size of the score
        order = np.lexsort((-np.abs(score[rows, terms]), log_p[rows, terms], rows))
        rows, terms = rows[order], terms[order]
        genes = np.empty((len(rows), self._n_leading), np.int32)
        leading_genes(
            evidence,
            rows,
            terms,
            np.sign(score[rows, terms]),
            self._sets.indptr,
            self._sets.indices,
            self._sets.data,
            genes,
        )
        positive = np.where(score > 0, 1e-9 * np.tanh(score) - log_p, -1.0)
        best = positive.argmax(1)
        every = np.arange(len(features))
        return {
            "feature": features[rows],
            "term": terms,
            "score": score[rows, terms],
            "log_p": log_p[rows, terms],
            "genes": genes,
            "tested": features,
            "best": np.where(positive[every, best] >= 0, best, -1),
            "best_log_p": log_p[every, best],
        }

    def gather(self, parts: Iterable[dict[str, np.ndarray]]) -> TopTerms:
        """Join what the calls returned, once all features were tested."""
        parts = list(parts)
        joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
        log_p = joined["log_p"]
        adjusted = self._pool.adjust(np.r_[log_p, joined["best_log_p"]])
        best, best_padj = joined["best"], adjusted[len(log_p) :]
        return TopTerms(
            feature=joined["feature"],
            term=joined["term"],
            score=joined["score"],
            pval=np.exp(log_p),
            padj=adjusted[: len(log_p)],
            genes=joined["genes"],
            tested=joined["tested"],
            best_positive=best,
            best_padj=np.where(best >= 0, best_padj, 1.0),
        )


def iterate_rows(
    statistic: np.ndarray,
    rows: np.ndarray,
    reduce: Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]],
    *,
    threads: int | None = None,
) -> Iterator[dict[str, np.ndarray]]:
    """Call `reduce` with a few rows of a stored features x genes matrix at a time, in threads, in order."""
    chunks = [rows[i : i + 16] for i in range(0, len(rows), 16)]
    with ThreadPoolExecutor(threads or numba.get_num_threads()) as pool:
        yield from pool.map(lambda chunk: reduce(chunk, statistic[chunk]), chunks)
