"""Links between the documents lead somewhere, and every document is led to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = re.compile(r"(?ms)^```.*?^```|`[^`\n]*`")


def links(document: Path) -> list[str]:
    return re.findall(r"\]\(([^()\s]+)\)", CODE.sub("", document.read_text("utf-8")))


def anchors(document: Path) -> set[str]:
    """The names of its headings, as GitHub makes them, and those that it gives itself."""
    text = document.read_text("utf-8")
    headings = re.findall(r"(?m)^#+ (.+)$", re.sub(r"(?ms)^```.*?^```", "", text))
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)">', text))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in links(document):
        if link.startswith(("https://", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{document.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{document.name} links to {link}"


def test_every_document_is_linked_to() -> None:
    linked = {
        (document.parent / link.partition("#")[0]).resolve()
        for document in DOCUMENTS
        for link in links(document)
        if not link.startswith(("https://", "#"))
    }
    assert [document.name for document in DOCUMENTS[2:] if document not in linked] == []
