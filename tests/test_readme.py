"""README says what the app is, and leads to the rest."""

from __future__ import annotations

import re

from tests.docs.pages import DOCS, FENCE, ROOT

README = (ROOT / "README.md").read_text("utf-8")


def test_ten_lines_are_those_of_the_quickstart() -> None:
    """Beside what the quickstart writes for its own sake: names of files, a local Segment, a page to look at."""
    quickstart = (DOCS / "quickstart.md").read_text("utf-8")
    lines = [
        line
        for _, language, code in FENCE.findall(README)
        if language in ("python", "django")
        for line in code.splitlines()
    ]
    code = [re.sub(r"\s+# .*", "", line) for line in lines if line.strip() and not line.startswith(("#", "{#"))]
    assert 7 <= len(code) <= 10
    for line in code:
        if "WRITE_KEY" not in line and "urlpatterns" not in line:
            assert line.strip() in quickstart, line


def test_readme_is_short() -> None:
    assert len(README.splitlines()) < 150
