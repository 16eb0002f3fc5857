"""A Django site behind an edge: pages that caches may keep, sign-in, and a log of what reached Django.

From the environment: EDGE_DIR (where its files are), EDGE_SETTINGS (JSON: further keys of SEGMENT_FALLBACK) and
EDGE_CACHE (set: Django's own cache middleware is the edge).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.contrib.auth import get_user_model, login
from django.contrib.sessions.backends.db import SessionStore as DatabaseSessions
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.urls import include, path, re_path
from django.views.decorators.cache import cache_control, never_cache
from django.views.decorators.csrf import csrf_exempt

from segment_fallback.profiles.lookup import profile_of
from segment_fallback.profiles.store import Profile
from segment_fallback.profiles.variations import variation

BASE_DIR = Path(os.environ["EDGE_DIR"])
SECRET_KEY = "tests"  # that of the tests, which derive the endpoints' names from it
DEBUG = False
ALLOWED_HOSTS = ["127.0.0.1", "localhost", "shop.example"]
ROOT_URLCONF = __name__
USE_TZ = True
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
SESSION_ENGINE = __name__
INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "segment_fallback"]
_CACHE = "EDGE_CACHE" in os.environ
MIDDLEWARE = [
    "segment_fallback.middleware.SegmentMiddleware",
    *(["django.middleware.cache.UpdateCacheMiddleware"] if _CACHE else []),
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    *(["django.middleware.cache.FetchFromCacheMiddleware"] if _CACHE else []),
    f"{__name__}.log_page",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
    }
]
DATABASES: dict[str, dict[str, Any]] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(BASE_DIR / "site.sqlite3"),
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": "PRAGMA journal_mode=WAL"},
    }
}
SEGMENT_FALLBACK: dict[str, Any] = {
    "WRITE_KEY": "edge-write-key",
    "TRUSTED_PROXIES": 0 if _CACHE else 1,
    "IDENTIFY": True,
    "OUTCOME_INTERVAL": 0,
    **json.loads(os.environ.get("EDGE_SETTINGS", "{}")),
}

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Shop</title>
{% load segment_fallback %}{% segment_snippet "Shop" sku="A-1" %}
</head><body>{{ request.get_full_path }}</body></html>"""


def write(log: str, **line: object) -> None:
    """Append a line to a log: whole, as all of gunicorn's threads write."""
    with (BASE_DIR / f"{log}.jsonl").open("ab", buffering=0) as file:
        file.write(json.dumps(line).encode() + b"\n")


class SessionStore(DatabaseSessions):
    """Writes down each use of a session, even of an empty one."""

    def _get_session(self, no_load: bool = False) -> Any:
        write("sessions", key=self.session_key)
        return super()._get_session(no_load)  # type: ignore[misc]

    _session = property(_get_session)


def log_page(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Innermost: what passes here was rendered, and not taken from Django's cache."""

    def middleware(request: HttpRequest) -> HttpResponse:
        write("rendered", url=request.get_full_path())
        return get_response(request)

    return middleware


@csrf_exempt
@cache_control(public=True, max_age=60)
def shop(request: HttpRequest, page: str) -> HttpResponse:
    return HttpResponse(engines["django"].from_string(PAGE).render({}, request))


def choose(profile: Profile) -> str:
    return str(profile.traits["plan"])


@cache_control(public=True, max_age=0, s_maxage=60)
@variation(choose, ["regular", "gold", "student"])
def sale(request: HttpRequest, page: str) -> HttpResponse:
    """A page of three variations."""
    html = PAGE.replace("{{ request.get_full_path }}", "Sale: {% segment_variation %}.")
    return HttpResponse(engines["django"].from_string(html).render({}, request))


@cache_control(public=True, max_age=60)
def with_fragment(request: HttpRequest, page: str) -> HttpResponse:
    """A page for all, and a corner of it for each."""
    return HttpResponse('<p hx-get="/accounts/greeting/" hx-trigger="load">Welcome.</p>')


@never_cache
def greeting(request: HttpRequest) -> HttpResponse:
    profile = profile_of(request)
    return HttpResponse(str(profile.traits["email"]) if profile else "a stranger")


@cache_control(public=True, max_age=1)
def brief(request: HttpRequest) -> HttpResponse:
    return HttpResponse("a page of the last second")


@cache_control(public=True, max_age=60)
def other(request: HttpRequest) -> HttpResponse:
    """A page whose path has a question mark."""
    return HttpResponse("another page")


@csrf_exempt
def sign_in(request: HttpRequest) -> HttpResponse:
    user, _created = get_user_model().objects.get_or_create(username=request.POST["name"])
    login(request, user, "django.contrib.auth.backends.ModelBackend")
    return HttpResponse("signed in")


def account(request: HttpRequest) -> HttpResponse:
    """A personal page, with no word to caches: nobody may keep it all the same."""
    return HttpResponse(request.user.get_username() or "nobody")


@cache_control(public=True, max_age=60)
def careless(request: HttpRequest) -> HttpResponse:
    """Says that caches may keep it, and sets a cookie."""
    response = HttpResponse("a page")
    response.set_cookie("somebody", "1")
    return response


def silent(request: HttpRequest) -> HttpResponse:
    return HttpResponse("a page that says nothing to caches")


urlpatterns = [
    path("shop/<slug:page>/", shop),
    re_path(r"^shop/odd/\?", other),
    path("sale/<slug:page>/", sale),
    path("brief/", brief),
    path("fragments/<slug:page>/", with_fragment),
    path("accounts/greeting/", greeting),
    path("accounts/sign-in/", sign_in),
    path("accounts/", account),
    path("careless/", careless),
    path("silent/", silent),
    path("s/", include("segment_fallback.urls")),
]
