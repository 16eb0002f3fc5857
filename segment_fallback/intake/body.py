"""The body of a POST: its size is known before it is read, and its JSON holds no surprise.

The limits are those of Segment's Tracking API
(https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/).
"""

from __future__ import annotations

import json
import zlib
from typing import Any, NoReturn

from django.http import HttpRequest
from django.http.request import UnreadablePostError

from segment_fallback.outcome import Outcome, Refused

MAX_BODY = 500_000
"""Bytes of a request, unpacked too: the smaller reading of Segment's 500 KB."""

_CONTENT_TYPES = ("application/json", "text/plain")
_MAX_DIGITS = 400
"""A double has 309 digits at most, and Python takes quadratic time to read a number of many."""


class TooManyDigits:
    """Stands for a whole number past the range of a double; ``normalise`` refuses it, and its event only."""


def read_json(request: HttpRequest, limit: int = MAX_BODY) -> dict[str, Any]:
    """The JSON object that a request carries. Raises Refused: CONTENT_TYPE, SIZE or MALFORMED.

    ``text/plain`` is what analytics.js, beacons and keepalive requests send; any charset is read as UTF-8. A lone
    surrogate passes (``normalise`` makes it a question mark), of a key that comes twice the last value counts.
    """
    return parse(_read(request, limit))


def parse(body: bytes) -> dict[str, Any]:
    """The JSON object that a body is. Raises Refused: MALFORMED."""
    try:
        payload = json.loads(body.decode(), parse_constant=_no_constant, parse_int=_whole_number)
    except (ValueError, RecursionError):
        raise Refused(Outcome.MALFORMED) from None
    if not isinstance(payload, dict):
        raise Refused(Outcome.MALFORMED)
    return payload


def _read(request: HttpRequest, limit: int) -> bytes:
    if request.content_type not in _CONTENT_TYPES:
        raise Refused(Outcome.CONTENT_TYPE)
    encoding = request.META.get("HTTP_CONTENT_ENCODING", "").strip().lower()
    if encoding not in ("", "identity", "gzip"):
        raise Refused(Outcome.CONTENT_TYPE)
    body = read_raw(request, limit)
    if encoding == "gzip":
        body = _gunzip(body, limit)
    if len(body) > limit:
        raise Refused(Outcome.SIZE)
    return body


def read_raw(request: HttpRequest, limit: int) -> bytes:
    """The body as it came. Raises Refused: SIZE or MALFORMED."""
    declared = request.META.get("CONTENT_LENGTH") or ""
    if declared.isdecimal() and (len(declared) > 9 or int(declared) > limit):
        raise Refused(Outcome.SIZE)
    try:
        # Under ASGI a body may come without its length.
        body = request.read(limit + 1)
    except (UnreadablePostError, OSError):  # the client has gone
        raise Refused(Outcome.MALFORMED) from None
    if len(body) > limit:
        raise Refused(Outcome.SIZE)
    return body


def _gunzip(body: bytes, limit: int) -> bytes:
    """At most one byte more than the limit, whatever the body would unpack to."""
    stream = zlib.decompressobj(wbits=31)
    try:
        text = stream.decompress(body, limit + 1)
    except zlib.error:
        raise Refused(Outcome.MALFORMED) from None
    if len(text) <= limit and not stream.eof:
        raise Refused(Outcome.MALFORMED)
    return text


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")  # Python's json takes NaN and Infinity


def _whole_number(digits: str) -> int | TooManyDigits:
    return int(digits) if len(digits) <= _MAX_DIGITS else TooManyDigits()
