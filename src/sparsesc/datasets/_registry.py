"""Data files that the loaders read: where they are, what they must hold, where they come from.

sparsesc hosts no copies of these files: each was made from the public source named beside it. They are read from the
folder that ``SPARSESC_DATA_DIR`` names, and a checksum decides whether a file is the right one.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from sparsesc._values import listing

ENV_VAR = "SPARSESC_DATA_DIR"


@dataclass(frozen=True)
class DataFile:
    """One file of the registry."""

    size: int
    """Bytes."""
    sha256: str
    source: str
    """Who published the data, and where."""
    license: str


def _msigdb(collection: str) -> str:
    return f"MSigDB 7.5.1, {collection} (Liberzon et al. 2015)"


_GENEFORMER = "Geneformer, dictionaries of version 1 (Theodoris et al. 2023)"

FILES: dict[str, DataFile] = {
    "pbmc3k_raw_labelled.h5ad": DataFile(
        6_939_930,
        "24e2cc5afc678e318a799eeb0990d9d4827ad55b68abeaa059f795c77e3b2bd7",
        "10x Genomics, 3k PBMCs from a healthy donor (Zheng et al. 2017); labels of the Seurat and scanpy tutorials",
        "CC BY 4.0",
    ),
    "balf_covid_liao2020_3donors.h5ad": DataFile(
        15_352_966,
        "e5e2b8749547b59ae3b17c68a04f1f87d065d9080b3e7a47e0193b1b4276d487",
        "Liao et al. 2020, GEO GSE145926, donors C144, C146 and C149, with the authors' annotation",
        "public GEO record",
    ),
    "kang2018_harmony_2000.h5ad": DataFile(
        2_711_049,
        "d4198b5af6ff000cb1cb6dce2d4cb2bf02b59cfd7e26ccdfa664addf9bc27546",
        "Kang et al. 2018, GEO GSE96583, the 2,000 cells of the harmony R package; donors by demuxlet",
        "public GEO record",
    ),
    "pbmc_onek1k_scdesignpop_40donors.h5ad": DataFile(
        1_868_775,
        "9666eb38f70b4ec9f7612489f11760c15bd482b1d244e92269b1bc9af8b8051c",
        "Yazar et al. 2022 (OneK1K), GEO GSE196830, the subset of the scDesignPop R package",
        "public GEO record",
    ),
    "pbmc_symphony_3tech.h5ad": DataFile(
        649_387,
        "5467ef431178e5258dc2dc2c2dbfef36542b5ecb90e71cafc65675e081eb4f91",
        "10x Genomics PBMCs, the subset of the symphony R package (Kang et al. 2021)",
        "CC BY 4.0",
    ),
    "bonemarrow_human_zheng2017_bmmc_aml_3donors.h5ad": DataFile(
        14_759_551,
        "373cd08035bb9497ca9f1c00e532d18eab5502adae662a28e3eaf9bcc4a0282a",
        "10x Genomics, bone marrow mononuclear cells (Zheng et al. 2017)",
        "CC BY 4.0",
    ),
    "bonemarrow_mouse_paul2015.h5ad": DataFile(
        8_217_650,
        "7e34b1c2233ddc2dd6eb1ffe702f85076b951ae52f17b1a3db47e00bcdd277b6",
        "Paul et al. 2015, GEO GSE72857, with the 19 published clusters",
        "public GEO record",
    ),
    "citeseq_eccite_citefuse_500cells.h5mu": DataFile(
        3_136_642,
        "50d1de72758ebdb625b96dce806e1e17e2b387004cd445b03a1b64e344b73a4f",
        "ECCITE-seq of Mimitou et al. 2019, the 500 cells of the CiteFuse R package (Kim et al. 2020)",
        "public record",
    ),
    "genesets/h.all.v7.5.1.symbols.gmt": DataFile(
        48_244,
        "de0fdee38af2611a284973f565df1a98bfa2385aecd7ba2ee3fe51208e753b40",
        _msigdb("Hallmark"),
        "CC BY 4.0",
    ),
    "genesets/c2.cp.reactome.from_c2cp.v7.5.1.symbols.gmt": DataFile(
        770_046,
        "c08ed2adeec0af975e39fd75915301c02d03bc5e157a035796312a585ee1b6ab",
        _msigdb("Reactome"),
        "CC BY 4.0",
    ),
    "genesets/GO_BP_human_orgHsegdb_3.16.symbols.gmt": DataFile(
        3_440_270,
        "8806da98c356996eae448d9f2cb56dc834d431949d7b1f4b01e734b8981c9bc5",
        "Gene Ontology, biological process, July 2022, by the Bioconductor package org.Hs.eg.db 3.16",
        "CC BY 4.0",
    ),
    "genesets/wikipathways_20220610_human.symbols.gmt": DataFile(
        256_457,
        "d99671d66ea25bc4e0e4698e5e3d96b9e6899892b10e778d1bfd672d70473515",
        "WikiPathways, human, 10 June 2022",
        "CC0",
    ),
    "geneformer/gene_median_dictionary.json": DataFile(
        977_830,
        "507ba58dafa0ac1f7f6ff97ed321026de1922a5e4cfba22b8b92526e12766fa9",
        _GENEFORMER,
        "Apache-2.0",
    ),
    "geneformer/gene_name_id_dict.json": DataFile(
        1_197_364,
        "7a9aaf0682834fd3c19e4941c2db569cccb4838a88a624eb662fe28613190f3c",
        _GENEFORMER,
        "Apache-2.0",
    ),
    "geneformer/token_dictionary.json": DataFile(
        649_947,
        "a24af6551494d0b21d1e3d8977d218efad7238284e89b588c6dd02fe980923c2",
        _GENEFORMER,
        "Apache-2.0",
    ),
}

# (path, size, time of change) of files whose checksum was right earlier in this process
_verified: set[tuple[str, int, int]] = set()


def data_dir() -> Path:
    """Folder of the data files: ``SPARSESC_DATA_DIR``, by default the user's cache folder of sparsesc."""
    folder = os.environ.get(ENV_VAR)
    if folder:
        return Path(folder).expanduser()
    import pooch

    return Path(pooch.os_cache("sparsesc"))


