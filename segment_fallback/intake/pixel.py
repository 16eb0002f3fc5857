"""The pixel: one page view by a URL of the site's own, with a script's help or without.

Whatever happens the answer is the same 43-byte GIF and never cached. One exception: a 503 has no body, because
an image that fails to load is how the page's script learns that it should try again.
"""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

from django.conf import settings as django_settings
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from segment_fallback import message
from segment_fallback.conf import Settings, get_settings, get_source
from segment_fallback.exceptions import BufferUnavailable, InvalidMessage, SpoolFull
from segment_fallback.intake import context, identity, verify
from segment_fallback.intake.keep import keep_one
from segment_fallback.intake.privacy import check_choices
from segment_fallback.log import log_fields, spare_admins
from segment_fallback.message import Message, Way
from segment_fallback.names import endpoint_names
from segment_fallback.outcome import Outcome, Refused
from segment_fallback.page.token import Page
from segment_fallback.tally import tally

logger = logging.getLogger("segment_fallback")

GIF = base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAICRAEAOw==")
"""A transparent image of one pixel, in 43 bytes."""

LINES = 7
MAX_AGE = 7 * 86_400_000
"""Milliseconds. The page's script keeps a view for a day; a clock that was set meanwhile may make it more."""

PROMPT = 1_000
"""Milliseconds. What is older may have been kept for another page to send, if the page's script reports it."""

_AGE = re.compile(r"[0-9]{1,9}\Z")
_MESSAGE_ID = re.compile(r"[0-9a-f]{16,43}\Z")


