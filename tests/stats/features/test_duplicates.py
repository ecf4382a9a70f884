from __future__ import annotations

import numpy as np
from scipy import sparse

from sparsesc.stats.features import _duplicates
from sparsesc.stats.features._duplicates import distinct_columns


def test_copies_go_and_the_most_active_stays(monkeypatch):
    monkeypatch.setattr(_duplicates, "_BLOCK", 4)
    rng = np.random.default_rng(0)
    Z = sparse.random(300, 10, density=0.3, rng=rng).toarray()
    weaker = np.where(rng.random(300) < 0.97, Z[:, 2], 0) * 3
    Z = np.column_stack([weaker, Z, -Z[:, 4], np.zeros(300), np.zeros(300)])
    kept = distinct_columns(sparse.csr_matrix(Z), 0.9)
    assert kept.sum() == 12
    assert not kept[0]
    assert kept[3]
    assert kept[[5, 11]].sum() == 1
    assert kept[-2:].all()


def test_what_stays_is_apart_and_what_goes_has_a_reason(pbmc68k_code):
    codes = pbmc68k_code.obsm["X_sae"]
    kept = distinct_columns(codes, 0.5)
    r = np.abs(np.corrcoef(codes.toarray().T))
    np.fill_diagonal(r, 0)
    assert 0 < (~kept).sum() < 32
    assert r[np.ix_(kept, kept)].max() < 0.5
    assert (r[np.ix_(~kept, kept)].max(axis=1) >= 0.5).all()
