from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from django.test import Client, override_settings

from segment_fallback.models import OutcomeCount
from segment_fallback.profiles import Ids, profiles
from tests.profiles.posts import FORMER, OURS, PERSONAS, identify, moment, post, sign, track, url

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def ours() -> Any:
    with override_settings(SEGMENT_FALLBACK=OURS):
        yield


def traits(user_id: str | None = "7", anonymous_id: str | None = None) -> dict[str, Any] | None:
    profile = profiles.store.get(Ids(user_id, anonymous_id))
    return None if profile is None else dict(profile.traits)


def counted() -> dict[tuple[str, str], int]:
    return {(row.way, row.outcome): row.count for row in OutcomeCount.objects.all()}


def test_audience_is_a_trait() -> None:
    assert post(identify({"vip": True})) == 200
    assert traits() == {"vip": True}
    assert counted() == {("profile", "accepted"): 1}


def test_audience_that_was_left_is_false() -> None:
    post(identify({"vip": True}, ago=2))
    post(identify({"vip": False}, ago=1))
    assert traits() == {"vip": False}


@pytest.mark.parametrize("kind", ["trait", "computed_trait"])
def test_computed_trait_is_a_trait(kind: str) -> None:
    context = {"personas": {**PERSONAS, "computation_class": kind, "computation_key": "orders"}}
    assert post(identify({"orders": 3, "last": {"sku": "a"}}, context=context)) == 200
    assert traits() == {"orders": 3, "last": {"sku": "a"}}


@pytest.mark.parametrize(
    ("event", "properties", "member"),
    [
        ("Audience Entered", {"audience_key": "vip", "vip": True}, True),
        ("Audience Exited", {"audience_key": "vip", "vip": False}, False),
        ("Audience Entered", {}, True),
        ("Audience Exited", {}, False),
        ("A name of the site's own", {"vip": False}, False),
    ],
)
def test_audience_may_come_as_an_event(event: str, properties: Any, member: bool) -> None:
    assert post(track(event, properties)) == 200
    assert traits() == {"vip": member}


def test_anonymous_visitor_has_a_profile() -> None:
    assert post(identify({"vip": True}, userId=None, anonymousId="a-1")) == 200
    assert traits(None, "a-1") == {"vip": True}
    assert traits() is None


def test_what_is_told_of_both_ids_is_the_users() -> None:
    post(identify({"vip": True}, anonymousId="a-1"))
    assert traits() == {"vip": True}
    assert traits(None, "a-1") is None


def test_updates_out_of_order_end_with_the_newest() -> None:
    for ago, value in ((10, "c"), (30, "a"), (20, "b")):
        assert post(identify({"plan": value}, ago=ago)) == 200
    assert traits() == {"plan": "c"}


def test_trait_that_is_null_is_taken_away() -> None:
    post(identify({"plan": "pro", "vip": True}, ago=2))
    post(identify({"plan": None}, ago=1))
    assert traits() == {"vip": True}


def test_deletion_is_honoured_and_what_is_older_does_not_come_back() -> None:
    old = identify({"vip": True}, ago=20)
    post(old)
    post(identify({"vip": True}, ago=20, userId=None, anonymousId="a-1"))
    deletion = {"type": "delete", "userId": "7", "anonymousId": "a-1", "timestamp": moment(10)}
    assert post(deletion) == 200
    post(old)
    assert (traits(), traits(None, "a-1")) == (None, None)
    post(identify({"vip": True}, ago=5))
    post(deletion)
    assert traits() == {"vip": True}


def test_former_secret_is_good_while_it_is_listed() -> None:
    body = json.dumps(identify({"vip": True})).encode()
    assert post(body, sign(body, FORMER)) == 200
    with override_settings(SEGMENT_FALLBACK={**OURS, "PROFILE_SECRETS": OURS["PROFILE_SECRETS"][:1]}):
        assert post(body, sign(body, FORMER)) == 403


@pytest.mark.parametrize(
    "message",
    [
        identify({"vip": True}, context={}),
        identify({"vip": True}, context={"personas": {**PERSONAS, "computation_class": "journey"}}),
        identify({"vip": True}, context={"personas": "audience"}),
        identify({"vip": True}, type="page"),
        identify({"vip": True}, ago=366 * 86_400),
    ],
)
def test_what_tells_of_no_audience_is_not_taken_and_not_asked_for_again(message: Any) -> None:
    assert post(message) == 200
    assert traits() is None
    assert counted() == {("profile", "not_a_profile"): 1}


def test_other_spaces_audiences_are_not_taken() -> None:
    with override_settings(SEGMENT_FALLBACK={**OURS, "PROFILE_API": {"SPACE": "spa_2", "TOKEN": "t"}}):
        assert post(identify({"vip": True})) == 200
        assert traits() is None
    with override_settings(SEGMENT_FALLBACK={**OURS, "PROFILE_API": {"SPACE": "spa_1", "TOKEN": "t"}}):
        assert post(identify({"vip": True})) == 200
        assert traits() == {"vip": True}


def test_store_that_is_down_is_a_500_so_that_segment_tries_again(caplog: pytest.LogCaptureFixture) -> None:
    down = {"BACKEND": "segment_fallback.profiles.cache.CacheProfiles", "OPTIONS": {"alias": "missing"}}
    with override_settings(SEGMENT_FALLBACK={**OURS, "PROFILES": down}), caplog.at_level(logging.WARNING):
        assert post(identify({"vip-of-ada": True})) == 500
    (record,) = (record for record in caplog.records if record.name == "segment_fallback")
    assert record.getMessage().startswith("a profile could not be kept: ")
    assert "ada" not in caplog.text
    assert "django.request" not in [record.name for record in caplog.records]
    assert counted() == {("profile", "unavailable"): 1}


@pytest.mark.parametrize("missing", ["PROFILES", "PROFILE_SECRETS"])
def test_endpoint_is_not_there_without_its_settings(missing: str) -> None:
    with override_settings(SEGMENT_FALLBACK={key: value for key, value in OURS.items() if key != missing}):
        assert Client().post(url(), b"{}", "application/json").status_code == 404
    assert counted() == {}


@pytest.mark.parametrize("method", ["get", "head", "put", "patch", "delete", "options"])
def test_only_post_is_answered(method: str) -> None:
    answer = getattr(Client(), method)(url())
    assert (answer.status_code, answer["Allow"]) == (405, "POST")
