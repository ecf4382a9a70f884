"""Genes of moved cells, decoded block by block: cells x genes are never held as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sparsesc.decoders import Decoder, log2_expression
from sparsesc.door._nets import match_net, read_net
from sparsesc.stats.genes._enrichment import Ulm
from sparsesc.stats.genes._top_terms import TermReducer, iterate_rows

from ._moves import DIRECTIONS, FEATURES, STEERED

if TYPE_CHECKING:
    from anndata import AnnData

_BLOCK_VALUES = 4_000_000
_SHOWN = 20


def _cell_blocks(n: int, n_genes: int) -> Iterator[slice]:
    """Parts of the cells that are decoded at once."""
    step = max(1, _BLOCK_VALUES // max(n_genes, 1))
    yield from (slice(i, i + step) for i in range(0, n, step))


def gene_effects(
    decoder: Decoder,
    cells: pd.Index,
    start: np.ndarray,
    moves: Mapping[tuple[str, int], np.ndarray],
    doses: np.ndarray,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Log2 fold changes of all genes, with their spread and those of the controls; and over doses for the top genes.

    Parameters
    ----------
    cells
        Names of the cells.
    start
        Where they are.
    moves
        What moves them, by name and draw.
    doses
        Multiples of the move.
    """
    random = [name for name in moves if name[0] in (DIRECTIONS, FEATURES)]
    n_genes = len(decoder.genes)
    total, square = np.zeros((2, n_genes))
    by_draw, by_dose = np.zeros((len(random), n_genes)), np.zeros((len(doses), n_genes))
    for part in _cell_blocks(len(start), n_genes):
        covariates = decoder.covariates(cells[part])
        place = start[part]

        def expression(Z: np.ndarray, covariates: Any = covariates) -> np.ndarray:
            return log2_expression(decoder.decode(Z.astype(np.float32), covariates), decoder.scale)

        base = expression(place)
        rise = expression(place + moves[STEERED, 0][part]) - base
        total += rise.sum(0)
        square += (rise**2).sum(0)
        for i, name in enumerate(random):
            by_draw[i] += (expression(place + moves[name][part]) - base).sum(0)
        for i, dose in enumerate(doses):
            moved = rise if dose == 1 else expression(place + dose * moves[STEERED, 0][part]) - base
            by_dose[i] += moved.sum(0)
    n = len(start)
    logfc = total / n
    table = pd.DataFrame(
        {
            "gene": decoder.genes,
            "logfc": logfc,
            "sd": np.sqrt(np.maximum(square / n - logfc**2, 0)),
            "n_cells": n,
        }
    )
    if random:
        # random directions have no sign: their spread is about zero
        spread = np.sqrt(((by_draw / n) ** 2).mean(0))
        table["control_sd"] = spread
        table["score"] = np.divide(logfc, spread, out=np.zeros(n_genes), where=spread > 0)
    order = np.argsort(-np.abs(logfc), kind="stable")
    top = order[:_SHOWN]
    curves = pd.DataFrame(
        {
            "gene": np.repeat(decoder.genes[top], len(doses)),
            "dose": np.tile(doses, len(top)),
            "logfc": (by_dose[:, top] / n).T.ravel(),
        }
    )
    return table.iloc[order].reset_index(drop=True), curves


def enriched_sets(effects: pd.DataFrame, net: Any, *, min_size: int, max_size: int, n_top: int = 50) -> pd.DataFrame:
    """Gene sets of the decoded effects, by the linear model of feature_enrichment."""
    genes = pd.Index(effects["gene"].astype(str))
    matched = match_net(read_net(net), genes, np.arange(len(genes)), min_size=min_size, max_size=max_size)
    reducer = TermReducer(
        Ulm(matched.sets), matched.sets, n_tests=len(matched.names), n_top=n_top, n_leading=10, max_bytes=2**28
    )
    scores = effects["logfc"].to_numpy(dtype=np.float64)[None, :]
    top = reducer.gather(iterate_rows(scores, np.arange(1), reducer, threads=1))
    names = np.append(genes.to_numpy(dtype=object), "")
    return pd.DataFrame(
        {
            "term": pd.Index(matched.names.astype(str)).take(top.term),
            "score": top.score,
            "pval": top.pval,
            "padj": top.padj,
            "n_genes": matched.size[top.term],
            "genes": pd.array([",".join(row).rstrip(",") for row in names[top.genes]], dtype="str"),
        }
    )


def decode_layer(adata: AnnData, decoder: Decoder, Z: np.ndarray) -> np.ndarray:
    """Decoded expression of all cells, cells x genes of `adata`, on the scale of the decoder; 0 for other genes."""
    into = adata.var_names.get_indexer(decoder.genes)
    known = np.flatnonzero(into >= 0)
    out = np.zeros((len(Z), adata.n_vars), np.float32)
    for part in _cell_blocks(len(Z), len(decoder.genes)):
        values = decoder.decode(Z[part], decoder.covariates(adata.obs_names[part]))
        out[part, into[known]] = np.asarray(values)[:, known]
    return out
