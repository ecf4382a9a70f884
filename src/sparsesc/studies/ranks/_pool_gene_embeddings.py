from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from sparsesc import _logging
from sparsesc._random import describe
from sparsesc._values import check_positive_int, listing
from sparsesc.door import _checks as check
from sparsesc.door._counts import LARGEST_LOG, expression_rows, gene_names
from sparsesc.door._gene_names import check_coverage
from sparsesc.door._slots import check_slots_free, record

from ._cell_sentences import cell_sentences

if TYPE_CHECKING:
    from anndata import AnnData

    from sparsesc._random import RNGLike, SeedLike

_WRITER = "ssc.pp.pool_gene_embeddings"


def pool_gene_embeddings(
    adata: AnnData,
    embeddings: pd.DataFrame | Mapping[str, Sequence[float] | np.ndarray] | None = None,
    *,
    encoder: Callable[[list[str]], Any] | None = None,
    layer: str | None = None,
    gene_key: str | None = None,
    normalize: bool = True,
    n_top: int | None = 1000,
    ties: Literal["random", "first"] = "random",
    batch_size: int = 64,
    progress_bar: bool | None = None,
    rng: SeedLike | RNGLike | None = 0,
    key_added: str = "X_genept",
    copy: bool = False,
) -> AnnData | None:
    r"""Embed cells by what is written about their genes: a weighted mean of gene embeddings, or an encoded sentence.

    With `embeddings` this is GenePT-w: the mean of the embeddings of a cell's genes, weighted by expression. With
    `encoder` it is GenePT-s: a text model reads the names of the cell's genes in descending order.

    Parameters
    ----------
    adata
        Cells x genes, log-normalized (for `encoder`, counts work as well).
    embeddings
        One vector per gene: a DataFrame (genes x dimensions) or a mapping of names to vectors.
    encoder
        Takes a list of sentences and returns an array (sentences x dimensions), for example the ``encode`` of a
        sentence model. Give this or `embeddings`.
    layer
        Layer to read instead of ``X``.
    gene_key
        Column of ``var`` with the names that `embeddings` uses, or that sentences are made of; ``None``:
        ``var_names``.
    normalize
        Scale every cell to unit length (Euclidean), as published.
    n_top
        Genes in the sentence of a cell; ``None`` takes all that are expressed. Only with `encoder`.
    ties
        Order of genes of equal value in a sentence, see :func:`cell_sentences`. Only with `encoder`.
    batch_size
        Sentences to pass to `encoder` at a time.
    progress_bar
        Show progress of `encoder`; ``None``: unless scanpy's verbosity is 0.
    rng
        Draws the order of ties of sentences.
    key_added
        Entry of ``obsm`` to write. The result of an earlier call is replaced; anything else of this name is an error.
    copy
        Return a copy instead of writing to `adata`.

    Returns
    -------
    ``None``, or the copy when ``copy=True``, with

    ``obsm[key_added]``
        Cells x dimensions, float32. Rows of cells that express no gene with an embedding are 0.
    ``uns[key_added]``
        `params`; with `embeddings` also `n_genes_matched`, `coverage` (share of all expression that comes from genes
        with an embedding) and `unmatched` (genes without one).

    Raises
    ------
    KeyError
        If `layer` or `gene_key` does not exist.
    TypeError
        If `embeddings` is neither a DataFrame nor a mapping, or `encoder` cannot be called.
    ValueError
        If neither or both of `embeddings` and `encoder` are given; if less than a tenth of the genes match; if
        vectors differ in length, are not finite, or name a gene twice; if expression is negative; if `encoder` returns
        an array of another shape; if the slots hold what this function did not write.

    See Also
    --------
    sparsesc.pp.cell_sentences : The sentences that `encoder` reads.
    sparsesc.tl.compare_representations : How this embedding compares with others.

    Notes
    -----
    With `embeddings`, the vector of cell :math:`i` is

    .. math:: z_i = \frac{\sum_g x_{ig}\, e_g}{\sum_g x_{ig}},

    with the expression :math:`x_{ig}` and the embedding :math:`e_g` of gene :math:`g`, summed over the genes that have
    one; `normalize` then divides it by its length.

    When not to use it: the mean over hundreds of genes is dominated by those that all cells express, so cells lie close
    together in it, and rare types may be lost; compare it with a PCA of the same expression. Embeddings of gene
    descriptions hold what was known when these were written, and those of genes that nobody wrote about mean nothing.

    References
    ----------
    Chen and Zou (2025), Simple and effective embedding model for single-cell biology built from ChatGPT, *Nature
    Biomedical Engineering* 9, 483-493.

    Examples
    --------
    >>> import pandas as pd
    >>> import sparsesc as ssc
    >>> from anndata import AnnData
    >>> expression = pd.DataFrame({"CD3D": [2.0, 0.0], "MS4A1": [0.0, 3.0]}, index=["T cell", "B cell"])
    >>> adata = AnnData(expression)
    >>> ssc.pp.pool_gene_embeddings(adata, {"CD3D": [1, 0], "MS4A1": [0, 1]})
    >>> adata.obsm["X_genept"]
    array([[1., 0.],
           [0., 1.]], dtype=float32)
    """
    if (embeddings is None) == (encoder is None):
        msg = "Give embeddings (a vector for each gene) or encoder (a function of sentences): one of them."
        raise ValueError(msg)
    check.check_adata(adata)
    check_slots_free(adata, key_added, _WRITER, {"obsm": [key_added]})
    tables: dict[str, Any] = {}
    options: dict[str, Any] = {"layer": layer, "gene_key": gene_key, "normalize": bool(normalize)}
    if encoder is not None:
        if not callable(encoder):
            msg = f"encoder must be a function that takes a list of sentences, found {type(encoder).__name__}."
            raise TypeError(msg)
        batch_size = check_positive_int(batch_size, name="batch_size")
        sentences = cell_sentences(adata, layer=layer, gene_key=gene_key, n_top=n_top, ties=ties, rng=rng)
        pooled = _encode(encoder, sentences.tolist(), batch_size, progress_bar)
        options |= {"method": "sentence", "n_top": n_top, "ties": ties, "rng": describe(rng)}
    else:
        pooled, tables = _weighted_mean(adata, embeddings, layer, gene_key)
        options |= {"method": "weighted"}
    if normalize:
        length = np.linalg.norm(pooled, axis=1, keepdims=True)
        pooled = np.divide(pooled, length, out=np.zeros_like(pooled), where=length > 0)

    slots = {key_added: pooled.astype(np.float32)}
    result = record(adata, key_added, _WRITER, tables, options, copy=copy, fresh=True, obsm=slots)
    _logging.info(f"pool_gene_embeddings: added obsm['{key_added}'], {pooled.shape[0]} cells x {pooled.shape[1]}")
    return result


