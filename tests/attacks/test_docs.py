"""The table of docs/explanation/security.md says what is attacked. `python -m tests.attacks` writes it."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

from segment_fallback.conf import KEYS
from tests.attacks import hostile_bodies, hostile_people, hostile_senders, hostile_text, test_on_the_wire
from tests.attacks.attack import Row
from tests.docs.pages import section

DOCS = Path(__file__).parents[2] / "docs/explanation/security.md"


def table() -> str:
    """A row for each kind of attack, with how many are tried."""
    lists = (hostile_senders, hostile_people, hostile_text, hostile_bodies)
    tried = Counter(attack.row for module in lists for attack in module.ATTACKS)
    tried[Row.WIRE] = len(test_on_the_wire.ATTACKS)
    rows = ["| What is attacked | What answers it | Attacks |", "|---|---|---|"]
    return "\n".join(rows + [f"| {row.attacked} | {row.answered} | {tried[row]} |" for row in Row])


def test_docs_say_what_is_attacked() -> None:
    assert section("attacks", DOCS.read_text())[2] == table()


def test_docs_name_settings_that_there_are() -> None:
    named = set(re.findall(r"[A-Z]+_[A-Z_]+", DOCS.read_text()))
    assert {"RATE_LIMIT", "TOKEN_MAX_AGE", "TRUSTED_PROXIES", "TRUST_CLIENT_USER_ID"} <= named <= set(KEYS)


def write() -> None:
    text = DOCS.read_text()
    match = section("attacks", text)
    DOCS.write_text(text[: match.start(2)] + table() + text[match.end(2) :])
