from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import markcoroutinefunction
from django.core.exceptions import MiddlewareNotUsed
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.template.response import TemplateResponse
from django.urls import path

from segment_fallback.doctor.cause import Causes, trace

if TYPE_CHECKING:
    from pytest_django import Settings

View = Callable[[HttpRequest], HttpResponse]


class Unused:
    def __init__(self, get_response: View) -> None:
        raise MiddlewareNotUsed


class Hooks:
    """A middleware with every hook that Django knows."""

    def __init__(self, get_response: View) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view: View, args: Any, kwargs: Any) -> None:
        request.META["seen_by"] = "process_view"

    def process_template_response(self, request: HttpRequest, response: TemplateResponse) -> TemplateResponse:
        response["Cache-Control"] = "no-store"
        return response

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse:
        response = HttpResponse("rescued")
        response.set_cookie("rescued", "1")
        return response


class Asynchronous:
    sync_capable = False
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Awaitable[HttpResponse]]) -> None:
        self.get_response = get_response
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> HttpResponse:
        response = await self.get_response(request)
        response.set_cookie("late", "1")
        return response


def plain(request: HttpRequest) -> HttpResponse:
    assert request.META["seen_by"] == "process_view"
    return HttpResponse(request.build_absolute_uri())


def rendered(request: HttpRequest) -> HttpResponse:
    return TemplateResponse(request, engines["django"].from_string("a page"))


def broken(request: HttpRequest) -> HttpResponse:
    raise RuntimeError


urlpatterns = [path("plain/", plain), path("rendered/", rendered), path("broken/é/", broken)]

HERE = __name__


@pytest.fixture(autouse=True)
def site(settings: Settings) -> None:
    assert HERE in sys.modules
    settings.ROOT_URLCONF = HERE
    settings.ALLOWED_HOSTS = ["shop.example"]
    settings.MIDDLEWARE = [f"{HERE}.Unused", f"{HERE}.Asynchronous", f"{HERE}.Hooks"]


def test_async_middleware_is_watched() -> None:
    assert trace("http://shop.example/plain/") == Causes({"Set-Cookie: late": f"{HERE}.Asynchronous"})


def test_hooks_of_middlewares_run() -> None:
    headers = trace("https://shop.example:8443/rendered/?a=b").headers
    assert headers == {"Cache-Control: no-store": "the view", "Set-Cookie: late": f"{HERE}.Asynchronous"}


def test_exception_is_handled_as_django_handles_it() -> None:
    assert "Set-Cookie: rescued" in trace("http://shop.example/broken/%C3%A9/").headers


def test_page_that_is_not_there_tells_nothing() -> None:
    assert trace("http://shop.example/missing/") == Causes()


def test_django_is_named_where_nobody_else_reads(settings: Settings) -> None:
    settings.MIDDLEWARE = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.auth.middleware.RemoteUserMiddleware",
        f"{HERE}.Hooks",
    ]
    settings.ROOT_URLCONF = HERE
    assert "/contrib/auth/" in trace("http://shop.example/plain/").session
