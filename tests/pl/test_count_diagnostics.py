from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import sparsesc as ssc

FAMILIES = ["poisson", "nb", "zinb", "lognormal"]


@pytest.fixture
def counted():
    """Tables as the function writes them, by hand."""
    mean = np.array([0.1, 1.0, 10.0])
    genes = pd.DataFrame(
        {"mean": mean, "variance": mean + mean**2, "zeros": [0.91, 0.5, 0.1], "family": ["poisson", "nb", "nb"]}
        | {f"zeros_{name}": [0.9, 0.4 + 0.1 * i, 0.0] for i, name in enumerate(FAMILIES)}
    )
    families = pd.DataFrame({"share": [1 / 3, 2 / 3, 0, 0]}, index=FAMILIES)
    summary = pd.DataFrame({"statistic": ["size_cv2", "overdispersion"], "value": [0.25, 0.5]})
    tables = {"genes": genes, "families": families, "summary": summary}
    return AnnData(np.zeros((2, 1)), uns={"count_diagnostics": tables})


def test_panels_show_the_tables(counted):
    axes = ssc.pl.count_diagnostics(counted, show=False)
    points = np.concatenate([c.get_offsets() for c in axes["variance"].collections])
    np.testing.assert_allclose(points[np.argsort(points[:, 0])], np.c_[[0.1, 1, 10], [0.11, 2, 110]])
    poisson, together = axes["variance"].lines
    assert poisson.get_ydata()[-1] == pytest.approx(10 + 100 * 0.25)
    assert together.get_ydata()[-1] == pytest.approx(10 + 100 * 0.25 + 0.5 * 100 * 1.25)
    shown = [c.get_offsets() for c in axes["zeros"].collections if len(c.get_offsets())]
    np.testing.assert_allclose(shown[0][:, 1], [1, 10, 10])  # of Poisson fits, in per cent
    np.testing.assert_allclose([bar.get_width() for bar in axes["families"].patches], [100 / 3, 200 / 3, 0, 0])


def test_no_line_without_an_overdispersion(counted):
    counted.uns["count_diagnostics"]["summary"]["value"] = [0.25, np.nan]
    assert len(ssc.pl.count_diagnostics(counted, show=False)["variance"].lines) == 1


def test_missing_tables():
    with pytest.raises(KeyError, match=r"Run ssc\.tl\.count_diagnostics first"):
        ssc.pl.count_diagnostics(AnnData(np.zeros((2, 1))))
