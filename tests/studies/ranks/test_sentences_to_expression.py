from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData
from scipy import sparse

import sparsesc as ssc

LINE = ssc.pp.SentenceLine(intercept=2.0, slope=-1.0, r2=1.0, pearson=1.0, spearman=1.0, n_values=1)


@pytest.fixture
def genes():
    return AnnData(np.zeros((1, 5), np.float32), var=pd.DataFrame(index=list("ABCDE")))


def test_planted_cells_come_back():
    rng = np.random.default_rng(0)
    values = 3 - 1.2 * np.log10(1.0 + np.arange(50))
    X = np.stack([rng.permutation(np.r_[values, np.zeros(30)]) for _ in range(20)])
    adata = AnnData(sparse.csr_matrix(X), var=pd.DataFrame(index=[f"G{i}" for i in range(80)]))
    line = ssc.pp.fit_sentence_line(adata, normalize=False)
    back = ssc.pp.sentences_to_expression(adata, ssc.pp.cell_sentences(adata), line)
    assert sparse.isspmatrix_csr(back)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back.toarray(), X, rtol=1e-5)


def test_r2_of_the_way_back_is_the_lines(counts):
    from sklearn.metrics import r2_score

    line = ssc.pp.fit_sentence_line(counts, rng=3)
    back = ssc.pp.sentences_to_expression(counts, ssc.pp.cell_sentences(counts, rng=3), line)
    dense = counts.X.toarray().astype(np.float64)
    expression = np.log10(1 + dense / np.maximum(dense.sum(1, keepdims=True), 1) * 1e4)
    expressed = dense > 0
    assert r2_score(expression[expressed], back.toarray()[expressed]) == pytest.approx(line.r2, rel=1e-5)


def test_words(genes, warned):
    sentences = ["A B", "", "D D X C", "A"]
    found = ssc.pp.sentences_to_expression(genes, sentences, LINE).toarray()
    expected = np.zeros((4, 5))
    expected[0, :2] = [2, 2 - np.log10(2)]
    expected[2, 3] = 2 - np.log10(1.5)  # mean of positions 0 and 1
    expected[2, 2] = 2 - np.log10(4)  # X keeps its position
    expected[3, 0] = 2
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert warned == ["1 of 7 words are not among the genes of adata and are left out: 'X'."]


def test_nothing_falls_below_zero(genes):
    steep = ssc.pp.SentenceLine(intercept=0.5, slope=-1.0, r2=1.0, pearson=1.0, spearman=1.0, n_values=1)
    found = ssc.pp.sentences_to_expression(genes, ["A,B,C,D,E"], steep, sep=",")
    assert found.nnz == 3
    assert found.min() >= 0


@pytest.mark.parametrize(
    ("sentences", "line", "error", "message"),
    [
        (["A B"], {"slope": 1}, TypeError, "line must be what ssc.pp.fit_sentence_line returns, found dict"),
        ("A B", LINE, TypeError, "sentences must be a Series or a list of strings"),
        ([1, 2], LINE, TypeError, "sentences must be a Series or a list of strings"),
        (["X Y Z"], LINE, ValueError, "Only 0 of the 3 genes in sentences"),
    ],
)
def test_bad_input_is_told(genes, sentences, line, error, message):
    with pytest.raises(error, match=message):
        ssc.pp.sentences_to_expression(genes, sentences, line)
