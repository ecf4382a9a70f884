"""Data files that the loaders read: where they are, what they must hold, where they come from.

sparsesc hosts no copies of these files: each was made from the public source named beside it. They are read from the
folder that ``SPARSESC_DATA_DIR`` names, and a checksum decides whether a file is the right one.
"""

from __future__ import annotations

import hashlib
import os
import tomllib
from dataclasses import dataclass
from importlib.resources import files
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


FILES = {
    name: DataFile(**entry)
    for name, entry in tomllib.loads((files("sparsesc.datasets") / "files.toml").read_text("utf-8")).items()
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
