"""Segment's Tracking API on the site's own host, and the endpoint for calls that analytics.js could not make.

``<mount>/<name>/e/`` for pages, and ``…/e/v1/`` for server libraries, which append ``/v1/…`` themselves, answer as
Segment does, so that its libraries work unchanged: 200 ``{"success": true}`` once the events are stored (with COLLECT
"forward": once Segment has them); 400, 403, 413 and 415 for what no repetition cures; 429 and 503 for what the library
shall keep and send again. Refusals are ``{"success": false, "reason": "<outcome>"}``.
"""

from __future__ import annotations

import base64
import binascii
import functools
import json
from datetime import datetime, timedelta, timezone
from typing import Any

from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.cache import patch_vary_headers
from django.utils.crypto import constant_time_compare
from django.views.decorators.csrf import csrf_exempt

from segment_fallback import message
from segment_fallback.conf import Settings, Source, get_settings
from segment_fallback.intake import calls as calls_
from segment_fallback.intake import context, verify
from segment_fallback.intake.body import read_json
from segment_fallback.intake.incoming import MAX_AGE, Event, checked, set_time
from segment_fallback.intake.privacy import check_choices
from segment_fallback.intake.receive import Load, Reception
from segment_fallback.message import Way
from segment_fallback.names import source_of_key
from segment_fallback.outcome import Outcome, Refused
from segment_fallback.tally import tally

MAX_EVENTS = 2_500
"""Events of a batch: past it Segment answers 200 and drops them."""
MAX_CALLS = 100
MAX_CALLS_BODY = 100_000
"""Bytes; a browser's keepalive requests may have 64 KiB."""

KINDS: dict[str, str | None] = {
    **{key: kind for kind in message.TYPES for key in (kind, kind[0])},
    "b": None,
    "batch": None,
}
METRICS = "m"
"""Where analytics.js reports on itself, to Segment: answered, and of no interest here."""

_STATUS = {
    Outcome.ACCEPTED: 200,
    Outcome.METHOD: 405,
    Outcome.SIZE: 413,
    Outcome.CONTENT_TYPE: 415,
    Outcome.MALFORMED: 400,
    Outcome.INVALID: 400,
    Outcome.PLAN: 400,
    Outcome.RATE: 429,
    Outcome.UNAVAILABLE: 503,
    Outcome.SPOOL_FULL: 503,
    Outcome.SEGMENT_DOWN: 503,
    Outcome.SEGMENT_BUSY: 429,
    Outcome.SEGMENT_REFUSED: 400,
    Outcome.MISCONFIGURED: 503,
}
"""Every other outcome is 403: this client, here and now, may not write."""


@csrf_exempt
@transaction.non_atomic_requests
def collect(request: HttpRequest, name: str, kind: str) -> HttpResponse:
    """One event, or a batch of them, from a page's analytics.js or from a server's library.

    A browser's events are its visitor's; a server's, which has the real write key, are anybody's it says.
    """
    settings = get_settings()
    if not settings.FIRST_PARTY or kind not in (*KINDS, METRICS):
        raise Http404
    if request.method == "OPTIONS":
        return _preflight(request, settings)
    browser = verify.is_browser(request)
    reception = Reception(request, settings, Way.JAVASCRIPT if browser else Way.SERVER)
    if kind == METRICS and request.method == "POST":
        reception.outcomes[Outcome.ACCEPTED] = 0
    else:
        reception.receive(functools.partial(_events, request, settings, KINDS.get(kind), browser=browser))
    return _answer(reception)


@csrf_exempt
@transaction.non_atomic_requests
def calls(request: HttpRequest, name: str) -> HttpResponse:
    """What a page called while analytics.js was blocked. Body: ``{"k": key of the source, "c": [[messageId,
    milliseconds ago, [method, *arguments, page]], …], "z": time zone}``; the last is optional.

    Answered without a body: 503 where the page shall send it again, else 204 whatever became of it.
    """
    settings = get_settings()
    reception = Reception(request, settings, Way.CALL)
    reception.receive(functools.partial(_calls, request, settings))
    status = 503 if reception.outcome.temporary else 204
    response = HttpResponse(status=405 if reception.outcome is Outcome.METHOD else status)
    if response.status_code == 405:
        response["Allow"] = "POST"
    return reception.finish(response)


def _events(request: HttpRequest, settings: Settings, kind: str | None, *, browser: bool) -> Load:
    verify.check_post(request)
    if browser:
        verify.check_page(request, settings)
        check_choices(request, settings)
    else:
        verify.check_host(request)
    body = read_json(request)
    source = _source(body.get("writeKey") or _basic_user(request), public=browser)
    items = [body] if kind else body.get("batch")
    if not isinstance(items, list) or not items:
        raise Refused(Outcome.MALFORMED)
    if len(items) > MAX_EVENTS:
        raise Refused(Outcome.SIZE)
    received = datetime.now(timezone.utc)

    def read(item: Any) -> Event:
        event = checked(item, kind)
        set_time(event, item, body.get("sentAt"), received, browser=browser)
        return event

    return Load(source, items, read)


