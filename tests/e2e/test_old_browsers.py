"""What browsers lack that are old, or set up so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser

from segment_fallback.testing import LocalSegment
from tests.e2e.conftest import running_site
from tests.e2e.guests import FAST, Reception
from tests.e2e.visitors import COLUMNS, blocked


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


@pytest.mark.parametrize("column", COLUMNS)
def test_view_arrives_without_beacons(site: Reception, column: str) -> None:
    site.use(column)
    guest = site.guest()
    guest.context.add_init_script("delete Navigator.prototype.sendBeacon")
    guest.meets("script", blocked()).open()
    [view] = guest.await_events(1)
    assert (view.type, view.way) == ("page", "pixel")
    guest.leave()
    assert guest.errors == []
