from __future__ import annotations

import pytest

import sparsesc as ssc


def test_rows_of_features_by_name_or_position(pbmc68k_code):
    ssc.tl.feature_association(pbmc68k_code, ["bulk_labels", "n_counts"])
    everything = ssc.get.association(pbmc68k_code)
    assert len(everything) == 640
    everything["pval"] = -1.0
    assert (pbmc68k_code.uns["sae"]["association"]["pval"] >= 0).all()
    assert set(ssc.get.association(pbmc68k_code, ["sae_2", 5])["feature"]) == {"sae_2", "sae_5"}
    assert len(ssc.get.association(pbmc68k_code, "sae_2", table="numbers")) == 1
    assert set(ssc.get.association(pbmc68k_code, table="labels")["key"]) == {"bulk_labels"}


def test_says_what_to_run(pbmc68k_code):
    with pytest.raises(KeyError, match=r"Run ssc\.tl\.feature_association first"):
        ssc.get.association(pbmc68k_code)
    ssc.tl.feature_association(pbmc68k_code, "bulk_labels")
    with pytest.raises(KeyError, match="sae_99"):
        ssc.get.association(pbmc68k_code, "sae_99")
    with pytest.raises(ValueError, match="Unknown table"):
        ssc.get.association(pbmc68k_code, table="other")
