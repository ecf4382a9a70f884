"""Cells and features side by side."""

from __future__ import annotations

import mudata
import numpy as np
import pytest

import sparsesc as ssc


def test_two_modalities_of_the_same_cells(pbmc68k_code):
    mdata = ssc.get.mudata(pbmc68k_code)
    assert {name: mod.shape for name, mod in mdata.mod.items()} == {"rna": (700, 765), "sae": (700, 64)}
    assert mdata["rna"].obs_names.equals(mdata["sae"].obs_names)
    assert (mdata["sae"].X != pbmc68k_code.obsm["X_sae"]).nnz == 0


def test_parent_is_not_tied_to_the_result(pbmc68k_code):
    before = pbmc68k_code.X.copy()
    mdata = ssc.get.mudata(pbmc68k_code)
    mdata["rna"].X[:] = 0
    mdata["rna"].uns["sae"]["weights"]["W_dec"][:] = 0
    np.testing.assert_array_equal(pbmc68k_code.X, before)
    assert np.abs(pbmc68k_code.uns["sae"]["weights"]["W_dec"]).sum() > 0


def test_result_survives_a_file(pbmc68k_code, tmp_path):
    mdata = ssc.get.mudata(pbmc68k_code)
    mdata.write(tmp_path / "both.h5mu")
    again = mudata.read_h5mu(tmp_path / "both.h5mu")
    assert (again["sae"].X != mdata["sae"].X).nnz == 0


def test_mudata_keeps_its_modalities(pbmc68k_code):
    few = pbmc68k_code[:, :10].copy()
    few.var_names = "few_" + few.var_names
    mdata = mudata.MuData({"rna": pbmc68k_code.copy(), "few": few})
    mdata.uns["sae"] = pbmc68k_code.uns["sae"]
    mdata.obsm["X_sae"] = pbmc68k_code.obsm["X_sae"]
    assert list(ssc.get.mudata(mdata).mod) == ["rna", "few", "sae"]


def test_taken_modality_is_refused(pbmc68k_code):
    with pytest.raises(ValueError, match="A modality named 'sae' exists already"):
        ssc.get.mudata(pbmc68k_code, modality="sae")
