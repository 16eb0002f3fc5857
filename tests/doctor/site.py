"""A site that can have every fault: one page, whose view a test chooses, our endpoints, and an edge in front."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from django.core import signing
from django.http import HttpRequest, HttpResponse
from django.template import Context, Origin, RequestContext, Template
from django.urls import include, path
from django.utils.cache import patch_vary_headers

from segment_fallback.page.snippet import render
from segment_fallback.page.token import SALT, Page, sign

View = Callable[[HttpRequest], HttpResponse]
Respond = Callable[..., Any]
Application = Callable[[dict[str, Any], Respond], Iterable[bytes]]
Edge = Callable[[Application], Application]
"""What stands before the site, and changes its answers."""


def page(request: HttpRequest, snippet: str | None = None, *, head: str = "", body: str = "<p>A page") -> HttpResponse:
    """A page that has no fault of its own."""
    ours = render(Page(request.path)) if snippet is None else snippet
    text = (
        f"<!doctype html>\n<html>\n<head>\n<title>Salt &amp; glaze</title>\n{head}\n{ours}\n</head>\n<body>\n{body}\n"
    )
    return HttpResponse(text, headers={"Cache-Control": "public, max-age=300", "Referrer-Policy": "same-origin"})


def with_page(**arguments: str) -> View:
    """A view whose page has these in it."""
    return lambda request: page(request, **arguments)


def with_header(name: str, value: str) -> View:
    """A view whose page has this header."""

    def view(request: HttpRequest) -> HttpResponse:
        response = page(request)
        response[name] = value
        return response

    return view


def altered(old: str, new: str) -> View:
    """A view whose page came through something that rewrites HTML."""

    def view(request: HttpRequest) -> HttpResponse:
        response = page(request)
        text = response.content.decode()
        assert old in text
        response.content = text.replace(old, new)
        return response

    return view


def with_token(*, days_old: int = 0, key: str | None = None, at: str | None = None) -> View:
    """A view whose page has another token: older, signed by another site, or made for another path."""

    def view(request: HttpRequest) -> HttpResponse:
        response = page(request)
        content = [int(time.time() // 86_400) - days_old, at or request.path, None, None, {}, ""]
        token = signing.Signer(key=key, salt=SALT).sign_object(content, compress=True)
        response.content = response.content.replace(sign(Page(request.path)).encode(), token.encode())
        return response

    return view


def by_cookie(request: HttpRequest) -> HttpResponse:
    return page(request, body=f"<p>Seen before: {request.COOKIES.get('visited', 'no')}")


def by_language(request: HttpRequest) -> HttpResponse:
    return page(request, body=f"<p>{request.headers.get('Accept-Language')}")


def by_language_and_vary(request: HttpRequest) -> HttpResponse:
    response = by_language(request)
    patch_vary_headers(response, ["Accept-Language"])
    return response


def by_query(request: HttpRequest) -> HttpResponse:
    return page(request, body=f"<a href='{request.get_full_path()}'>here</a>")


def by_the_hour(request: HttpRequest) -> HttpResponse:
    return page(request, body=f"<p>Rendered at {time.time_ns() / 1e9:.7f}")


def sets_cookie(request: HttpRequest) -> HttpResponse:
    response = page(request)
    response.set_cookie("basket", "empty")
    return response


def reads_session(request: HttpRequest) -> HttpResponse:
    request.session.get("basket")
    return page(request)


def reads_user_in_template(request: HttpRequest) -> HttpResponse:
    template = Template("<p>\n{{ user.username }}", Origin("basket.html", "basket.html"))
    return page(request, body=template.render(Context({"user": request.user})))


def has_form(request: HttpRequest) -> HttpResponse:
    template = Template("<form>\n{% csrf_token %}", Origin("contact.html", "contact.html"))
    return page(request, body=template.render(RequestContext(request)))


def cookie_middleware(get_response: View) -> View:
    """A middleware of the site's own that makes its pages uncacheable."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        response.set_cookie("experiment", "b")
        return response

    return middleware


def session_middleware(get_response: View) -> View:
    """A middleware of the site's own that reads the session, carelessly."""

    def middleware(request: HttpRequest) -> HttpResponse:
        request.session.get("theme")
        return get_response(request)

    return middleware


def refuses(status: str, *, below: str = "/s/", body: bytes = b"", **headers: str) -> Edge:
    """An edge that answers by itself what is below a path."""

    def edge(site: Application) -> Application:
        def application(environ: dict[str, Any], respond: Respond) -> Iterable[bytes]:
            if below not in environ["PATH_INFO"]:
                return site(environ, respond)
            respond(status, [(name.replace("_", "-"), value) for name, value in headers.items()])
            return [body]

        return application

    return edge


def rewrites(*, below: str = "/", without: str = "", **headers: str) -> Edge:
    """An edge that adds headers to answers, or takes one away."""
    added = [(name.replace("_", "-"), value) for name, value in headers.items()]

    def edge(site: Application) -> Application:
        def application(environ: dict[str, Any], respond: Respond) -> Iterable[bytes]:
            def answer(status: str, old: list[tuple[str, str]], *more: Any) -> Any:
                concerned = environ["PATH_INFO"].startswith(below)
                kept = [(name, value) for name, value in old if name != without] if concerned else old
                return respond(status, kept + added if concerned else kept, *more)

            return site(environ, answer)

        return application

    return edge


class Chosen:
    """The view of the page, as the test wants it."""

    view: View = staticmethod(page)


def chosen(request: HttpRequest) -> HttpResponse:
    return Chosen.view(request)


urlpatterns = [
    path("page/", chosen),
    path("own.js", lambda request: HttpResponse("analytics.load('x')", content_type="text/javascript")),
    path("s/", include("segment_fallback.urls")),
]