def _weighted_mean(
    adata: AnnData, embeddings: Any, layer: str | None, gene_key: str | None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Mean of gene embeddings by expression, and what was matched."""
    names, vectors = _read_embeddings(embeddings)
    genes = gene_names(adata, gene_key)
    rows, _ = expression_rows(adata, layer)
    check_coverage(names.to_numpy(dtype=object), genes, name="embeddings")
    position = names.get_indexer(genes)
    known = np.flatnonzero(position >= 0)
    if rows.nnz and rows.data.max() > LARGEST_LOG:
        _logging.warning(
            "The expression matrix looks like counts that are not log-transformed: a few genes will dominate the mean. "
            "Run sc.pp.normalize_total and sc.pp.log1p, or name another layer."
        )
    weights = rows[:, known]
    total = np.asarray(weights.sum(axis=1, dtype=np.float64)).ravel()
    pooled = np.asarray(weights @ vectors[position[known]])
    np.divide(pooled, total[:, None], out=pooled, where=total[:, None] > 0)
    if (total == 0).any():
        _logging.warning(f"{int((total == 0).sum())} cells express no gene that has an embedding: their rows are 0.")
    unmatched = genes[position < 0]
    everything = float(rows.data.sum(dtype=np.float64))
    coverage = float(total.sum()) / everything if everything else 0.0
    if len(unmatched):
        _logging.warning(
            f"{len(unmatched)} of {len(genes)} genes have no embedding ({1 - coverage:.1%} of all expression): "
            f"{listing(unmatched)}."
        )
    return pooled, {
        "n_genes_matched": len(known),
        "coverage": coverage,
        "unmatched": np.sort(unmatched.to_numpy(dtype=object)),
    }


def _read_embeddings(embeddings: Any) -> tuple[pd.Index, np.ndarray]:
    if isinstance(embeddings, Mapping):
        shapes = {np.shape(vector) for vector in embeddings.values()}
        if len(shapes) != 1 or len(next(iter(shapes))) != 1:
            shown = listing(sorted(shapes, key=str))
            msg = f"embeddings must hold one vector per gene, all of one length, found shapes {shown}."
            raise ValueError(msg)
        embeddings = pd.DataFrame(np.stack([np.asarray(v) for v in embeddings.values()]), index=list(embeddings))
    if not isinstance(embeddings, pd.DataFrame):
        msg = f"embeddings must be a DataFrame (genes x dimensions) or a mapping, found {type(embeddings).__name__}."
        raise TypeError(msg)
    names = embeddings.index.astype(str)
    if not names.is_unique:
        msg = f"embeddings name genes twice: {listing(names[names.duplicated()].unique())}."
        raise ValueError(msg)
    if not len(names):
        msg = "embeddings are empty."
        raise ValueError(msg)
    return names, check.to_float_matrix(embeddings, name="embeddings")


def _encode(
    encoder: Callable[[list[str]], Any], sentences: list[str], batch_size: int, progress_bar: bool | None
) -> np.ndarray:
    parts: list[np.ndarray] = []
    starts = range(0, len(sentences), batch_size)
    for start in _logging.progress(starts, total=len(starts), desc="sentences", enabled=progress_bar):
        batch = sentences[start : start + batch_size]
        part = check.to_float_matrix(encoder(batch), name="what encoder returned")
        if len(part) != len(batch) or (parts and part.shape[1] != parts[0].shape[1]):
            msg = (
                f"encoder must return one vector per sentence, all of one length: found shape {part.shape} for "
                f"{len(batch)} sentences" + (f", after vectors of {parts[0].shape[1]}." if parts else ".")
            )
            raise ValueError(msg)
        parts.append(part)
    if not parts:
        msg = "adata has no cells: there is nothing to encode."
        raise ValueError(msg)
    out = np.concatenate(parts)
    out[[not sentence for sentence in sentences]] = 0.0  # what a model makes of an empty sentence has no meaning
    return out
