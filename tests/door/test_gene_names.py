"""Names of genes that do not match: the message guesses why."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sparsesc.door._gene_names import check_coverage

SYMBOLS = pd.Index([f"GENE{i}A" for i in range(50)])
ENSEMBL = pd.Index([f"ENSG{i:011d}" for i in range(50)])


def test_a_tenth_of_either_side_is_enough():
    check_coverage(np.append(SYMBOLS[:5], [f"x{i}" for i in range(45)]), SYMBOLS, name="net")
    check_coverage(np.append(SYMBOLS[:1], [f"x{i}" for i in range(500)]), SYMBOLS[:10], name="net")


@pytest.mark.parametrize(
    ("targets", "genes", "message"),
    [
        (ENSEMBL, SYMBOLS, r"Only 0 of the 50 genes in net .* net uses Ensembl ids, adata gene symbols"),
        (SYMBOLS, ENSEMBL, r"adata uses Ensembl ids, net gene symbols"),
        (ENSEMBL + ".3", ENSEMBL, r"one has versions"),
        (ENSEMBL.str.replace("ENSG", "ENSMUSG"), ENSEMBL, r"of different species"),
        (SYMBOLS.str.title(), SYMBOLS, r"differ in upper and lower case"),
        (SYMBOLS, pd.Index(np.arange(50).astype(str)), r"numbers for names"),
        (pd.Index([f"probe_{i}" for i in range(50)]), SYMBOLS, r"same kind of name"),
    ],
)
def test_the_reason_is_guessed_from_the_names(targets, genes, message):
    with pytest.raises(ValueError, match=message):
        check_coverage(targets.to_numpy(dtype=object), genes, name="net")
