"""The tables of docs/reference/doctor.md, written from the code: ``python -m tests.doctor.tables``."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import django

from segment_fallback.doctor.finding import DOCS, KINDS

FILE = Path(__file__).parents[2] / DOCS
TABLE = re.compile(r"<!-- findings: (\w+);.*?-->\n(.*?)<!-- /findings -->", re.DOTALL)


def table(group: str) -> str:
    """The rows of one group, as the documentation has them."""
    lines = ["| Finding | Level | Why it matters | How to mend it |", "|---|---|---|---|"]
    for kind in KINDS.values():
        if kind.id.partition(".")[0] == group:
            texts = [text.replace("<", "&lt;").replace("|", "\\|") for text in (kind.why, kind.cure or "nothing")]
            lines.append(f'| <a id="{kind.id}"></a>`{kind.id}` | {kind.level.name.lower()} | {texts[0]} | {texts[1]} |')
    return "\n".join([*lines, ""])


if __name__ == "__main__":
    django.setup()
    importlib.import_module("segment_fallback.doctor.run")  # declares every kind
    FILE.write_text(TABLE.sub(lambda m: m[0].replace(m[2], table(m[1])), FILE.read_text("utf-8")), "utf-8")
