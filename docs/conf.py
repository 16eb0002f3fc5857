"""Sphinx's settings. `make docs` builds the pages into build/docs; they are Markdown, and as readable without it."""

from __future__ import annotations

import re
from pathlib import Path

package = Path(__file__).parents[1] / "segment_fallback/__init__.py"

project = "django-segment-fallback"
author = "The django-segment-fallback authors"
release = re.findall(r'__version__ = "(.+)"', package.read_text("utf-8"))[0]

extensions = ["myst_parser"]
# Links to headings, by the names that GitHub gives them.
myst_heading_anchors = 4
html_theme = "furo"
html_title = f"{project} {release}"
html_show_copyright = False
html_show_sphinx = False
# A text says --all, and means it.
smartquotes = False
# A sample that leaves something out ("…") is none that a lexer takes.
suppress_warnings = ["misc.highlighting_failure"]
