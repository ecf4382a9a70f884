"""Do the genes of a set stand out in a ranked list? Gene set enrichment analysis by gseapy."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

if TYPE_CHECKING:
    import pandas as pd


class Gsea:
    """Gene set enrichment analysis of a ranked list: gseapy's prerank with fgsea's multilevel p-values.

    Parameters
    ----------
    sets
        Sets x genes; weights are ignored.
    seed
        Of gseapy's permutations.
    """

    def __init__(self, sets: sparse.csr_matrix, *, seed: int) -> None:
        self._n_sets = sets.shape[0]
        # opaque names: gseapy changes the case of symbols
        self._sets = {
            f"T{t}": [f"G{g}" for g in sets.indices[sets.indptr[t] : sets.indptr[t + 1]]] for t in range(self._n_sets)
        }
        self._seed = seed

    def __call__(self, statistic: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Normalized enrichment scores, their p (at least 1e-50), and the statistic itself."""
        score = np.zeros((len(statistic), self._n_sets))
        log_p = np.zeros_like(score)
        for f, values in enumerate(statistic):
            table = self._run(values)
            at = table["Term"].str[1:].to_numpy(dtype=np.int64)
            score[f, at] = np.nan_to_num(table["NES"].to_numpy(dtype=np.float64))
            p = np.nan_to_num(table["NOM p-val"].to_numpy(dtype=np.float64), nan=1.0)
            log_p[f, at] = np.log(np.clip(p, 1e-50, 1.0))
        return score, log_p, statistic

    def _run(self, values: np.ndarray) -> pd.DataFrame:
        import gseapy
        import pandas as pd

        order = np.argsort(-values, kind="stable")
        # equal values are spread by next to nothing, in the order of genes: gseapy warns of every tie otherwise
        spread = np.arange(len(values)) * (1e-9 * max(float(np.abs(values).max()), 1e-300) / len(values))
        ranked = pd.Series(values[order] - spread, index=[f"G{g}" for g in order])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # gseapy's calls of pandas
            return gseapy.prerank(
                rnk=ranked, gene_sets=self._sets, min_size=1, max_size=len(values), permutation_num=1000,
                ascending=None, method="multilevel", seed=self._seed, threads=1, outdir=None, no_plot=True,
                verbose=False,
            ).res2d  # fmt: skip
