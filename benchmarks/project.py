"""The site that the benchmarks serve: settings, and views to compare ours with.

As `startproject` makes it, without the admin. From the environment: BENCHMARK_SETTINGS (JSON: further keys of
SEGMENT_FALLBACK), BENCHMARK_DATABASE (JSON: the entry of DATABASES), and BENCHMARK_FIRST (a middleware before those of
`startproject`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import include, path

SECRET_KEY = "benchmarks"  # noqa: S105 - of no site
ALLOWED_HOSTS = ["127.0.0.1", "shop.example"]
ROOT_URLCONF = __name__
USE_TZ = True
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "segment_fallback",
]
STARTPROJECT = [
    "django.middleware.security.SecurityMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
"""MIDDLEWARE of a new project."""
MIDDLEWARE = [
    *filter(None, [os.environ.get("BENCHMARK_FIRST")]),
    *STARTPROJECT,
]
DATABASES: dict[str, dict[str, Any]] = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
    **({"default": json.loads(os.environ["BENCHMARK_DATABASE"])} if "BENCHMARK_DATABASE" in os.environ else {}),
}
SEGMENT_FALLBACK: dict[str, Any] = {
    "WRITE_KEY": "key",
    # Behind a proxy, as sites are; so that the address of each visitor is read, and counted for the limit.
    "TRUSTED_PROXIES": 1,
    "RATE_LIMIT": 10**9,
    "BUFFERS": {"default": {"BACKEND": "benchmarks.emptied.EmptiedBuffer"}},
    **json.loads(os.environ.get("BENCHMARK_SETTINGS", "{}")),
}


def bare(request: HttpRequest) -> HttpResponse:
    """The pixel of a site that only wants an image: nothing is read, checked or kept."""
    from segment_fallback.intake.pixel import GIF

    response = HttpResponse(GIF, content_type="image/gif")
    response["Cache-Control"] = "private, no-store"
    response["X-Content-Type-Options"] = "nosniff"
    response["Cross-Origin-Resource-Policy"] = "same-origin"
    return response


def at_once(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """A middleware that answers the image, and asks nothing: the least that any view costs behind Django's handler."""

    def answer(request: HttpRequest) -> HttpResponse:
        return bare(request) if request.path_info == "/bare.gif" else get_response(request)

    return answer


def counts(request: HttpRequest) -> HttpResponse:
    """How hits ended, so far."""
    from segment_fallback.buffers import buffers
    from segment_fallback.counting import write_all

    write_all()
    found: dict[str, int] = {}
    for (_, _, outcome), number in buffers["default"].outcome_counts().items():
        found[outcome] = found.get(outcome, 0) + number
    return JsonResponse(found)


urlpatterns = [
    path("bare.gif", bare),
    path("counts/", counts),
    path("s/", include("segment_fallback.urls")),
]
