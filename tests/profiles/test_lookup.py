from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import ANY

import pytest
from django.contrib.auth import login, logout
from django.contrib.auth.models import AnonymousUser, User
from django.contrib.sessions.backends.db import SessionStore
from django.core.signing import TimestampSigner
from django.http import HttpRequest
from django.test import RequestFactory, override_settings

from segment_fallback.buffers.base import now_ms
from segment_fallback.intake import identity
from segment_fallback.intake.visitor import Visitor
from segment_fallback.models import KeptProfile
from segment_fallback.names import id_cookies
from segment_fallback.profiles import Ids, api, profiles
from segment_fallback.profiles.api import pulls
from segment_fallback.profiles.lookup import aprofile_of, profile_of
from segment_fallback.testing.answers import Answer
from tests.profiles.posts import OURS
from tests.profiles.profile_api import eventually, profile_api

pytestmark = pytest.mark.django_db

CACHE = {"BACKEND": "segment_fallback.profiles.cache.CacheProfiles"}
DOWN = {**CACHE, "OPTIONS": {"alias": "missing"}}


@pytest.fixture(autouse=True)
def ours() -> Iterator[None]:
    with override_settings(SEGMENT_FALLBACK=OURS):
        yield


@pytest.fixture
def ada() -> User:
    user: User = User.objects.create_user("ada")
    return user


def cookie(anonymous_id: str, origin: str = "m") -> str:
    return TimestampSigner(salt=identity.SALT).sign(f"{origin}:{anonymous_id}")


def request_of(
    user: User | AnonymousUser | None = None, signed: str = "", twin: str = "", headers: Any = None
) -> HttpRequest:
    request = RequestFactory().get("/", headers=headers)
    request.user = user or AnonymousUser()
    request.session = SessionStore()
    if signed:
        request.COOKIES[id_cookies()[0]] = signed
    if twin:
        request.COOKIES[identity.ANONYMOUS_ID_COOKIE] = twin
    return request


def know(user_id: str | None = None, anonymous_id: str | None = None, **traits: Any) -> None:
    profiles.store.update(Ids(user_id, anonymous_id), traits, now_ms())


def traits(request: HttpRequest) -> dict[str, Any] | None:
    profile = profile_of(request)
    return None if profile is None else dict(profile.traits)


def test_user_who_is_signed_in_has_his_profile(ada: User) -> None:
    know(str(ada.pk), vip=True)
    profile = profile_of(request_of(ada))
    assert profile is not None
    assert (profile.traits, profile.user_id) == ({"vip": True}, str(ada.pk))


def test_user_id_is_what_the_site_says_it_is(ada: User) -> None:
    know("ada", vip=True)
    with override_settings(SEGMENT_FALLBACK={**OURS, "USER_ID": "tests.profiles.test_lookup.name_of"}):
        assert traits(request_of(ada)) == {"vip": True}


def name_of(user: User) -> str:
    return user.get_username()


def test_visitor_with_our_signed_cookie_has_his_profile() -> None:
    know(anonymous_id="a-1", vip=True)
    assert traits(request_of(signed=cookie("a-1"))) == {"vip": True}
    assert traits(request_of(signed=cookie("a-1"), twin="a-1")) == {"vip": True}


@pytest.mark.parametrize(
    ("signed", "twin"),
    [
        ("", "a-1"),
        ("m:a-1", "a-1"),
        ("m:a-1:abc:def", "a-1"),
        (TimestampSigner(salt="another").sign("m:a-1"), "a-1"),
        (TimestampSigner(key="stolen", salt=identity.SALT).sign("m:a-1"), "a-1"),
        (TimestampSigner(salt=identity.SALT).sign("a:a-1"), "a-1"),
        (TimestampSigner(salt=identity.SALT).sign("m:another"), "a-1"),
        (TimestampSigner(salt=identity.SALT).sign("m:a-1") + "x", "a-1"),
        (TimestampSigner(salt=identity.SALT).sign("m:a-1"), "another"),
    ],
)
def test_lookup_by_a_forged_or_adopted_cookie_returns_nothing(signed: str, twin: str) -> None:
    know(anonymous_id="a-1", vip=True)
    know("a-1", vip=True)
    assert profile_of(request_of(signed=signed, twin=twin)) is None


