"""Who a visitor is: the anonymousId that analytics.js uses too, the userId from Django's auth, the address.

With IDENTIFY a cached page learns the userId: login sets a cookie that hints at it (``hint_at_login``), and only
where that is set does the page ask ``who_am_i``.
"""

from __future__ import annotations

import ipaddress
import json
import re
import secrets
import uuid
from importlib import import_module
from typing import Any
from urllib.parse import unquote

from django.conf import settings as django_settings
from django.contrib.auth import SESSION_KEY, get_user
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.module_loading import import_string

from segment_fallback.conf import DAY, Settings, get_settings
from segment_fallback.names import hint_cookie

ANONYMOUS_ID_COOKIE = "ajs_anonymous_id"
"""The name, form (plain text), age and SameSite of analytics.js's own cookie, so that both use one id."""

_ANONYMOUS_ID = re.compile(r"[\w.~:@-]{1,100}\Z", re.ASCII)


def anonymous_id(request: HttpRequest) -> str | None:
    """The anonymousId in analytics.js's cookie: plain, or in quotes as older versions wrote it."""
    text = unquote(request.COOKIES.get(ANONYMOUS_ID_COOKIE, ""))
    if text.startswith('"'):
        try:
            text = str(json.loads(text))
        except ValueError:
            return None
    return text if is_anonymous_id(text) else None


def is_anonymous_id(value: object) -> bool:
    """Whether it has the form of an anonymousId: 1 to 100 letters, digits and ``-_.~:@``."""
    return isinstance(value, str) and _ANONYMOUS_ID.match(value) is not None


def new_anonymous_id() -> str:
    return str(uuid.uuid4())


def set_anonymous_id(request: HttpRequest, response: HttpResponse, value: str, settings: Settings) -> None:
    """Let the browser, and analytics.js once it runs there, keep the id. Only ever on an uncached answer."""
    response.set_cookie(
        ANONYMOUS_ID_COOKIE,
        value,
        max_age=365 * DAY,
        domain=settings.COOKIE_DOMAIN,
        secure=request.is_secure(),
        samesite="Lax",
    )


def user_id(request: HttpRequest, settings: Settings) -> str | None:
    """The userId of the signed-in user: from Django's auth and from nowhere else."""
    user = _user(request)
    if user is None or not user.is_authenticated:
        return None
    if settings.USER_ID:
        return str(import_string(settings.USER_ID)(user))
    return str(user.pk)


def _user(request: HttpRequest) -> Any:
    if hasattr(request, "user"):
        return request.user
    # Our middleware answered before the session's and auth's own: do here what they would have done.
    key = request.COOKIES.get(django_settings.SESSION_COOKIE_NAME)
    if not key or "django.contrib.auth" not in django_settings.INSTALLED_APPS:
        return None
    request.session = import_module(django_settings.SESSION_ENGINE).SessionStore(key)
    return get_user(request) if SESSION_KEY in request.session else None


def hint_at_login(sender: object, request: HttpRequest | None, **kwargs: Any) -> None:
    """Receives ``user_logged_in``: leaves the hint for the middleware to set on the answer."""
    if request is not None and get_settings().IDENTIFY:
        _hints(request, secrets.token_hex(6))


def forget_at_logout(sender: object, request: HttpRequest | None, **kwargs: Any) -> None:
    """Receives ``user_logged_out``."""
    if request is not None and get_settings().IDENTIFY:
        _hints(request, "")


def _hints(request: HttpRequest, value: str) -> None:
    request.segment_hint = value  # type: ignore[attr-defined]


def set_hint(request: HttpRequest, response: HttpResponseBase) -> None:
    """Set or clear the hint on the answer to a login or logout. It lives as long as the session, and says nothing."""
    value = getattr(request, "segment_hint", None)
    if value is None:
        return
    path, domain = django_settings.SESSION_COOKIE_PATH, django_settings.SESSION_COOKIE_DOMAIN
    if not value:
        response.delete_cookie(hint_cookie(), path=path, domain=domain, samesite="Lax")
        return
    closes = request.session.get_expire_at_browser_close()
    response.set_cookie(
        hint_cookie(),
        value,
        max_age=None if closes else request.session.get_expiry_age(),
        path=path,
        domain=domain,
        secure=request.is_secure(),
        samesite="Lax",
    )


def client_ip(request: HttpRequest, settings: Settings) -> str | None:
    """The visitor's address. ``X-Forwarded-For`` is believed as far as TRUSTED_PROXIES says, from the right."""
    address = request.META.get("REMOTE_ADDR", "")
    if settings.TRUSTED_PROXIES:
        forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
        if len(forwarded) >= settings.TRUSTED_PROXIES:
            address = forwarded[-settings.TRUSTED_PROXIES]
    try:
        return str(ipaddress.ip_address(address.strip()))
    except ValueError:
        return None
