"""Execute every notebook of this folder with little training, in a temporary folder: does it still run?

Notebooks read ``SPARSESC_TUTORIAL_EPOCHS`` to train less. Nothing is written back: the outputs that a notebook keeps
are those of a full run.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Run all notebooks; the exit status is 1 if one of them fails."""
    if not os.environ.get("SPARSESC_DATA_DIR"):
        print("Tutorials were not run: SPARSESC_DATA_DIR is not set.")
        return 0
    os.environ["SPARSESC_TUTORIAL_EPOCHS"] = "3"
    notebooks = sorted(HERE.glob("*.ipynb"))
    if not notebooks:
        print(f"No notebooks in {HERE}.")
        return 1
    for path in notebooks:
        start = time.perf_counter()
        notebook = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            # An error in a cell is raised here, with its traceback.
            NotebookClient(
                notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": folder}}
            ).execute()
        print(f"{path.name}: {time.perf_counter() - start:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
