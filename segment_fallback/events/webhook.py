"""Webhooks of other services as events: one view, which believes only what is signed."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any

from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.utils.crypto import constant_time_compare
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_POST

from segment_fallback.ambient import derived_id
from segment_fallback.events.outbox import keep, make_row
from segment_fallback.exceptions import InvalidMessage
from segment_fallback.log import log_fields

logger = logging.getLogger("segment_fallback")

MAX_BODY_BYTES = 50_000
"""By default. Of the payload's JSON an event holds twice as much."""

View = Callable[[HttpRequest], HttpResponse]


def webhook_view(
    name: str | Callable[[dict[str, Any]], str],
    *,
    secret: str | Sequence[str],
    header: str = "X-Signature",
    prefix: str = "",
    algorithm: str = "sha256",
    id: str = "id",  # noqa: A002 - the name that services give it
    id_header: str = "",
    max_bytes: int = MAX_BODY_BYTES,
) -> View:
    """A view that emits an event for each webhook that another service posts, with its JSON as the payload.

    ``name``: the event's, or a function of the JSON that gives it. ``secret``: of the HMAC of the body, or several of
    them while one is replaced by another. ``header``: where the signature is, in hex or base64, behind ``prefix``
    (``sha256=``). ``id``: the key of the JSON, or ``id_header`` the header, that tells one webhook from another: the
    same one again changes nothing; without it the body's hash does.

    Answers 204 for an event that is kept, or was before; 400, 403 (signature), 405 or 413 where sending it again is of
    no use; 503 where it is. The response has no body.
    """
    secrets = (secret,) if isinstance(secret, str) else tuple(secret)
    if not all(secrets) or not secrets:
        raise ValueError("webhook_view needs a secret: without one anybody could emit events")
    hashlib.new(algorithm)  # raises ValueError for one that there is not

    @csrf_exempt
    @require_POST
    def view(request: HttpRequest) -> HttpResponse:
        try:
            body = _body(request, max_bytes)
        except _TooLarge:
            return _refused(413, "size")
        except UnreadablePostError:
            return _refused(400, "malformed")
        signature = request.headers.get(header, "").removeprefix(prefix)
        if not any(_is_signed(body, signature, key, algorithm) for key in secrets):
            return _refused(403, "signature")
        try:
            payload = json.loads(body, parse_constant=lambda constant: None)
            if not isinstance(payload, dict):
                raise ValueError("not an object")
            event_name = name if isinstance(name, str) else name(payload)
            given = request.headers.get(id_header, "") if id_header else payload.get(id)
            unique = given or hashlib.sha256(body).hexdigest()
            row = make_row(event_name, payload, derived_id("webhook", request.path, unique))
        except (ValueError, RecursionError, LookupError, AttributeError, TypeError, InvalidMessage):
            return _refused(400, "malformed")
        try:
            keep(row)
        except Exception:  # whatever it is, the sender keeps the webhook and tries again
            logger.exception("a webhook could not be kept", extra=log_fields("webhook_failed"))
            return HttpResponse(status=503)
        return HttpResponse(status=204)

    return view


class _TooLarge(Exception):
    pass


def _body(request: HttpRequest, limit: int) -> bytes:
    try:
        if int(request.META.get("CONTENT_LENGTH") or 0) > limit:
            raise _TooLarge
    except ValueError:
        raise _TooLarge from None
    try:
        body: bytes = request.read(limit + 1)
    except RequestDataTooBig:
        raise _TooLarge from None
    if len(body) > limit:
        raise _TooLarge
    return body


def _is_signed(body: bytes, signature: str, secret: str, algorithm: str) -> bool:
    digest = hmac.new(secret.encode(), body, algorithm)
    forms = [digest.hexdigest(), base64.b64encode(digest.digest()).decode()]
    if not signature.isascii():
        return False
    return any(constant_time_compare(signature, form) for form in forms)


def _refused(status: int, reason: str) -> HttpResponse:
    """Logged, and not counted: a forged webhook must not cost a write."""
    logger.warning("a webhook was refused: %s", reason, extra=log_fields("webhook_refused", reason=reason))
    return HttpResponse(status=status)
