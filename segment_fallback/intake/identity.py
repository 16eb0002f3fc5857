"""Who a visitor is: the anonymousId that analytics.js uses too, the userId from Django's auth, the address.

Two cookies hold the anonymousId. A signed one, HttpOnly, is this site's own memory of it. Its readable twin has the
name and form of analytics.js's own cookie, so that the library uses the same id, and ours is what it made. Where
they differ the twin counts: the page has called ``analytics.reset()``, and merging two people is worse than
counting one twice. Where the twin is missing (Safari and AdGuard delete it) the signed one brings it back.

Both are set on the answers to accepted hits only, which no cache keeps: so never before consent, and never on a page.
With COOKIELESS there are none, and the id is a hash that lasts a day.
"""

from __future__ import annotations

import ipaddress
import json
import re
import socket
import time
import uuid
from dataclasses import dataclass
from importlib import import_module
from typing import Any
from urllib.parse import unquote

from django.conf import settings as django_settings
from django.contrib.auth import SESSION_KEY, get_user
from django.core.exceptions import DisallowedHost
from django.core.signing import BadSignature, TimestampSigner
from django.http import HttpRequest, parse_cookie
from django.http.request import split_domain_port
from django.http.response import HttpResponseBase
from django.utils.crypto import salted_hmac
from django.utils.module_loading import import_string

from segment_fallback.conf import DAY, Settings
from segment_fallback.names import id_cookies, secrets
from segment_fallback.signing import unsign_timed

ANONYMOUS_ID_COOKIE = "ajs_anonymous_id"
"""The name, form (plain text), age and SameSite of analytics.js's own cookie, so that both use one id."""

SALT = "segment_fallback.anonymous_id"
COOKIE_AGE = 365 * DAY
RENEW_AFTER = DAY
"""Seconds after which the signed cookie is written anew, so that the year of an active visitor starts again."""

_ANONYMOUS_ID = re.compile(r"[\w.~:@-]{1,100}\Z", re.ASCII)
_MINTED, _ADOPTED = "m", "a"


@dataclass(frozen=True)
class Signed:
    """What the signed cookie says. Nobody but this site can have written it."""

    anonymous_id: str
    minted: bool
    """Whether this site made the id up. If not, a client named it, who may have read it anywhere."""
    current: bool
    """Whether it is young, and of the present SECRET_KEY."""


def anonymous_id(request: HttpRequest, settings: Settings) -> str | None:
    """The visitor's anonymousId: that of the twin, else the signed one; with COOKIELESS today's hash."""
    if settings.COOKIELESS:
        return _id_of_today(request, settings)
    own = twin(request)
    if own is None and (known := signed(request)):
        own = known.anonymous_id
    return own


def visitor_key(request: HttpRequest, settings: Settings) -> str | None:
    """What tells this visitor from others, for limits; None where nothing does: many may share a hash."""
    return None if settings.COOKIELESS else anonymous_id(request, settings)


def proven_anonymous_id(request: HttpRequest, settings: Settings) -> str | None:
    """The id for which a server may show what it knows of the visitor: this site made it up and signed it before this
    request, and no client ever named it to us. For an id that was adopted, from analytics.js say, None: whoever has
    read it anywhere could have it signed by a single hit.
    """
    known = None if settings.COOKIELESS else signed(request)
    if known is None or not known.minted or twin(request) not in (None, known.anonymous_id):
        return None
    return known.anonymous_id


def twin(request: HttpRequest) -> str | None:
    """The anonymousId in analytics.js's cookie: plain, or in quotes as older versions wrote it."""
    text = request.COOKIES.get(ANONYMOUS_ID_COOKIE, "")
    header = request.META.get("HTTP_COOKIE", "")
    if header.count(ANONYMOUS_ID_COOKIE) > 1:
        text = _first(header, text)
    if is_anonymous_id(text):
        return text
    text = unquote(text)
    if text.startswith('"'):
        try:
            text = str(json.loads(text))
        except ValueError:
            return None
    return text if is_anonymous_id(text) else None


def _first(header: str, last: str) -> str:
    """The first of two cookies of that name, one of the host and one of its domain: analytics.js reads the first, and
    Django keeps the last."""
    for cookie in header.split(";"):
        if cookie.partition("=")[0].strip() == ANONYMOUS_ID_COOKIE:
            return parse_cookie(cookie).get(ANONYMOUS_ID_COOKIE, last)
    return last


def signed(request: HttpRequest) -> Signed | None:
    """The signed cookie's content, if there is one that is genuine and not older than a year."""
    for number, cookie in enumerate(id_cookies()):
        try:
            text, age = unsign_timed(request.COOKIES.get(cookie, ""), SALT, secrets())
        except (BadSignature, ValueError):  # ValueError: an odd timestamp
            continue
        origin, _, own = text.partition(":")
        if age <= COOKIE_AGE and is_anonymous_id(own):
            return Signed(own, origin == _MINTED, age <= RENEW_AFTER and number == 0)
    return None


