"""The documents, and the parts of them that are written from the code."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]
"""All that somebody reads, in Markdown."""

FENCE = re.compile(r"(?ms)^( *)```(\w*)[^\n]*\n(.*?)^ *```$")


def name(document: Path) -> str:
    """How a failed test calls it."""
    return str(document.relative_to(ROOT))


def section(title: str, text: str) -> re.Match[str]:
    """What stands between ``<!-- title: … -->`` and ``<!-- /title -->``."""
    found = re.search(rf"(?s)(<!-- {title}: [^\n]*-->\n)(.*?)(\n<!-- /{title} -->)", text)
    assert found, f"there is no section {title!r}"
    return found
