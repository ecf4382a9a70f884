from __future__ import annotations

import os

import pandas as pd
import pytest

import sparsesc as ssc
from sparsesc.datasets import _gene_sets


@pytest.fixture
def gmt(tmp_path):
    def write(text, name="sets.gmt"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_immune_markers():
    found = ssc.datasets.gene_sets("immune_markers")
    assert list(found.columns) == ["source", "target"]
    assert not found.duplicated().any()
    sizes = found.groupby("source").size()
    assert len(sizes) >= 20
    assert sizes.between(8, 30).all()
    for cell, genes in {
        "B cell": {"CD79A", "MS4A1", "CD19"},
        "NK cell": {"NKG7", "GNLY", "KLRD1"},
        "Classical monocyte": {"CD14", "LYZ", "S100A8"},
        "Regulatory T cell": {"FOXP3", "IL2RA"},
        "Plasmacytoid dendritic cell": {"LILRA4", "IL3RA"},
        "Platelet or megakaryocyte": {"PPBP", "PF4"},
    }.items():
        assert genes <= set(found.loc[found["source"] == cell, "target"])


def test_every_immune_set_names_its_published_sources():
    from importlib.resources import files

    for line in (files("sparsesc.datasets") / "immune_markers.gmt").read_text().splitlines():
        assert " et al. " in line.split("\t")[1]


def test_names_with_spaces_survive_and_repeats_do_not(gmt):
    path = gmt("mitochondrial genome maintenance (GO:0000002)\tGO:0000002\tAKT3\tDNA2 \tAKT3\n\nother set\t\tX\t\n")
    expected = pd.DataFrame(
        {
            "source": ["mitochondrial genome maintenance (GO:0000002)"] * 2 + ["other set"],
            "target": ["AKT3", "DNA2", "X"],
        }
    )
    pd.testing.assert_frame_equal(ssc.datasets.gene_sets(path), expected)
    pd.testing.assert_frame_equal(ssc.datasets.gene_sets(str(path)), expected)


def test_windows_line_ends_and_byte_order_mark(tmp_path):
    path = tmp_path / "x.gmt"
    path.write_bytes(b"\xef\xbb\xbfa b\tlink\tG1\tG2\r\nc\tlink\tG3\r\n")
    found = ssc.datasets.gene_sets(path)
    assert found["source"].tolist() == ["a b", "a b", "c"]
    assert found["target"].tolist() == ["G1", "G2", "G3"]


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", "holds no gene sets"),
        ("\n \n", "holds no gene sets"),
        ("name only\n", "Line 1 .* is not a gene set.*separated by tabs, not spaces"),
        ("a\tb\tG1\nname\tdescription\n", "Line 2 .* expected a name, a description and genes"),
        ("name\tdescription\t\t\n", "Line 1 .* is not a gene set"),
        ("\tdescription\tG1\n", "Line 1 .* is not a gene set"),
        ("a\tb\tG1\nc\td\tG2\na\tb\tG3\n", "names the gene set 'a' twice, on lines 1 and 3"),
    ],
)
def test_files_that_are_not_gmt(gmt, text, match):
    with pytest.raises(ValueError, match=match):
        ssc.datasets.gene_sets(gmt(text))


def test_binary_files_are_told(tmp_path):
    path = tmp_path / "x.gmt"
    path.write_bytes(b"\x89HDF\r\n\x1a\n\xff\xfe")
    with pytest.raises(ValueError, match="not a text file"):
        ssc.datasets.gene_sets(path)


def test_unknown_names_and_missing_files():
    with pytest.raises(ValueError, match=r"Unknown gene sets: 'kegg'.*'immune_markers', 'hallmark'"):
        ssc.datasets.gene_sets("kegg")
    with pytest.raises(FileNotFoundError, match=r"Did not find the gene set file sets\.gmt"):
        ssc.datasets.gene_sets("sets.gmt")


def test_collections_need_their_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSESC_DATA_DIR", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="SPARSESC_DATA_DIR"):
        ssc.datasets.gene_sets("hallmark")


@pytest.mark.skipif(not os.environ.get("SPARSESC_DATA_DIR"), reason="SPARSESC_DATA_DIR is not set")
@pytest.mark.parametrize(
    ("name", "n_sets"), [("hallmark", 50), ("reactome", 1615), ("go_bp", 9006), ("wikipathways", 746)]
)
def test_collections(name, n_sets):
    found = ssc.datasets.gene_sets(name)
    assert found["source"].nunique() == n_sets
    assert not found.duplicated().any()
    assert name in _gene_sets.GENE_SET_NAMES
