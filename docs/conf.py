"""Configuration of Sphinx for ``make docs``, which needs no network."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE.parent), str(HERE / "_ext")]

from captum_robust import __version__  # noqa: E402

project = "captum_robust"
author = "The captum_robust developers"
copyright = f"2026, {author}"
release = version = __version__

extensions = [
    "code_blocks",  # docs/_ext
    "command_help",
    "docstrings",
    "mathml",
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_ext", "figures", "inventories"]

# Pages
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

# Tutorials: the notebooks in tutorials/ are copied to docs/tutorials with adjusted links, and run
# there. DOCS_NOTEBOOKS: "cache" runs those that have changed, "force" all, "off" none.
sources = {path.name: path for path in (HERE.parent / "tutorials").glob("*.ipynb")}
for copy in (HERE / "tutorials").glob("*.ipynb"):
    if copy.name not in sources:
        copy.unlink()
for name, path in sources.items():
    text = path.read_text(encoding="utf-8")
    for there, here in (("../docs/", "../"), ("../CONTRIBUTING.md", "../contributing.md")):
        text = text.replace(f"]({there}", f"]({here}")
    copy = HERE / "tutorials" / name
    if not copy.exists() or copy.read_text(encoding="utf-8") != text:
        copy.write_text(text, encoding="utf-8")
os.environ.pop("CAPTUM_ROBUST_DATA", None)  # as readers run them: with the included data
nb_execution_mode = os.environ.get("DOCS_NOTEBOOKS", "cache")
nb_execution_cache_path = str(HERE.parent / "build" / "notebooks")
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True

# Reference
autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the docstrings name the types
autodoc_preserve_defaults = True
autodoc_class_signature = "mixed"
napoleon_numpy_docstring = False
napoleon_use_ivar = True
add_module_names = False
toc_object_entries_show_parents = "hide"
trim_doctest_flags = True

# Every reference must resolve. The inventories are short lists of the names that we link to, so
# that the result does not depend on a network; `make linkcheck` checks the real pages.
nitpicky = True
intersphinx_mapping = {
    "python": ("https://docs.python.org/3", "inventories/python.inv"),
    "torch": ("https://docs.pytorch.org/docs/stable", "inventories/torch.inv"),
    "captum": ("https://captum.ai/api", "inventories/captum.inv"),
    "torch_geometric": (
        "https://pytorch-geometric.readthedocs.io/en/latest",
        "inventories/torch_geometric.inv",
    ),
    "numpy": ("https://numpy.org/doc/stable", "inventories/numpy.inv"),
    "matplotlib": ("https://matplotlib.org/stable", "inventories/matplotlib.inv"),
}

linkcheck_timeout = 20
linkcheck_workers = 4
linkcheck_anchors_ignore_for_url = [r"https://github\.com/.*"]  # made by JavaScript

# Appearance
html_theme = "furo"
html_title = f"captum_robust {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {"top_of_page_buttons": []}  # some pages have their source elsewhere
