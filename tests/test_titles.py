from __future__ import annotations

import pytest

from sparsesc._titles import term_title


@pytest.mark.parametrize(
    ("term", "title"),
    [
        ("HALLMARK_TNFA_SIGNALING_VIA_NFKB", "TNFA signaling via NFKB"),
        ("HALLMARK_INTERFERON_GAMMA_RESPONSE", "Interferon gamma response"),
        ("HALLMARK_G2M_CHECKPOINT", "G2M checkpoint"),
        ("HALLMARK_HYPOXIA", "Hypoxia"),
        ("REACTOME_CELL_CYCLE", "Cell cycle"),
        ("KEGG_DNA_REPLICATION", "DNA replication"),
        ("B cell", "B cell"),
        ("regulation of B cell activation (GO:0050864)", "regulation of B cell activation (GO:0050864)"),
        ("HALLMARK", "HALLMARK"),
        ("Plasma_cells", "Plasma_cells"),
    ],
)
def test_titles(term, title):
    assert term_title(term) == title
