"""What `import sparsesc` costs compared with `import scanpy`, in fresh interpreters that take turns.

    python -m benchmarks.import_time [--repeats 15]

writes `benchmarks/import_time.md`. They take turns, so that the ratios mean something on a busy machine too.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path

from benchmarks._machine import machine

STATEMENTS = {
    "nothing": "pass",
    "scanpy": "import scanpy",
    "sparsesc": "import sparsesc",
    "sparsesc and its tools": "import sparsesc; sparsesc.tl, sparsesc.get, sparsesc.datasets",
    "sparsesc, its tools and plots": "import sparsesc; sparsesc.tl, sparsesc.get, sparsesc.datasets, sparsesc.pl",
    "scanpy, then sparsesc and its tools": "import scanpy, sparsesc; sparsesc.tl, sparsesc.get, sparsesc.datasets",
}
LIMIT = 1.2


def seconds(statement: str) -> float:
    """Wall time of a statement in a fresh interpreter, without the interpreter's own start."""
    code = f"import time; t = time.perf_counter(); exec({statement!r}); print(time.perf_counter() - t)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=15)
    repeats = parser.parse_args().repeats
    times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for name in STATEMENTS:  # once for the file cache and compiled bytecode
        seconds(STATEMENTS[name])
    for _ in range(repeats):
        for name, statement in STATEMENTS.items():
            times[name].append(seconds(statement))
    # Turn by turn, so that a slow moment hits both sides. Seconds would say more of the machine than of the import.
    ratios = {
        name: statistics.median(a / b for a, b in zip(values, times["scanpy"], strict=True))
        for name, values in times.items()
    }
    lines = [
        "# What an import costs",
        "",
        f"Median ratio of {repeats} turns, each import in a fresh interpreter. {machine()}.",
        "",
        "| import | ratio to `import scanpy` |",
        "|---|---|",
        *(f"| {name} | {ratios[name]:.3f} |" for name in STATEMENTS),
        "",
        f"Limit for `import sparsesc`: {LIMIT} x `import scanpy`.",
    ]
    print("\n".join(lines))
    Path(__file__).with_suffix(".md").write_text("\n".join(lines) + "\n")
    return 0 if ratios["sparsesc"] <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main())
