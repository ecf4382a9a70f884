from __future__ import annotations

import pytest

import sparsesc as ssc


def test_bars_are_the_numbers_of_features(pbmc68k_code):
    ssc.tl.feature_locality(pbmc68k_code, "bulk_labels")
    features = pbmc68k_code.uns["sae"]["features"]
    ax = ssc.pl.locality(pbmc68k_code, show=False)
    rows = [t.get_text().rsplit(" (", 1)[0] for t in ax.get_yticklabels()]
    assert rows == list(pbmc68k_code.obs["bulk_labels"].cat.categories)
    for word, bars in zip(["local", "regional"], ax.containers, strict=True):
        categories = features.loc[features["locality"] == word, "locality_categories"].str.split("; ").explode()
        assert [bar.get_width() for bar in bars] == [(categories == row).sum() for row in rows]
        assert sum(bar.get_width() for bar in bars) > 0
    title = ax.get_legend().get_title().get_text()
    assert f"{(features['locality'] == 'unclear').sum()} unclear" in title


def test_not_computed(pbmc68k_code):
    with pytest.raises(KeyError, match=r"Run ssc\.tl\.feature_locality first"):
        ssc.pl.locality(pbmc68k_code)
