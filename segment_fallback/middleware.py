"""SegmentMiddleware answers our own endpoints before sessions, auth and the rest are set up.

Place it first. The app works without it, by plain URL routing; with it a hit costs less. It adds nothing to
pages: no header, no cookie, and it reads neither session nor user. Only the answer to a login or logout gets a cookie,
where IDENTIFY asks for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from asgiref.sync import iscoroutinefunction, markcoroutinefunction, sync_to_async
from django.conf import settings as django_settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve

from segment_fallback.conf import get_settings
from segment_fallback.intake.identity import set_hint
from segment_fallback.names import endpoint_names

GetResponse = Callable[[HttpRequest], HttpResponseBase | Awaitable[HttpResponseBase]]


class SegmentMiddleware:
    """One class for WSGI and ASGI: it is a coroutine function exactly where what it wraps is one."""

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        view = early_view(request)
        if view is None:
            return self._page(request) if get_settings().IDENTIFY else self.get_response(request)
        return sync_to_async(view)(request) if self._is_async else view(request)

    def _page(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """A page of the site; one that signs somebody in or out gets the hint."""
        response = self.get_response(request)
        if isinstance(response, HttpResponseBase):
            set_hint(request, response)
            return response

        async def page() -> HttpResponseBase:
            answer = await response
            if hasattr(request, "segment_hint"):
                await sync_to_async(set_hint)(request, answer)
            return answer

        return page()


def early_view(request: HttpRequest) -> Callable[[HttpRequest], HttpResponseBase] | None:
    """The view of ours that the request is for, ready to be called; None for everybody else's."""
    # Cheap for the pages of the site: one search for a short text.
    if not any(f"/{name}/" in request.path_info for name in endpoint_names()):
        return None
    if django_settings.SECURE_SSL_REDIRECT and not request.is_secure():
        return None
    try:
        match = resolve(request.path_info)
    except Resolver404:
        return None
    if match.app_name.rpartition(":")[2] != "segment_fallback":
        return None
    request.resolver_match = match
    return lambda request: match.func(request, *match.args, **match.kwargs)
