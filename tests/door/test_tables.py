"""The registry of tables: what the tools write is what it says, and every name in it exists."""

from __future__ import annotations

import pandas as pd
import pytest

import sparsesc as ssc
from sparsesc.door import _checks as check
from sparsesc.door import _keys


@pytest.mark.parametrize("name", _keys.TABLES)
def test_writer_and_reader_exist(name):
    table = _keys.TABLES[name]
    for function in (table.writer, table.reader):
        part, attribute = function.split("(")[0].split(".")
        assert callable(getattr(getattr(ssc, part), attribute))
    assert name in _keys.tables_of(table.reader.split(".")[1]).values()


def test_every_meaning_is_in_use():
    used = {column for table in _keys.TABLES.values() for column in (*table.columns, *table.optional)}
    assert set(_keys.MEANING) <= used
    assert all(table.rows and all(table.columns.values()) for table in _keys.TABLES.values())


def stored(entry: dict, path: str = "") -> dict[str, pd.DataFrame]:
    """Every table in an entry of ``uns``, by its place."""
    found = {}
    for name, value in entry.items():
        if isinstance(value, pd.DataFrame):
            found[path + name] = value
        elif isinstance(value, dict):
            found |= stored(value, f"{path}{name}/")
    return found


@pytest.fixture(scope="module")
def written():
    """Cells with every table of an autoencoder, and those of its siblings."""
    import scanpy as sc

    adata = sc.datasets.pbmc68k_reduced()
    quiet = {"progress_bar": False}
    ssc.tl.fit_sae(adata, use_rep="X_pca", n_features=64, k=8, max_steps=300, **quiet)
    adata.obs["sample"] = pd.Categorical([f"s{i % 8}" for i in range(adata.n_obs)])
    adata.obs["condition"] = pd.Categorical([f"c{i % 2}" for i in range(adata.n_obs)])
    query = adata[:300].copy()
    ssc.tl.feature_association(adata, ["bulk_labels", "n_genes"])
    ssc.tl.feature_genes(adata, **quiet)
    ssc.tl.feature_enrichment(adata, "immune_markers", **quiet)
    ssc.tl.differential_features(adata, "condition", sample_key="sample")
    ssc.tl.feature_similarity(adata)
    ssc.tl.feature_locality(adata, "bulk_labels")
    ssc.tl.feature_absorption(adata, "bulk_labels")
    ssc.tl.annotate_features(adata, label_keys="bulk_labels")
    groups = {"groupby": "bulk_labels", "from_group": "Dendritic", "to_group": "CD19+ B"}
    ssc.tl.steer(adata, **groups, net="immune_markers", n_controls=1)
    ssc.tl.suppress_features(adata, batch_key="condition", bio_keys="bulk_labels", n_permutations=19, **quiet)
    ssc.tl.stability(adata, n_fits=1)
    ssc.tl.apply_sae(query, adata)
    query.obsm["X_few"] = query.obsm["X_pca"][:, :20].copy()
    ssc.tl.fit_crosscoder(
        query, use_reps=["X_few", "X_pca"], n_features=16, k=4, max_steps=50, key_added="both", **quiet
    )
    return adata, query


def test_tables_of_autoencoders_are_as_registered(written):
    adata, query = written
    tables = stored(query.uns["both"]) | stored(query.uns["sae"]) | stored(adata.uns["sae"])
    assert set(tables) == {n for n in _keys.TABLES if n.split("/")[0] not in _keys.STUDIES} - {"suppression/scib"}
    for name, table in tables.items():
        assert set(_keys.TABLES[name].columns) <= {*table.columns, table.index.name}, name


@pytest.mark.parametrize("study", ["count_diagnostics", "rank_fidelity"])
def test_tables_of_studies_are_as_registered(study):
    adata = ssc.datasets.simulate_programs(n_cells=200, n_genes=100, n_types=4, count_noise="poisson")
    if study == "count_diagnostics":
        ssc.tl.count_diagnostics(adata, progress_bar=False)
    else:
        ssc.tl.rank_fidelity(adata, "type", n_boot=20)
    tables = stored({study: {k: v for k, v in adata.uns[study].items() if k != "params"}})
    assert set(tables) == {name for name in _keys.TABLES if name.startswith(f"{study}/")}
    for name, table in tables.items():
        assert set(_keys.TABLES[name].columns) <= {*table.columns, table.index.name}, name
        pd.testing.assert_frame_equal(ssc.get.table(adata, name, key=study), table)


def test_associations_have_no_column_without_a_meaning(written):
    adata = written[0].copy()
    for options in ({}, {"strata": "phase"}, {"sample_key": "sample"}):
        ssc.tl.feature_association(adata, ["bulk_labels", "n_genes"], **options)
        for name in ("association", "association_numeric"):
            known = _keys.TABLES[name]
            assert set(adata.uns["sae"][name].columns) <= {*known.columns, *known.optional}


def test_every_table_is_read_by_its_reader(written):
    adata, query = written
    for name, table in _keys.TABLES.items():
        reader, options = getattr(ssc.get, table.reader.split(".")[1]), {"table": table.choice} if table.choice else {}
        if name in ("features", "suppression/scib") or name.split("/")[0] in _keys.STUDIES:
            continue
        holder, key = (query, "both") if "crosscoder" in name else (query if name == "drift" else adata, "sae")
        pd.testing.assert_frame_equal(reader(holder, key=key, **options), check.get_table(holder, key, name))


def test_unknown_missing_and_empty_tables(pbmc68k_code):
    with pytest.raises(ValueError, match=r"Unknown table: 'gene'. Stored under 'sae': 'features'"):
        check.get_table(pbmc68k_code, "sae", "gene")
    with pytest.raises(KeyError, match=r"\['steering'\]\['effects'\].*Run ssc.tl.steer\(decoder=...\) first"):
        check.get_table(pbmc68k_code, "sae", "steering/effects")
    with pytest.raises(KeyError, match=r"adata.uns\['sae'\]\['pairs'\].*Run ssc.tl.rank_fidelity first"):
        check.get_table(pbmc68k_code, "sae", "rank_fidelity/pairs")
    pbmc68k_code.uns["sae"]["genes"] = pd.DataFrame({"feature": []})
    assert check.get_table(pbmc68k_code, "sae", "genes", allow_empty=True).empty