def _calls(request: HttpRequest, settings: Settings) -> Load:
    verify.check_post(request)
    verify.check_page(request, settings)
    check_choices(request, settings)
    body = read_json(request, MAX_CALLS_BODY)
    source = _source(body.get("k"), public=True)
    items = body.get("c")
    if not isinstance(items, list) or not items:
        raise Refused(Outcome.MALFORMED)
    if len(items) > MAX_CALLS:
        raise Refused(Outcome.SIZE)
    return Load(source, items, functools.partial(_call, request, settings, body.get("z"), datetime.now(timezone.utc)))


def _call(request: HttpRequest, settings: Settings, zone: Any, received: datetime, item: Any) -> Event:
    """The event of one call, in the fields that analytics.js would send."""
    match item:
        case [str(message_id), int(age), [str(method), *arguments, buffered]] if not isinstance(age, bool):
            pass
        case _:
            raise Refused(Outcome.MALFORMED)
    try:
        page = calls_.page_of(buffered)
        raw = calls_.event_of(method, arguments, page)
    except calls_.InvalidCall:
        raise Refused(Outcome.INVALID) from None
    verify.check_page_url(buffered.get("u"), request, settings)
    raw["messageId"] = raw.get("messageId") or message_id
    age = min(max(age, 0), MAX_AGE // timedelta(milliseconds=1))
    raw.setdefault("timestamp", message.timestamp(received - timedelta(milliseconds=age)))
    event = checked(raw, None)
    set_time(event, raw, None, received, browser=True)
    told = event["context"]
    environment = context.environment(request)
    if "locale" in told:
        environment.pop("locale", None)
    event["context"] = told | environment | {"library": context.library(Way.CALL)}
    if isinstance(zone, str) and zone:
        event["context"]["timezone"] = zone[:100]
    if page["search"]:
        event["context"].setdefault("campaign", context.campaign(page["search"]))
    return event


def _source(key: Any, *, public: bool) -> Source:
    """The source of a key. ``public``: whether the key that pages show will do. Raises Refused, WRITE_KEY."""
    source = source_of_key(key) if isinstance(key, str) else None
    if source is None or not (public or constant_time_compare(key, source.write_key)):
        raise Refused(Outcome.WRITE_KEY)
    return source


def _basic_user(request: HttpRequest) -> str:
    scheme, _, credentials = request.META.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(credentials).decode().partition(":")[0]
    except (ValueError, binascii.Error):
        return ""


def _answer(reception: Reception) -> HttpResponse:
    outcome = reception.outcome
    body: dict[str, Any] = {"success": True}
    if outcome.refused:
        body = {"success": False, "reason": outcome.value}
    response = HttpResponse(json.dumps(body), content_type="application/json", status=_STATUS.get(outcome, 403))
    if outcome is Outcome.METHOD:
        response["Allow"] = "POST, OPTIONS"
    elif outcome is Outcome.RATE:
        response["Retry-After"] = str(verify.limiter.retry_after())
    elif outcome.temporary and reception.retry_after is not None:
        response["Retry-After"] = str(reception.retry_after)
    _allow_origin(reception.request, response, reception.settings)
    return reception.finish(response)


def _preflight(request: HttpRequest, settings: Settings) -> HttpResponse:
    """May a page of another host of this site ask? analytics.js does, with a header that needs leave."""
    reception = Reception(request, settings, Way.JAVASCRIPT)
    response = HttpResponse(status=204)
    response["Allow"] = "POST, OPTIONS"
    if _allow_origin(request, response, settings):
        response["Access-Control-Allow-Methods"] = "POST"
        response["Access-Control-Allow-Headers"] = "Authorization, Content-Type, X-Retry-Count"
        response["Access-Control-Max-Age"] = "7200"
    elif "HTTP_ORIGIN" in request.META:
        # The request itself will not come, so this is where its events end.
        reception.outcomes[Outcome.HOST] = 1
        tally.add(reception.way, Outcome.HOST)
        response.status_code = 403
    return reception.finish(response)


def _allow_origin(request: HttpRequest, response: HttpResponse, settings: Settings) -> bool:
    """Let a page of an allowed host read the answer, and send cookies along."""
    patch_vary_headers(response, ["Origin"])
    origin = verify.allowed_origin(request, settings)
    if origin is None:
        return False
    response["Access-Control-Allow-Origin"] = origin
    response["Access-Control-Allow-Credentials"] = "true"
    response["Access-Control-Expose-Headers"] = "Retry-After"
    return True
