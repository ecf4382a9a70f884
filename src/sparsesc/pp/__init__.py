"""Preprocessing: cells as ranks, as sentences, and as pooled gene embeddings."""

from __future__ import annotations

from sparsesc.studies.ranks._cell_sentences import cell_sentences
from sparsesc.studies.ranks._fit_sentence_line import fit_sentence_line
from sparsesc.studies.ranks._pool_gene_embeddings import pool_gene_embeddings
from sparsesc.studies.ranks._rank_value_encode import rank_value_encode
from sparsesc.studies.ranks._ranked_genes import ranked_genes
from sparsesc.studies.ranks._sentence_line import SentenceLine
from sparsesc.studies.ranks._sentences_to_expression import sentences_to_expression

from ._thin_counts import thin_counts

__all__ = [
    "SentenceLine",
    "cell_sentences",
    "fit_sentence_line",
    "pool_gene_embeddings",
    "rank_value_encode",
    "ranked_genes",
    "sentences_to_expression",
    "thin_counts",
]
