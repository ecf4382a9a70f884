"""Genes of features by what a decoder makes of them: derivatives instead of comparisons of cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from scipy import sparse

from sparsesc import _logging
from sparsesc import _random as random
from sparsesc._values import listing
from sparsesc.decoders import Decoder, LinearDecoder, as_decoder, log2_expression
from sparsesc.door import _checks as check
from sparsesc.door import _keys
from sparsesc.door._slots import record
from sparsesc.stats.core._largest import largest_in_rows

from ._gene_table import top_gene_names

if TYPE_CHECKING:
    from anndata import AnnData

    from sparsesc._random import RNGLike, SeedLike

METHOD = "decoder"
_CELLS = 100  # active cells of a feature that its derivative is averaged over
_BLOCK_VALUES = 4_000_000


def decoder_genes(
    adata: AnnData,
    decoder: Any,
    *,
    key: str,
    layer: str | None,
    n_top: int | None,
    direction: str,
    min_cells: int,
    store: Any,
    progress_bar: bool | None,
    rng: SeedLike | RNGLike | None,
    copy: bool,
) -> AnnData | None:
    """What ``feature_genes(method="decoder")`` does; see there."""
    if store is False:
        msg = "method='decoder' keeps its effects in varm, where gene sets are tested from: leave out store."
        raise ValueError(msg)
    codes = check.get_codes(adata, key)
    table = check.get_feature_table(adata, key)
    slot = check.get_sae_slot(adata, key)
    use_rep = str(slot[_keys.PARAMS]["use_rep"])
    X = check.get_rep(adata, use_rep)
    W = np.asarray(slot[_keys.WEIGHTS]["W_dec"], dtype=np.float32)
    decodes = as_decoder(adata, decoder, use_rep=use_rep, layer=layer)
    place = decodes.genes.get_indexer(adata.var_names)
    if not (place >= 0).any():
        msg = (
            f"None of the decoder's genes ({listing(decodes.genes[:4])}) is in adata.var_names "
            f"({listing(adata.var_names[:4])})."
        )
        raise ValueError(msg)
    tested = np.flatnonzero(np.bincount(codes.indices, minlength=codes.shape[1]) >= min_cells)
    if not len(tested):
        msg = f"None of the {len(table)} features is active in at least min_cells={min_cells} cells. Lower min_cells."
        raise ValueError(msg)
    effects = _Effects(decodes, adata.obs_names, X, codes, W, random.as_generator(rng))
    scores = np.zeros((adata.n_vars, len(table)), np.float32)
    tables = []
    for part in _logging.progress(
        effects.parts(tested), total=effects.n_parts(len(tested)), desc="genes", enabled=progress_bar
    ):
        for feature, score, logfc, sd, n in part:
            scores[place >= 0, feature] = score[place[place >= 0]]
            _, top, rank = largest_in_rows(score[None], n_top, direction)
            top, rank = top[score[top] != 0], rank[score[top] != 0]
            columns = {"feature": table.index[feature], "gene": decodes.genes[top], "score": score[top]}
            columns |= {"logfc": logfc[top], "pval": np.nan, "padj": np.nan, "rank": rank, "sd": sd[top], "n_cells": n}
            tables.append(pd.DataFrame(columns))
    genes = pd.concat(tables, ignore_index=True)
    earlier = _contrast_scores(adata, slot, key)
    if earlier is not None:
        at = adata.var_names.get_indexer(genes["gene"])
        scored = earlier[np.maximum(at, 0), table.index.get_indexer(genes["feature"])]
        genes["score_contrast"] = np.where(at >= 0, scored, np.nan)
    table["top_genes"] = top_gene_names(genes, table.index)
    # of other genes, if there
    table = table.drop(columns=[_keys.GENES_COHERENCE, _keys.GENES_COHERENCE_PVAL], errors="ignore")
    options = {
        "method": METHOD,
        "decoder": type(decodes).__name__,
        "direction": direction,
        "n_top": n_top,
        "min_cells": min_cells,
        "rng": random.describe(rng),
        "n_obs": adata.n_obs,
        "n_features_tested": len(tested),
        "n_genes_tested": int((place >= 0).sum()),
        "scale": decodes.scale,
        "stored": True,
    }
    name = _keys.sae_keys(key).genes
    _logging.info(
        f"feature_genes: decoded effects of {len(tested)} features on {options['n_genes_tested']} genes; added "
        f"varm['{name}'] and uns['{key}']['{_keys.GENES}']"
    )
    written = {_keys.GENES: genes, _keys.FEATURES: table}
    return record(adata, key, "feature_genes", written, options, copy=copy, varm={name: scores})


class _Effects:
    """Derivatives of expression along features, averaged over cells in which they are active."""

    def __init__(
        self,
        decoder: Decoder,
        cells: pd.Index,
        X: np.ndarray,
        codes: sparse.csr_matrix,
        W: np.ndarray,
        rng: np.random.Generator,
    ) -> None:
        self._decoder, self._cells, self._X, self._W, self._rng = decoder, cells, X, W, rng
        self._columns = codes.tocsc()
        # a linear decoder says the same for every cell
        self._most = 1 if isinstance(decoder, LinearDecoder) else _CELLS
        self._together = max(1, _BLOCK_VALUES // (len(decoder.genes) * self._most))

    def n_parts(self, n: int) -> int:
        """How many parts there are for so many features."""
        return -(-n // self._together)

    def parts(self, features: np.ndarray) -> Any:
        """For each feature: position, derivative, effect at its activations, its spread over cells, cells."""
        for i in range(0, len(features), self._together):
            yield self._some(features[i : i + self._together])

    def _some(self, features: np.ndarray) -> list[tuple[int, np.ndarray, np.ndarray, np.ndarray, int]]:
        rows, activations, means = [], [], []
        for feature in features:
            start, end = self._columns.indptr[feature : feature + 2]
            active, value = self._columns.indices[start:end], self._columns.data[start:end]
            means.append(float(value.mean()))
            taken = np.arange(len(active))
            if len(active) > self._most:
                taken = np.sort(self._rng.choice(len(active), self._most, replace=False))
            rows.append(active[taken])
            activations.append(value[taken].astype(np.float64))
        at = np.concatenate(rows)
        V = np.repeat(self._W[features], [len(r) for r in rows], axis=0)
        value, slope = self._decoder.jvp(self._X[at], V, self._decoder.covariates(self._cells[at]))
        slope = log2_expression(value, self._decoder.scale, slope)
        slopes = np.split(slope, np.cumsum([len(r) for r in rows])[:-1])
        out = []
        for feature, slope, activation, mean in zip(features, slopes, activations, means, strict=True):
            if self._most == 1:
                n_active = int(np.diff(self._columns.indptr[feature : feature + 2])[0])
                out.append((int(feature), slope[0], slope[0] * mean, np.zeros(slope.shape[1]), n_active))
                continue
            effect = slope * activation[:, None]
            out.append((int(feature), slope.mean(0), effect.mean(0), effect.std(0), len(activation)))
        return out


def _contrast_scores(adata: AnnData, slot: Any, key: str) -> np.ndarray | None:
    """Scores of an earlier contrast, to stand beside the derivatives."""
    options = slot[_keys.PARAMS].get("feature_genes", {})
    name = _keys.sae_keys(key).genes
    fits = name in adata.varm and bool(options.get("stored", False)) and options.get("method") == "contrast"
    return np.asarray(adata.varm[name]) if fits else None
