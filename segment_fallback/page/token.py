"""The page token: what the server knew when it rendered a page, signed, so that the pixel can believe it.

It covers the page's path, name, category and properties and the day of issue; nothing that belongs to a
visitor, and not the query string, because caches share one copy of a page across visitors and queries. The
day is coarse on purpose: a page rendered twice on one day is the same, byte for byte.

Signed with Django's signing, so that ``SECRET_KEY_FALLBACKS`` rotates it.
"""

from __future__ import annotations

import functools
import json
import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.core import signing

from segment_fallback.conf import DAY, DEFAULT_SOURCE
from segment_fallback.message import normalise
from segment_fallback.names import secrets

SALT = "segment_fallback.page"

MAX_LENGTH = 2_900
"""Characters. With the rest of its URL a token must fit the 4,094 bytes that gunicorn takes as a request line,
and with its name the 4,096 bytes that browsers take as a cookie."""

REMEMBERED = 1_000
"""Tokens: those of pages that are much visited are signed and read once, as all visitors have the same one."""


_to_json = json.JSONEncoder(separators=(",", ":")).encode


class InvalidToken(Exception):
    """Not a token that this site has signed."""


@dataclass(frozen=True)
class Page:
    """A page as its template describes it. ``path`` is decoded and begins with a slash."""

    path: str
    name: str | None = None
    category: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    source: str = DEFAULT_SOURCE
    """Alias of the source that the page reports to."""
    issued: int = 0
    """The day of issue, in days since 1970 (UTC)."""

    @functools.cached_property
    def plain_properties(self) -> Mapping[str, Any]:
        """The properties, normalised as those of a message. Raises InvalidMessage."""
        plain: Mapping[str, Any] = normalise(self.properties, depth=1)
        return plain

    @property
    def age(self) -> float:
        """Seconds since the end of the day of issue; negative on that day."""
        return time.time() - (self.issued + 1) * DAY


def sign(page: Page) -> str:
    """The token of a page, issued today. Raises ValueError where the properties make it too long."""
    today = int(time.time() // DAY)
    source = "" if page.source == DEFAULT_SOURCE else page.source  # short: each page carries it
    return _signed(_to_json([today, page.path, page.name, page.category, page.plain_properties, source]), secrets())


@functools.lru_cache(maxsize=REMEMBERED)
def _signed(content: str, secrets: tuple[str | bytes, ...]) -> str:
    """The same for all that day, who show the same page, by these secrets."""
    serializer: Any = _Written
    token = signing.Signer(salt=SALT).sign_object(content, serializer=serializer, compress=True)
    if len(token) > MAX_LENGTH:
        raise ValueError(
            f"path, name, category and properties make a token of {len(token)} characters; the limit is {MAX_LENGTH}"
        )
    return token


class _Written:
    """Serialises what is JSON already."""

    def dumps(self, content: str) -> bytes:
        return content.encode("ascii")


def verify(token: str) -> Page:
    """The page that a token describes. Raises InvalidToken."""
    if len(token) > MAX_LENGTH:
        raise InvalidToken
    return _verified(token, secrets())


@functools.lru_cache(maxsize=REMEMBERED)
def _verified(token: str, secrets: tuple[str | bytes, ...]) -> Page:
    """What these secrets say of a token. Only what is genuine is remembered, so that nobody can fill the memory."""
    try:
        content = signing.Signer(salt=SALT).unsign_object(token)
    except (signing.BadSignature, ValueError, zlib.error) as error:
        raise InvalidToken from error
    # Another version of this app may have signed another form, in a page that a cache still has.
    match content:
        case [int(issued), str(path), str() | None as name, str() | None as category, dict(properties), str(source)]:
            return Page(path, name, category, properties, source or DEFAULT_SOURCE, issued)
    raise InvalidToken
