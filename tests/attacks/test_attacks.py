"""Each attack against each endpoint, answered by our middleware and by URL routing: as documented, every time."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from django.db import transaction
from django.test import override_settings
from pytest_django import DjangoDbBlocker

from segment_fallback.intake.verify import limiter
from segment_fallback.testing import Answer as Upstream
from segment_fallback.testing import LocalSegment
from tests.attacks import hostile_bodies, hostile_people, hostile_senders, hostile_text
from tests.attacks.answers import CANARY, Log, Seen, Site, check_refused, sign_in, sign_out
from tests.attacks.attack import SAME, TAKEN, Attack, Row
from tests.attacks.endpoints import ENDPOINTS, Endpoint, Hit, routes, session_cookie
from tests.attacks.urls import WEBHOOK_SECRET
from tests.intake.posts import WRITE_KEY

pytestmark = pytest.mark.django_db

ATTACKS: list[Attack] = [
    *hostile_senders.ATTACKS,
    *hostile_people.ATTACKS,
    *hostile_text.ATTACKS,
    *hostile_bodies.ATTACKS,
]

AUTH = (
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
)
WAYS = {"early": ("segment_fallback.middleware.SegmentMiddleware", *AUTH), "routed": AUTH}
JAVASCRIPT = {"Content-Type": "application/javascript"}


@pytest.fixture(scope="module")
def segment() -> Iterator[LocalSegment]:
    """The CDN, with files so small that each attack can have them fetched anew."""
    with LocalSegment() as segment:
        for path in ("/analytics.js/", "/analytics-next/", "/next-integrations/"):
            segment.answer_with(Upstream(status=200, headers=JAVASCRIPT, body="let a"), times=None, path=path)
        yield segment


@pytest.fixture(scope="module")
def session(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[str]:
    """One for all tests: each takes back what else it has written."""
    with django_db_blocker.unblock():
        yield sign_in()
        sign_out()


@pytest.fixture(scope="module", params=WAYS)
def shared(request: pytest.FixtureRequest, segment: LocalSegment, session: str) -> Iterator[Site]:
    """For all tests, because Django reads a URLconf anew where the setting was changed."""
    ours = {
        "WRITE_KEY": WRITE_KEY,
        "OUTCOME_INTERVAL": 0,
        "SPOOL": "spool",
        "FIRST_PARTY": True,
        "IDENTIFY": True,
        "VARIATIONS": "edge",
        "CDN_HOST": segment.url,
        "PROFILES": {"BACKEND": "segment_fallback.profiles.database.DatabaseProfiles"},
        "PROFILE_SECRETS": [WEBHOOK_SECRET],
        "PROFILE_TTL": 100 * 365 * 86_400,
    }
    with override_settings(ROOT_URLCONF="tests.attacks.urls", SEGMENT_FALLBACK=ours):
        site = Site(segment, WAYS[request.param], Log(), session)
        yield site
        site.forget_files()


@pytest.fixture
def site(shared: Site) -> Iterator[Site]:
    root = logging.getLogger()
    shared.log.records.clear()
    root.addHandler(shared.log)
    yield shared
    root.removeHandler(shared.log)


@pytest.mark.parametrize("attack", ATTACKS, ids=str)
def test_attack_is_answered_as_documented(site: Site, attack: Attack) -> None:
    failed = {}
    for endpoint in ENDPOINTS:
        with transaction.atomic():
            try:
                check_cell(site, attack, endpoint)
            except AssertionError as error:
                failed[endpoint.name] = str(error)
            transaction.set_rollback(True)
        limiter.clear()
    assert not failed, "\n\n".join(f"{name}: {error}" for name, error in failed.items())


def check_cell(site: Site, attack: Attack, endpoint: Endpoint) -> None:
    good = site.good(endpoint, cold=attack.cold)
    site.log.records.clear()
    hits = [endpoint.make() for _ in range(attack.times)]
    for turn, hit in enumerate(hits):
        hit.turn = turn
        attack.change(hit)
    seen = site.send(endpoint, hits, dict(attack.settings))
    answer = attack.answer(endpoint)
    if answer == SAME:
        assert seen == good
    elif answer == TAKEN:
        assert seen.without("kept") == good.without("kept")
        assert len(seen.kept) == len(good.kept)
    elif isinstance(answer, str):
        check_refused(endpoint, hits[-1].method, answer, seen)
    else:
        answer(seen, good)
    check_nothing_leaks(seen)
    site.log.check()


def check_nothing_leaks(seen: Seen) -> None:
    """Whatever the answer is: no hostile text in it, and nothing that a browser could take for a page of ours."""
    assert CANARY.encode() not in seen.body
    assert CANARY not in str(seen.headers)
    assert CANARY not in str(seen.upstream)
    assert WRITE_KEY.encode() not in seen.body
    assert "X-Segment-Fallback" not in seen.headers
    if seen.cookies - {session_cookie()}:
        assert "public" not in seen.headers["Cache-Control"]
        assert seen.headers["Cache-Control"].startswith("private, no-")


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=str)
def test_good_request_does_what_it_is_there_for(site: Site, endpoint: Endpoint) -> None:
    seen = site.good(endpoint, cold=True)
    assert seen.status == (204 if endpoint.name in ("calls", "reset", "webhook") else 200)
    is_event = endpoint.counts and endpoint.kind not in ("metrics", "profiles")
    assert len(seen.kept) == (is_event or endpoint.kind == "hook")
    assert seen.counted == ({"accepted": 1} if is_event or endpoint.kind == "profiles" else {})
    assert len(seen.upstream) == (endpoint.kind in ("file", "settings"))
    assert bool(seen.cookies) == (endpoint.kind == "reset")


def test_every_endpoint_is_attacked() -> None:
    assert {endpoint.route for endpoint in ENDPOINTS} == routes()


def test_attacks_are_many_and_each_has_its_own_name() -> None:
    names = [attack.name for attack in ATTACKS]
    assert len(set(names)) == len(names) >= 60
    assert {attack.row for attack in ATTACKS} == set(Row) - {Row.WIRE}


def test_attack_changes_the_request_to_every_endpoint() -> None:
    """But where a method is the usual one, or a header that is taken away was not there."""
    unchanged = 0
    for attack in ATTACKS:
        for endpoint in ENDPOINTS:
            hit, good = endpoint.make(), endpoint.make()
            attack.change(hit)
            if attack.times == 1 and parts(hit) == parts(good):
                assert attack.answer(endpoint) == SAME, f"{attack}: {endpoint}"
                unchanged += 1
    assert unchanged <= len(ENDPOINTS) + 6


def parts(hit: Hit) -> tuple[object, ...]:
    return (hit.method, hit.url(hit), hit.suffix, hit.query, hit.headers, hit.cookies, hit.packed(), hit.address,
            hit.environ, hit.content_type, hit.signature)  # fmt: skip
