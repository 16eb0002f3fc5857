"""What a login or a logout leaves in the visitor's cookies, on its own answer, by the middleware.

With IDENTIFY a cached page learns the userId: login sets a cookie that hints at it, and only where that is set does
the page ask ``who_am_i``. With RESET_AT_LOGOUT whoever comes after a logout is somebody else.
"""

from __future__ import annotations

import re
import secrets
from typing import Any

from django.conf import settings as django_settings
from django.http import HttpRequest
from django.http.response import HttpResponseBase

from segment_fallback.conf import get_settings
from segment_fallback.intake.reset import reset_identity
from segment_fallback.names import hint_cookie

_HINT = re.compile(r"[0-9a-f]{12}\Z")


def hint_at_login(sender: object, request: HttpRequest | None, **kwargs: Any) -> None:
    """Receives ``user_logged_in``: leaves the hint for the middleware to set on the answer."""
    settings = get_settings()
    if request is not None and settings.IDENTIFY and not settings.COOKIELESS:
        _leave(request, secrets.token_hex(6))


def forget_at_logout(sender: object, request: HttpRequest | None, **kwargs: Any) -> None:
    """Receives ``user_logged_out``."""
    settings = get_settings()
    if request is not None and (settings.IDENTIFY or settings.RESET_AT_LOGOUT):
        _leave(request, "")


def _leave(request: HttpRequest, hint: str) -> None:
    request.segment_hint = hint  # type: ignore[attr-defined]


def has_cookies_to_set(request: HttpRequest) -> bool:
    """Whether this request was a login or a logout."""
    return hasattr(request, "segment_hint")


def set_cookies(request: HttpRequest, response: HttpResponseBase) -> None:
    """On the answer to a login or logout, and where the session is prolonged. Asks no database."""
    settings = get_settings()
    hint: str | None = getattr(request, "segment_hint", None)
    if hint == "" and settings.RESET_AT_LOGOUT:
        reset_identity(request, response, settings)
    if settings.IDENTIFY:
        _set_hint(request, response, hint, may_set=not settings.COOKIELESS)


def _set_hint(request: HttpRequest, response: HttpResponseBase, hint: str | None, *, may_set: bool) -> None:
    """The hint comes and goes with the session's own cookie, and lives as long."""
    session = response.cookies.get(django_settings.SESSION_COOKIE_NAME)
    value = request.COOKIES.get(hint_cookie(), "") if hint is None else hint
    if hint == "" or (session is not None and not session.value and value):
        clear_hint(response)
    elif may_set and session is not None and _HINT.match(value):
        response.set_cookie(hint_cookie(), value, samesite="Lax")
        for attribute in ("max-age", "expires", "path", "domain", "secure"):
            response.cookies[hint_cookie()][attribute] = session[attribute]


def clear_hint(response: HttpResponseBase) -> None:
    path, domain = django_settings.SESSION_COOKIE_PATH, django_settings.SESSION_COOKIE_DOMAIN
    response.delete_cookie(hint_cookie(), path=path, domain=domain, samesite="Lax")