HEADERS = {
    "Content-Type": "image/gif",
    "Cache-Control": "private, no-store",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Visit(NamedTuple):
    """What the browser says of a page view; all of it unsigned, so all of it text of limited length."""

    message_id: str
    title: str = ""
    search: str = ""
    referrer: str = ""
    canonical: str = ""
    timezone: str = ""
    age: int = 0
    """Milliseconds since the page was seen: a view that could not be sent then is sent from a later page."""


@csrf_exempt
@transaction.non_atomic_requests
def pixel(request: HttpRequest, name: str, message_id: str, data: str, token: str | None = None) -> HttpResponse:
    """A page view that the page's script reports.

    The page's token comes as the cookie of this very URL, which only a page of ours can set, and at the end of the URL,
    because the cookie may be refused, or come too late.
    """
    cookie = next(filter(None, map(request.COOKIES.get, endpoint_names())), None)

    def visit(settings: Settings) -> tuple[Page, Visit]:
        page = verify.check_token(cookie or token, settings)
        seen, more = decode_visit(message_id, data)
        if more:
            page = navigated_page(page, more, settings)
        return page, seen

    return _answer(request, Way.PIXEL, visit, has_cookie=bool(cookie))


@csrf_exempt
@transaction.non_atomic_requests
def noscript(request: HttpRequest, name: str, token: str) -> HttpResponse:
    """A page view of a browser that runs no scripts: the token is in the URL, the Referer has the query string."""

    def visit(settings: Settings) -> tuple[Page, Visit]:
        return verify.check_token(token, settings), Visit(message.new_message_id())

    return _answer(request, Way.NOSCRIPT, visit, has_cookie=False)


def decode_visit(message_id: str, data: str) -> tuple[Visit, str]:
    """The browser's part, from the path, and what it says of a page that the token does not describe, if anything.

    Base64, with ``_`` in place of the slash, of lines: age in milliseconds, time zone, that, canonical link, title,
    search, referrer. The script cuts it where it is too long, so its end may be missing. Raises Refused.
    """
    try:
        text = binascii.a2b_base64(data.replace("_", "/") + "=" * (-len(data) % 4)).decode(errors="ignore")
    except (ValueError, binascii.Error):
        raise Refused(Outcome.MALFORMED) from None
    age, *lines = text.split("\n", LINES - 1)
    if not _AGE.match(age) or int(age) > MAX_AGE or not _MESSAGE_ID.match(message_id):
        raise Refused(Outcome.MALFORMED)
    zone, more, canonical, title, search, referrer = lines + [""] * (LINES - 1 - len(lines))
    return Visit(message_id, title, search, referrer, canonical, zone, int(age)), more


def navigated_page(token_page: Page, said: str, settings: Settings) -> Page:
    """A page that a document of ours has turned into, without asking the server for it; so nobody has signed it.

    ``said`` is JSON: path, category, name and properties. The path is compared with the Referer as a signed one is.
    Raises Refused.
    """
    try:
        values = json.loads(said)
    except (ValueError, RecursionError):
        raise Refused(Outcome.MALFORMED) from None
    match values:
        case [str(path), str() | None as category, str() | None as name, dict() | None as properties]:
            pass
        case _:
            raise Refused(Outcome.MALFORMED)
    if not settings.NAVIGATION or not path.startswith("/"):
        raise Refused(Outcome.MALFORMED)
    # As request.path has it, and so the token of a page that was rendered.
    path = unquote(path, errors="replace")
    return replace(token_page, path=path, name=name, category=category, properties=properties or {})


def _answer(
    request: HttpRequest, way: Way, visit: Callable[[Settings], tuple[Page, Visit]], *, has_cookie: bool
) -> HttpResponse:
    settings = get_settings()
    anonymous_id = identity.anonymous_id(request, settings)
    minted = anonymous_id is None
    try:
        outcome = Outcome.ACCEPTED
        verify.check_method(request)
        verify.check_size(request)
        page, seen = visit(settings)
        if get_source(page.source) is None:
            raise Refused(Outcome.DISABLED)
        late = seen.age > PROMPT and way is not Way.NOSCRIPT
        origin = verify.check_origin(request, page, settings, has_cookie=has_cookie, late=late)
        check_choices(request, settings)
        ip = identity.client_ip(request, settings)
        verify.check_rate(ip, None if settings.COOKIELESS else anonymous_id, settings)
        anonymous_id = anonymous_id or identity.new_anonymous_id()
        event = page_event(request, page, seen, origin, way)
        event["anonymousId"] = anonymous_id
        event["userId"] = identity.user_id(request, settings)
        if ip:
            event["context"]["ip"] = ip
        outcome = keep_one(encoded(event, page, way, settings), settings)
    except Refused as refusal:
        outcome = refusal.outcome
    except InvalidMessage as error:
        outcome = Outcome.SIZE if error.code == "size" else Outcome.MALFORMED
    except SpoolFull as error:
        extra = log_fields("unspooled", way=way.value, number=1, reason=str(error))
        logger.error("a page view could not be spooled: %s", error, extra=extra)
        outcome = Outcome.SPOOL_FULL
    except BufferUnavailable as error:
        extra = log_fields("unbuffered", way=way.value, number=1, reason=str(error))
        logger.error("a page view could not be buffered: %s", error, extra=extra)
        outcome = Outcome.UNAVAILABLE
    except Exception:  # tracking never breaks a page: whatever fails here is ours to log and a 503 to the browser
        logger.exception("a page view could not be taken", extra=log_fields("hit_failed", way=way.value, number=1))
        outcome = Outcome.UNAVAILABLE
    tally.add(way, outcome)
    response = gif(request, outcome)
    if outcome is Outcome.ACCEPTED and anonymous_id:
        identity.keep_anonymous_id(request, response, anonymous_id, settings, minted=minted)
    return response


def gif(request: HttpRequest, outcome: Outcome) -> HttpResponse:
    """The answer to a hit. Under DEBUG it says in a header how the hit ended."""
    response = HttpResponse(GIF, headers=HEADERS)
    if outcome.temporary:
        response = HttpResponse(status=503, headers=HEADERS)
        spare_admins(response)
    elif outcome is Outcome.METHOD and request.method != "HEAD":
        response.status_code = 405
        response["Allow"] = "GET, HEAD, POST"
    if django_settings.DEBUG:
        response["X-Segment-Fallback"] = outcome.value
    return response


def encoded(event: dict[str, Any], page: Page, way: Way, settings: Settings) -> Message:
    """The event as it waits. Raises InvalidMessage."""
    options: Any = {"way": way, "provisional": True, "hold": settings.hold, "source": page.source}
    try:
        # All of it is text, but for the page's properties, and these are plain already.
        return message.encode_plain(event, **options)
    except UnicodeEncodeError:  # lone surrogates, which normalising replaces
        return message.encode(event, **options)


def _seen_at(visit: Visit) -> str:
    return message.timestamp(datetime.fromtimestamp(time.time() - visit.age / 1_000, timezone.utc))


def page_event(request: HttpRequest, page: Page, visit: Visit, origin: verify.Origin, way: Way) -> dict[str, Any]:
    """The event, in the fields that analytics.js would send. The ids are the caller's to add."""
    path = origin.referer.path if origin.referer else quote(page.path)
    search = visit.search
    if way is Way.NOSCRIPT and origin.referer and origin.referer.query:
        search = f"?{origin.referer.query}"
    page_context = context.page_context(
        origin=f"{origin.scheme}://{origin.host}",
        path=path or "/",
        search=search,
        title=visit.title,
        referrer=visit.referrer,
        canonical=visit.canonical,
    )
    properties: dict[str, Any] = {**page_context, **page.plain_properties}
    event: dict[str, Any] = {"type": "page", "messageId": visit.message_id, "timestamp": _seen_at(visit)}
    if page.category:
        event["category"] = properties["category"] = page.category
    if page.name:
        event["name"] = properties["name"] = page.name
    event["properties"] = properties
    event["context"] = {
        # A page call's own properties override what the page says of itself, in the context too.
        "page": {key: properties[key] for key in page_context},
        **context.environment(request),
        "library": context.library(way),
    }
    if visit.timezone:
        event["context"]["timezone"] = visit.timezone[:100]
    if search:
        event["context"]["campaign"] = context.campaign(search)
    return event