def is_anonymous_id(value: object) -> bool:
    """Whether it has the form of an anonymousId: 1 to 100 letters, digits and ``-_.~:@``."""
    return isinstance(value, str) and _ANONYMOUS_ID.match(value) is not None


def new_anonymous_id() -> str:
    return str(uuid.uuid4())


def keep_anonymous_id(
    request: HttpRequest, response: HttpResponseBase, value: str, settings: Settings, *, minted: bool
) -> None:
    """Let the browser keep the id of an accepted hit, as far as it does not yet. Only ever on an uncached answer.

    ``minted``: whether this request's answer is the first that anybody hears of the id.
    """
    if settings.COOKIELESS:
        return
    known = signed(request)
    if known is None or known.anonymous_id != value or not known.current:
        minted = minted or (known is not None and known.anonymous_id == value and known.minted)
        text = f"{_MINTED if minted else _ADOPTED}:{value}"
        _set(request, response, id_cookies()[0], TimestampSigner(salt=SALT).sign(text), settings, httponly=True)
        _delete(request, response, id_cookies()[1:], settings)
    if twin(request) != value:
        _set(request, response, ANONYMOUS_ID_COOKIE, value, settings)


def forget(request: HttpRequest, response: HttpResponseBase, settings: Settings, *, anew: bool) -> None:
    """What comes next in this browser is not the former visitor's. Does nothing where no cookie of ours came.

    ``anew``: give it a new id instead of none. analytics.js keeps a copy of the id in localStorage, from which it
    would bring a cookie back that was only deleted; another one it believes.
    """
    cookies = (ANONYMOUS_ID_COOKIE, *id_cookies())
    if not any(cookie in request.COOKIES for cookie in cookies):
        return
    _delete(request, response, cookies, settings)
    if anew:
        keep_anonymous_id(request, response, new_anonymous_id(), settings, minted=True)


def is_secure(request: HttpRequest) -> bool:
    """Whether a cookie is for https only: the request came by it, or the site says so of its session's cookie, since a
    proxy ends TLS and Django does not hear of it."""
    return request.is_secure() or bool(django_settings.SESSION_COOKIE_SECURE)


def _set(
    request: HttpRequest,
    response: HttpResponseBase,
    cookie: str,
    value: str,
    settings: Settings,
    *,
    httponly: bool = False,
) -> None:
    response.set_cookie(
        cookie,
        value,
        max_age=COOKIE_AGE,
        domain=_domain(request, cookie, settings),
        secure=is_secure(request),
        samesite="Lax",
        httponly=httponly,
    )


def _delete(request: HttpRequest, response: HttpResponseBase, cookies: tuple[str, ...], settings: Settings) -> None:
    for cookie in cookies:
        if cookie in request.COOKIES:
            response.delete_cookie(cookie, domain=_domain(request, cookie, settings), samesite="Lax")


def _domain(request: HttpRequest, cookie: str, settings: Settings) -> str | None:
    """COOKIE_DOMAIN; without it, for the readable twin, what analytics.js chooses, so that there are not two of them:
    the registrable domain, as far as that is known: of ``example.com`` and ``www.example.com``. None is the host alone.
    """
    if settings.COOKIE_DOMAIN is not None or cookie != ANONYMOUS_ID_COOKIE:
        return settings.COOKIE_DOMAIN
    try:
        name = split_domain_port(request.get_host())[0].removeprefix("www.")
    except DisallowedHost:  # at the end of a page of the site, which is not ours to refuse
        return None
    # Of a host without a domain, or an address, browsers take none.
    return name if "." in name and name[-1].isalpha() else None


def _id_of_today(request: HttpRequest, settings: Settings) -> str:
    """One for all visits of a UTC day from one address with one browser; it cannot be told from it who that was,
    but by trying addresses, and only with SECRET_KEY."""
    parts = [int(time.time()) // DAY, client_ip(request, settings), request.META.get("HTTP_USER_AGENT", "")]
    return salted_hmac(f"{SALT}.cookieless", json.dumps(parts), algorithm="sha256").hexdigest()[:32]


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


def client_ip(request: HttpRequest, settings: Settings) -> str | None:
    """The visitor's address. ``X-Forwarded-For`` is believed as far as TRUSTED_PROXIES says, from the right."""
    address: str = request.META.get("REMOTE_ADDR", "")
    if settings.TRUSTED_PROXIES:
        forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "").split(",")
        if len(forwarded) >= settings.TRUSTED_PROXIES:
            address = forwarded[-settings.TRUSTED_PROXIES]
    address = address.strip()
    try:
        socket.inet_pton(socket.AF_INET, address)
    except (OSError, ValueError):
        return _other_address(address)
    return address


def _other_address(text: str) -> str | None:
    """An address of IPv6, in its canonical form, if it is one."""
    try:
        # Behind a "%" an address of IPv6 may have any text, to name a network of the machine that wrote it.
        ip = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    # So a server that listens on IPv6 writes those of IPv4. They are all of one /64, which would be limited as one.
    return str(getattr(ip, "ipv4_mapped", None) or ip)
