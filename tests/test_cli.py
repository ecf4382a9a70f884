"""The command: the demo runs to its end without a network and says true things; bad calls end with a clear message."""

from __future__ import annotations

import contextlib
import io
import re
import socket
import subprocess
import sys

import anndata
import numpy as np
import pandas as pd
import pytest

import sparsesc as ssc
from sparsesc.cli import main


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The folder and the words of one run with every socket blocked."""
    out = tmp_path_factory.mktemp("demo") / "deep" / "folder"

    def refuse(*args, **kwargs):
        msg = "The demo must not use the network."
        raise AssertionError(msg)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex", "sendto"):
            patch.setattr(socket.socket, name, refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        patch.delenv("SPARSESC_DATA_DIR", raising=False)
        with contextlib.redirect_stdout(io.StringIO()) as words:
            status = main(["demo", "--out", str(out)])
    assert status == 0
    return out, words.getvalue()


def test_demo_shows_its_progress(demo):
    words = demo[1]
    assert re.findall(r"^\[(\d)/7\]", words, re.MULTILINE) == list("1234567")
    assert "Done in" in words


def test_demo_reports_the_fit_on_held_out_cells(demo):
    words = demo[1]
    assert "THE FIT, on 70 cells that training did not use" in words
    explained = float(re.search(r"explained variance\s+([\d.]+)%", words).group(1))
    assert explained > 70


def test_demo_shows_the_ten_names_with_the_best_evidence(demo):
    block = demo[1].split("FOR THEIR NAME")[1].split("\n\n")[0]
    rows = [line for line in block.splitlines() if line.strip().startswith("sae_")]
    assert len(rows) == 10
    levels = [re.search(r" (high|medium|low) ", row).group(1) for row in rows]
    assert levels == sorted(levels)  # high, low, medium
    assert levels[0] == "high"
    f1, chance = np.array([re.search(r" ([01]\.\d\d) +([01]\.\d\d)  ", row).groups() for row in rows], float).T
    assert (f1 > chance + 0.3).all()
    # B cells and NK cells by their canonical markers
    assert any("CD19+ B | CD79" in row for row in rows)
    assert any("CD56+ NK" in row and ("NKG7" in row or "GNLY" in row or "PRF1" in row) for row in rows)


def test_demo_uses_the_names_everywhere(demo):
    out, words = demo
    features = pd.read_csv(out / "features.csv").set_index("feature")
    for feature, row in features.iterrows():
        if re.search(rf"^  {feature} ", words, re.MULTILINE) and feature in words.split("FOR THEIR NAME")[1][:400]:
            assert row["name"] in words
    assert features["name"].is_unique
    assert {"feature", "source", "evidence", "in_name"} <= set(pd.read_csv(out / "annotation.csv").columns)


def test_demo_gives_every_label_its_feature(demo):
    out, words = demo
    labels = pd.read_csv(out / "labels.csv").set_index("category")
    counts = ssc.datasets.pbmc68k_reduced().obs["bulk_labels"].value_counts()
    assert set(labels.index) == set(counts.index[counts >= 10].astype(str))
    assert (labels["n_cells"] == counts.reindex(labels.index).to_numpy()).all()
    assert labels["n_heldout"].between(np.floor(labels["n_cells"] / 2), np.ceil(labels["n_cells"] / 2)).all()
    assert labels[["auroc_heldout", "auroc_heldout_dimension"]].stack().between(0, 1).all()
    # not worse than single dimensions of the embedding: 5 labels reach 0.90 there
    assert (labels["auroc_heldout"] >= 0.9).sum() >= 5
    for label, row in labels.iterrows():
        assert re.search(rf"{re.escape(label)}\s+{row['n_cells']}\s+{row['n_heldout']}\s+{row['feature']}\s", words)
    assert "Too few cells: CD4+/CD45RA+/CD25- Naive T (8)" in words


def test_demo_says_how_to_read_it(demo):
    words = demo[1].split("READ WITH CARE")[1]
    for part in ["held-out", "one donor", "luck", "saw no label"]:
        assert part in words


def test_demo_leaves_everything_in_the_folder(demo):
    out, words = demo
    for name in ["features", "labels", "association", "genes", "enrichment"]:
        assert f"{name}.csv" in words
        assert len(pd.read_csv(out / f"{name}.csv")) >= 9
    adata = anndata.read_h5ad(out / "cells.h5ad")
    codes = ssc.get.sae(adata).encode(adata.obsm["X_pca"])
    assert (codes != adata.obsm["X_sae"]).nnz == 0
    figures = {path.stem: path.stat().st_size for path in (out / "figures").glob("*.png")}
    assert {"training", "association", "feature_umap", "genes", "enrichment", "feature_density"} < set(figures)
    assert min(figures.values()) > 10_000


def test_best_dimension_is_scored_on_the_cells_the_features_are_scored_on(pbmc68k_code):
    from sparsesc import _demo

    _demo.associate(pbmc68k_code, 3)
    labels = _demo.labels(pbmc68k_code, 3)
    held_out = int(labels["n_heldout"].sum())
    assert held_out == pytest.approx(labels["n_cells"].sum() / 2, abs=len(labels))
    # the feature's AUROC on these very cells, computed another way
    from sklearn.metrics import roc_auc_score

    from sparsesc.stats.core._holdout import stratified_holdout

    column = pbmc68k_code.obs["bulk_labels"]
    held = stratified_holdout([column.cat.codes.to_numpy()], _demo.HOLDOUT, np.random.default_rng(3))
    for row in labels.itertuples():
        values = pbmc68k_code.obsm["X_sae"][held][:, int(str(row.feature).removeprefix("sae_"))].toarray().ravel()
        assert roc_auc_score(column[held] == row.category, values) == pytest.approx(row.auroc_heldout, abs=1e-6)


@pytest.mark.parametrize("kind", ["a file", "under a file"])
def test_folder_that_cannot_be_written_is_told_before_any_work(kind, tmp_path, capsys):
    path = tmp_path / "taken"
    path.write_text("a file")
    out = path if kind == "a file" else path / "demo"
    assert main(["demo", "--out", str(out)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert f"cannot write to the folder {out}: " in said.err
    assert "sparsesc demo --out FOLDER" in said.err


@pytest.mark.parametrize("seed", ["-1", "two", "1.5"])
def test_seed_must_be_a_whole_number(seed, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["demo", "--out", str(tmp_path), f"--rng={seed}"])
    assert stop.value.code == 2
    assert "expected a whole number of at least 0" in capsys.readouterr().err


def test_interruption_ends_without_a_traceback(tmp_path, monkeypatch, capsys):
    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr("sparsesc._demo.load", interrupt)
    assert main(["demo", "--out", str(tmp_path)]) == 130
    assert "Interrupted." in capsys.readouterr().err


def test_no_command_prints_the_help(capsys):
    assert main([]) == 0
    assert "demo" in capsys.readouterr().out


@pytest.mark.parametrize("command", [["-m", "sparsesc", "--version"], ["-m", "sparsesc", "demo", "--help"]])
def test_module_is_the_command(command):
    result = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=True, timeout=120)
    assert ssc.__version__ in result.stdout or "--out" in result.stdout
