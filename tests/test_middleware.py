from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

import pytest
from asgiref.sync import async_to_sync, iscoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client
from django.urls import include, path, reverse

from segment_fallback import middleware
from segment_fallback.intake.pixel import GIF
from segment_fallback.message import new_message_id
from segment_fallback.middleware import SegmentMiddleware
from segment_fallback.names import endpoint_names
from tests.intake.visits import encode, outcomes

OURS = "segment_fallback.middleware.SegmentMiddleware"


def unreachable(get_response: object) -> Callable[[HttpRequest], HttpResponse]:
    """Stands for sessions, auth and the rest: an early answer does not reach it."""

    def middleware(request: HttpRequest) -> HttpResponse:
        raise AssertionError(f"{request.path} came as far as here")

    return middleware


def marking(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Stands for any middleware of the site's own."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response["X-Mark"] = "seen"
        return response

    return middleware


def plain(request: HttpRequest, rest: str = "") -> HttpResponse:
    return HttpResponse("a page")


async def plain_async(request: HttpRequest) -> HttpResponse:
    return HttpResponse("a page")


def personal(request: HttpRequest) -> HttpResponse:
    request.session["seen"] = 1
    return HttpResponse("your page")


urlpatterns = [
    path("s/", include("segment_fallback.urls")),
    path("personal/", personal),
    path("async/", plain_async),
    path("", plain),
    path("<path:rest>", plain),
]

Get = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def get(request: pytest.FixtureRequest, settings: Any) -> Get:
    """A real request, by WSGI's handler and by ASGI's."""
    settings.ROOT_URLCONF = __name__
    return Client().get if request.param == "sync" else async_to_sync(AsyncClient().get)


def pixel_url() -> str:
    data = encode(0)
    return reverse("segment_fallback:pixel", args=[endpoint_names()[0], new_message_id(), data])


@pytest.mark.django_db
def test_endpoint_is_answered_before_anything_else(get: Get, settings: Any) -> None:
    settings.MIDDLEWARE = [OURS, f"{__name__}.unreachable"]
    response = get(pixel_url())
    assert (response.status_code, response.content) == (200, GIF)
    assert response["Cache-Control"] == "private, no-store"
    assert outcomes() == {"token_missing": 1}


@pytest.mark.django_db
def test_endpoint_works_by_url_routing_alone(get: Get, settings: Any) -> None:
    early = get(pixel_url())
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if name != OURS]
    routed = get(pixel_url())
    assert (routed.status_code, routed.content) == (early.status_code, early.content)
    assert set(early.headers.items()) <= set(routed.headers.items())
    assert outcomes() == {"token_missing": 2}


@pytest.mark.django_db
@pytest.mark.parametrize("early", [True, False], ids=["early", "routed"])
def test_beacon_needs_no_csrf_token(settings: Any, early: bool) -> None:
    settings.MIDDLEWARE = [*([OURS] if early else []), "django.middleware.csrf.CsrfViewMiddleware"]
    assert Client(enforce_csrf_checks=True).post(pixel_url()).status_code == 200


@pytest.mark.django_db
def test_endpoint_is_found_once_and_then_known(get: Get, settings: Any) -> None:
    settings.MIDDLEWARE = [OURS, f"{__name__}.unreachable"]
    with pytest.MonkeyPatch.context() as patch:
        first = get(pixel_url())
        patch.setattr(middleware, "resolve", unreachable)
        again = get(pixel_url() + "/token")
    assert (first.content, again.content) == (GIF, GIF)
    assert outcomes() == {"token_missing": 1, "token_invalid": 1}


@pytest.mark.django_db
def test_endpoint_that_has_moved_is_not_known_any_more(get: Get, settings: Any) -> None:
    settings.MIDDLEWARE = [OURS, f"{__name__}.marking"]
    url = pixel_url()
    assert get(url).content == GIF
    settings.ROOT_URLCONF = "segment_fallback.urls"
    moved = get(url)
    assert (moved.status_code, moved["X-Mark"]) == (404, "seen")


@pytest.mark.parametrize(
    "url", ["/", "/shop/", "/s/", "/s/{name}/", "/s/{name}/x/y", "/{name}/p/1/2", "/s/other1/p/1/2"]
)
def test_other_path_goes_through_the_sites_own_middleware(get: Get, settings: Any, url: str) -> None:
    settings.MIDDLEWARE = [OURS, f"{__name__}.marking"]
    response = get(url.format(name=endpoint_names()[0]))
    assert (response.content, response["X-Mark"]) == (b"a page", "seen")


@pytest.mark.django_db
def test_endpoint_of_a_retired_secret_is_answered_early(get: Get, settings: Any) -> None:
    url = pixel_url()
    settings.MIDDLEWARE = [OURS, f"{__name__}.unreachable"]
    settings.SECRET_KEY_FALLBACKS = [settings.SECRET_KEY]
    settings.SECRET_KEY = "new"
    assert get(url).content == GIF


@pytest.mark.django_db
def test_insecure_request_is_redirected_where_the_site_wants_that(get: Get, settings: Any) -> None:
    settings.SECURE_SSL_REDIRECT = True
    url = pixel_url()
    response = get(url)
    assert (response.status_code, unquote(response["Location"])) == (301, f"https://testserver{url}")
    settings.MIDDLEWARE = [OURS, f"{__name__}.unreachable"]
    secure = (
        {"secure": True} if isinstance(getattr(get, "__self__", None), Client) else {"headers": {"x-proto": "https"}}
    )
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_PROTO", "https")
    assert get(url, **secure).content == GIF


@pytest.mark.django_db
@pytest.mark.parametrize("url", ["/", "/async/", "/personal/", "/s/nothing"])
def test_page_is_what_it_is_without_the_middleware(get: Get, settings: Any, url: str) -> None:
    with_ours = get(url)
    settings.MIDDLEWARE = [name for name in settings.MIDDLEWARE if name != OURS]
    without = get(url)
    assert with_ours.content == without.content
    assert dict(with_ours.headers) == dict(without.headers)
    assert set(with_ours.cookies) == set(without.cookies)
    assert with_ours.has_header("Vary") == (url == "/personal/")


def test_middleware_is_never_adapted_between_sync_and_async(get: Get, settings: Any, caplog: Any) -> None:
    settings.DEBUG = True
    settings.MIDDLEWARE = [OURS]
    with caplog.at_level(logging.DEBUG, "django.request"):
        assert get("/").content == b"a page"
    assert "adapted for middleware" not in caplog.text


def test_middleware_asks_for_no_more_of_django_than_it_needs(settings: Any) -> None:
    assert not hasattr(SegmentMiddleware(plain), "process_view")
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "INJECT": True}
    assert not iscoroutinefunction(SegmentMiddleware(plain).process_view)
    assert iscoroutinefunction(SegmentMiddleware(plain_async).process_view)


def test_middleware_is_a_coroutine_function_where_what_it_wraps_is_one() -> None:
    assert iscoroutinefunction(SegmentMiddleware(plain_async))
    assert not iscoroutinefunction(SegmentMiddleware(plain))
