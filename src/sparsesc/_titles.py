"""Names of gene sets as people write them."""

from __future__ import annotations

# First words of names of gene sets that name the collection.
_COLLECTIONS = ("HALLMARK", "REACTOME", "KEGG", "GOBP", "GOCC", "GOMF", "WP", "BIOCARTA", "PID")
_SYMBOLS = (
    "ER",
    "TNFA",
    "DNA",
    "RNA",
    "MYC",
    "IL",
    "TGF",
    "UV",
    "ROS",
    "KRAS",
    "MTOR",
    "AKT",
    "NOTCH",
    "WNT",
    "JAK",
    "RAS",
)


def term_title(term: str) -> str:
    """Name of a gene set as people write it: ``HALLMARK_TNFA_SIGNALING`` becomes "TNFA signaling".

    Only names in capitals that are joined by underscores change. What has a digit stays as it is.
    """
    if term != term.upper() or "_" not in term:
        return term
    words = [word for word in term.split("_") if word]
    words = words[1:] if len(words) > 1 and words[0] in _COLLECTIONS else words
    lower = [word if _stays(word) else word.lower() for word in words]
    return " ".join([lower[0] if _stays(words[0]) else lower[0].capitalize(), *lower[1:]])


def _stays(word: str) -> bool:
    """Whether a word of a gene set's name is a symbol rather than a word."""
    return any(c.isdigit() for c in word) or word in _SYMBOLS or (len(word) > 2 and not set(word) & set("AEIOUY"))
