from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from sparsesc.stats import correlate
from sparsesc.stats.core._row_blocks import RowBlocks
from sparsesc.stats.genes._pair_genes import pair_genes


def sets(rng, n_pairs, n_cells):
    """Disjoint sets of cells, pairs x cells."""
    draw = rng.random((n_pairs, n_cells))
    return sparse.csr_matrix((draw < 0.1).astype(float)), sparse.csr_matrix((draw > 0.8).astype(float))


@pytest.mark.parametrize("max_bytes", [1e9, 80 * 765 * 2])
def test_agrees_with_permutation_correlation_in_both_sets(pbmc68k, max_bytes):
    expression = pbmc68k.raw.X
    first, second = sets(np.random.default_rng(0), 5, 700)
    pair, gene, z, padj = pair_genes(first, second, RowBlocks(expression, cache_bytes=0), n_top=8, max_bytes=max_bytes)
    p = np.ones((5, 765))
    for i in range(5):
        cells = np.flatnonzero(first[i].toarray()[0] + second[i].toarray()[0])
        r, log_p = correlate(expression[cells], first[i].toarray()[0][cells])
        p[i] = np.exp(log_p[:, 0])
        expected = r[:, 0] * np.sqrt(len(cells) - 1)
        mine = pair == i
        np.testing.assert_allclose(z[mine], expected[gene[mine]], atol=1e-6)
        assert set(gene[mine]) == set(np.argsort(-expected)[:8]) | set(np.argsort(expected)[:8])
    varies = np.asarray(expression.power(2).sum(0)).ravel() > 0
    adjusted = np.ones((5, 765))
    adjusted[:, varies] = stats.false_discovery_control(p[:, varies].ravel()).reshape(5, -1)
    close = max_bytes > 1e6  # with less memory, adjusted p-values are rounded up
    np.testing.assert_allclose(padj, adjusted[pair, gene], rtol=1e-5 if close else 0.05)


def test_level_between_random_sets_of_real_cells(pbmc68k):
    rng = np.random.default_rng(0)
    first, second = sets(rng, 40, 700)
    blocks = RowBlocks(pbmc68k.raw.X, cache_bytes=0)
    _, _, z, padj = pair_genes(first, second, blocks, n_top=765, max_bytes=1e8)
    assert len(z) > 20_000
    assert (padj < 0.05).mean() < 1e-3
    assert 0.03 < (np.abs(z) > 1.96).mean() < 0.06