def test_lookup_by_what_a_client_writes_elsewhere_returns_nothing() -> None:
    know("7", vip=True)
    request = request_of(twin="7")
    request.COOKIES["ajs_user_id"] = "7"
    request.META |= {"HTTP_X_USER_ID": "7", "HTTP_AUTHORIZATION": "Basic Nzo=", "QUERY_STRING": "ajs_uid=7&userId=7"}
    assert profile_of(request) is None


def test_cookieless_site_looks_up_users_only(ada: User) -> None:
    know(anonymous_id="a-1", vip=True)
    know(str(ada.pk), plan="pro")
    with override_settings(SEGMENT_FALLBACK={**OURS, "COOKIELESS": True}):
        assert traits(request_of(signed=cookie("a-1"))) is None
        assert traits(request_of(ada, signed=cookie("a-1"))) == {"plan": "pro"}


@pytest.mark.parametrize("headers", [{"Sec-GPC": "1"}, {"DNT": "1"}, {"Sec-Purpose": "prefetch"}])
def test_who_does_not_want_to_be_known_has_no_profile(ada: User, headers: dict[str, str]) -> None:
    know(str(ada.pk), vip=True)
    assert profile_of(request_of(ada, headers=headers)) is None


def test_profile_is_looked_up_once_a_request(ada: User, django_assert_num_queries: Any) -> None:
    know(str(ada.pk), vip=True)
    request = request_of(ada)
    assert traits(request) == {"vip": True}
    with django_assert_num_queries(0):
        assert traits(request) == {"vip": True}
        assert Visitor(request).profile == profile_of(request)


