"""SegmentMiddleware answers our own endpoints before sessions, auth and the rest are set up.

Place it first. The app works without it, by plain URL routing; with it a hit costs less. It adds nothing to
pages: no header, no cookie, and it reads neither session nor user. Only the answer to a login or logout, or one that
prolongs the session, gets cookies, where IDENTIFY or RESET_AT_LOGOUT asks for them; and pages get the snippet, where
INJECT does. Views get ``request.segment``, and what they track is written after the response was sent. A path that has
variations is served as the visitor's one; where none is declared, that costs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings as django_settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import Resolver404, get_resolver, resolve

from segment_fallback import ambient
from segment_fallback.conf import Settings, get_settings
from segment_fallback.intake import login
from segment_fallback.intake.visitor import Visitor
from segment_fallback.names import endpoint_paths
from segment_fallback.page.inject import inject
from segment_fallback.page.snippet import csp_nonce
from segment_fallback.profiles.variations import aassign, assign, registry, serve, varies

GetResponse = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]
View = Callable[..., HttpResponseBase]


class SegmentMiddleware:
    """One class for WSGI and ASGI: it is a coroutine function exactly where what it wraps is one."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response: Callable[[HttpRequest], Any] = get_response
        registry.discover()
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)
        if get_settings().INJECT:
            # Django calls it if it is there, so it is not where nobody needs it.
            self.process_view = self._aprocess_view if self._is_async else self._process_view

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        settings = get_settings()
        view = early_view(request, settings)
        if view is None:
            return self._apage(request, settings) if self._is_async else self._page(request, settings)
        return sync_to_async(view)(request) if self._is_async else view(request)

    def _page(self, request: HttpRequest, settings: Settings) -> HttpResponseBase:
        """A page of the site, whose view's calls are about its visitor."""
        visitor = request.segment = Visitor(request)  # type: ignore[attr-defined]
        token = ambient.current.set(visitor)
        try:
            experiment = registry.of_path(request) if registry.by_path else None
            if experiment:
                serve(experiment, request, assign(experiment, request))
            response: HttpResponseBase = self.get_response(request)
            if experiment:
                varies(response)
        except BaseException:
            visitor.close()
            raise
        finally:
            ambient.current.reset(token)
        return finish(request, visitor.end_with(response), settings)

    async def _apage(self, request: HttpRequest, settings: Settings) -> HttpResponseBase:
        visitor = request.segment = Visitor(request)  # type: ignore[attr-defined]
        token = ambient.current.set(visitor)
        try:
            experiment = registry.of_path(request) if registry.by_path else None
            if experiment:
                serve(experiment, request, await aassign(experiment, request))
            response: HttpResponseBase = await self.get_response(request)
            if experiment:
                varies(response)
        except BaseException:  # a visitor who left cancels the request
            await visitor.aclose()
            raise
        finally:
            ambient.current.reset(token)
        return finish(request, visitor.end_with(response), settings)

    def _process_view(self, request: HttpRequest, *view: Any) -> None:
        """Whoever makes the policy wants to know before it does that a script will need its nonce."""
        csp_nonce(request)

    async def _aprocess_view(self, request: HttpRequest, *view: Any) -> None:
        self._process_view(request, *view)


def finish(request: HttpRequest, response: HttpResponseBase, settings: Settings) -> HttpResponseBase:
    """The response; with cookies if it signs somebody in or out, and perhaps with the snippet."""
    if settings.IDENTIFY or settings.RESET_AT_LOGOUT or settings.INJECT:
        login.set_cookies(request, response)
        return inject(request, response)
    return response


def early_view(request: HttpRequest, settings: Settings) -> Callable[[HttpRequest], HttpResponseBase] | None:
    """The view of ours that the request is for, ready to be called; None for everybody else's."""
    # Cheap for the pages of the site: one search for a short text.
    path = request.path_info
    for part in endpoint_paths(settings.ENDPOINT_NAME):
        if part in path:
            break
    else:
        return None
    if django_settings.SECURE_SSL_REDIRECT and not request.is_secure():
        return None
    mount, _, rest = path.partition(part)
    hit = _PIXEL.match(rest)
    if hit and (known := mounts.view(mount)):
        return lambda request: known(request, part[1:-1], *hit.groups())
    try:
        match = resolve(path)
    except Resolver404:
        return None
    if match.app_name.rpartition(":")[2] != "segment_fallback":
        return None
    if hit and match.url_name == "pixel" and match.kwargs.keys() <= {"name", "message_id", "data", "token"}:
        mounts.learn(mount, match.func)
    request.resolver_match = match
    return lambda request: match.func(request, *match.args, **match.kwargs)


_PIXEL = re.compile(r"p/([-a-zA-Z0-9_]+)/([A-Za-z0-9+_=]+)(?:/([^/]+))?\Z")
"""What stands behind the endpoint's name in the URLs ``pixel`` of segment_fallback.urls."""


class Mounts:
    """Where Django's resolver has found the pixel, so that it need not be asked again: it takes as long as all the
    checks of a hit."""

    MAX = 20
    """A path may have a variable part before our URLs. What comes after so many is resolved each time."""

    def __init__(self) -> None:
        self._resolver: object = None
        self._views: dict[str, View] = {}

    def view(self, mount: str) -> View | None:
        """The view of the pixel's URLs that begin so, as far as it is known."""
        return self._views.get(mount) if self._resolver is get_resolver() else None

    def learn(self, mount: str, view: View) -> None:
        resolver = get_resolver()
        if self._resolver is not resolver:
            self._resolver, self._views = resolver, {}
        if len(self._views) < self.MAX:
            self._views[mount] = view


mounts = Mounts()
