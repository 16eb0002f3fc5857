"""Who may write: the checks that a hit passes before anybody believes it. Each raises Refused with its reason."""

from __future__ import annotations

import ipaddress
import math
import os
import threading
import time
from typing import NamedTuple
from urllib.parse import SplitResult, unquote, urlsplit

from django.conf import settings as django_settings
from django.core.exceptions import DisallowedHost
from django.http import HttpRequest
from django.http.request import split_domain_port, validate_host

from segment_fallback.conf import Settings
from segment_fallback.outcome import Outcome, Refused
from segment_fallback.page.token import InvalidToken, Page, verify

MAX_URL = 8_000
"""Characters of a request's path: more than any page of ours asks for."""


class Origin(NamedTuple):
    """Where a hit comes from: the page's scheme and host, and its URL if the browser told it."""

    scheme: str
    host: str
    referer: SplitResult | None


def check_method(request: HttpRequest) -> None:
    """GET loads the image, POST is a beacon of a page being left. A HEAD is no visit."""
    if request.method not in ("GET", "POST"):
        raise Refused(Outcome.METHOD)


def check_post(request: HttpRequest) -> None:
    """That the request may carry events in its body."""
    if request.method != "POST":
        raise Refused(Outcome.METHOD)


def check_size(request: HttpRequest) -> None:
    if len(request.path) > MAX_URL:
        raise Refused(Outcome.SIZE)


def check_token(token: str | None, settings: Settings) -> Page:
    """The page that the token describes, if this site signed it and it is young enough."""
    if not token:
        raise Refused(Outcome.TOKEN_MISSING)
    try:
        page = verify(token)
    except InvalidToken:
        raise Refused(Outcome.TOKEN_INVALID) from None
    if page.age > settings.TOKEN_MAX_AGE:
        raise Refused(Outcome.TOKEN_EXPIRED)
    return page


def check_origin(
    request: HttpRequest, page: Page, settings: Settings, *, has_cookie: bool, late: bool = False
) -> Origin:
    """That the request comes from the page of the token, on a host that is allowed.

    Browsers set Sec-Fetch-Site themselves (https://www.w3.org/TR/fetch-metadata/#sec-fetch-site-header); a page
    of another site can neither forge it nor read the cookie. Those that do not send it are judged by the
    Referer alone.

    Another page of the site may report only what nobody could take when it was due: it says so by the cookie, which
    no markup can set, or it comes ``late``. Its URL has the messageId, so that it counts once all the same.
    """
    host = check_host(request)
    site = request.META.get("HTTP_SEC_FETCH_SITE")
    if site not in (None, "same-origin"):
        raise Refused(Outcome.CROSS_SITE)
    referer = _url(request.META.get("HTTP_REFERER"))
    # An origin alone is what a strict Referrer-Policy leaves of it: as good as none, unless that is the page.
    if referer is not None and not _host_allowed(referer.netloc, host, settings):
        raise Refused(Outcome.HOST)
    if referer is None or (referer.path in ("", "/") and page.path != "/" and not late):
        if settings.STRICT_REFERER or site is None or not has_cookie:
            raise Refused(Outcome.REFERER_MISSING)
        return Origin(referer.scheme, referer.netloc, None) if referer else Origin(request.scheme or "http", host, None)
    if unquote(referer.path) != page.path:
        if has_cookie or late:
            return Origin(referer.scheme, referer.netloc, None)
        raise Refused(Outcome.REFERER_MISMATCH)
    return Origin(referer.scheme, referer.netloc, referer)


def check_host(request: HttpRequest) -> str:
    """The host that the request asks, if Django may serve it: a middleware's early answer is not checked otherwise."""
    try:
        return request.get_host()
    except DisallowedHost:
        raise Refused(Outcome.HOST) from None


def is_browser(request: HttpRequest) -> bool:
    """Whether the request comes from a page: a browser's POST says so, a server's library does not."""
    return any(header in request.META for header in ("HTTP_SEC_FETCH_SITE", "HTTP_ORIGIN", "HTTP_REFERER"))


def check_page(request: HttpRequest, settings: Settings) -> None:
    """That a page of an allowed host sends this, for requests without a token.

    Sec-Fetch-Site is same-origin; or same-site or (older browsers) missing, and the Origin, or where that is
    missing the Referer, proves it. A page that has no origin (a sandboxed frame's) proves nothing.
    """
    host = check_host(request)
    site = request.META.get("HTTP_SEC_FETCH_SITE")
    if site not in (None, "same-origin", "same-site"):
        raise Refused(Outcome.CROSS_SITE)
    origin, referer = (_url(request.META.get(header)) for header in ("HTTP_ORIGIN", "HTTP_REFERER"))
    if any(page and not _host_allowed(page.netloc, host, settings) for page in (origin, referer)):
        raise Refused(Outcome.HOST)
    if site != "same-origin" and not (referer if "HTTP_ORIGIN" not in request.META else origin):
        raise Refused(Outcome.REFERER_MISSING)


