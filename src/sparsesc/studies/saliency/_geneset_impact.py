from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numba
import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc._random import as_generator
from sparsesc._values import check_choice, check_memory, check_positive_int, listing
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._nets import MatchedSets, match_net, read_net
from sparsesc.door._saliency_slots import CellSaliency, read_saliency
from sparsesc.door._slots import record
from sparsesc.stats.core._multiple import benjamini_hochberg

from ._groups import TwoGroups, two_groups
from ._impact import SaliencyRows, SetImpact, difference_of_sets, impact_of_sets
from ._medians import Ladders
from ._random_sets import RandomSets, Strata

if TYPE_CHECKING:
    from anndata import AnnData

    from sparsesc._random import RNGLike, SeedLike

MATCHES = ("expression", "detection", "none")
_COLUMN = {"expression": "mean", "detection": "detected"}
_FEWEST_DRAWS = 100
_ALPHA = 0.05


def geneset_impact(
    adata: AnnData,
    net: pd.DataFrame | Mapping[str, Any] | str | Path,
    *,
    key: str = "saliency",
    units: str | int | Sequence[str | int] | None = None,
    match: Literal["expression", "detection", "none"] = "expression",
    n_strata: int = 25,
    n_permutations: int = 1000,
    min_size: int = 5,
    max_size: int = 500,
    groupby: str | None = None,
    groups: tuple[str, str] | Sequence[str] | None = None,
    sample_key: str | None = None,
    moderate: bool = False,
    min_cells: int = 3,
    n_leading: int = 10,
    max_memory: float = 1.0,
    progress_bar: bool | None = None,
    rng: SeedLike | RNGLike | None = 0,
    copy: bool = False,
) -> AnnData | None:
    r"""Test which gene sets drive the units of a model, by the saliency of their genes against random sets.

    The impact of a set on a unit is the mean over cells of the median, over the genes of the set, of the absolute
    saliency from :func:`sparsesc.tl.saliency`.

    Parameters
    ----------
    adata
        Cells with a saliency.
    net
        Gene sets, as for :func:`sparsesc.tl.feature_enrichment`: a table with `source` and `target`, a dict of gene
        lists, the path of a GMT file, or a name. Weights are not used.
    key
        Name of the saliency.
    units
        Units to test, by name or position. ``None``: all that are not silent.
    match
        What random sets share with a set, besides its size. ``"expression"``: the number of genes from each of
        `n_strata` strata of mean expression (as the model sees it); ``"detection"``: the same with strata of the share
        of cells that express a gene; ``"none"``: nothing. Networks look more at genes with higher expression: without
        matching, any set of such genes is significant for any unit.
    n_strata
        Number of strata for `match`.
    n_permutations
        Random sets for each set, the same for all units. P-values are the share of these with an impact at least as
        large; below ``1 / n_permutations`` they come from a tail that is fitted to them.
    min_size, max_size
        Sets with fewer or more genes among those of the model are dropped.
    groupby
        Column of ``obs``: compare the impact between two groups of cells as well.
    groups
        The two groups. ``None``: `groupby` must have exactly two categories; the second is compared with the first.
    sample_key
        Column of ``obs`` with samples (donors), the replicates of that comparison.
    moderate
        With `sample_key`: shrink the variance of each set towards the usual one among sets (limma's empirical Bayes).
        This takes sets as independent, which those of a unit hardly are: if its saliency is larger in a sample, it is
        larger for all sets, and p-values become too small, the more so the fewer samples there are.
    min_cells
        With `sample_key`: a sample with fewer cells (of a group, for a unit) is left out.
    n_leading
        Number of genes in the column `genes`.
    max_memory
        Working memory in GiB.
    progress_bar
        Show progress; ``None``: unless scanpy's verbosity is 0.
    rng
        Draws the random sets.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy when ``copy=True``, with

    ``uns[key]["impact"]``
        One row per unit and set, smallest p first within a unit: `unit`, `term`, `impact`, `sd` (over cells),
        `scaled` (impact from its smallest, 0, to its largest, 1, over units: which unit has most of a set), `score`
        (impact minus its mean among random sets, over its standard deviation there), `pval` (one-sided: is it larger
        than that of random sets?), `padj` (Benjamini-Hochberg over all units x sets), `n_genes`, `genes` (those of the
        set with the largest saliency).
    ``uns[key]["impact_contrast"]``
        With `groupby`: `unit`, `term`, `impact_a`, `impact_b` (mean impact in the two groups), `difference` (a - b),
        `score`, `pval` (two-sided), `padj` (over all units x sets). With `sample_key`, the score is t of a linear model
        of the means of samples, compared within samples where these have cells of both groups; NaN where too few
        samples are left. Without it, the difference is compared with that of random sets, which tells whether a set
        changes more than others do, and nothing about other samples.
    ``uns[key]["units"]["term"]``
        The set with the smallest p if its `padj` is below .05, otherwise empty.
    ``uns[key]["params"]["geneset_impact"]``
        The options, and how many sets and genes matched.

    Raises
    ------
    KeyError
        If there is no saliency under `key`; no such unit or column; or `net` lacks a column.
    ValueError
        If hardly any gene of `net` is among those of the model, no set is left, all units are silent, an option is out
        of its range, or there are too few cells or samples of a group.

    See Also
    --------
    sparsesc.tl.saliency : Computes the saliency.
    sparsesc.get.geneset_impact : Reads the tables.
    sparsesc.pl.geneset_impact : Draws them.
    sparsesc.tl.feature_enrichment : Tests gene sets on the genes of features, without a network.

    Notes
    -----
    The impact of set :math:`S` on unit :math:`u` is

    .. math:: I_{uS} = \frac{1}{n} \sum_{i=1}^{n} \underset{g \in S}{\mathrm{median}} \left|s_{iug}\right|,

    with the saliency :math:`s_{iug}` of gene :math:`g` in cell :math:`i`, and the one-sided p-value is
    :math:`(1 + \#\{b : I_{uS_b} \geq I_{uS}\}) / (1 + B)` over :math:`B` random sets :math:`S_b`.

    `scaled` is the published score, where values above .7 were marked. Every set has a unit with 1, also a set that
    drives no unit: read it together with `padj`.

    When not to trust it: random genes are independent of each other, genes of a pathway are not. Genes that go up and
    down together get similar weights, so that a set can be above or below random sets in all units alike; `scaled`
    separates such units, `pval` does not. P-values hold for this network and these cells: train again with another
    seed, and compare with an untrained network. A set with most genes of its stratum is compared with itself.

    References
    ----------
    Kinalis et al. (2019), BMC Bioinformatics 20:379. Phipson and Smyth (2010), Statistical Applications in Genetics and
    Molecular Biology 9:39. Knijnenburg et al. (2009), Bioinformatics 25:i161. Smyth (2004), Statistical Applications in
    Genetics and Molecular Biology 3:3.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sparsesc as ssc
    >>> adata = sc.datasets.pbmc68k_reduced()
    >>> ssc.tl.saliency(adata, "pca", units=["PC1", "PC2"], max_cells=20)
    >>> ssc.tl.geneset_impact(adata, ssc.datasets.gene_sets("immune_markers"), n_permutations=100, min_size=3)
    >>> impact = adata.uns["saliency"]["impact"]
    >>> impact.groupby("unit", observed=True)["term"].first().tolist()
    ['T cell', 'Nonclassical monocyte']
    """
    check_choice(match, MATCHES, name="match")
    counted = {"n_strata": n_strata, "min_size": min_size, "max_size": max_size}
    for name, value in (counted | {"min_cells": min_cells, "n_leading": n_leading}).items():
        check_positive_int(value, name=name)
    if check_positive_int(n_permutations, name="n_permutations") < _FEWEST_DRAWS:
        msg = (
            f"n_permutations must be at least {_FEWEST_DRAWS}: p-values come from these draws, found {n_permutations}."
        )
        raise ValueError(msg)
    if max_size < min_size:
        msg = f"max_size={max_size} is smaller than min_size={min_size}: no gene set can pass."
        raise ValueError(msg)
    max_bytes = check_memory(max_memory)
    stored = read_saliency(adata, key)
    tested = _tested_units(stored, units, key)
    genes = pd.Index(stored.inputs.index.astype(str))
    matched = match_net(read_net(net), genes, np.arange(len(genes)), min_size=min_size, max_size=max_size)
    if (matched.sets.data != 1).any():
        _logging.warning("net has weights, which the impact does not use: only membership matters.")
    if groupby is None and (groups is not None or sample_key is not None):
        msg = "groups and sample_key are for the comparison of two groups of cells: name their column by groupby."
        raise ValueError(msg)
    two = None if groupby is None else two_groups(adata, stored.cells, groupby, groups, sample_key)
    if match == "none":
        strata = Strata.one(len(genes))
    else:
        strata = Strata.by_rank(stored.inputs[_COLUMN[match]].to_numpy(float), n_strata)
    members = np.split(matched.sets.indices, matched.sets.indptr[1:-1])
    seed = int(as_generator(rng).integers(2**31 - 1))
    job = _UnitTests(
        stored, Ladders.of_sets(members), RandomSets(members, strata, seed=seed), n_permutations, two, min_cells,
        moderate, rows=int(max(max_bytes // (8 * len(genes) * numba.get_num_threads()), 1)),
    )  # fmt: skip
    results = list(_logging.progress(job.run(tested), total=len(tested), desc="gene sets", enabled=progress_bar))

    labels = _labels(tested, stored, matched)
    impacts = [impact for impact, _ in results]
    table = _impact_table(impacts, labels, np.tile(matched.size, len(tested)), genes, members, n_leading)
    contrast = None if two is None else _contrast_table([c for _, c in results if c is not None], labels)
    first = table.drop_duplicates("unit")
    terms = first[first["padj"] < _ALPHA].set_index("unit")["term"].astype(str)
    described = stored.units.drop(columns="term", errors="ignore")
    described["term"] = pd.array([terms.get(unit, "") for unit in described.index.astype(str)], dtype="str")
    tables = {_keys.IMPACT: table, _keys.IMPACT_CONTRAST: contrast, _keys.UNITS: described}
    options: dict[str, Any] = counted | {"match": match, "n_strata": 1 if match == "none" else n_strata}
    options |= {"n_permutations": n_permutations, "n_tests": len(table), "groupby": groupby}
    options |= {"groups": None if two is None else two.names, "sample_key": sample_key}
    options |= {"paired": two is not None and two.paired} | matched.report
    written = record(adata, key, "geneset_impact", tables, options, copy=copy)
    _report(table, contrast, matched.report, key)
    return written


@dataclass(frozen=True)
class _UnitTests:
    """The same tests for every unit."""

    saliency: CellSaliency
    sets: Ladders
    null: RandomSets
    n_permutations: int
    two: TwoGroups | None
    min_cells: int
    moderate: bool
    rows: int

    def run(self, units: np.ndarray) -> Iterator[tuple[SetImpact, tuple[np.ndarray, ...] | None]]:
        """Impact of all sets on each unit, in order.

        With two groups also, by set: impact in both, score and p of their difference.
        """
        with ThreadPoolExecutor(numba.get_num_threads()) as pool:
            yield from pool.map(self._test, units)

    def _test(self, unit: int) -> tuple[SetImpact, tuple[np.ndarray, ...] | None]:
        pairs = self.saliency.pairs_of(unit)

        def read(part: slice) -> np.ndarray:
            values = self.saliency.saliency(slice(pairs.start + part.start, pairs.start + part.stop))
            return np.abs(values, out=values)

        rows = SaliencyRows(read, pairs.stop - pairs.start, self.rows)
        impact = impact_of_sets(rows, self.sets, self.null, self.n_permutations)
        if self.two is None:
            return impact, None
        here = self.two.of_cells(self.saliency.cell[pairs])
        a, b = here.group == 0, here.group == 1
        if not (a.any() and b.any()):
            return impact, (np.full(len(impact.impact), np.nan),) * 4
        if here.sample is not None:
            score, pval = here.test_samples(impact.medians, min_cells=self.min_cells, moderate=self.moderate)
        else:
            score, pval = difference_of_sets(rows, impact.medians, a, b, self.null, self.n_permutations)
        return impact, (impact.medians[a].mean(0), impact.medians[b].mean(0), score, pval)


def _tested_units(stored: CellSaliency, units: Any, key: str) -> np.ndarray:
    """Positions of the units to test."""
    names = stored.units.index.astype(str)
    if units is None:
        tested = np.flatnonzero(~stored.units["silent"].to_numpy(bool))
        if not len(tested):
            msg = f"All {len(names)} units of {key!r} are silent: there is nothing to test."
            raise ValueError(msg)
        return tested
    tested = np.sort(names.get_indexer(check.pick_names(names, units, key, what="unit")))
    empty = stored.units["n_cells"].to_numpy()[tested] == 0
    if empty.any():
        msg = f"The saliency has no cell for {listing(names[tested][empty])}. Leave them out."
        raise ValueError(msg)
    return tested


def _labels(tested: np.ndarray, stored: CellSaliency, matched: MatchedSets) -> dict[str, Any]:
    """Columns that name the unit and the set of each test."""
    n_sets = len(matched.names)
    unit = pd.Categorical.from_codes(np.repeat(tested, n_sets), categories=list(stored.units.index.astype(str)))
    terms = list(matched.names.astype(str))
    return {"unit": unit, "term": pd.Categorical.from_codes(np.tile(np.arange(n_sets), len(tested)), categories=terms)}


def _impact_table(
    impacts: list[SetImpact],
    labels: dict[str, Any],
    n_genes: np.ndarray,
    genes: pd.Index,
    members: list[np.ndarray],
    n_leading: int,
) -> pd.DataFrame:
    columns = ("impact", "sd", "score", "pval")
    impact, sd, score, pval = (np.stack([getattr(result, name) for result in impacts]) for name in columns)
    low = impact.min(0)
    spread = impact.max(0) - low
    names = genes.to_numpy(dtype=object)
    leading = [
        ",".join(names[m[np.argsort(-result.by_gene[m], kind="stable")[:n_leading]]])
        for result in impacts
        for m in members
    ]
    scaled = np.divide(impact - low, spread, out=np.zeros_like(impact), where=spread > 0)
    values = {"impact": impact, "sd": sd, "scaled": scaled} | _tests(score, pval)
    genes_of_sets = {"n_genes": n_genes, "genes": pd.array(leading, dtype="str")}
    table = pd.DataFrame(labels | {name: value.ravel() for name, value in values.items()} | genes_of_sets)
    return table.iloc[np.lexsort((-table["score"], table["pval"], table["unit"].cat.codes))].reset_index(drop=True)


def _tests(score: np.ndarray, pval: np.ndarray) -> dict[str, np.ndarray]:
    return {"score": score, "pval": pval, "padj": benjamini_hochberg(pval)}


def _contrast_table(contrasts: list[tuple[np.ndarray, ...]], labels: dict[str, Any]) -> pd.DataFrame:
    a, b, score, pval = (np.stack(values) for values in zip(*contrasts, strict=True))
    values = {"impact_a": a, "impact_b": b, "difference": a - b} | _tests(score, pval)
    table = pd.DataFrame(labels | {name: value.ravel() for name, value in values.items()})
    return table.iloc[np.lexsort((-table["score"].abs(), table["pval"]))].reset_index(drop=True)


def _report(table: pd.DataFrame, contrast: pd.DataFrame | None, report: dict[str, Any], key: str) -> None:
    clear = table[table["padj"] < _ALPHA]
    _logging.info(
        f"geneset_impact: {table['unit'].nunique()} units x {report['n_sets_tested']} gene sets, {len(clear)} of "
        f"{len(table)} tests padj < .05 ({clear['unit'].nunique()} units); {report['n_targets_measured']} of "
        f"{report['n_targets']} genes of the sets are among those of the model; added uns[{key!r}][{_keys.IMPACT!r}]"
    )
    if contrast is not None:
        _logging.info(f"contrast: {(contrast['padj'] < _ALPHA).sum()} of {len(contrast)} tests padj < .05")
