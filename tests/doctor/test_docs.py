"""Every kind of finding has a test, and a place in docs/reference/doctor.md."""

from __future__ import annotations

import re

from segment_fallback.doctor import run  # declares every kind
from segment_fallback.doctor.finding import KINDS, Level
from tests.doctor import pages, setups
from tests.doctor.tables import FILE, TABLE, table

TESTED_ELSEWHERE = {"doctor.failed", "setup.task_unknown"}


def test_every_finding_has_a_site_with_that_fault() -> None:
    assert run.SETUP
    assert {*pages.FAULTS, *setups.FAULTS, *TESTED_ELSEWHERE} == set(KINDS)
    assert not set(pages.FAULTS) & set(setups.FAULTS)


def test_documentation_has_every_finding_as_the_code_has_it() -> None:
    text = FILE.read_text("utf-8")
    tables = dict(TABLE.findall(text))
    assert set(tables) == {kind.partition(".")[0] for kind in KINDS}
    for group, found in tables.items():
        assert found == table(group), "python -m tests.doctor.tables writes it"
    assert re.findall(r'<a id="([^"]+)">', text) == [row for rows in tables.values() for row in ids(rows)]


def ids(rows: str) -> list[str]:
    return re.findall(r"`(\w+\.\w+)` \|", rows)


def test_every_kind_says_why_and_how() -> None:
    for kind in KINDS.values():
        assert kind.level is not Level.OK
        assert kind.why.endswith("."), kind.id
        assert kind.cure or kind.level is Level.INFO, kind.id
