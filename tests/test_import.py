"""A bare import is light: what a function needs is imported when it runs."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {
    "anndata",
    "captum",
    "dask",
    "decoupler",
    "gseapy",
    "lightning",
    "matplotlib",
    "mudata",
    "numba",
    "numpy",
    "pandas",
    "pooch",
    "safetensors",
    "scanpy",
    "scipy",
    "scvi",
    "seaborn",
    "sklearn",
    "torch",
    "tqdm",
}
# What only some functions need must not come with a part that holds them.
RARE = {"captum", "decoupler", "gseapy", "lightning", "mudata", "scvi", "torch"}


def loaded_by(code: str) -> set[str]:
    """Top-level packages in memory after `code` ran in a fresh interpreter."""
    report = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"], capture_output=True, text=True, check=True, timeout=120
    )
    return set(json.loads(result.stdout))


def test_bare_import_pulls_in_none_of_the_dependencies():
    assert not loaded_by("import sparsesc") & HEAVY


@pytest.mark.parametrize("part", ["datasets", "get", "pp", "stats", "tl"])
def test_parts_do_not_pull_in_what_few_functions_need(part):
    assert not loaded_by(f"import sparsesc; sparsesc.{part}") & RARE


def test_unknown_attribute_is_an_attribute_error():
    import sparsesc

    with pytest.raises(AttributeError, match="no attribute 'tools'"):
        sparsesc.tools  # noqa: B018


def test_parts_are_listed():
    import sparsesc

    assert {"datasets", "get", "nn", "pl", "pp", "stats", "tl", "__version__"} <= set(dir(sparsesc))