def test_nothing_is_asked_about_a_stranger(django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert profile_of(request_of()) is None


def test_who_signs_in_or_out_within_a_request_is_somebody_else(ada: User) -> None:
    know(str(ada.pk), vip=True)
    request = request_of()
    assert profile_of(request) is None
    login(request, ada, backend="django.contrib.auth.backends.ModelBackend")
    assert traits(request) == {"vip": True}
    logout(request)
    assert profile_of(request) is None


def test_login_gives_the_user_what_was_known_of_his_browser(ada: User) -> None:
    know(anonymous_id="a-1", seen="shoes")
    request = request_of(signed=cookie("a-1"))
    login(request, ada, backend="django.contrib.auth.backends.ModelBackend")
    assert traits(request_of(ada)) == {"seen": "shoes"}
    assert traits(request_of(signed=cookie("a-1"))) is None


def test_next_user_of_the_browser_gets_nothing_of_the_first(ada: User) -> None:
    bob = User.objects.create_user("bob")
    know(anonymous_id="a-1", seen="shoes")
    for user in (ada, bob):
        login(request_of(signed=cookie("a-1")), user, backend="django.contrib.auth.backends.ModelBackend")
    assert traits(request_of(bob, signed=cookie("a-1"))) is None


def test_login_merges_nothing_by_a_cookie_that_anybody_can_write(ada: User) -> None:
    know(anonymous_id="victim", seen="shoes")
    for signed in ("", cookie("victim", "a"), cookie("own")):
        request = request_of(signed=signed, twin="victim")
        login(request, ada, backend="django.contrib.auth.backends.ModelBackend")
        assert traits(request_of(ada, signed=signed, twin="victim")) is None
    assert traits(request_of(signed=cookie("victim"))) == {"seen": "shoes"}


def test_lookup_merges_what_came_after_the_login(ada: User) -> None:
    know(anonymous_id="a-1", seen="shoes")
    know(str(ada.pk), vip=True)
    assert traits(request_of(ada, signed=cookie("a-1"))) == {"vip": True, "seen": "shoes"}
    assert traits(request_of(ada)) == {"vip": True, "seen": "shoes"}
    assert traits(request_of(signed=cookie("a-1"))) is None


@pytest.mark.parametrize("broken", [{"PROFILES": DOWN}, {"PROFILES": {"BACKEND": "missing.Store"}}])
def test_store_that_fails_costs_a_page_nothing(ada: User, broken: Any, caplog: pytest.LogCaptureFixture) -> None:
    with override_settings(SEGMENT_FALLBACK={**OURS, **broken}), caplog.at_level(logging.ERROR):
        for _ in range(5):
            assert profile_of(request_of(ada)) is None
        login(request_of(signed=cookie("a-1")), ada, backend="django.contrib.auth.backends.ModelBackend")
    (record,) = (record for record in caplog.records if record.name == "segment_fallback")  # once a while
    assert record.getMessage().startswith("a profile could not be looked up: ")


def test_row_that_is_not_ours_costs_a_page_nothing(ada: User, caplog: pytest.LogCaptureFixture) -> None:
    KeptProfile.objects.create(key=Ids(str(ada.pk)).keys[0], text="{ada", version=1, expires=now_ms() + 10_000)
    assert profile_of(request_of(ada)) is None
    assert "a profile could not be looked up: JSONDecodeError" in caplog.text


def test_user_id_that_fails_costs_a_page_nothing(ada: User, caplog: pytest.LogCaptureFixture) -> None:
    with override_settings(SEGMENT_FALLBACK={**OURS, "USER_ID": "tests.profiles.test_lookup.failing"}):
        assert profile_of(request_of(ada)) is None
    assert "a profile could not be looked up: ZeroDivisionError" in caplog.text


def failing(user: User) -> str:
    return str(1 / 0)


def test_without_profiles_nobody_is_looked_up(ada: User, django_assert_num_queries: Any) -> None:
    with override_settings(SEGMENT_FALLBACK={"WRITE_KEY": "x"}), django_assert_num_queries(0):
        assert profile_of(request_of(ada, signed=cookie("a-1"))) is None


@pytest.mark.django_db(transaction=True)
def test_async_code_has_the_same(ada: User) -> None:
    know(str(ada.pk), vip=True)
    request = request_of(ada)
    assert asyncio.run(aprofile_of(request)) == profile_of(request)


@pytest.fixture
def pulling() -> Iterator[Callable[..., override_settings]]:
    pulls.forget()

    def settings(url: str, **options: Any) -> override_settings:
        own = {"SPACE": "s", "TOKEN": "t", "HOST": url, "TIMEOUT": 2, **options}
        return override_settings(SEGMENT_FALLBACK={**OURS, "PROFILES": CACHE, "PROFILE_API": own})

    yield settings
    eventually(lambda: not pulls._under_way, 10)
    pulls.forget()


def test_user_of_whom_the_store_has_nothing_is_pulled(ada: User, pulling: Any) -> None:
    with profile_api() as segment, pulling(segment.url):
        segment.says({"vip": True})
        assert traits(request_of(ada, signed=cookie("a-1"))) == {"vip": True}
        assert traits(request_of(ada)) == {"vip": True}
        assert len(segment.asked) == 1


def test_visitor_who_is_not_signed_in_is_never_pulled(pulling: Any) -> None:
    """By an anonymousId Segment would tell of the person whose it was."""
    with profile_api() as segment, pulling(segment.url):
        segment.says({"vip": True})
        assert profile_of(request_of(signed=cookie("a-2"))) is None
        assert segment.asked == []


def test_page_never_waits_above_its_budget_with_the_profile_api_hanging(pulling: Any, ada: User) -> None:
    users = [User(pk=number, username=str(number)) for number in range(1_000, 1_100)]
    waits = []
    with profile_api() as segment, pulling(segment.url, TIMEOUT=0.05, RATE=1_000):
        segment.answer = lambda: Answer.hang(1.5)
        for user in users:
            began = time.perf_counter()
            assert profile_of(request_of(user)) is None
            waits.append(time.perf_counter() - began)
    assert max(waits) < 0.05 + 0.05
    assert sum(wait > 0.04 for wait in waits) <= api.MAX_REQUESTS  # the others do not even wait
    assert segment.asked == [ANY] * api.MAX_REQUESTS
