"""Cells of counts, and real ones with Geneformer's dictionaries."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def _pbmc3k(published):
    return published("pbmc3k")[:300].copy()


@pytest.fixture
def pbmc3k(_pbmc3k):
    """300 real cells, counts, Ensembl ids in ``var["gene_ids"]``."""
    return _pbmc3k.copy()


@pytest.fixture(scope="session")
def geneformer():
    """Folder of Geneformer's dictionaries, and what is in it: medians and tokens by Ensembl id."""
    folder = Path(os.environ.get("SPARSESC_DATA_DIR", "")) / "geneformer"
    if not os.environ.get("SPARSESC_DATA_DIR") or not folder.is_dir():
        pytest.skip("SPARSESC_DATA_DIR is not set, or has no Geneformer dictionaries")
    names = ["gene_median_dictionary", "token_dictionary"]
    return folder, *(json.loads((folder / f"{name}.json").read_text()) for name in names)


@pytest.fixture
def warned(monkeypatch):
    """Messages of the package's warnings."""
    from sparsesc import _logging

    messages: list[str] = []
    monkeypatch.setattr(_logging, "warning", messages.append)
    return messages
