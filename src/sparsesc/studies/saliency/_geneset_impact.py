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
from sparsesc._values import check_choice, check_positive_int, listing
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._nets import MatchedSets, match_net, read_net
from sparsesc.door._saliency_slots import CellSaliency, read_saliency
from sparsesc.stats.core._multiple import benjamini_hochberg

from ._impact_groups import TwoGroups, two_groups
from ._random_sets import RandomSets, Strata
from ._set_impact import Rows, SetImpact, difference_of_sets, impact_of_sets
from ._set_medians import Ladders

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
    """Which gene sets drive the units of a model, from :func:`sparsesc.tl.saliency`, tested against random sets.

    The impact of a set on a unit is the mean over cells of the median over the set's genes of the absolute saliency.

    Parameters
    ----------
    adata
        Cells with a saliency.
    net
        Gene sets, as for :func:`feature_enrichment`: a table with `source` and `target`, a dict of gene lists, the path
        of a GMT file, or a name. Weights are not used.
    key
        Name of the saliency.
    units
        Units to test, by name or position. ``None``: all that are not silent.
    match
        What random sets have in common with a set, besides its size: ``"expression"``: as many genes from each of
        `n_strata` strata of mean expression (as the model sees it); ``"detection"``: of the share of cells that express
        them; ``"none"``: nothing. Networks look more at genes that are expressed more, so that without matching any set
        of such genes is a finding for any unit.
    n_strata
        See above.
    n_permutations
        Random sets for each set (and cheap ones for all units). P-values are the share of these that have as
        large an impact; below ``1 / n_permutations`` they come from a tail that is fitted to them.
    min_size, max_size
        Sets with fewer or more genes that the model sees are dropped.
    groupby
        Column of ``obs``: compare the impact between two groups of cells as well.
    groups
        The two groups. ``None``: `groupby` has exactly two categories; the second is compared with the first.
    sample_key
        Column of ``obs`` with samples (donors): the replicates of that comparison.
    moderate
        With `sample_key`: draw the variance of each set towards what is usual among sets (limma's empirical Bayes). It
        takes sets for independent. Those of a unit hardly are: when its saliency is larger in a sample, it is so for
        all sets, and p-values become too small, the more so the fewer samples there are.
    min_cells
        With `sample_key`: a sample with fewer cells (of a group, for a unit) is left out.
    n_leading
        Genes to name in the column `genes`.
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
        One row for each unit and set, smallest p first within a unit: `unit`, `term`, `impact`, `sd` (over cells),
        `scaled` (impact between its smallest, 0, and largest, 1, over units: which unit has most of a set), `score`
        (impact less its mean among random sets, over its standard deviation there), `pval` (one-sided: is it larger
        than that of random sets?), `padj` (Benjamini-Hochberg over all units x sets), `n_genes`, `genes` (those of the
        set with the largest saliency).
    ``uns[key]["impact_contrast"]``
        With `groupby`: `unit`, `term`, `impact_a`, `impact_b` (mean impact in the two groups), `difference` (a - b),
        `score`, `pval` (two-sided), `padj` (over all units x sets). With `sample_key`, the score is t of a linear model
        of the means of samples, which are compared within samples that have cells of both groups; NaN where too few
        samples are left. Without, it compares the difference with that of random sets: it says that a set changes more
        than others do, and nothing about other samples.
    ``uns[key]["units"]["term"]``
        The set with the smallest p, if its `padj` is below .05, otherwise empty.
    ``uns[key]["params"]["geneset_impact"]``
        What was asked, and the report of the match.

    Raises
    ------
    KeyError
        If there is no saliency under `key`; no such unit or column; or `net` lacks a column.
    ValueError
        If hardly any gene of `net` is seen by the model, no set is left, all units are silent, an option is out of its
        range, or there are too few cells or samples of a group.

    Notes
    -----
    `scaled` is what was published, with marks above .7. Every set has a unit with 1, also a set that no unit has
    anything to do with: read it with `padj`.

    When not to trust it: random genes are independent of each other, genes of a pathway are not. What goes up and down
    together gets similar weights, so that a set can be above or below random sets in all units alike; `scaled` tells
    such units apart, `pval` does not. P-values hold for this network and these cells: train again with another seed,
    and compare with an untrained network. A set that takes most genes of its stratum is compared with itself.

    References
    ----------
    Kinalis et al. (2019), BMC Bioinformatics 20:379. Phipson and Smyth (2010), Statistical Applications in Genetics and
    Molecular Biology 9:39. Knijnenburg et al. (2009), Bioinformatics 25:i161. Smyth (2004), Statistical Applications in
    Genetics and Molecular Biology 3:3.
    """
    check_choice(match, MATCHES, name="match")
    for name, value in (
        ("n_strata", n_strata),
        ("min_size", min_size),
        ("max_size", max_size),
        ("min_cells", min_cells),
    ):
        check_positive_int(value, name=name)
    check_positive_int(n_leading, name="n_leading")
    if check_positive_int(n_permutations, name="n_permutations") < _FEWEST_DRAWS:
        msg = (
            f"n_permutations must be at least {_FEWEST_DRAWS}: p-values come from these draws, found {n_permutations}."
        )
        raise ValueError(msg)
    if max_size < min_size:
        msg = f"max_size={max_size} is smaller than min_size={min_size}: no gene set can pass."
        raise ValueError(msg)
    if not max_memory > 0:
        msg = f"max_memory must be a positive number of GiB, found {max_memory!r}."
        raise ValueError(msg)
    found = read_saliency(adata, key)
    tested = _tested_units(found, units, key)
    genes = pd.Index(found.inputs.index.astype(str))
    matched = match_net(read_net(net), genes, np.arange(len(genes)), min_size=min_size, max_size=max_size)
    if (matched.sets.data != 1).any():
        _logging.warning("net has weights, which the impact does not use: only membership counts.")
    two = _groups(adata, found, groupby, groups, sample_key)
    strata = Strata.one(len(genes)) if match == "none" else _strata(found, match, n_strata)
    members = np.split(matched.sets.indices, matched.sets.indptr[1:-1])
    seed = int(as_generator(rng).integers(2**31 - 1))
    job = _Job(
        found, Ladders.of_sets(members), RandomSets(members, strata, seed=seed), n_permutations, two, min_cells,
        moderate, rows=int(max(max_memory * 2**30 // (8 * len(genes) * numba.get_num_threads()), 1)),
    )  # fmt: skip
    results = list(_logging.progress(job.run(tested), total=len(tested), desc="gene sets", enabled=progress_bar))

    table = _impact_table(results, tested, found, matched, genes, members, n_leading)
    contrast = None if two is None else _contrast_table(results, tested, found, matched)
    first = table.drop_duplicates("unit")
    named = first[first["padj"] < _ALPHA].set_index("unit")["term"].astype(str)
    described = found.units.drop(columns=[c for c in ("term",) if c in found.units])
    described["term"] = pd.Series(
        [named.get(u, "") for u in described.index.astype(str)], index=described.index, dtype="str"
    )
    asked: dict[str, Any] = {
        "match": match,
        "n_strata": 1 if match == "none" else int(n_strata),
        "n_permutations": int(n_permutations),
        "min_size": int(min_size),
        "max_size": int(max_size),
        "n_tests": len(table),
        "groupby": groupby or "",
        "groups": np.array([] if two is None else two.names, dtype=object),
        "sample_key": sample_key or "",
        "paired": bool(two is not None and two.paired),
    }

    adata = check.writable(adata, copy=copy)
    slot = adata.uns[key]
    slot[_keys.IMPACT] = table
    slot.pop(_keys.IMPACT_CONTRAST, None)
    if contrast is not None:
        slot[_keys.IMPACT_CONTRAST] = contrast
    slot[_keys.UNITS] = described
    slot[_keys.PARAMS] = dict(slot[_keys.PARAMS]) | {"geneset_impact": asked | matched.report}
    _report(table, contrast, matched.report, key)
    return adata if copy else None


@dataclass(frozen=True)
class _Result:
    """Everything about one unit."""

    impact: SetImpact
    means: np.ndarray | None = None
    """2 x sets: impact in both groups."""
    score: np.ndarray | None = None
    pval: np.ndarray | None = None


@dataclass(frozen=True)
class _Job:
    """The same work for every unit."""

    found: CellSaliency
    sets: Ladders
    null: RandomSets
    n_permutations: int
    two: TwoGroups | None
    min_cells: int
    moderate: bool
    rows: int

    def run(self, units: np.ndarray) -> Iterator[_Result]:
        """One result a unit, in order."""
        with ThreadPoolExecutor(numba.get_num_threads()) as pool:
            yield from pool.map(self._unit, units)

    def _unit(self, unit: int) -> _Result:
        pairs = self.found.pairs_of(unit)

        def read(part: slice) -> np.ndarray:
            values = self.found.saliency(slice(pairs.start + part.start, pairs.start + part.stop))
            return np.abs(values, out=values)

        rows = Rows(read, pairs.stop - pairs.start, self.rows)
        impact = impact_of_sets(rows, self.sets, self.null, self.n_permutations)
        if self.two is None:
            return _Result(impact)
        here = self.two.of_cells(self.found.cell[pairs])
        a, b = here.group == 0, here.group == 1
        if not (a.any() and b.any()):
            blank = np.full(len(impact.impact), np.nan)
            return _Result(impact, np.stack([blank, blank]), blank, blank)
        means = np.stack([impact.medians[a].mean(0), impact.medians[b].mean(0)])
        if here.sample is not None:
            score, pval = here.test_samples(impact.medians, min_cells=self.min_cells, moderate=self.moderate)
        else:
            score, pval = difference_of_sets(rows, impact.medians, a, b, self.null, self.n_permutations)
        return _Result(impact, means, score, pval)


def _tested_units(found: CellSaliency, units: Any, key: str) -> np.ndarray:
    names = found.units.index.astype(str)
    silent = found.units["silent"].to_numpy(bool)
    if units is None:
        tested = np.flatnonzero(~silent)
        if not len(tested):
            msg = f"All {len(silent)} units of {key!r} are silent: there is nothing to test."
            raise ValueError(msg)
        return tested
    tested = np.sort(names.get_indexer(check.pick_names(names, units, key, what="unit")))
    if (found.units["n_cells"].to_numpy()[tested] == 0).any():
        empty = names[tested][found.units["n_cells"].to_numpy()[tested] == 0]
        msg = f"No cell was looked at for {listing(empty)}. Leave them out."
        raise ValueError(msg)
    return tested


def _groups(
    adata: AnnData, found: CellSaliency, groupby: str | None, groups: Sequence[str] | None, sample_key: str | None
) -> TwoGroups | None:
    if groupby is None:
        if groups is not None or sample_key is not None:
            msg = "groups and sample_key are for the comparison of two groups of cells: name their column by groupby."
            raise ValueError(msg)
        return None
    return two_groups(adata, found.cells, groupby, groups, sample_key)


def _strata(found: CellSaliency, match: str, n_strata: int) -> Strata:
    return Strata.by_rank(found.inputs[_COLUMN[match]].to_numpy(float), n_strata)


def _impact_table(
    results: list[_Result],
    tested: np.ndarray,
    found: CellSaliency,
    matched: MatchedSets,
    genes: pd.Index,
    members: list[np.ndarray],
    n_leading: int,
) -> pd.DataFrame:
    impact = np.stack([r.impact.impact for r in results])
    low, high = impact.min(0), impact.max(0)
    spread = high - low
    pval = np.stack([r.impact.pval for r in results])
    score = np.stack([r.impact.score for r in results])
    names = genes.to_numpy(dtype=object)
    leading = [
        ",".join(names[m[np.argsort(-r.impact.by_gene[m], kind="stable")[:n_leading]]])
        for r in results
        for m in members
    ]
    table = pd.DataFrame(
        _labels(tested, found, matched)
        | {
            "impact": impact.ravel(),
            "sd": np.stack([r.impact.sd for r in results]).ravel(),
            "scaled": np.divide(impact - low, spread, out=np.zeros_like(impact), where=spread > 0).ravel(),
            "score": score.ravel(),
            "pval": pval.ravel(),
            "padj": benjamini_hochberg(pval).ravel(),
            "n_genes": np.tile(matched.size, len(tested)),
            "genes": pd.array(leading, dtype="str"),
        }
    )
    order = np.lexsort((-table["score"], table["pval"], table["unit"].cat.codes))
    return table.iloc[order][list(_keys.TABLES["saliency/impact"].columns)].reset_index(drop=True)


def _contrast_table(
    results: list[_Result], tested: np.ndarray, found: CellSaliency, matched: MatchedSets
) -> pd.DataFrame:
    means = np.stack([r.means for r in results if r.means is not None])
    pval = np.stack([r.pval for r in results if r.pval is not None])
    score = np.stack([r.score for r in results if r.score is not None])
    table = pd.DataFrame(
        _labels(tested, found, matched)
        | {
            "impact_a": means[:, 0].ravel(),
            "impact_b": means[:, 1].ravel(),
            "difference": (means[:, 0] - means[:, 1]).ravel(),
            "score": score.ravel(),
            "pval": pval.ravel(),
            "padj": benjamini_hochberg(pval).ravel(),
        }
    )
    order = np.lexsort((-table["score"].abs(), table["pval"]))
    return table.iloc[order][list(_keys.TABLES["saliency/impact_contrast"].columns)].reset_index(drop=True)


def _labels(tested: np.ndarray, found: CellSaliency, matched: MatchedSets) -> dict[str, Any]:
    n_sets = len(matched.names)
    unit = pd.Categorical.from_codes(np.repeat(tested, n_sets), categories=list(found.units.index.astype(str)))
    terms = list(matched.names.astype(str))
    return {"unit": unit, "term": pd.Categorical.from_codes(np.tile(np.arange(n_sets), len(tested)), categories=terms)}


def _report(table: pd.DataFrame, contrast: pd.DataFrame | None, report: dict[str, Any], key: str) -> None:
    clear = table[table["padj"] < _ALPHA]
    _logging.info(
        f"geneset_impact: {table['unit'].nunique()} units x {report['n_sets_tested']} gene sets, {len(clear)} of "
        f"{len(table)} tests padj < .05 ({clear['unit'].nunique()} units); {report['n_targets_measured']} of "
        f"{report['n_targets']} genes of the sets are seen by the model; added uns[{key!r}][{_keys.IMPACT!r}]"
    )
    if contrast is not None:
        _logging.info(f"contrast: {(contrast['padj'] < _ALPHA).sum()} of {len(contrast)} tests padj < .05")
