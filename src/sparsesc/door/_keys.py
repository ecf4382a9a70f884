"""Every slot that sparsesc reads or writes, and every table it stores, spelled once.

A sparse autoencoder is stored under one ``key`` (default ``"sae"``); functions get the names of its slots
from :func:`sae_keys`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

DEFAULT_KEY = "sae"
SCHEMA_VERSION = 1

PARAMS = "params"
WEIGHTS = "weights"
HISTORY = "history"
METRICS = "metrics"
FEATURES = "features"
ASSOCIATION = "association"
ASSOCIATION_NUMERIC = "association_numeric"
LABELS = "labels"
GENES = "genes"
GENES_COHERENCE = "genes_coherence"  # a column of the features, and its p-value
GENES_COHERENCE_PVAL = f"{GENES_COHERENCE}_pval"
ENRICHMENT = "enrichment"
ANNOTATION = "annotation"
DIFFERENTIAL = "differential"
DIFFERENTIAL_SAMPLES = "differential_samples"
SIMILARITY = "similarity"
SIMILARITY_MATRIX = "similarity_matrix"
SAME_LABEL = "same_label"
LOCALITY = "locality"
ABSORPTION = "absorption"
STEERING = "steering"
SUPPRESSION = "suppression"
STABILITY = "stability"
VALIDATION = "validation_obs"
REFERENCE = "reference"
QUERY = "query"
DRIFT = "drift"
BLOCKS = "blocks"
CROSSCODER = "crosscoder"

SALIENCY_KEY = "saliency"
UNITS = "units"
INPUTS = "inputs"
SALIENT_CELLS = "cells"
PAIRS = "pairs"
NODE_WEIGHTS = "node_weights"
INPUT_VALUES = "values"
IMPACT = "impact"
IMPACT_CONTRAST = "impact_contrast"

STUDIES = ("rank_fidelity", "count_diagnostics", "latent_diagnostics", SALIENCY_KEY)
"""Functions whose tables have an entry of ``uns`` to themselves, by default under these names."""
REPRESENTATION_COLUMNS = (
    "representation", "label_key", "metric", "value", "null_mean", "null_sd", "pval", "n_features", "n_labels",
    "n_cells",
)  # fmt: skip
"""Columns of the table that ``tl.compare_representations`` returns."""


@dataclass(frozen=True)
class SaeKeys:
    """Slots of one sparse autoencoder in an AnnData."""

    key: str
    """Entry of ``uns`` that holds parameters, weights and tables."""
    codes: str
    """Entry of ``obsm``: cells x features, CSR."""
    genes: str
    """Entry of ``varm``: genes x features."""
    joint: str
    """Entry of ``obsm``: several embeddings side by side, cells x dimensions."""
    residual: str
    """Column of ``obs``: length of what the features do not explain of a query cell."""
    residual_pval: str
    """Column of ``obs``: share of reference cells with a residual at least as large."""

    def feature_names(self, n_features: int) -> list[str]:
        """Stable names, ``{key}_0 ...``."""
        return [f"{self.key}_{i}" for i in range(n_features)]


def sae_keys(key: str = DEFAULT_KEY) -> SaeKeys:
    """Slots that belong to ``key``."""
    return SaeKeys(key, f"X_{key}", f"{key}_genes", f"X_{key}_joint", f"{key}_residual", f"{key}_residual_pval")


@dataclass(frozen=True)
class RankKeys:
    """Slots of one rank encoding in an AnnData."""

    key: str
    """Entry of ``layers`` (cells x genes, CSR) and of ``uns``."""
    median: str
    """Column of ``var``: what a gene was divided by."""
    n_genes: str
    """Column of ``obs``: genes with a rank, before any cut."""
    zeros: str
    """Column of ``obs``: the rank that all zeros share."""


def rank_keys(key: str) -> RankKeys:
    """Slots that belong to a rank encoding."""
    return RankKeys(key=key, median=f"{key}_median", n_genes=f"{key}_n_genes", zeros=f"{key}_zeros")


@dataclass(frozen=True)
class ThinKeys:
    """Slots of counts that were split into two parts."""

    key: str
    """Entry of ``uns``."""
    train: str
    """Entry of ``layers`` for learning."""
    test: str
    """Entry of ``layers`` for testing."""
    overdispersion: str
    """Column of ``var``."""


def thin_keys(key: str = "thin") -> ThinKeys:
    """Slots that belong to a thinning."""
    return ThinKeys(key=key, train=f"{key}_train", test=f"{key}_test", overdispersion=f"{key}_overdispersion")


@dataclass(frozen=True)
class SaliencyKeys:
    """Slots of the saliency of one model in an AnnData."""

    key: str
    """Entry of ``uns``."""
    genes: str
    """Entry of ``varm``: genes x units."""


def saliency_keys(key: str = SALIENCY_KEY) -> SaliencyKeys:
    """Slots that belong to a saliency."""
    return SaliencyKeys(key=key, genes=key)


def steered_key(use_rep: str) -> str:
    """Entry of ``obsm`` with the embedding after steering."""
    return f"{use_rep}_steered"


def clean_key(use_rep: str) -> str:
    """Entry of ``obsm`` with the embedding without its suppressed features."""
    return f"{use_rep}_clean"


@dataclass(frozen=True)
class Table:
    """A table that this package stores."""

    writer: str
    """Function that writes it, with the option that the table needs."""
    reader: str
    """Function that reads it."""
    choice: str
    """Its name in the reader's option `table`; empty where the reader has one table only."""
    rows: str
    """What a row is."""
    columns: Mapping[str, str]
    """Meaning of the columns that it always has, in order; the name of the index first where it has one."""
    optional: Mapping[str, str]
    """Meaning of those that some options of the writer add."""


_STORED = tomllib.loads((files("sparsesc.door") / "tables.toml").read_text("utf-8"))
MEANING: dict[str, str] = _STORED["meaning"]
"""What columns mean, by name: most names mean the same in every table."""


def _table(entry: Mapping[str, Any]) -> Table:
    meaning = MEANING | entry.get("special", {})
    columns, optional = ({name: meaning[name] for name in entry.get(which, [])} for which in ("columns", "optional"))
    return Table(entry["writer"], entry["reader"], entry.get("choice", ""), entry["rows"], columns, optional)


TABLES = {name: _table(entry) for name, entry in _STORED["tables"].items()}
"""Every table by its name: the place in ``uns[key]``, behind the name of the study that it belongs to, if any."""


def tables_of(reader: str) -> dict[str, str]:
    """Names of the tables that a function of ``get`` reads, by its option `table`."""
    return {table.choice: name for name, table in TABLES.items() if table.reader == f"get.{reader}"}


def table_path(name: str) -> list[str]:
    """Where a table is in ``uns[key]``."""
    first, *rest = name.split("/")
    return rest if first in STUDIES else [first, *rest]
