"""The page token: what the server knew when it rendered a page, signed, so that the pixel can believe it.

It covers the page's path, name, category and properties and the day of issue; nothing that belongs to a
visitor, and not the query string, because caches share one copy of a page across visitors and queries. The
day is coarse on purpose: a page rendered twice on one day is the same, byte for byte.

Signed with Django's signing, so that ``SECRET_KEY_FALLBACKS`` rotates it.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from django.core import signing

from segment_fallback.conf import DAY, DEFAULT_SOURCE

SALT = "segment_fallback.page"

MAX_LENGTH = 2_900
"""Characters. With the rest of its URL a token must fit the 4,094 bytes that gunicorn takes as a request line,
and with its name the 4,096 bytes that browsers take as a cookie."""


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

    @property
    def age(self) -> float:
        """Seconds since the end of the day of issue; negative on that day."""
        return time.time() - (self.issued + 1) * DAY


def sign(page: Page) -> str:
    """The token of a page, issued today. Raises ValueError where the properties make it too long."""
    today = int(time.time() // DAY)
    source = "" if page.source == DEFAULT_SOURCE else page.source  # short: each page carries it
    content = [today, page.path, page.name, page.category, page.properties, source]
    token = signing.Signer(salt=SALT).sign_object(content, compress=True)
    if len(token) > MAX_LENGTH:
        raise ValueError(
            f"path, name, category and properties make a token of {len(token)} characters; the limit is {MAX_LENGTH}"
        )
    return token


def verify(token: str) -> Page:
    """The page that a token describes. Raises InvalidToken."""
    if len(token) > MAX_LENGTH:
        raise InvalidToken
    try:
        content = signing.Signer(salt=SALT).unsign_object(token)
    except (signing.BadSignature, ValueError, zlib.error) as error:
        raise InvalidToken from error
    # Another version of this app may have signed another form, in a page that a cache still has.
    match content:
        case [int(issued), str(path), str() | None as name, str() | None as category, dict(properties), str(source)]:
            return Page(path, name, category, properties, source or DEFAULT_SOURCE, issued)
    raise InvalidToken
