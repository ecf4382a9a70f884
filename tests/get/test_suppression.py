"""Tables of a suppression are copies."""

from __future__ import annotations

import sparsesc as ssc


def test_tables_are_copies(pbmc68k_code):
    ssc.tl.suppress_features(pbmc68k_code, ["sae_1", "sae_4"], progress_bar=False)
    table = ssc.get.suppression(pbmc68k_code)
    assert list(table.columns) == ["feature", "n_cells", "mean_active", "suppressed"]
    assert list(table.loc[table["suppressed"], "feature"]) == ["sae_1", "sae_4"]
    table["suppressed"] = False
    assert ssc.get.suppression(pbmc68k_code)["suppressed"].sum() == 2
