"""Gene scores of features, as stored or computed again, and what gene sets are compared with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from sparsesc import _logging
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.stats.genes._gene_tests import GeneBlock, map_gene_blocks
from sparsesc.stats.genes._shuffled_sets import BoundedTest
from sparsesc.stats.genes._top_terms import TermReducer, iterate_rows

from ._gene_job import open_genes
from ._settings import METHODS, GeneSettings
from ._shuffled_copies import moments_of_copies

if TYPE_CHECKING:
    from anndata import AnnData


class GeneScores:
    """Gene scores of features: as stored in ``varm``, or computed again from the expression matrix."""

    def __init__(self, adata: AnnData, key: str, *, max_memory: float) -> None:
        options = check.get_sae_slot(adata, key)[_keys.PARAMS].get("feature_genes")
        if options is None:
            msg = f"Did not find the gene scores of {key!r}. Run ssc.tl.feature_genes(adata, key={key!r}) first."
            raise KeyError(msg)
        self._adata, self._key, self._options, self._max_memory = adata, key, options, max_memory
        slot = _keys.sae_keys(key).genes
        if int(options["n_obs"]) != adata.n_obs:
            msg = (
                f"The gene scores of {key!r} are of {int(options['n_obs'])} cells, but there are {adata.n_obs} now. "
                "Run ssc.tl.feature_genes again."
            )
            raise ValueError(msg)
        if bool(options["stored"]) and slot in adata.varm:
            self._scores: np.ndarray = np.asarray(adata.varm[slot]).T
            self.genes = adata.var_names
            self.universe = np.flatnonzero((self._scores != 0).any(0))
            self.tested = (self._scores != 0).any(1)
            self._job = None
        else:
            self._job = open_genes(adata, key, GeneSettings.read(options), max_memory=max_memory, with_p=False)
            self.genes = self._job.genes
            self.universe = self._job.varies
            self.tested = self._job.statistic.tested

    @property
    def owner(self) -> str:
        """What the names of genes are those of: ``adata``, or ``adata.raw``."""
        return "adata.raw" if self._job is not None and self._job.matrix == "adata.raw.X" else "adata"

    @property
    def compares_cells(self) -> bool:
        """Whether the scores compare cells, rather than come from a decoder."""
        return self._options["method"] in METHODS

    def check_null(self, null: str) -> None:
        """Refuse to compare with what the scores do not have.

        Raises
        ------
        ValueError
            If the scores do not compare cells.
        """
        if null != "genes" and not self.compares_cells:
            msg = (
                f"null={null!r} goes by the cells that are compared, and gene scores of "
                f"method={self._options['method']!r} compare none. Run ssc.tl.feature_genes with another method first, "
                "or use null='genes'."
            )
            raise ValueError(msg)

    def expression(self) -> np.ndarray:
        """Mean expression of each gene of the universe in the cells that are compared; 0 for all of scaled values."""
        job = self._job or open_genes(
            self._adata, self._key, GeneSettings.read(self._options), max_memory=self._max_memory, with_p=False
        )
        # scaled genes all have mean 0
        mean = job.expression if job.blocks.totals.minimum >= 0 or job.counts else np.zeros(len(job.genes))
        return mean[job.genes.get_indexer(self.genes[self.universe])]

    def of_copies(
        self,
        test: BoundedTest,
        tested: np.ndarray,
        *,
        n_copies: int,
        rng: np.random.Generator,
        progress_bar: bool | None,
    ) -> np.ndarray:
        """Moments of the test's scores among copies of these features with shuffled cells."""
        return moments_of_copies(
            self._adata,
            self._key,
            GeneSettings.read(self._options),
            test,
            features=tested,
            genes=self.genes[self.universe],
            n_copies=n_copies,
            max_memory=self._max_memory,
            rng=rng,
            progress=lambda parts, total: _logging.progress(
                parts, total=total, desc="shuffled cells", enabled=progress_bar
            ),
        )

    def n_parts(self, tested: np.ndarray) -> int:
        """How many parts :meth:`iterate` gives."""
        n = len(tested) if self._job is None else len(self._job.statistic.tested)
        return -(-n // 16)

    def iterate(
        self, tested: np.ndarray, reducer: TermReducer, *, threads: int | None
    ) -> Iterator[dict[str, np.ndarray]]:
        """What `reducer` makes of the features at these positions."""
        universe = self.universe
        if self._job is None:
            complete = len(universe) == len(self.genes)
            scores = self._scores if complete else self._scores[:, universe]
            yield from iterate_rows(scores, tested, reducer, threads=threads)
            return
        wanted = np.zeros(len(self.tested), bool)
        wanted[tested] = True

        def reduce(block: GeneBlock) -> dict[str, np.ndarray]:
            rows = np.flatnonzero(wanted[block.start : block.stop])
            # float32 as in varm, so that it does not matter where the scores come from
            return reducer(block.start + rows, block.score[np.ix_(rows, universe)].astype(np.float32))

        yield from map_gene_blocks(
            self._job.statistic, self._job.blocks, reduce, max_bytes=self._job.max_bytes, threads=threads
        )
