"""Which middleware, view or template of this very project makes a page uncacheable.

A page of the project is rendered once more in this process, by the site's own middlewares, each of them watched: what
header appeared behind which, and what line of code or of a template read the session or asked for a CSRF token.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import unquote_to_bytes, urlsplit

import django
from django.conf import settings as django_settings
from django.core.exceptions import MiddlewareNotUsed
from django.core.handlers.base import BaseHandler
from django.core.handlers.exception import convert_exception_to_response
from django.core.handlers.wsgi import WSGIRequest
from django.http import HttpRequest
from django.http.request import validate_host
from django.http.response import HttpResponseBase
from django.template.base import Node
from django.utils.module_loading import import_string

from segment_fallback.doctor.cache import may_be_kept
from segment_fallback.doctor.fetch import VISITOR
from segment_fallback.doctor.finding import Findings, Level, kind
from segment_fallback.doctor.page import Page

SESSION = kind(
    "cause.session",
    Level.INFO,
    "SessionMiddleware answers it with Vary: Cookie; one careless read makes every page of a site uncacheable.",
    "Fetch what is personal by a request of its own, or render this part only on pages that no edge keeps.",
)
CSRF = kind(
    "cause.csrf",
    Level.INFO,
    "CsrfViewMiddleware answers it with a cookie and Vary: Cookie, and the token in the page differs by visitor.",
    "Put the form on a page that no edge keeps, or fetch the token when the form is used.",
)
HEADER = kind(
    "cause.header",
    Level.INFO,
    "It is what adds the header because of which the page cannot be kept.",
    "Let it leave this page alone. Of a view, look for @never_cache, set_cookie and what calls patch_vary_headers.",
)

FOLLOWING = {
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
}
"""What only answers to somebody's reading of the session, or asking for a token."""

Watched = Callable[[HttpRequest], HttpResponseBase]
_DJANGO = str(Path(django.__file__).parent)
_OURSELVES = str(Path(__file__))


@dataclass
class Causes:
    """What was seen: header → what added it; and where session and CSRF token were first asked for."""

    headers: dict[str, str] = field(default_factory=dict)
    session: str = ""
    csrf: str = ""


def is_local(url: str) -> bool:
    """Whether the project whose settings these are serves the URL's host."""
    host = urlsplit(url).hostname or ""
    named = [pattern for pattern in django_settings.ALLOWED_HOSTS if pattern != "*"]
    return validate_host(host, [*named, "localhost", ".localhost", "127.0.0.1", "[::1]"])


def has_causes(page: Page) -> Findings:
    """Where the page's Set-Cookie, Vary and Cache-Control come from, if the page is this project's."""
    headers = page.first.headers
    uncacheable = page.first.cookies or "cookie" in headers.get("Vary", "").lower() or not may_be_kept(page.first)
    if not uncacheable or not is_local(page.url):
        return
    causes = trace(page.first.url)
    if causes.session:
        yield SESSION(f"The session is first read by {causes.session}.")
    if causes.csrf:
        yield CSRF(f"A CSRF token is asked for by {causes.csrf}.")
    explained = causes.session or causes.csrf
    for header, who in causes.headers.items():
        follows = explained and who in FOLLOWING
        if not follows and not (header.startswith("Cache-Control") and may_be_kept(page.first)):
            yield HEADER(f"{header} comes from {who}.")


def trace(url: str) -> Causes:
    """Render the page in this process, and watch. Nothing is told of a page that is not there: it is another site's."""
    parts = urlsplit(url)
    request = WSGIRequest(
        {
            "REQUEST_METHOD": "GET",
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(parts.path or "/").decode("latin-1"),
            "QUERY_STRING": parts.query,
            "SERVER_NAME": parts.hostname or "localhost",
            "SERVER_PORT": str(parts.port or (443 if parts.scheme == "https" else 80)),
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": parts.netloc.rpartition("@")[2],
            "HTTP_USER_AGENT": VISITOR["User-Agent"],
            "HTTP_ACCEPT": VISITOR["Accept"],
            "HTTP_ACCEPT_LANGUAGE": VISITOR["Accept-Language"],
            "wsgi.url_scheme": parts.scheme,
            "wsgi.input": BytesIO(),
        }
    )
    handler = Handler()
    handler.load_middleware()
    request.META = _Meta(request.META, handler.causes)
    response = handler.get_response(request)
    return handler.causes if response.status_code == 200 else Causes()


