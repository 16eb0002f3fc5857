"""The page's script as a file, and inline with a nonce, under policies that forbid every other code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import django
import pytest
from playwright.sync_api import Browser

from segment_fallback.testing import LocalSegment
from tests.e2e.cases import CASES, Case
from tests.e2e.conftest import running_site
from tests.e2e.guests import FAST, Reception, ways
from tests.e2e.test_cases import Column, outcome, play
from tests.e2e.visitors import COLUMNS, blocked

NAMES = [
    "all is well",
    "script blocked by an extension",
    "script: empty",
    "settings: blocked",
    "Tracking API: blocked",
    "JavaScript off",
    "cookies refused",
    "prerendered, then shown",
    "prerendered, never shown",
    "left 50 ms after the page's script began, script hangs",
]
OF_THE_TABLE = [case for case in CASES if case.name in NAMES]


@pytest.fixture(scope="module", params=["CDN", "first party"])
def column(
    request: pytest.FixtureRequest, browser: Browser, segment: LocalSegment, tmp_path_factory: pytest.TempPathFactory
) -> Column:
    column = Column(request.param)
    keys = {**COLUMNS[column.name], "EXTERNAL_SCRIPT": True}
    with running_site(tmp_path_factory.mktemp("site"), segment, **keys) as site:
        for behaviour in (None, "script hangs"):
            play([case for case in OF_THE_TABLE if case.segment == behaviour], column, browser, site, segment)
    return column


def test_cases_are_those_of_the_table() -> None:
    assert sorted(case.name for case in OF_THE_TABLE) == sorted(NAMES)


@pytest.mark.parametrize("case", OF_THE_TABLE, ids=lambda case: case.name)
def test_external_form_reports_once_under_a_strict_policy(column: Column, case: Case) -> None:
    if failure := column.failures.get(case.name):
        raise failure
    ids, ways_ = outcome(column, case.name)
    assert ids == case.views
    if case.name == "all is well":
        assert ways_ == ["javascript"]


@pytest.fixture(scope="module")
def running(
    browser: Browser, segment: LocalSegment, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Browser, Any, LocalSegment]]:
    with running_site(tmp_path_factory.mktemp("site"), segment, **FAST) as site:
        yield browser, site, segment


@pytest.fixture
def site(running: tuple[Browser, Any, LocalSegment]) -> Iterator[Reception]:
    with Reception(*running).one_test() as reception:
        yield reception


VIOLATIONS = """
violations = [];
addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective + event.blockedURI));
"""
FILE_SIZES = """
performance.getEntriesByType("resource").filter(({name}) => name.includes("/f/")).map(({transferSize}) => transferSize)
"""


@ways
def test_external_form_breaks_no_rule_and_is_asked_for_once(site: Reception, column: str) -> None:
    site.use(column, EXTERNAL_SCRIPT=True, CONSENT={"COOKIE": "agreed"}, IDENTIFY=True, NAVIGATION="auto")
    guest = site.guest()
    guest.context.add_cookies([{"name": "agreed", "value": "1", "url": site.site.url}])
    guest.context.add_init_script(VIOLATIONS)
    answer = guest.page.goto(guest.url)
    assert answer is not None
    policy = answer.headers["content-security-policy"]
    assert "'unsafe" not in policy
    assert (site.segment.url in policy) == (column == "CDN")
    [event] = guest.await_events(1)
    assert event.way == "javascript"
    assert guest.evaluate("violations") == []
    guest.page.goto(guest.url + "again")
    guest.until(lambda: len(guest.events("page")) > 1, "no second view")
    assert guest.evaluate(FILE_SIZES) == [0], "from the browser's cache"


@pytest.mark.parametrize("by", ["csp", *(["django"] if django.VERSION >= (6, 0) else [])])
@pytest.mark.parametrize("policy", ["hosts", "strict-dynamic"])
@pytest.mark.parametrize("blocks", [False, True], ids=["script runs", "script blocked"])
def test_inline_form_runs_by_its_nonce(site: Reception, by: str, policy: str, blocks: bool) -> None:
    site.use("CDN")
    guest = site.guest()
    guest.context.add_init_script(VIOLATIONS)
    if blocks:
        guest.meets("script", blocked())
    path = "nonce" if policy == "hosts" else "nonce/dynamic"
    answer = guest.page.goto(f"{site.site.url}/{path}/?by={by}&case={guest.case}")
    assert answer is not None
    assert "'nonce-" in answer.headers["content-security-policy"]
    [event] = guest.await_events(1)
    assert event.way == ("pixel" if blocks else "javascript")
    assert guest.evaluate("violations") == []
