"""Links between the documents lead somewhere, every document is led to, and Sphinx finds nothing amiss."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.docs.pages import DOCS, DOCUMENTS, ROOT, name

CODE = re.compile(r"(?ms)^ *```.*?^ *```|`[^`\n]*`")
ELSEWHERE = ("https://", "http://", "mailto:")


def links(document: Path) -> list[str]:
    text = CODE.sub("", document.read_text("utf-8"))
    return re.findall(r"\]\(([^()\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)


def anchors(document: Path) -> set[str]:
    """The names of its headings, as GitHub and Sphinx make them, and those that it gives itself."""
    text = document.read_text("utf-8")
    headings = re.findall(r"(?m)^#+ (.+)$", re.sub(r"(?ms)^```.*?^```", "", text))
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)">', text))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in links(document):
        if link.startswith(ELSEWHERE):
            assert re.fullmatch(r"[\x21-\x7e]+", link), link
            assert link.startswith("mailto:") or "." in urlsplit(link).netloc, link
            continue
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        assert target.exists(), f"{name(document)} links to {link}"
        assert not anchor or anchor in anchors(target), f"{name(document)} links to {link}"


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "CHANGELOG.md"], ids=name)
def test_documents_that_are_named_are_there(document: Path) -> None:
    named = re.findall(r"\bdocs/[\w/-]+\.md\b", document.read_text("utf-8"))
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_document_is_linked_to() -> None:
    linked = {
        (document.parent / link.partition("#")[0]).resolve()
        for document in DOCUMENTS
        for link in links(document)
        if not link.startswith((*ELSEWHERE, "#"))
    }
    assert [name(page) for page in DOCS.rglob("*.md") if page not in linked] == []


def test_pictures_are_used() -> None:
    shown = {(document.parent / link).resolve() for document in DOCUMENTS for link in links(document)}
    assert [picture.name for picture in (DOCS / "images").glob("*.*") if picture not in shown] == []


def test_sphinx_builds_it_strictly(tmp_path: Path) -> None:
    """As ``make docs`` does."""
    strict = ["--quiet", "--fail-on-warning", "--keep-going", "--nitpicky"]
    command = [sys.executable, "-m", "sphinx", *strict, str(DOCS), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "quickstart.html").exists()
