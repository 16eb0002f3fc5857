"""Every page view once: one messageId in every case, on every kind of site.

Real Chromium, real analytics.js, real pixel, buffer and flush; on first-party sites with blockers' lists applied in the
browser. ``python -m tests.e2e.table`` runs the cases and writes what it saw into the docs.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from segment_fallback.testing import Answer, LocalSegment, Received
from tests.e2e.blocking import CONTROL, Blocker
from tests.e2e.cases import CASES, Case
from tests.e2e.conftest import Site, running_site
from tests.e2e.table import write
from tests.e2e.visitors import ARRIVES, COLUMNS, PATIENCE, SETTLED, Visitor

SEGMENT = {
    "script hangs": ("/analytics.js/v1/", Answer.hang(60)),
    "API hangs": ("/v1/p", Answer.hang(60)),
    "script missing": ("/analytics.js/v1/", Answer(status=404)),
}
"""How Segment's hosts behave; in first-party mode the site itself does (``project.application``)."""
SIDE_BY_SIDE = 14
"""Cases that are played at the same time."""


@dataclass
class Column:
    """What came of all cases on one kind of site."""

    name: str
    arrivals: dict[str, list[Received]] = field(default_factory=dict)
    failures: dict[str, BaseException] = field(default_factory=dict)
    blocked: set[str] = field(default_factory=set)
    """The URLs that the lists blocked or replaced in that browser."""


@pytest.fixture(scope="module", params=COLUMNS)
def column(request: pytest.FixtureRequest, segment: LocalSegment, tmp_path_factory: pytest.TempPathFactory) -> Column:
    column = Column(request.param)
    blocker: Blocker | None = None
    if column.name == "CDN":  # where lists would block analytics.js in every case: see test_blockers.py
        browser: Browser = request.getfixturevalue("browser")
    else:
        blocker = request.getfixturevalue("blocker")
        browser = blocker.browser
    with running_site(tmp_path_factory.mktemp("site"), segment, **COLUMNS[column.name]) as site:
        for behaviour in (None, *SEGMENT):
            cases = [case for case in CASES if case.segment == behaviour]
            for start in range(0, len(cases), SIDE_BY_SIDE):
                play(cases[start : start + SIDE_BY_SIDE], column, browser, site, segment)
    column.blocked = blocker.urls() if blocker else set()
    if file := os.environ.get("PAGE_VIEWS_TABLE"):
        write(Path(file), column.name, {name: outcome(column, name) for name in column.arrivals})
    return column


def play(cases: list[Case], column: Column, browser: Browser, site: Site, segment: LocalSegment) -> None:
    """Play the cases side by side, each with a visitor of its own, who leaves in the end."""
    [behaviour] = {case.segment for case in cases}
    segment.clear()
    if behaviour and column.name == "CDN":
        path, answer = SEGMENT[behaviour]
        segment.answer_with(answer, times=None, path=path)
    visitors = {}
    for case in cases:
        slug = re.sub(r"\W+", "-", case.name.lower()).strip("-")
        visitors[case.name] = Visitor(browser, column.name, site, segment, slug, dict(case.options))
    acts = {case.name: case.act(visitors[case.name]) for case in cases}
    clock = browser.new_page()
    try:
        for pause in (PATIENCE + 1_500, ARRIVES, SETTLED):
            for name, act in acts.items():
                try:
                    next(act, None)
                except Exception as failure:  # noqa: BLE001 - one case's failure is not the others'
                    column.failures.setdefault(name, failure)
            for _ in range(pause // 100):
                if pause == ARRIVES and all(arrived(case, visitors[case.name]) for case in cases):
                    break
                clock.wait_for_timeout(100)
        for visitor in visitors.values():
            visitor.leave()
        clock.wait_for_timeout(SETTLED)
        column.arrivals |= {name: visitor.arrivals() for name, visitor in visitors.items()}
    finally:
        for visitor in visitors.values():
            visitor.close()
        clock.close()
        segment.answer_normally()


def arrived(case: Case, visitor: Visitor) -> bool:
    expected = 0 if visitor.column in case.lost else case.views
    return len({each.message_id for each in visitor.arrivals()}) >= expected


def outcome(column: Column, name: str) -> tuple[int, list[str]]:
    """How many different messageIds arrived, and by which ways."""
    arrivals = column.arrivals[name]
    return len({each.message_id for each in arrivals}), sorted({each.way for each in arrivals})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_page_view_arrives_once(column: Column, case: Case) -> None:
    if failure := column.failures.get(case.name):
        raise failure
    ids, ways = outcome(column, case.name)
    assert ids == (0 if column.name in case.lost else case.views)
    if case.name == "all is well" and column.name != "first party, eager":
        assert ways == ["javascript"]


@pytest.mark.parametrize("column", [name for name in COLUMNS if name != "CDN"], indirect=True)
def test_lists_are_applied_and_block_nothing(column: Column) -> None:
    assert column.blocked == {CONTROL}
