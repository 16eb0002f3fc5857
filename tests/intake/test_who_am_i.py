"""The hint of a login, and the endpoint that a page asks where it finds one."""

from __future__ import annotations

import json
from datetime import datetime
from http.cookies import Morsel
from typing import Any, cast

import pytest
from asgiref.sync import async_to_sync
from django.contrib import auth
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import include, path, reverse

from segment_fallback.names import endpoint_names, hint_cookie

pytestmark = pytest.mark.django_db

SAME_ORIGIN = {"sec-fetch-site": "same-origin"}


def log_in(request: HttpRequest, name: str) -> HttpResponse:
    auth.login(request, User.objects.get_or_create(username=name)[0])
    return HttpResponse("in")


def log_out(request: HttpRequest) -> HttpResponse:
    auth.logout(request)
    return HttpResponse("out")


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse("a page")


urlpatterns = [
    path("s/", include("segment_fallback.urls")),
    path("in/<str:name>/", log_in),
    path("out/", log_out),
    path("", page),
]


@pytest.fixture(autouse=True)
def site(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "IDENTIFY": True}


class Browser:
    """Sends requests by WSGI's handler or by ASGI's, and keeps cookies."""

    def __init__(self, kind: str) -> None:
        self.client: Any = Client() if kind == "sync" else AsyncClient()

    def get(self, url: str, **headers: str) -> HttpResponse:
        get = self.client.get if isinstance(self.client, Client) else async_to_sync(self.client.get)
        return cast(HttpResponse, get(url, headers=headers))


@pytest.fixture(params=["sync", "async"])
def browser(request: pytest.FixtureRequest) -> Browser:
    return Browser(request.param)


def hint(response: HttpResponse) -> Morsel[str] | None:
    return response.cookies.get(hint_cookie())


def url() -> str:
    return reverse("segment_fallback:who_am_i", args=[endpoint_names()[0]])


def test_login_sets_the_hint_and_logout_clears_it(browser: Browser) -> None:
    first = hint(browser.get("/in/ann/"))
    assert first is not None
    assert len(first.value) == 12
    assert not first["httponly"], "the page's script reads it"
    assert first["samesite"] == "Lax"
    again = hint(browser.get("/in/ann/"))
    assert again is not None
    assert again.value != first.value, "each login has its own"
    gone = hint(browser.get("/out/"))
    assert gone is not None
    assert (gone.value, gone["max-age"]) == ("", 0)


def test_page_gets_no_cookie_and_no_vary(browser: Browser) -> None:
    for _ in range(2):
        response = browser.get("/")
        assert not response.cookies
        assert not response.has_header("Vary")
        browser.get("/in/ann/")


def test_no_hint_where_identify_is_off(browser: Browser, settings: Any) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "IDENTIFY": False}
    assert hint(browser.get("/in/ann/")) is None
    assert hint(browser.get("/out/")) is None


@pytest.mark.parametrize(
    "cookie",
    [
        {},
        {"SESSION_EXPIRE_AT_BROWSER_CLOSE": True},
        {"SESSION_COOKIE_AGE": 77},
        {"SESSION_COOKIE_DOMAIN": "testserver"},
        {"SESSION_COOKIE_PATH": "/in/"},
        {"SESSION_COOKIE_SECURE": True},
    ],
    ids=str,
)
def test_hint_lives_where_and_as_long_as_the_session(browser: Browser, settings: Any, cookie: dict[str, Any]) -> None:
    for key, value in cookie.items():
        setattr(settings, key, value)
    response = browser.get("/in/ann/")
    own, session = hint(response), response.cookies[settings.SESSION_COOKIE_NAME]
    assert own is not None
    for attribute in ("max-age", "expires", "path", "domain", "secure"):
        assert own[attribute] == session[attribute]
    assert bool(own["max-age"]) == ("SESSION_EXPIRE_AT_BROWSER_CLOSE" not in cookie)
    gone = hint(browser.get("/out/"))
    assert gone is not None
    assert (gone["path"], gone["domain"]) == (own["path"], own["domain"])


def test_hint_is_prolonged_with_the_session(browser: Browser, settings: Any) -> None:
    settings.SESSION_SAVE_EVERY_REQUEST = True
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, f"{__name__}.{reading_the_session.__name__}"]
    first = hint(browser.get("/in/ann/"))
    later = hint(browser.get("/"))
    assert first is not None
    assert later is not None
    assert (later.value, later["max-age"]) == (first.value, first["max-age"])


def reading_the_session(get_response: Any) -> Any:
    def middleware(request: HttpRequest) -> HttpResponse:
        assert request.user.pk
        response: HttpResponse = get_response(request)
        return response

    def not_at_login(request: HttpRequest) -> HttpResponse:
        response: HttpResponse = get_response(request) if request.path.startswith("/in/") else middleware(request)
        return response

    return not_at_login


def test_hint_of_odd_form_is_not_repeated(settings: Any) -> None:
    settings.SESSION_SAVE_EVERY_REQUEST = True
    client = Client()
    client.get("/in/ann/")
    client.cookies[hint_cookie()] = "<script>"
    assert hint(client.get("/")) is None  # type: ignore[arg-type]


def ask(browser: Browser, **headers: str) -> HttpResponse:
    return browser.get(url(), **{**SAME_ORIGIN, **headers})


def test_answer_is_the_user_of_the_session(browser: Browser) -> None:
    browser.get("/in/ann/")
    response = ask(browser)
    assert json.loads(response.content) == {"userId": str(User.objects.get(username="ann").pk)}
    assert response["Cache-Control"] == "private, no-store"
    assert response["Cross-Origin-Resource-Policy"] == "same-origin"
    assert not response.cookies


def user_id(user: User) -> str:
    return f"u-{user.username}-{datetime(2026, 1, 1):%Y}"


def test_answer_is_what_user_id_makes_of_it(browser: Browser, settings: Any) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "USER_ID": f"{__name__}.user_id"}
    browser.get("/in/ann/")
    assert json.loads(ask(browser).content) == {"userId": "u-ann-2026"}


def test_forged_hint_is_nobody_and_goes(browser: Browser) -> None:
    browser.client.cookies[hint_cookie()] = "0123456789ab"
    response = ask(browser)
    assert json.loads(response.content) == {"userId": None}
    gone = hint(response)
    assert gone is not None
    assert not gone.value


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"sec-fetch-site": "cross-site"}, "cross_site"),
        ({"sec-fetch-site": "none"}, "cross_site"),
        ({"sec-fetch-site": "same-site"}, "referer_missing"),
        ({"referer": "https://evil.example/"}, "host"),
        ({"origin": "https://evil.example"}, "host"),
        ({"origin": "null", "sec-fetch-site": "same-site"}, "referer_missing"),
    ],
)
def test_other_page_is_refused(browser: Browser, headers: dict[str, str], reason: str) -> None:
    browser.get("/in/ann/")
    response = ask(browser, **headers)
    assert (response.status_code, json.loads(response.content)) == (403, {"reason": reason})
    assert response["Cache-Control"] == "private, no-store"
    assert not response.has_header("Access-Control-Allow-Origin")


@pytest.mark.parametrize("method", ["HEAD", "POST", "OPTIONS"])
def test_other_method_is_refused(method: str) -> None:
    response = Client().generic(method, url(), headers=SAME_ORIGIN)
    assert (response.status_code, response["Allow"]) == (405, "GET")


def test_there_is_no_answer_where_identify_is_off(browser: Browser, settings: Any) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "IDENTIFY": False}
    assert ask(browser).status_code == 404
