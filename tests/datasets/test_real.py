"""Loaders: what the docstrings promise is in the files, and a missing or wrong file is told clearly."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

import sparsesc as ssc
from sparsesc.datasets import _registry

# shape, {column of obs: number of values}
PROMISED = {
    "pbmc68k_reduced": ((700, 765), {"bulk_labels": 10}),
    "pbmc3k": ((2700, 32738), {"cell_type": 10, "louvain_scanpy": 9, "donor": 1, "batch": 1}),
    "balf_covid": ((3724, 33539), {"cell_type": 10, "donor": 3, "condition": 2, "batch": 3}),
    "kang2018": ((2000, 9015), {"condition": 2, "donor": 9, "cell_type": 8, "label_origin": 2}),
    "onek1k": ((7811, 1000), {"cell_type": 4, "donor": 40, "sex": 2}),
    "pbmc_3tech": ((1200, 1767), {"cell_type": 9, "cell_type_broad": 7, "batch": 3}),
    "bonemarrow_human": ((8390, 32738), {"donor": 3, "condition": 2, "batch": 3}),
    "bonemarrow_mouse": ((2730, 8716), {"paul15_cluster": 19, "cell_type": 10, "batch": 16}),
}


@pytest.mark.parametrize("name", PROMISED)
def test_shapes_and_labels_are_as_promised(name, published):
    shape, columns = PROMISED[name]
    adata = published(name)
    assert adata.shape == shape
    assert {column: adata.obs[column].nunique() for column in columns} == columns


@pytest.mark.parametrize("name", [name for name in PROMISED if name != "pbmc68k_reduced"])
def test_files_hold_counts(name, published):
    X = published(name).X
    assert sparse.isspmatrix_csr(X)
    assert X.data.min() > 0
    np.testing.assert_array_equal(X.data, np.round(X.data))


def test_citeseq_has_three_modalities_of_counts(published):
    mdata = published("citeseq")
    shapes = {name: mod.shape for name, mod in mdata.mod.items()}
    assert shapes == {
        "rna": (500, 19521),
        "adt": (500, 49),
        "hto": (500, 4),
    }
    assert mdata["rna"].var_names.str.startswith("hg19_").all()


def test_missing_file_says_what_to_set_and_where_data_come_from(tmp_path, monkeypatch):
    monkeypatch.setenv(_registry.ENV_VAR, str(tmp_path))
    with pytest.raises(FileNotFoundError, match="SPARSESC_DATA_DIR") as error:
        ssc.datasets.pbmc3k()
    for part in [
        str(tmp_path),
        "pbmc3k_raw_labelled.h5ad",
        "6,939,930 bytes",
        "Zheng",
        "CC BY 4.0",
        "downloads nothing",
    ]:
        assert part in str(error.value)


def test_default_folder_is_the_users_cache(monkeypatch):
    monkeypatch.delenv(_registry.ENV_VAR, raising=False)
    folder = _registry.data_dir()
    assert folder.name == "sparsesc"
    if not folder.exists():
        with pytest.raises(FileNotFoundError, match="SPARSESC_DATA_DIR is not set"):
            ssc.datasets.kang2018()


def test_cut_or_changed_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(_registry.ENV_VAR, str(tmp_path))
    path = tmp_path / "pbmc3k_raw_labelled.h5ad"
    path.write_bytes(b"cut")
    with pytest.raises(ValueError, match="found 3 bytes, expected 6,939,930 bytes"):
        ssc.datasets.pbmc3k()
    with path.open("wb") as handle:
        handle.truncate(6_939_930)  # the right size, all zeros
    with pytest.raises(ValueError, match="found sha256"):
        ssc.datasets.pbmc3k()


def test_checksum_is_read_once_in_a_process(monkeypatch):
    if not os.environ.get(_registry.ENV_VAR):
        pytest.skip("SPARSESC_DATA_DIR is not set")
    name = "genesets/h.all.v7.5.1.symbols.gmt"
    _registry.data_file(name)

    def refuse(path: Path) -> str:
        raise AssertionError(path)

    monkeypatch.setattr(_registry, "_sha256", refuse)
    assert _registry.data_file(name).is_file()


def test_unknown_file_lists_the_registered():
    with pytest.raises(KeyError, match=r"Registered: .*pbmc3k_raw_labelled"):
        _registry.data_file("atlas.h5ad")


def test_registry_entries_are_complete():
    for name, entry in _registry.FILES.items():
        assert len(entry.sha256) == 64, name
        assert entry.size > 0, name
        assert entry.source, name
        assert entry.license, name
    assert len({entry.sha256 for entry in _registry.FILES.values()}) == len(_registry.FILES)
