"""A sparse autoencoder on disk: weights as safetensors, everything else as JSON. No pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

WEIGHTS_FILE = "weights.safetensors"
CONFIG_FILE = "config.json"


def save_folder(folder: str | Path, weights: Mapping[str, np.ndarray], config: Mapping[str, Any]) -> None:
    """Write both files; creates the folder if needed."""
    folder = Path(folder)
    text = json.dumps(config, indent=2, default=_plain)  # first, because it may fail: then nothing is written
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: np.ascontiguousarray(value) for name, value in weights.items()}, folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(text + "\n")


def load_folder(folder: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Read both files.

    Raises
    ------
    FileNotFoundError
        If the folder does not hold a saved sparse autoencoder.
    """
    folder = Path(folder)
    missing = [name for name in (WEIGHTS_FILE, CONFIG_FILE) if not (folder / name).is_file()]
    if missing:
        msg = (
            f"{folder} does not hold a saved sparse autoencoder: {' and '.join(missing)} not found. "
            "Give a folder that SparseAutoencoder.save wrote."
        )
        raise FileNotFoundError(msg)
    return load_file(folder / WEIGHTS_FILE), json.loads((folder / CONFIG_FILE).read_text())


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    msg = f"Metadata must be plain values (numbers, text, lists, dicts), got {type(value).__name__}: {value!r}."
    raise TypeError(msg)
