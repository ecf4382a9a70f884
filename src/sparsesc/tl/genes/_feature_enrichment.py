"""Which gene sets is a feature about? Tests of every feature against every set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc._random import as_generator
from sparsesc._values import check_choice, check_memory, check_positive_int, listing
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._nets import MatchedSets, match_net, read_net
from sparsesc.door._slots import record
from sparsesc.stats.core._student import log_p_two_sided
from sparsesc.stats.genes._enrichment import Ora, RankSum, SetTest, Ulm
from sparsesc.stats.genes._gsea import Gsea
from sparsesc.stats.genes._like_expressed import AmongLike, ExpressionBins
from sparsesc.stats.genes._shuffled_sets import BoundedTest, ShuffledSets
from sparsesc.stats.genes._top_terms import TermReducer, TopTerms

from ._gene_scores import GeneScores
from ._settings import PVALUES

if TYPE_CHECKING:
    from anndata import AnnData

    from sparsesc._random import RNGLike, SeedLike

METHODS = ("ulm", "ora", "gsea", "ranksum")
NULLS = ("cells", "expression", "genes")
SHUFFLED_METHODS = ("ulm", "ranksum", "ora")
_FEWEST_SHUFFLES = 100
_ALPHA = 0.05
_SHARE_UP = 0.05


def feature_enrichment(
    adata: AnnData,
    net: pd.DataFrame | Mapping[str, Any] | str | Path,
    *,
    key: str = "sae",
    method: Literal["ulm", "ora", "gsea", "ranksum"] = "ulm",
    min_size: int = 5,
    max_size: int = 500,
    n_top: int | None = 50,
    features: str | int | Sequence[str | int] | None = None,
    n_up: int | None = None,
    null: Literal["cells", "expression", "genes"] | None = None,
    n_permutations: int = 1000,
    pvalues: Literal["permutation", "parametric"] = "permutation",
    n_leading: int = 10,
    max_memory: float = 4.0,
    progress_bar: bool | None = None,
    rng: SeedLike | RNGLike | None = 0,
    copy: bool = False,
) -> AnnData | None:
    r"""Find the gene sets (pathways, markers, regulons) whose genes stand out in a feature.

    Every set is tested in every feature, on the scores of :func:`sparsesc.tl.feature_genes`.

    Parameters
    ----------
    adata
        Cells x genes with a fitted sparse autoencoder and its gene scores.
    net
        Gene sets: a table with the columns `source`, `target` and perhaps `weight` or `mor` (what decoupler's resources
        are),
        a dict of gene lists (or of dicts of weights), the path of a GMT file, a name of
        :func:`sparsesc.datasets.gene_sets`, or ``"collectri"``, ``"dorothea"``, ``"progeny"``, which decoupler
        fetches.
    key
        Name of the sparse autoencoder.
    method
        ``"ulm"``: univariate linear model of gene scores on the weights of a set; the statistic of
        ``decoupler.mt.ulm``. ``"ranksum"``: two-sided Mann-Whitney test of the genes of a set against all others,
        ties corrected. ``"ora"``: hypergeometric test of the feature's top genes, one-sided. ``"gsea"``: gseapy's
        prerank with multilevel p-values; slow: about 0.05 s or more for a feature. Only ``"ulm"`` uses weights.
    min_size, max_size
        Sets with fewer or more tested genes are dropped; a warning names those with fewer.
    n_top
        Rows to keep for each feature, smallest p first; ``None`` keeps all. Adjusted p-values are for all tests in any
        case.
    features
        Features to test, by name or position; ``None``: all that have gene scores. Adjusted p-values are
        for the features tested.
    n_up
        For ``"ora"``: how many of the genes with the largest positive scores count as a feature's top genes.
        ``None``: a twentieth of the measured genes, between 10 and 200.
    null
        What a set is compared with.

        ``"cells"``: genes of like expression, and the same set in copies of the features whose cells are shuffled,
        which keeps how genes vary together; p is the larger one of both. Assumes neither that genes are independent nor
        that highly expressed genes have scores like all others. It reads the expression matrix again.

        ``"expression"``: as many genes of like expression at random. Assumes that genes are independent: sets whose
        genes vary together look like findings.

        ``"genes"``: as many genes at random, what decoupler, a hypergeometric test and GSEA do. Assumes in addition
        that gene scores do not depend on expression: sets of highly expressed genes look like findings.

        ``None``: ``"cells"`` where it can be had, that is for ``"ulm"``, ``"ranksum"`` and ``"ora"`` on scores that
        compare cells; ``"expression"`` for ``"gsea"``; ``"genes"`` for the scores of a decoder.
    n_permutations
        Copies of ``null="cells"`` in all, drawn from the features tested. P-values below ``1 / n_permutations`` come
        from a beta distribution with the moments of the copies.
    pvalues
        For ``"ulm"``. ``"permutation"``: two-sided p of the slope when genes are shuffled, from the exact first three
        moments of that distribution; needs no draws. ``"parametric"``: by the t distribution, as in decoupler.
    n_leading
        Genes to name in the column `genes`.
    max_memory
        Working memory in GiB, beyond the data and the results.
    progress_bar
        Show progress; ``None``: unless scanpy's verbosity is 0.
    rng
        Of the permutations of ``"gsea"``, and the shuffled copies of ``null="cells"``.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy when ``copy=True``, with

    ``uns[key]["enrichment"]``
        Table, smallest p first within each feature: `feature`, `term`, `score` (ulm: t of the slope; ranksum: z; ora:
        log2 of observed over expected overlap, each + 0.5; gsea: normalized enrichment score; all of gene scores in
        units of genes of like expression, unless ``null="genes"``), `pval`, `padj`
        (Benjamini-Hochberg over all features x terms tested), `n_genes` (size of the set among the tested genes),
        `genes` (those that carry the score, strongest first, joined by commas), for ``"ulm"`` with permutation
        p-values `pval_parametric`, and with ``null="cells"`` `null_sd`: the root mean square of the set's score in
        shuffled copies, for ``"ulm"`` and ``"ranksum"`` about 1 where genes vary independently.
    ``uns[key]["features"]["term"]``
        The term with the smallest p among positive scores, if its `padj` is below .05, otherwise empty.
    ``uns[key]["params"]["feature_enrichment"]``
        The options, how many features were tested and how many not, and the report of the match: how many genes of
        `net` were measured, which were not (and which of those differ from a measured gene in case or punctuation
        alone: `near_misses`), and which sets were dropped for their size.

    Raises
    ------
    KeyError
        If there is no sparse autoencoder under `key`, its gene scores are missing, or `net` lacks a column.
    ValueError
        If less than a tenth of the genes in `net` were measured and less than a tenth of the measured genes are in
        `net` (with a hint why), no set is left, or an option is out of its range or does not go with another one.

    See Also
    --------
    sparsesc.tl.feature_genes : the gene scores that sets are tested on
    sparsesc.get.enrichment : the table of gene sets, for one feature or all
    sparsesc.pl.enrichment : the best sets of features
    sparsesc.datasets.gene_sets : sets that come with the package, or from a file

    Notes
    -----
    With :math:`r` the correlation over :math:`n` genes between the gene scores of a feature and the weights of a set (1
    in the set and 0 outside, where there are none), the score of ``"ulm"`` is

    .. math::
        t = r \sqrt{\frac{n - 2}{1 - r^2}} .

    The score of ``"ora"`` is :math:`\log_2 \frac{o + 1/2}{e + 1/2}`, with :math:`o` genes in the overlap of the set and
    the top genes, and :math:`e` of them expected.

    The universe is the measured genes: those that :func:`~sparsesc.tl.feature_genes` tested. Genes that were not
    measured, or never vary, count neither as members of a set nor as background. When the scores are not all in
    ``varm`` (too many for it, or ``raw`` has genes that `adata` has not) they are computed again from the expression
    matrix, a few features at a time.

    A set that holds a few of the feature's extreme genes by chance has a p of t that is far too small: in mixtures of
    known truth, 12 % of the sets with an adjusted p below .05 were false by t, 6 % by permutation. Hence the default of
    `pvalues`; the scores stay decoupler's.

    Highly expressed genes have larger scores than others, in the direction in which a feature goes with the depth or
    composition of its cells. Genes are therefore ordered by mean expression and cut into bins of about 50, and the
    scores of each bin get mean 0 and variance 1: :math:`r` is between these and the weights less their mean in the bin.
    Among random sets of highly expressed genes (the upper tenth), half of the p-values of fitted features are below .05
    when all genes are compared with all, and one in twenty within bins. A set that makes up whole bins (ribosomal
    proteins, in few genes) cannot stand out among its like; ``null="genes"`` compares it with all.

    Genes of a pathway vary together: a set that has nothing to do with a feature can still have a mean score away from
    0, and p-values of ``null="genes"`` and ``null="expression"`` are too small. Among features of shuffled cells, a
    fifth to a quarter of the p-values of marker sets are below .05, and ``null="cells"`` brings them back to one in
    twenty. The question stays the same: does the set stand out among genes like them, more than it would by chance? The
    answer costs about as much as the gene scores of `n_permutations` features.

    When not to trust it: sets that share genes, or whose genes vary together, are one finding, not several, under
    either null. A set may go with a feature because both go with a cell type. The scores are of the expression that
    features were learned from. Confirm them in a held-out data set.

    References
    ----------
    Badia-i-Mompel et al. (2022), Bioinformatics Advances 2:vbac016 (decoupler). Subramanian et al. (2005), PNAS
    102:15545, and Korotkevich et al. (2021), bioRxiv 060012 (GSEA and its multilevel p-values). Fang et al. (2023),
    Bioinformatics 39:btac757 (gseapy). Wu and Smyth (2012), Nucleic Acids Research 40:e133 (what correlated genes do
    to such tests). Efron and Tibshirani (2007), Annals of Applied Statistics 1:107 (shuffled samples, restandardized
    over genes).

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.fit_sae(adata, use_rep="X_pca")
    >>> ssc.tl.feature_genes(adata)
    >>> ssc.tl.feature_enrichment(adata, ssc.datasets.gene_sets("immune_markers"), min_size=3)
    >>> enrichment = ssc.get.enrichment(adata)
    >>> list(enrichment)
    ['feature', 'term', 'score', 'pval', 'padj', 'n_genes', 'genes', 'pval_parametric', 'null_sd']
    """
    check_choice(method, METHODS, name="method")
    for value, name in ((min_size, "min_size"), (max_size, "max_size"), (n_leading, "n_leading")):
        check_positive_int(value, name=name)
    if max_size < min_size:
        msg = f"max_size={max_size} is smaller than min_size={min_size}: no gene set can pass."
        raise ValueError(msg)
    check_choice(pvalues, PVALUES, name="pvalues")
    _check_null(null, n_permutations, method=method)
    n_top = n_top if n_top is None else check_positive_int(n_top, name="n_top")
    n_up = n_up if n_up is None else check_positive_int(n_up, name="n_up")
    max_bytes = check_memory(max_memory)
    table = check.get_feature_table(adata, key)
    source = GeneScores(adata, key, max_memory=max_memory)
    wanted = None if features is None else check.feature_names(adata, features, key)
    tested = _choose(table.index.astype(str), wanted, source.tested)
    matched = match_net(
        read_net(net),
        source.genes,
        source.universe,
        min_size=min_size,
        max_size=max_size,
        owner=source.owner,
        others=adata.var_names if source.owner != "adata" else None,
    )
    n_universe = len(source.universe)
    n_up = n_up or int(np.clip(_SHARE_UP * n_universe, 10, 200))
    generator = as_generator(rng)
    against = null or _best_null(method, source.compares_cells)
    source.check_null(against)
    bins = None if against == "genes" else ExpressionBins(source.expression())
    _warn_of_weights(method, matched)
    test = _make_test(method, matched, n_up=n_up, pvalues=pvalues, bins=bins, rng=generator)
    df = test.df if isinstance(test, Ulm) else None
    if against == "cells":
        scores_only = _make_test(method, matched, n_up=n_up, pvalues="parametric", bins=bins, rng=generator)
        moments = source.of_copies(
            cast("BoundedTest", scores_only), tested, n_copies=n_permutations, rng=generator, progress_bar=progress_bar
        )
        test = ShuffledSets(cast("BoundedTest", test), moments)
    reducer = TermReducer(
        test,
        matched.sets,
        n_tests=len(tested) * len(matched.names),
        n_top=n_top,
        n_leading=n_leading,
        max_bytes=max_bytes / 4,
    )
    # gseapy is not made for threads
    parts = source.iterate(tested, reducer, threads=1 if method == "gsea" else None)
    parts = _logging.progress(parts, total=source.n_parts(tested), desc="gene sets", enabled=progress_bar)
    terms = reducer.gather(parts)
    enrichment = _term_table(terms, table.index, matched, source.genes[source.universe])
    if df is not None and pvalues == "permutation":
        enrichment["pval_parametric"] = np.exp(log_p_two_sided(terms.score, df))
    if isinstance(test, ShuffledSets):
        enrichment["null_sd"] = test.spread[terms.term]
    table["term"] = _best_terms(terms, table.index, matched)
    n_silent = int((~source.tested).sum())
    options = {
        "method": method,
        "min_size": min_size,
        "max_size": max_size,
        "n_top": n_top,
        "n_features_tested": len(tested),
        "n_features_not_tested": n_silent,
        "n_tests": len(tested) * len(matched.names),
        "n_up": n_up if method == "ora" else None,
        "pvalues": pvalues if method == "ulm" else None,
        "null": against,
        "n_permutations": n_permutations if against == "cells" else None,
    }
    _report(len(tested), n_silent, matched.report, int((table["term"] != "").sum()), key)
    written = {_keys.ENRICHMENT: enrichment, _keys.FEATURES: table}
    return record(adata, key, "feature_enrichment", written, options | matched.report, copy=copy)


def _choose(names: pd.Index, features: list[str] | None, tested: np.ndarray) -> np.ndarray:
    """Positions of the features to test."""
    if features is None:
        return np.flatnonzero(tested)
    position = names.get_indexer(features)
    chosen = np.sort(position[tested[position]])
    if not len(chosen):
        msg = f"None of the features {listing(features)} has gene scores: too few cells are active."
        raise ValueError(msg)
    return chosen


def _check_null(null: str | None, n_permutations: int, *, method: str) -> None:
    if null is not None:
        check_choice(null, NULLS, name="null")
    if check_positive_int(n_permutations, name="n_permutations") < _FEWEST_SHUFFLES:
        msg = (
            f"n_permutations must be at least {_FEWEST_SHUFFLES}: p-values rest on two moments, found {n_permutations}."
        )
        raise ValueError(msg)
    if null == "cells" and method not in SHUFFLED_METHODS:
        msg = f"null='cells' goes with method {listing(SHUFFLED_METHODS)}, not with {method!r}."
        raise ValueError(msg)


def _best_null(method: str, compares_cells: bool) -> str:
    """The one that assumes least."""
    if not compares_cells:
        return "genes"
    return "cells" if method in SHUFFLED_METHODS else "expression"


def _warn_of_weights(method: str, matched: MatchedSets) -> None:
    if method != "ulm" and (matched.sets.data != 1).any():
        _logging.warning(f"net has weights, which method={method!r} does not use: only membership counts.")


def _make_test(
    method: str,
    matched: MatchedSets,
    *,
    n_up: int,
    pvalues: str,
    bins: ExpressionBins | None,
    rng: np.random.Generator,
) -> SetTest:
    if method == "ulm":
        return Ulm(matched.sets, relabel=pvalues == "permutation", bins=bins)
    test: SetTest
    if method == "ranksum":
        test = RankSum(matched.sets)
    elif method == "ora":
        test = Ora(matched.sets, n_up=n_up)
    else:
        test = Gsea(matched.sets, seed=int(rng.integers(2**31 - 1)))
    return test if bins is None else AmongLike(test, bins)


def _term_table(terms: TopTerms, features: pd.Index, matched: MatchedSets, genes: pd.Index) -> pd.DataFrame:
    names = np.append(genes.astype(str).to_numpy(dtype=object), "")
    leading = [",".join(row).rstrip(",") for row in names[terms.genes]]
    return pd.DataFrame(
        {
            "feature": features.astype(str).take(terms.feature),
            "term": pd.Index(matched.names.astype(str)).take(terms.term),
            "score": terms.score,
            "pval": terms.pval,
            "padj": terms.padj,
            "n_genes": matched.size[terms.term],
            "genes": pd.array(leading, dtype="str"),
        }
    )


def _best_terms(terms: TopTerms, features: pd.Index, matched: MatchedSets) -> pd.Series:
    best = pd.Series("", index=features, dtype="str")
    clear = (terms.best_positive >= 0) & (terms.best_padj < _ALPHA)
    best.iloc[terms.tested[clear]] = matched.names[terms.best_positive[clear]].astype(str)
    return best


def _report(n_tested: int, n_silent: int, report: dict[str, Any], n_named: int, key: str) -> None:
    _logging.info(
        f"feature_enrichment: {n_tested} features x {report['n_sets_tested']} gene sets "
        f"({report['n_sets_too_small']} dropped as too small, {report['n_sets_too_large']} as too large); "
        f"{report['n_targets_measured']} of {report['n_targets']} genes of the sets were measured "
        f"({report['coverage']:.0%}). {n_named} features have a term; added uns['{key}']['enrichment']"
        + (f". {n_silent} features without gene scores were not tested" if n_silent else "")
    )