def check_page_url(url: object, request: HttpRequest, settings: Settings) -> None:
    """That the page which an event names is one of an allowed host."""
    page = _url(url)
    if page is None or not _host_allowed(page.netloc, check_host(request), settings):
        raise Refused(Outcome.HOST)


def allowed_origin(request: HttpRequest, settings: Settings) -> str | None:
    """The request's Origin, if it is that of an allowed host."""
    origin = _url(request.META.get("HTTP_ORIGIN"))
    try:
        allowed = origin is not None and _host_allowed(origin.netloc, request.get_host(), settings)
    except DisallowedHost:
        return None
    return f"{origin.scheme}://{origin.netloc}" if origin and allowed else None


def _url(text: object) -> SplitResult | None:
    """A page's URL or origin; None for what is none."""
    try:
        url = urlsplit(text if isinstance(text, str) else "")
    except ValueError:
        return None
    return url if url.scheme in ("http", "https") and url.netloc else None


def _host_allowed(netloc: str, own_host: str, settings: Settings) -> bool:
    if netloc == own_host:
        return True
    allowed = settings.ALLOWED_HOSTS
    if allowed is None:
        allowed = tuple(django_settings.ALLOWED_HOSTS)
    domain, _port = split_domain_port(netloc)
    # "*" says that Django may serve any host; it does not say that any site's page may report here.
    return bool(domain) and validate_host(domain, [pattern for pattern in allowed if pattern != "*"])


class RateLimiter:
    """Counts hits by key in windows of a minute, in this process only: a damper, which never waits on a network.

    A window begins with the first hit after the one before. Remembers at most ``MAX_KEYS`` keys a window; further ones
    pass.
    """

    MAX_KEYS = 50_000
    WINDOW = 60.0

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._ends = 0.0
        self._hits: dict[str, int] = {}

    def hit(self, key: str, limit: int, number: int = 1) -> bool:
        """Count hits; whether they are within the limit. So that a batch larger than that can come at all, it may
        go past it, once."""
        now = time.monotonic()
        with self._lock:
            if now >= self._ends:
                self._ends, self._hits = now + self.WINDOW, {}
            if key not in self._hits and len(self._hits) >= self.MAX_KEYS:
                return True
            before = self._hits.get(key, 0)
            self._hits[key] = before + number
        return before < limit

    def retry_after(self) -> int:
        """Seconds until the next window, in which there is room again."""
        return max(1, math.ceil(self._ends - time.monotonic()))

    def clear(self) -> None:
        self.__init__()  # type: ignore[misc]


limiter = RateLimiter()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=limiter.clear)


def check_rate(ip: str | None, anonymous_id: str | None, settings: Settings, number: int = 1) -> None:
    """Damp a flood from one address or one visitor. ``number``: of the events that the request carries.

    A private address is a proxy's, or the developer's: behind a proxy that TRUSTED_PROXIES does not count, all
    visitors share it, and to limit it would lose their hits.
    """
    limit = settings.RATE_LIMIT
    if not limit:
        return
    if ip is not None and (network := _network(ip)) and not limiter.hit(network, limit, number):
        raise Refused(Outcome.RATE)
    if anonymous_id is not None and not limiter.hit(f"a:{anonymous_id}", max(limit // 10, 1), number):
        raise Refused(Outcome.RATE)


_SOME_PRIVATE = frozenset(map(str, (0, 10, 100, 127, 169, 172, 192, 198, 203, *range(224, 256))))
"""The first numbers of IPv4 addresses of which some are not public:
https://www.iana.org/assignments/iana-ipv4-special-registry/. For these ``ipaddress`` knows; to ask it costs as much
as all other checks."""


def _network(ip: str) -> str | None:
    """The address, or the /64 that an IPv6 subscriber gets as a rule; None for addresses that are not public."""
    first, dot, _ = ip.partition(".")
    if dot and first.isdecimal() and first not in _SOME_PRIVATE:
        return ip
    address = ipaddress.ip_address(ip)
    if not address.is_global:
        return None
    return ip if address.version == 4 else str(ipaddress.ip_network((ip, 64), strict=False))
