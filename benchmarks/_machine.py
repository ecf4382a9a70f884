"""A sentence about the machine, for the tables."""

from __future__ import annotations

import os
import platform
from importlib.metadata import version
from pathlib import Path


def machine() -> str:
    """Processor, cores, memory and the versions that matter."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")
        ]
        cpu = names[0] if names else cpu
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 0
    packages = ", ".join(f"{name} {version(name)}" for name in ("sparsesc", "torch", "numba", "numpy", "scipy"))
    return f"{cpu}, {os.cpu_count()} cores, {pages / 2**30:.0f} GiB; Python {platform.python_version()}, {packages}"
