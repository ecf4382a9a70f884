"""What feature_genes refuses besides single options out of their range, and what it warns of."""

from __future__ import annotations

import pandas as pd

from sparsesc import _logging
from sparsesc._values import check_positive_int

from ._gene_job import GeneJob
from ._settings import GeneSettings


def check_holdout(holdout: float | str | None, split: str | None) -> None:
    """Refuse what names no cells to test on, or belongs to another split."""
    if holdout is None:
        return
    if split != "cells":
        msg = f"holdout={holdout!r} belongs to split='cells'; found split={split!r}."
        raise ValueError(msg)
    share = isinstance(holdout, float) and 0 < holdout < 1
    if not share and not (isinstance(holdout, str) and holdout):
        msg = f"holdout must be a share of the cells between 0 and 1, or a column of adata.obs, found {holdout!r}."
        raise ValueError(msg)


def check_samples(
    sample_key: str | None, min_samples: int, min_cells: int, *, method: str, n_silent: int | None
) -> None:
    """Refuse samples that are too few, or do not go with the method."""
    if check_positive_int(min_samples, name="min_samples") < 3:
        msg = f"min_samples must be at least 3: fewer have no spread to speak of, found {min_samples}."
        raise ValueError(msg)
    check_positive_int(min_cells, name="min_cells_per_sample")
    if sample_key is None:
        return
    if method != "contrast" or n_silent is not None:
        what = f"n_silent={n_silent}" if method == "contrast" else f"method={method!r}"
        msg = f"sample_key compares all strong with all silent cells of each sample: it does not go with {what}."
        raise ValueError(msg)


def check_tested(job: GeneJob, table: pd.DataFrame, settings: GeneSettings) -> None:
    """Refuse to go on where no feature has enough cells, or no gene varies."""
    if not job.statistic.tested.any():
        side = "held-out cells" if settings.split == "cells" else "cells"
        msg = (
            f"None of the {len(table)} features is active in at least min_cells={settings.min_cells} {side} (and "
            "silent in as many): there is nothing to compare. Lower min_cells, or check adata.obsm for an empty code."
        )
        if settings.split == "cells":
            msg += f" {job.blocks.shape[0]} cells are on one side of the split: see holdout."
        if settings.sample_key:
            msg = (
                f"None of the {len(table)} features has {settings.min_samples} samples of {settings.sample_key!r} with "
                f"at least {settings.min_cells_per_sample} strong and as many silent cells: there is nothing to "
                "compare. Lower min_cells_per_sample, or compare cells without sample_key."
            )
        raise ValueError(msg)
    if not len(job.varies):
        msg = "No gene varies in the expression matrix: there is nothing to compare. Is it empty?"
        raise ValueError(msg)


def warn_of_scale(scale: str, matrix: str) -> None:
    """Say what scores mean on values that are not log-normalized, and how to read others."""
    others = "layer='...' reads a layer" + (
        ", use_raw=False reads adata.X"
        if matrix == "adata.raw.X"
        else ", use_raw=True reads adata.raw, if there is one"
    )
    if scale == "counts":
        _logging.warning(
            f"{matrix}, which was read, looks like counts that are not log-transformed: highly expressed genes and "
            f"deeply sequenced cells will dominate. Read log-normalized values instead ({others}); if there are none, "
            "run sc.pp.normalize_total and sc.pp.log1p."
        )
    elif scale == "scaled":
        _logging.warning(
            f"{matrix}, which was read, has negative values, as after scaling: logfc is a difference of scaled means, "
            f"not a log fold change. Read log-normalized values to get one ({others})."
        )


def warn_of_depth(matrix: str) -> None:
    """Say that values which are not counts cannot be freed of the depth of cells."""
    _logging.warning(
        f"{matrix} holds no counts (values that are not whole numbers), so that they are tested as they are. "
        "Log-normalized values depend on the depth of a cell: features that go with depth will have significant genes "
        "where there are none. Pass the counts themselves, as ssc.pp.thin_counts writes them."
    )
