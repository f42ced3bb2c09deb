"""Sphinx configuration: the pages are executed when they are built, so no picture and no table can be out of date."""

import os

from inspector import __version__

os.environ.setdefault("OMP_NUM_THREADS", "1")

project = "Inspector"
author = "The Inspector authors"
copyright = "2026, the Inspector authors"
version = release = __version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build", "pictures", "**.ipynb_checkpoints"]
source_suffix = {".md": "myst-nb"}

html_theme = "furo"
html_title = f"Inspector {__version__}"
html_static_path = ["_static"]
html_css_files = ["inspector.css"]

nb_execution_mode = os.environ.get("DOCS_EXECUTION", "force")  # "cache": only pages whose code changed; for writing
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_render_markdown_format = "myst"
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_typehints = "none"
autodoc_member_order = "bysource"
suppress_warnings = ["mystnb.unknown_mime_type"]
