from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path

import pandas as pd

from sparsesc import _logging
from sparsesc._values import listing

_FILES = {
    "hallmark": "genesets/h.all.v7.5.1.symbols.gmt",
    "reactome": "genesets/c2.cp.reactome.from_c2cp.v7.5.1.symbols.gmt",
    "go_bp": "genesets/GO_BP_human_orgHsegdb_3.16.symbols.gmt",
    "wikipathways": "genesets/wikipathways_20220610_human.symbols.gmt",
}
_PACKAGED = "immune_markers"
GENE_SET_NAMES = (_PACKAGED, *_FILES)


def gene_sets(name_or_path: str | Path) -> pd.DataFrame:
    """Gene sets: marker genes of cell types, pathways, or those of a GMT file.

    Parameters
    ----------
    name_or_path
        ``"immune_markers"``: canonical marker genes of human blood and immune cell types, which come with the
        package. ``"hallmark"``, ``"reactome"``, ``"go_bp"``, ``"wikipathways"``: human collections, read from the
        folder that the environment variable ``SPARSESC_DATA_DIR`` names. Otherwise the path of a GMT file: one set a
        line, fields separated by tabs: name, description, genes. Names may contain spaces.

    Returns
    -------
    One row for each gene of each set, with the columns `source` (set) and `target` (gene), as decoupler takes it. A
    gene that a set names twice has one row.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If the name is unknown, or the file is not a GMT file or is empty.

    See Also
    --------
    sparsesc.tl.feature_enrichment : Which gene sets go with a feature.

    Notes
    -----
    The immune markers are few and well known: they name cell types, and are no substitute for a reference atlas. A set
    shares genes with the sets of related cells, so expect more than one match. The description field of the file names
    the published sources of each set.

    Examples
    --------
    >>> import sparsesc as ssc
    >>> markers = ssc.datasets.gene_sets("immune_markers")
    >>> "CD79A" in set(markers.query("source == 'B cell'")["target"])
    True
    """
    name = str(name_or_path)
    if name == _PACKAGED:
        with as_file(files("sparsesc.datasets") / "immune_markers.gmt") as path:
            return read_gmt(path)
    if name in _FILES:
        from ._registry import data_file

        return read_gmt(data_file(_FILES[name]))
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return read_gmt(path)
    if path.suffix or path.parent != Path():
        msg = f"Did not find the gene set file {path}. Known by name: {listing(GENE_SET_NAMES)}."
        raise FileNotFoundError(msg)
    msg = f"Unknown gene sets: {name!r}. Known by name: {listing(GENE_SET_NAMES)}; or give the path of a GMT file."
    raise ValueError(msg)


def read_gmt(path: Path) -> pd.DataFrame:
    """A GMT file as a table of `source` and `target`."""
    seen: dict[str, int] = {}
    sources: list[str] = []
    targets: list[str] = []
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError:
        msg = f"{path} is not a text file, so it cannot be a GMT file."
        raise ValueError(msg) from None
    n_repeated = 0
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        fields = [field.strip() for field in line.split("\t")]
        genes = [gene for gene in fields[2:] if gene]
        name = fields[0]
        if len(fields) < 3 or not name or not genes:
            hint = " Its fields must be separated by tabs, not spaces." if "\t" not in line else ""
            msg = f"Line {number} of {path} is not a gene set: expected a name, a description and genes.{hint}"
            raise ValueError(msg)
        if name in seen:
            msg = f"{path} names the gene set {name!r} twice, on lines {seen[name]} and {number}. Rename or remove one."
            raise ValueError(msg)
        seen[name] = number
        unique = list(dict.fromkeys(genes))
        n_repeated += len(genes) - len(unique)
        sources += [name] * len(unique)
        targets += unique
    if not sources:
        msg = f"{path} holds no gene sets."
        raise ValueError(msg)
    if n_repeated:
        _logging.info(f"{path.name}: {n_repeated} genes were named twice in their set and count once")
    return pd.DataFrame({"source": sources, "target": targets})
