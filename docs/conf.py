from __future__ import annotations

import shutil
from importlib.metadata import metadata
from pathlib import Path

HERE = Path(__file__).parent

# The notebooks live in tutorials/, where they are run and tested; sphinx reads only what is below docs/.
shutil.rmtree(HERE / "tutorials", ignore_errors=True)
(HERE / "tutorials").mkdir()
for notebook in (HERE.parent / "tutorials").glob("*.ipynb"):
    shutil.copy(notebook, HERE / "tutorials")

info = metadata("sparsesc")
project = info["Name"]
author = "The sparsesc developers"
copyright = f"2026, {author}"
version = release = info["Version"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_autodoc_typehints",
    "sphinx_copybutton",
]
exclude_patterns = ["_build", "**.ipynb_checkpoints"]
templates_path = ["_templates"]
suppress_warnings: list[str] = []

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
nb_execution_mode = "off"  # outputs are those that the notebooks keep
nb_merge_streams = True

autosummary_generate = True
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = False
napoleon_numpy_docstring = True
napoleon_use_rtype = False
typehints_defaults = None
always_document_param_types = False

# The build uses no network, so names of other packages (anndata.AnnData, numpy.ndarray, ...) have nothing to link to.
# Names of this package that stand in private modules are types of signatures. Every other name must resolve.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!sparsesc\b).*"),
    (r"py:.*", r"sparsesc\.(\w+\.)*_\w+.*"),
]

html_theme = "sphinx_book_theme"
html_title = "sparsesc"
html_theme_options = {
    "show_toc_level": 2,
    "home_page_in_toc": True,
    "use_download_button": False,
    "use_fullscreen_button": False,
}
html_copy_source = False
