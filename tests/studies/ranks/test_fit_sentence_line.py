from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse, stats

import sparsesc as ssc


def table(dense: np.ndarray, target_sum: float = 1e4) -> pd.DataFrame:
    """Published definition, cell by cell: log10 of 1 + rank from 0, log10 of 1 + counts per 10,000, non-zero only."""
    rows = []
    for cell in dense[dense.sum(1) > 0].astype(np.float64):
        genes = np.argsort(-cell, kind="stable")[: (cell > 0).sum()]
        rows.append(
            pd.DataFrame(
                {"x": np.log10(1 + np.arange(len(genes))), "y": np.log10(1 + cell[genes] / cell.sum() * target_sum)}
            )
        )
    return pd.concat(rows)


def check_against_sklearn(adata, **options):
    from sklearn.linear_model import LinearRegression
    from sklearn.metrics import r2_score

    pairs = table(adata.X.toarray())
    limit = np.log10(1 + options.get("n_fit", 10**9))
    kept = pairs["x"] < limit - 1e-12
    model = LinearRegression().fit(pairs.loc[kept, ["x"]], pairs.loc[kept, "y"])
    given = model.predict(pairs[["x"]])
    line = ssc.pp.fit_sentence_line(adata, ties="first", **options)
    assert line.slope == pytest.approx(model.coef_[0], rel=1e-6)
    assert line.intercept == pytest.approx(model.intercept_, rel=1e-6)
    assert line.r2 == pytest.approx(r2_score(pairs["y"], given), rel=1e-6)
    assert line.pearson == pytest.approx(stats.pearsonr(pairs["y"], given).statistic, rel=1e-6)
    assert line.spearman == pytest.approx(stats.spearmanr(pairs["y"], given).statistic, rel=1e-6)
    assert line.n_values == len(pairs)
    return line


@pytest.mark.parametrize("options", [{}, {"n_fit": 4}])
def test_definition_is_the_published(counts, options):
    line = check_against_sklearn(counts, **options)
    if not options:
        assert line.r2 == pytest.approx(line.pearson**2)


def test_definition_on_real_cells(pbmc3k):
    line = check_against_sklearn(pbmc3k)
    assert line.slope < 0
    # the order of ties within a cell moves nothing: values of equal rank are equal
    drawn = ssc.pp.fit_sentence_line(pbmc3k, rng=1)
    assert drawn.r2 == pytest.approx(line.r2, rel=1e-9)


@pytest.fixture
def planted():
    """Cells whose expression is 3 - 1.2 log10(1 + rank) exactly, genes in another order in each cell."""
    rng = np.random.default_rng(0)
    values = 3 - 1.2 * np.log10(1.0 + np.arange(50))
    X = np.stack([rng.permutation(np.r_[values, np.zeros(30)]) for _ in range(20)])
    return AnnData(sparse.csr_matrix(X), var=pd.DataFrame(index=[f"G{i}" for i in range(80)]))


def test_planted_line_is_recovered(planted):
    line = ssc.pp.fit_sentence_line(planted, normalize=False)
    assert line.intercept == pytest.approx(3, rel=1e-9)
    assert line.slope == pytest.approx(-1.2, rel=1e-9)
    assert (line.r2, line.pearson, line.spearman) == pytest.approx((1, 1, 1), rel=1e-9)
    assert line.to_dict()["n_values"] == 1000


def test_noise_lowers_r2_as_it_should(planted):
    rng = np.random.default_rng(1)
    planted.X.data = np.maximum(planted.X.data + rng.normal(scale=0.05, size=planted.X.nnz), 0.01)
    line = ssc.pp.fit_sentence_line(planted, normalize=False)
    assert line.slope == pytest.approx(-1.2, abs=0.05)
    assert 0.9 < line.r2 < 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ties": "min"}, "Unknown ties"),
        ({"n_fit": 0}, "n_fit must be a whole number"),
        ({"n_fit": 1}, "at least two expressed genes"),
        ({"target_sum": -1}, "target_sum must be a positive number"),
    ],
)
def test_bad_input_is_told(counts, options, message):
    with pytest.raises(ValueError, match=message):
        ssc.pp.fit_sentence_line(counts, **options)


def test_matrices_without_a_line_are_told(counts):
    logged = counts.copy()
    logged.X = np.log1p(logged.X)
    with pytest.raises(ValueError, match="looks log-normalized"):
        ssc.pp.fit_sentence_line(logged)
    counts.X = (counts.X > 0).astype(np.float32)
    with pytest.raises(ValueError, match="Expression has one value"):
        ssc.pp.fit_sentence_line(counts, normalize=False)
    counts.X = sparse.csr_matrix(counts.shape, dtype=np.float32)
    with pytest.raises(ValueError, match="at least two expressed genes"):
        ssc.pp.fit_sentence_line(counts)
