"""Which genes is a feature about? Tests of every feature against every gene."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from sparsesc import _logging
from sparsesc._random import as_generator
from sparsesc._values import check_choice, check_memory, check_positive_int
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._slots import record
from sparsesc.stats.genes._top_genes import DIRECTIONS, confirm_genes, describe_again, top_genes

from ._checks import check_holdout, check_samples, check_tested, warn_of_depth, warn_of_scale
from ._from_decoder import METHOD as DECODER
from ._from_decoder import decoder_genes
from ._gene_coherence import gene_coherence
from ._gene_job import open_genes
from ._gene_table import PER_TEN_THOUSAND, gene_table, log_base, report_genes, scale_of, top_gene_names
from ._settings import METHODS, PVALUES, SPLITS, GeneSettings

if TYPE_CHECKING:
    from anndata import AnnData

    from sparsesc._random import RNGLike, SeedLike

_AUTO_ENTRIES = 10**8


def feature_genes(
    adata: AnnData,
    *,
    key: str = "sae",
    layer: str | None = None,
    use_raw: bool | None = None,
    method: Literal["contrast", "correlation", "decoder"] = "contrast",
    decoder: Any = None,
    n_top: int | None = 50,
    direction: Literal["up", "down", "both"] = "up",
    quantile: float | None = None,
    min_cells: int = 10,
    n_silent: int | None = None,
    pvalues: Literal["permutation", "parametric"] = "permutation",
    skew_guard: float = 25.0,
    split: Literal["cells", "counts"] | None = None,
    holdout: float | str | None = None,
    sample_key: str | None = None,
    min_samples: int = 3,
    min_cells_per_sample: int = 5,
    store: bool | Literal["auto"] = "auto",
    max_memory: float = 4.0,
    progress_bar: bool | None = None,
    rng: SeedLike | RNGLike | None = 0,
    copy: bool = False,
) -> AnnData | None:
    r"""Find the genes that are higher in the cells of a feature than in the cells without it.

    Strongly active cells of a feature are compared with its silent cells, or its activation is correlated with
    expression over all cells. All features meet all genes in one pass over the expression matrix, by sparse products.
    The matrix may be CSR, CSC, dense, backed or a dask array, and results do not depend on which.

    Parameters
    ----------
    adata
        Cells x genes with a fitted sparse autoencoder. The expression should be normalized and log1p-transformed.
    key
        Name of the sparse autoencoder.
    layer
        Layer to read instead of `X` or `raw`.
    use_raw
        Read ``adata.raw``. ``None``: when there is one and no `layer` is given.
    method
        ``"contrast"``: Welch's t of the strongly active cells of a feature against its silent cells (activation 0).
        ``"correlation"``: Pearson r of activation and expression over all cells. ``"decoder"``: the derivative of
        decoded expression when a cell moves along the feature, from what `decoder` learned rather than from a
        comparison of cells. There are no p-values then.
    decoder
        With ``method="decoder"``: from the embedding to genes, see :func:`sparsesc.decoders.as_decoder`. ``None``: the
        principal components, for ``X_pca`` (with `layer`, if they were computed from one).
    n_top
        Genes to keep for each feature in the table; ``None`` keeps all. Adjusted p-values are for all tests in any
        case.
    direction
        Genes to keep: higher (``"up"``) or lower (``"down"``) in strong cells, or the largest absolute scores
        (``"both"``).
    quantile
        Which cells of a feature are strong. ``None``: those in which it is on, that is above ``on_threshold`` in the
        table of features, whichever cells are tested. A number: those at or above this quantile of its non-zero
        activations in the cells that are tested (0: all active cells). Cells that are active but not strong count on
        neither side.
    min_cells
        Where fewer cells are strong, the threshold falls until there are as many. Features
        active (or silent) in fewer cells than this are not tested: they have no rows, and zeros in ``varm``.
    n_silent
        Compare with at most so many silent cells, drawn for each feature by `rng`. ``None``, the default, takes all
        silent cells: that is exact, needs no random numbers, and costs nothing, since their sums are what the active
        cells leave of the sums over all cells.
    pvalues
        ``"permutation"``: two-sided p of the difference of means (of r) under random relabeling of cells, from the
        exact first three moments of that distribution; needs no draws. ``"parametric"``: the p of Welch's t, or of
        Pearson's r, by the t distribution.
    skew_guard
        In Welch's t, a group with fewer cells than this times the squared skewness of a gene cannot estimate its
        variance (a gene that ten cells miss by chance would have none): it gets at least the variance of the other
        group. With `sample_key`, where either side has so few cells over all samples, the difference must also be too
        large for strong cells drawn at random within each sample. 0 leaves plain t.
    split
        ``"counts"``: test on counts that the features have not seen: the part that :func:`sparsesc.pp.thin_counts` kept
        for tests (``layers["thin_test"]``, or `layer`). They are tested as Pearson residuals, which do not depend on
        the depth of a cell; means and `logfc` are of counts per ten thousand. ``"cells"``: choose the genes of each
        feature in some cells and test them in the others (see `holdout`). ``None``: all cells choose and test. See
        Notes for which question each of them answers.
    holdout
        With ``split="cells"``, the cells to test on: a share, drawn by `rng`; a boolean column of ``obs``; or ``None``:
        those that the fit held out.
    sample_key
        Column of ``obs`` with the sample (donor) of each cell: samples, not cells, are then the replicates. In each
        sample the mean of the strong cells is compared with that of the silent ones, and `score` and `pval` are those
        of the paired t-test over samples (but see `skew_guard`). Cells without a sample are left out. The matrix is
        read into memory.
    min_samples
        With `sample_key`: features with fewer samples are not tested. At least 3.
    min_cells_per_sample
        With `sample_key`: a sample with fewer strong, or fewer silent, cells of a feature does not count for it.
    store
        Whether to write all scores to ``varm``. ``"auto"``: up to 10^8 entries.
    max_memory
        Working memory in GiB, beyond the data and the results.
    progress_bar
        Show progress; ``None``: unless scanpy's verbosity is 0.
    rng
        Draws the silent cells when `n_silent` is given.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy when ``copy=True``, with

    ``uns[key]["genes"]``
        Table, best gene first within each feature: `feature`, `gene`, `score` (Welch's t, or r), `logfc`, `pval`,
        `padj` (Benjamini-Hochberg over all tested features x all genes that vary), `rank`, `mean_in`, `mean_out`
        (mean expression of strong, or for correlation active, and of silent cells), `effect_size` (difference of
        means over the root of the mean of both variances, or r), and with permutation p-values `pval_parametric`.
        With ``split="cells"`` the pairs and their order are those of the cells for choosing, where the score was
        `score_chosen`, and all else is from the held-out cells: `padj` is over these pairs only. With `sample_key`,
        `score` is the paired t, means are over samples, `effect_size` is the mean difference over its standard
        deviation between samples, and `n_samples` is their number.
        With ``method="decoder"``, `score` is the derivative in log2 a unit of activation and `logfc` the derivative
        times the activation (both means over up to 100 active cells, drawn by `rng`; a linear decoder is the same for
        all), `sd` the spread of the latter over cells, `pval` and `padj` are NaN, and `score_contrast` is the score of
        an earlier contrast that was in ``varm``.
    ``varm["{key}_genes"]``
        Scores, genes x features, float32, in the order of ``adata.var_names``; 0 where nothing was tested (feature
        with too few cells, gene without variation or not in the matrix). With ``raw`` the table covers all genes of
        ``raw``.
    ``uns[key]["features"]["top_genes"]``
        The five best genes of each feature that are higher in strong cells, joined by commas.
    ``uns[key]["features"]["genes_coherence"]``, ``["genes_coherence_pval"]``
        Whether the ten best genes of each feature that are higher in strong cells vary together: their mean pairwise
        correlation over the cells that are tested, less that of random genes of like expression, and its p-value. NaN
        with fewer than three such genes. See Notes.
    ``uns[key]["params"]["feature_genes"]``
        The options, the number of tests and of cells tested on, and the scale that `logfc` is on.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, or no such layer or column.
    TypeError
        If the column of `holdout` is not boolean, or that of `sample_key` holds numbers.
    ValueError
        If gene names repeat, the matrix holds NaN, no feature has enough cells or samples, or an option is out of its
        range or does not go with another one.

    See Also
    --------
    sparsesc.tl.feature_enrichment : the gene sets of every feature, from these scores
    sparsesc.get.genes : the table of genes, for one feature or all
    sparsesc.pl.genes : the best genes of a feature
    sparsesc.pp.thin_counts : cut counts in two, for ``split="counts"``

    Notes
    -----
    Of a gene with mean :math:`m_1` and variance :math:`s_1^2` in the :math:`n_1` strong cells, and :math:`m_0` and
    :math:`s_0^2` in the :math:`n_0` silent ones, the score is

    .. math::
        t = \frac{m_1 - m_0}{\sqrt{s_1^2 / n_1 + s_0^2 / n_0}} .

    Under relabeling of the :math:`n = n_0 + n_1` cells, the correlation r between expression and being strong has mean
    0, variance :math:`1 / (n - 1)` and, with :math:`g` and :math:`h` the skewness of expression and of being strong,
    skewness :math:`g h \sqrt{n - 1} / (n - 2)`. P-values are those of a gamma distribution with these moments.

    `logfc` of a log1p matrix is the difference of the means of its values in units of log2, that is the log2 fold
    change of the geometric mean of 1 + expression: it has the sign of the score and needs no pseudocount. For a
    matrix of counts it is log2 of the ratio of means, each plus 1, and for scaled values (negative numbers) the plain
    difference of means; both give a warning.

    The t distribution is a poor guide to single cells: among cells shuffled at random, with ten strong cells, Welch's
    test gives p < 1e-4 a thousand times too often, nearly always for rare genes that those cells lack. Hence the
    default of `pvalues`; the scores stay Welch's.

    Few samples do not show how much a rare gene varies: if all strong cells miss it, it differs by nearly the same in
    each of them. Among shuffled cells in five samples, plain t gives a fifth of the genes that less than one cell in
    twenty expresses p < .05. Hence the second condition of `skew_guard`: t is then at most the one that is as rare as
    the difference is for cells drawn at random (normal approximation). Such p-values are cautious.

    Which split answers which question:

    - ``split=None``: which genes differ most? The order of the genes is the information. Codes were computed from the
      same expression matrix, so small p-values say that a feature separates cells in expression, which it was trained
      to do: they are small even among cells that are all alike.
    - ``split="counts"``: is there a difference beyond the noise of the counts? The only split that is right when all
      cells are alike, provided that the embedding and the features come from the other part alone.
    - ``split="cells"``: do the genes that look best do so in other cells? Undoes the optimism of choosing the best
      among many genes, and of features fitted to the cells. It does not make up for the circle of ``split=None``: the
      code of a held-out cell is computed from the expression of that cell as well.
    - ``sample_key``: would it be so in other donors? Undoes that cells of one donor resemble each other. It does not
      break that circle either, which is the same in every donor: combine it with ``split="counts"``.

    Are the genes of a feature one thing, or a list? The best genes of a feature in noise are high in its cells as well.
    For `genes_coherence`, expression is freed of depth (a cubic of the logarithm of the detected genes, or of the total
    for counts) and of samples, if there are any, and correlated over all cells that are tested, at most 4,000. Its
    p-value is the larger of two: (1) each gene is correlated with the sum of those before it, which for independent
    genes gives independent p-values (gamma, as above); these are combined by Fisher's method and multiplied by the
    number of sets of as many genes, one of which embedding, features and scores have chosen. (2) The share of random
    sets, gene by gene of like expression, that vary together as much. It is cautious: with genes that are permuted over
    cells one by one before embedding and fit, next to none is below .05.

    When not to trust it: cells of one donor are not independent; without `sample_key`, p-values are about these cells.
    A derivative through a decoder is what the model believes near these cells, not a test, and no more causal than the
    correlations it was trained on. A paired test over three or four samples finds only large effects. Deeply sequenced
    cells differ from shallow ones in log-normalized expression, whatever the cells: only ``split="counts"`` tests
    residuals. A feature active in nearly all cells
    has no contrast: use the correlation.

    References
    ----------
    Welch (1947), Biometrika 34:28. Pitman (1937), J R Stat Soc Suppl 4:119 (moments under relabeling).
    Benjamini and Hochberg (1995), J R Stat Soc B 57:289. Cochran (1977), Sampling Techniques (group size and skewness).
    Neufeld et al. (2024), Biostatistics 25:270 (thinned counts, and why a split by cells is not enough). Squair et al.
    (2021), Nature Communications 12:5692 (samples as replicates). Lause et al. (2021), Genome Biology 22:258
    (residuals).

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.feature_genes(adata)
    >>> genes = ssc.get.genes(adata)
    >>> [name for name in genes if name.startswith("p")]
    ['pval', 'padj', 'pval_parametric']

    The feature of B cells, by the label that it goes with best:

    >>> ssc.tl.feature_association(adata, "bulk_labels")
    >>> table = ssc.get.association(adata).set_index("feature")
    >>> b_cells = table.loc[table["category"] == "CD19+ B", "auroc"].idxmax()
    >>> "CD79A" in set(genes.loc[genes["feature"] == b_cells, "gene"].head(10))
    True
    """
    check_choice(method, (*METHODS, DECODER), name="method")
    if decoder is not None and method != DECODER:
        msg = f"decoder belongs to method='decoder', found method={method!r}."
        raise ValueError(msg)
    check_choice(direction, DIRECTIONS, name="direction")
    check_choice(pvalues, PVALUES, name="pvalues")
    n_top = n_top if n_top is None else check_positive_int(n_top, name="n_top")
    if check_positive_int(min_cells, name="min_cells") < 2:
        msg = "min_cells must be at least 2: one cell has no variance."
        raise ValueError(msg)
    if quantile is not None and not 0 <= quantile <= 1:
        msg = f"quantile must lie between 0 and 1, found {quantile!r}."
        raise ValueError(msg)
    if not skew_guard >= 0:
        msg = f"skew_guard must not be negative, found {skew_guard!r}."
        raise ValueError(msg)
    check_memory(max_memory)
    if store not in (True, False, "auto"):
        msg = f"store must be True, False or 'auto', found {store!r}."
        raise ValueError(msg)
    if split is not None:
        check_choice(split, SPLITS, name="split")
    check_holdout(holdout, split)
    check_samples(sample_key, min_samples, min_cells_per_sample, method=method, n_silent=n_silent)
    if split == "counts" and use_raw:
        msg = "split='counts' reads a layer of thinned counts: leave out use_raw."
        raise ValueError(msg)
    check.check_adata(adata)
    if method == DECODER:
        if split is not None:
            msg = f"method='decoder' compares no cells: split={split!r} does not go with it."
            raise ValueError(msg)
        return decoder_genes(
            adata,
            decoder,
            key=key,
            layer=layer,
            n_top=n_top,
            direction=direction,
            min_cells=min_cells,
            store=store,
            progress_bar=progress_bar,
            rng=rng,
            copy=copy,
        )
    drawn = n_silent is not None or isinstance(holdout, float)
    settings = GeneSettings(
        method=method,
        pvalues="parametric" if sample_key else pvalues,
        layer=layer,
        use_raw=_reads_raw(adata, layer, use_raw, split),
        quantile=None if quantile is None else float(quantile),
        min_cells=min_cells,
        n_silent=None if n_silent is None else check_positive_int(n_silent, name="n_silent"),
        skew_guard=float(skew_guard),
        seed=int(as_generator(rng).integers(2**62)) if drawn else 0,
        split=split,
        holdout=holdout,
        sample_key=sample_key,
        min_samples=min_samples,
        min_cells_per_sample=min_cells_per_sample,
    )
    job = open_genes(adata, key, settings, max_memory=max_memory)
    table = check.get_feature_table(adata, key)
    check_tested(job, table, settings)
    scale = PER_TEN_THOUSAND if job.counts else scale_of(job.blocks.totals)
    warn_of_scale(scale, job.matrix)
    if split == "counts" and not job.counts:
        warn_of_depth(job.matrix)
    wanted = len(table) * adata.n_vars <= _AUTO_ENTRIES if store == "auto" else bool(store)
    keep_genes = job.genes.get_indexer(adata.var_names) if wanted else None

    def progress(blocks: Iterable[Any]) -> Iterable[Any]:
        return _logging.progress(blocks, total=-(-len(table) // 16), desc="genes", enabled=progress_bar)

    if split == "cells":
        source = open_genes(adata, key, settings, max_memory=max_memory, choosing=True)
        check_tested(source, table, settings)
        chosen = top_genes(
            source.statistic, source.blocks, n_top=n_top, direction=direction, max_bytes=source.max_bytes
        )
        best = confirm_genes(
            chosen, job.statistic, job.blocks, keep_genes=keep_genes, max_bytes=job.max_bytes, progress=progress
        )
    else:
        best = top_genes(
            job.statistic,
            job.blocks,
            n_top=n_top,
            direction=direction,
            keep_genes=keep_genes,
            max_bytes=job.max_bytes,
            progress=progress,
        )
    if job.counts:
        best = describe_again(best, *job.per_ten_thousand(), ("mean_in", "mean_out"), max_bytes=job.max_bytes)
    genes = gene_table(best, table.index, job.genes, scale=scale, base=log_base(adata))
    table["top_genes"] = top_gene_names(genes, table.index)
    together = gene_coherence(job, best, n_features=len(table), seed=settings.seed)
    table[_keys.GENES_COHERENCE], table[_keys.GENES_COHERENCE_PVAL] = together.excess, together.pval
    counts = {
        "n_obs": adata.n_obs,
        "n_obs_tested": job.blocks.shape[0],
        "n_tests": best.n_tests,
        "n_features_tested": int(job.statistic.tested.sum()),
        "n_genes_tested": len(job.varies),
    }
    # enrichment can read varm only if all tested genes are in it
    stored = bool(wanted and job.genes[job.varies].isin(adata.var_names).all())
    options = asdict(settings) | {"direction": direction, "n_top": n_top, "scale": scale, "stored": stored}
    name = _keys.sae_keys(key).genes
    report_genes(counts, len(table), int((genes["padj"] < 0.05).sum()), key, stored=best.scores is not None)
    return record(
        adata,
        key,
        "feature_genes",
        {_keys.GENES: genes, _keys.FEATURES: table},
        options | counts,
        copy=copy,
        # scores of an earlier run would not belong to the new table
        varm={name: None if best.scores is None else best.scores.T},
    )


def _reads_raw(adata: AnnData, layer: str | None, use_raw: bool | None, split: str | None) -> bool:
    if use_raw is None:
        return layer is None and split != "counts" and getattr(adata, "raw", None) is not None
    return use_raw