def data_file(name: str) -> Path:
    """Path of a data file whose checksum is right (computed once per process).

    Parameters
    ----------
    name
        Path inside the data folder, for example ``"genesets/h.all.v7.5.1.symbols.gmt"``.

    Raises
    ------
    KeyError
        If the registry has no such file.
    FileNotFoundError
        If the file is not in the data folder; says what to set and where the data come from.
    ValueError
        If the file is there but is not the registered one.
    """
    if name not in FILES:
        msg = f"No data file named {name!r}. Registered: {listing(FILES)}."
        raise KeyError(msg)
    expected = FILES[name]
    path = data_dir() / name
    if not path.is_file():
        where = f"{ENV_VAR}={os.environ[ENV_VAR]}" if os.environ.get(ENV_VAR) else f"{ENV_VAR} is not set"
        msg = (
            f"Did not find {path} ({where}). Set the environment variable {ENV_VAR} to the folder that holds {name} "
            f"({expected.size:,} bytes, sha256 {expected.sha256}). sparsesc hosts no copy and downloads nothing. "
            f"Source: {expected.source}; license: {expected.license}. "
            "Without any file: ssc.datasets.pbmc68k_reduced() comes with scanpy."
        )
        raise FileNotFoundError(msg)
    stat = path.stat()
    seen = (str(path.resolve()), stat.st_size, stat.st_mtime_ns)
    if seen not in _verified:
        # Size first: a truncated file is recognized without reading it.
        checksum = _sha256(path) if stat.st_size == expected.size else None
        if checksum != expected.sha256:
            what = f"sha256 {checksum}" if checksum else f"{stat.st_size:,} bytes"
            wanted = f"sha256 {expected.sha256}" if checksum else f"{expected.size:,} bytes"
            msg = f"{path} is not the registered {name}: found {what}, expected {wanted}. Fetch the file again."
            raise ValueError(msg)
        _verified.add(seen)
    return path


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