class Handler(BaseHandler):
    """Django's own, with every middleware watched."""

    def __init__(self) -> None:
        super().__init__()
        self.causes = Causes()

    def load_middleware(self, is_async: bool = False) -> None:
        """As Django does it, but synchronous, and with a watch around each."""
        self._view_middleware: list[Any] = []
        self._template_response_middleware: list[Any] = []
        self._exception_middleware: list[Any] = []
        view: Any = convert_exception_to_response(self._get_response)  # type: ignore[attr-defined]
        handler: Watched = self._watch(view, "the view")
        for path in reversed(django_settings.MIDDLEWARE):
            factory = import_string(path)
            by_itself = getattr(factory, "sync_capable", True)
            try:
                adapted = self.adapt_method_mode(not by_itself, handler, False)
                made = factory(adapted)
            except MiddlewareNotUsed:
                continue
            if hasattr(made, "process_view"):
                self._view_middleware.insert(0, self.adapt_method_mode(False, made.process_view))
            if hasattr(made, "process_template_response"):
                hook = self.adapt_method_mode(False, made.process_template_response)
                self._template_response_middleware.append(hook)
            if hasattr(made, "process_exception"):
                self._exception_middleware.append(self.adapt_method_mode(False, made.process_exception))
            answer: Any = self.adapt_method_mode(False, convert_exception_to_response(made), not by_itself)
            handler = self._watch(answer, path)
        self._middleware_chain = handler

    def _watch(self, inner: Watched, who: str) -> Watched:
        def watched(request: HttpRequest) -> HttpResponseBase:
            session = getattr(request, "session", None)
            if session is not None and not hasattr(session, "segment_doctor"):
                _watch_session(session, self.causes)
            response = inner(request)
            for header in _telling(response):
                self.causes.headers.setdefault(header, who)
            return response

        return watched


def _telling(response: HttpResponseBase) -> list[str]:
    """The headers that keep a response from being kept, as they would be written."""
    found = [f"Set-Cookie: {name}" for name in response.cookies]
    if "cookie" in response.get("Vary", "").lower():
        found.append("Vary: Cookie")
    said = response.get("Cache-Control", "")
    return [*found, f"Cache-Control: {said}"] if said else found


class _Meta(dict[str, Any]):
    """A request's META that notices who asks for a CSRF token."""

    def __init__(self, meta: dict[str, Any], causes: Causes) -> None:
        super().__init__(meta)
        self._causes = causes

    def __setitem__(self, key: str, value: Any) -> None:
        if key == "CSRF_COOKIE_NEEDS_UPDATE":
            self._causes.csrf = self._causes.csrf or culprit(sys._getframe(1))
        super().__setitem__(key, value)

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value


def _watch_session(session: Any, causes: Causes) -> None:
    """Notice who reads the session first: Django sets ``accessed`` then."""
    kind_of = type(session)

    def accessed(self: Any) -> bool:
        return bool(self.__dict__.get("accessed"))

    def access(self: Any, value: bool) -> None:
        if value and not causes.session:
            causes.session = culprit(sys._getframe(1))
        self.__dict__["accessed"] = value

    watched = {"accessed": property(accessed, access), "segment_doctor": True}
    session.__class__ = type(kind_of.__name__, (kind_of,), watched)


def culprit(frame: FrameType | None) -> str:
    """The innermost line of a template, or of code that is not Django's."""
    django_itself = ""
    while frame is not None and frame.f_code.co_filename == _OURSELVES:
        frame = frame.f_back
    while frame is not None:
        node: Any = frame.f_locals.get("self")
        code = frame.f_code
        # By its type: to ask a lazy object for its class would evaluate it.
        if issubclass(type(node), Node) and node.token is not None:
            template = getattr(getattr(node, "origin", None), "template_name", None) or "a template"
            return f"{template}, line {node.token.lineno}: {node.token.contents[:60]!r}"
        place = f"{code.co_filename}:{frame.f_lineno}, in {code.co_name}"
        if code.co_filename == _OURSELVES:
            break  # the watch of the middleware that read it
        if not code.co_filename.startswith((_DJANGO, "<")) and "/asgiref/" not in code.co_filename:
            return place
        if "/contrib/" in code.co_filename or "/middleware/" in code.co_filename:
            django_itself = place
        frame = frame.f_back
    return django_itself or "Django itself"
