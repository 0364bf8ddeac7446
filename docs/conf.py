"""Sphinx configuration; `make docs` builds docs/_build/html."""

from __future__ import annotations

from tagmask import __version__

project = "tagmask"
author = "the tagmask contributors"
release = __version__
extensions = ["myst_parser"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = "tagmask"
html_copy_source = False
html_show_copyright = False
html_static_path = ["static"]
html_css_files = ["tables.css"]
html_theme_options = {"navigation_with_keys": True}
