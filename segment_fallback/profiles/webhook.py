"""Segment's webhook for audiences and computed traits: an endpoint that believes only what is signed.

``X-Signature`` is the hex HMAC-SHA1 of the body under the shared secret. It covers no time, so a body that was once
signed stays good for ever: what makes it harmless is that each trait keeps its newest value. Of a batch Segment signs
the first element only, so batches are refused.
"""

from __future__ import annotations

import hmac
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.utils.crypto import constant_time_compare
from django.utils.dateparse import parse_datetime
from django.views.decorators.csrf import csrf_exempt

from segment_fallback.conf import Settings, get_settings
from segment_fallback.exceptions import InvalidMessage, ProfilesUnavailable
from segment_fallback.intake.body import parse, read_raw
from segment_fallback.log import log_fields, spare_admins
from segment_fallback.message import Way, normalise
from segment_fallback.outcome import Outcome, Refused
from segment_fallback.profiles.handler import profiles
from segment_fallback.profiles.store import Ids
from segment_fallback.tally import tally

logger = logging.getLogger("segment_fallback")

MAX_BODY = 64_000
"""Bytes: twice of what Segment allows an event."""
MAX_ID = 500
CLASSES = frozenset({"audience", "trait", "computed_trait"})
"""What Segment calls what it computes."""
MEMBERSHIP = {"Audience Entered": True, "Audience Exited": False}

STATUS = {
    Outcome.ACCEPTED: 200,
    Outcome.NOT_A_PROFILE: 200,  # sent again it would be no other
    Outcome.METHOD: 405,
    Outcome.SIZE: 413,
    Outcome.SIGNATURE: 403,
    Outcome.UNAVAILABLE: 500,  # Segment tries again, for four hours
}
"""400 for all else."""


@dataclass(frozen=True)
class Change:
    """What a webhook tells. ``at``: when, in milliseconds since 1970. Without traits: the person is to be forgotten."""

    ids: Ids
    at: int
    traits: Mapping[str, Any] | None


@csrf_exempt
@transaction.non_atomic_requests
def webhook(request: HttpRequest, name: str) -> HttpResponse:
    """200 for what is kept, or is none of our business; 404 without PROFILES and PROFILE_SECRETS; 500 where the store
    is down, so that Segment tries again; else 400, 403, 405 or 413. No answer has a body."""
    settings = get_settings()
    if not (settings.PROFILES and settings.PROFILE_SECRETS):
        return HttpResponse(status=404)
    try:
        outcome = _take(request, settings)
    except Refused as refusal:
        outcome = refusal.outcome
    except Exception as error:  # noqa: BLE001 - whatever it is, Segment keeps the message and tries again
        reason = str(error) if isinstance(error, ProfilesUnavailable) else type(error).__name__
        extra = log_fields("profile_failed", reason=reason)
        logger.error("a profile could not be kept: %s", reason, extra=extra)
        outcome = Outcome.UNAVAILABLE
    tally.add(Way.PROFILE, outcome)
    response = HttpResponse(status=STATUS.get(outcome, 400))
    if outcome is Outcome.METHOD:
        response["Allow"] = "POST"
    response["Cache-Control"] = "private, no-store"
    response["X-Content-Type-Options"] = "nosniff"
    spare_admins(response)
    return response


def _take(request: HttpRequest, settings: Settings) -> Outcome:
    if request.method != "POST":
        raise Refused(Outcome.METHOD)
    body = read_raw(request, MAX_BODY)
    if body.lstrip()[:1] == b"[":
        extra = log_fields("profile_batch")
        logger.warning("a webhook of several events was refused: switch batching off in Segment", extra=extra)
        raise Refused(Outcome.MALFORMED)
    signature = request.headers.get("X-Signature", "")
    if not any(is_signed(body, signature, secret) for secret in settings.PROFILE_SECRETS):
        raise Refused(Outcome.SIGNATURE)
    change = read_change(parse(body), space=settings.PROFILE_API.get("SPACE"))
    if change.traits is None:
        profiles.store.delete(change.ids, change.at)
    elif not profiles.store.update(change.ids, change.traits, change.at):
        raise Refused(Outcome.NOT_A_PROFILE)
    return Outcome.ACCEPTED


def is_signed(body: bytes, signature: str, secret: str) -> bool:
    """Whether the signature is the body's, under that secret."""
    expected = hmac.new(secret.encode(), body, "sha1").hexdigest()
    return signature.isascii() and constant_time_compare(signature, expected)


def read_change(message: Mapping[str, Any], *, space: str | None = None) -> Change:
    """What a message of Segment's says. Raises Refused: MALFORMED, or NOT_A_PROFILE for one that tells of no audience
    or computed trait (of that ``space``, where it is known)."""
    try:
        message = normalise(message)  # all of it: how deep Python's own parser goes differs by version
    except InvalidMessage:
        raise Refused(Outcome.MALFORMED) from None
    ids = Ids(_id(message.get("userId")), _id(message.get("anonymousId")))
    at = _time(message.get("timestamp"))
    kind = message.get("type")
    if kind == "delete":
        return Change(_named(ids), at, None)
    context = message.get("context")
    computed = context.get("personas") if isinstance(context, Mapping) else None
    if not isinstance(computed, Mapping) or computed.get("computation_class") not in CLASSES:
        # An ordinary event: its traits are what anybody's browser may say of anybody.
        raise Refused(Outcome.NOT_A_PROFILE)
    if space and computed.get("space_id", space) != space:
        raise Refused(Outcome.NOT_A_PROFILE)
    if kind == "identify":
        traits = message.get("traits")
    elif kind == "track":
        traits = _membership(message, computed.get("computation_key"))
    else:
        raise Refused(Outcome.NOT_A_PROFILE)
    if not isinstance(traits, Mapping) or not traits:
        raise Refused(Outcome.MALFORMED)
    return Change(_named(ids), at, traits)


def _membership(message: Mapping[str, Any], key: object) -> dict[str, Any]:
    """What a "track" says of an audience or trait: by its properties, or by the event's name."""
    properties = message.get("properties")
    if not isinstance(key, str) or not key or not isinstance(properties, Mapping):
        raise Refused(Outcome.MALFORMED)
    if key in properties:
        return {key: properties[key]}
    event = message.get("event")
    if not isinstance(event, str) or event not in MEMBERSHIP:
        raise Refused(Outcome.MALFORMED)
    return {key: MEMBERSHIP[event]}


def _named(ids: Ids) -> Ids:
    if not ids:
        raise Refused(Outcome.MALFORMED)
    return ids


def _id(value: object) -> str | None:
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)) or len(text := str(value)) > MAX_ID:
        raise Refused(Outcome.MALFORMED)
    return text


def _time(value: object) -> int:
    """Milliseconds since 1970. A message without a time could be replayed, so there is none."""
    try:
        moment = parse_datetime(value) if isinstance(value, str) else None
        if not isinstance(moment, datetime):
            raise ValueError("no time")
        return int((moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp() * 1000)
    except (ValueError, OverflowError):
        raise Refused(Outcome.MALFORMED) from None
