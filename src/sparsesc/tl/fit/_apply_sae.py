"""Encode cells with features that were fitted elsewhere, and say how far they are from the cells of the fit."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sparsesc._logging import hint, info, warning
from sparsesc._values import check_positive_int
from sparsesc.door import _keys
from sparsesc.door._checks import check_adata, check_key_free
from sparsesc.door._depth import log_depth
from sparsesc.door._slots import record_sae, uns_entry

from ._blocks import get_embedding
from ._drift import check_columns_free, check_samples, count_samples, drift_table, query_summary, residual_pvalues
from ._reference import TRAINED, UNKNOWN, control_reference, reference_of, residual_norms

if TYPE_CHECKING:
    from anndata import AnnData
    from mudata import MuData

    from sparsesc.nn import SparseAutoencoder

_POOR = 0.0  # explained variance below which the features are no better than the mean cell


def apply_sae(
    adata: AnnData | MuData,
    sae: AnnData | MuData | SparseAutoencoder | str | Path,
    *,
    use_rep: str | None = None,
    key: str = "sae",
    key_added: str = "sae",
    sample_key: str | None = None,
    control: AnnData | MuData | None = None,
    min_cells: int = 10,
    copy: bool = False,
) -> AnnData | MuData | None:
    r"""Encode new cells (the query) with an existing sparse autoencoder, and compare them with the cells it came from.

    Parameters
    ----------
    adata
        Cells with an embedding from the SAME model as the one the autoencoder was fitted on (for scVI: the query in
        the reference's latent space; for PCA: projected on the reference's loadings). For a crosscoder
        (:func:`fit_crosscoder`) all of its embeddings.
    sae
        An AnnData or MuData that holds one, a :class:`~sparsesc.nn.SparseAutoencoder`, or a folder it was saved to.
    use_rep
        Embedding of `adata`; by default the name it was fitted on.
    key
        Where `sae` holds it, when it is an AnnData.
    key_added
        Name under which everything is stored in `adata`.
    sample_key
        Column of ``obs`` of both sides with the sample (donor, mouse) of each cell. With it features are tested, with
        samples as replicates; without it there are effect sizes only, since cells of one sample are no replicates.
    control
        Cells to compare with instead of those of the fit: like the reference's, but seen neither by the autoencoder
        nor by the embedding's model, and embedded as `adata` was.
    min_cells
        A sample with fewer cells is left out.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy. Writes

    ``obsm["X_{key_added}"]``, ``uns[key_added]`` with ``params``, ``weights``, ``metrics`` and ``features``
        As :func:`fit_sae` does; metrics are on all of these cells. For a crosscoder also
        ``obsm["X_{key_added}_joint"]``.
    ``uns[key_added]["drift"]``
        One row a feature, smallest p first, then largest drift: `feature`; `density` and `mean_active` in the reference
        and in the query; `logfc_density`, `logfc_active` (log2 of the ratios, densities plus half a cell); `drift`,
        the difference of ``2 arcsin(sqrt(density))`` (Cohen's h: 0.2 is small, 0.8 large); `pval`, `padj`
        (Benjamini-Hochberg over features) of a weighted t-test between samples of the same number, whose difference is
        `drift_samples` with its standard error `se`. NaN: not tested, or not known of the reference.
    ``obs["{key_added}_residual"]``, ``obs["{key_added}_residual_pval"]``
        Length of what the features leave over of each cell, and the share of the reference's held-out cells that leave
        as much over (a conformal p-value; NaN when they are not known).
    ``uns[key_added]["query"]``
        The query as a whole: ``fvu`` of its own variance, ``fvu_reference_units`` (its mean squared residual in units
        of the variance of the reference's held-out cells) beside their ``fvu_reference``, ``residual_ratio``,
        ``variance_ratio``, ``l0`` and ``l0_reference``, ``beyond_95`` and ``beyond_99`` (share of cells whose
        residual is beyond these percentiles of the reference: .05 and .01 are expected), ``mean_residual_pval``,
        ``drift_noise`` (95 % of features drift by less by the draw of cells alone, were these independent),
        ``out_of_distribution``, ``embedded_differently``, and ``reference``: what it was compared with (``"held out"``,
        ``"control"``, ``"trained on"``: all cells were in the training, or ``"unknown"``).
    ``uns[key_added]["reference"]``
        What is known of the reference, so that the features can be applied again.

    Raises
    ------
    KeyError
        If there is no autoencoder in `sae`, or no such embedding or column.
    ValueError
        If the embedding has another number of dimensions, or NaN or infinite values; if a column of ``obs`` would be
        overwritten; with `sample_key`, if the reference's cells are not at hand or there are too few samples.
    TypeError
        If `sae` is none of the above, or `sample_key` holds numbers that are no labels.
    FileNotFoundError
        If the folder does not hold a saved autoencoder.

    Warns
    -----
    Through the log, when the query is out of distribution (at least 10 % of its cells leave more over than 95 % of the
    reference's held-out cells, or 5 % more than 99 %, and more than the draw of cells explains), when its residuals are
    smaller than the reference's (``embedded_differently``), and when the features explain none of its variance.

    See Also
    --------
    sparsesc.tl.fit_sae : Fit the autoencoder.
    sparsesc.get.drift : What differs between the new cells and those of the fit.
    sparsesc.tl.differential_features : Compare conditions within one study.

    Notes
    -----
    A feature that is active in a share :math:`p_q` of the new cells and :math:`p_r` of the reference drifts by

    .. math::

        h = 2 \arcsin \sqrt{p_q} - 2 \arcsin \sqrt{p_r} .

    A PCA computed anew on the new cells is another space, even with the same number of dimensions: its codes would
    mean nothing. A low explained variance is the sign of it.

    Both sides must have been embedded alike. Cells that an embedding was fitted to lie farther out than cells that are
    projected into it: with a PCA of 1,800 blood cells, 838 others of the same sample had 24 % smaller squared residuals
    and 3.9 active features instead of 5.2, so nearly all features seemed to drift. The autoencoder's held-out cells do
    not help, for the PCA has seen them. Fit the embedding to reference and query together, or pass cells that were
    projected as well as `control`.

    When not to trust it: a small residual does not mean that a cell type is known. Of types that were left out of the
    reference, B cells, NK cells and CD14 monocytes stand out where the embedding has seen them (AUROC .89 to .99
    against the other cells), types of T cells hardly (.57 to .62); projected by a PCA without them, none does well (.53
    to .79), and distances to the nearest reference cells tell more. Drift also follows the composition of the query: a
    feature of a cell type that is more frequent becomes denser. For conditions within one study use
    :func:`differential_features`, which pairs samples and accounts for covariates.

    P-values over samples hold where samples of both sides were drawn alike. That the autoencoder was trained on the
    reference's samples hardly shows with the default `noise` and `tie_strength`, but it does without them.

    References
    ----------
    Lotfollahi et al. (2022), Mapping single-cell data to reference atlases by transfer learning, Nature Biotechnology
    40:121. Dann et al. (2023), Precise identification of cell states altered in disease using healthy single-cell
    references, Nature Genetics 55:1998 (why controls matter). Bates et al. (2023), Testing for outliers with conformal
    p-values, Annals of Statistics 51:149. Cohen (1988), Statistical Power Analysis for the Behavioral Sciences.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> query = adata[adata.obs["bulk_labels"] == "CD19+ B"].copy()
    >>> ssc.tl.apply_sae(query, adata)
    >>> query.obsm["X_sae"].shape[0] == query.n_obs
    True
    """
    from sparsesc.nn._metrics import fit_metrics

    check_adata(adata)
    min_cells = check_positive_int(min_cells, name="min_cells")
    model = _resolve(sae, key)
    slots = check_key_free(adata, key_added)
    if _keys.QUERY not in adata.uns.get(key_added, {}):
        check_columns_free(adata, (slots.residual, slots.residual_pval), key_added)
    X, found_rep = get_embedding(adata, model, use_rep)
    fitted = reference_of(sae, model, key)
    reference = fitted if control is None else control_reference(control, model, use_rep)
    codes = model.encode(X)
    samples = None
    if sample_key is not None:
        if reference.cells is None or reference.codes is None:
            msg = (
                "sample_key compares samples of the query with samples of the reference, whose cells are not at hand. "
                "Pass the AnnData that the autoencoder was fitted in as sae, or cells to compare with as control."
            )
            raise ValueError(msg)
        theirs = count_samples(reference.cells, reference.codes, sample_key, min_cells=min_cells)
        samples = count_samples(adata, codes, sample_key, min_cells=min_cells), theirs
        check_samples(*samples, sample_key, min_cells)

    metrics = fit_metrics(model, X)
    params = {
        "use_rep": found_rep or slots.joint,
        "architecture": model.architecture,
        "n_features": model.n_features,
        "k": model.k,
        "n_obs": len(X),
        "applied": True,
        "sample_key": sample_key,
        _keys.BLOCKS: model.metadata.get(_keys.BLOCKS),
    }
    on = fitted.facts.get("on_threshold")  # a feature is on by the same activation as where it was fitted
    entry = uns_entry(key_added, codes, model, params, metrics, on_threshold=on, depth=log_depth(adata))
    residual = residual_norms(model, X, codes)
    pvalues = residual_pvalues(residual, reference)
    summary = query_summary(X, residual, pvalues, metrics, reference)
    entry[_keys.QUERY] = summary
    entry[_keys.DRIFT] = drift_table(entry[_keys.FEATURES], len(X), reference, samples).reset_index(drop=True)
    entry[_keys.REFERENCE] = dict(reference.facts)
    columns = {slots.residual: residual, slots.residual_pval: pvalues}
    joint = None if found_rep else X
    result = record_sae(adata, slots, codes, entry, copy=copy, joint=joint, obs=columns)
    _report(adata, entry, key_added, found_rep or slots.joint)
    return result


def _report(adata: AnnData | MuData, entry: dict[str, Any], key: str, use_rep: str) -> None:
    metrics, summary, table = entry[_keys.METRICS], entry[_keys.QUERY], entry[_keys.DRIFT]
    if metrics["explained_variance"] < _POOR:
        warning(
            f"The features explain none of the variance of {use_rep!r} here (explained variance "
            f"{metrics['explained_variance']:.2f}): was this embedding made by the same model?"
        )
    units = (
        f"{summary['fvu_reference_units']:.1%} of the reference's variance is unexplained here, "
        f"{summary['fvu_reference']:.1%} there"
    )
    if summary["out_of_distribution"]:
        warning(
            f"The query is out of distribution: {summary['beyond_95']:.1%} of its cells leave more over than 95 % of "
            f"the reference's cells do, and {summary['beyond_99']:.1%} more than 99 % ({units}). What is new here may "
            f"have no feature: see adata.obs['{key}_residual']."
        )
    if summary["embedded_differently"]:
        warning(
            f"Cells of the query leave less over than unseen cells of the reference ({units}) and have "
            f"{summary['l0']:.1f} active features instead of {summary['l0_reference']:.1f}, as when an embedding was "
            "fitted to the reference and the query projected into it. Densities of both are not comparable then, and "
            "p-values of drift do not hold: fit the embedding to both, or pass projected cells as control."
        )
    share, active = metrics["explained_variance"], metrics["l0"]
    info(f"{share:.1%} of the variance of {adata.n_obs} cells, {active:.1f} active per cell.")
    if summary["reference"] in (UNKNOWN, TRAINED):
        known = "nothing is known of residuals of cells" if summary["reference"] == UNKNOWN else "there are no cells"
        info(f"Outliers are not told: {known} that the fit did not see. Pass such cells as control.")
    if table["pval"].notna().any():
        info(f"{int((table['padj'] < 0.05).sum())} of {int(table['pval'].notna().sum())} features drift, padj < .05.")
    elif table["drift"].notna().any():
        n_large = int((np.abs(table["drift"]) > max(0.2, summary["drift_noise"])).sum())
        info(f"{n_large} of {len(table)} features drift by more than 0.2 (Cohen's h). Not tested: see sample_key.")
    hint(f"added adata.obsm['X_{key}'], adata.uns[{key!r}] and adata.obs['{key}_residual']. Next: ssc.get.drift.")


def _resolve(source: Any, key: str) -> SparseAutoencoder:
    from sparsesc.get import sae as stored_sae
    from sparsesc.nn import SparseAutoencoder

    if isinstance(source, str | Path):
        return SparseAutoencoder.load(source)
    if isinstance(source, SparseAutoencoder):
        return source
    if type(source).__name__ in ("AnnData", "MuData"):
        return stored_sae(source, key)
    kind = type(source).__name__
    msg = f"sae must be an AnnData or MuData that holds one, a SparseAutoencoder or a folder, found {kind}."
    raise TypeError(msg)
