"""What an attack is, and the words that the lists of them are written in."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.attacks.answers import Check, Seen
from tests.attacks.endpoints import Endpoint, Hit


class Row(enum.Enum):
    """The rows of docs/explanation/security.md: what is attacked, and what answers it."""

    FORGERY = (
        "Hits forged or replayed, from anywhere",
        "A page's token is signed; Host, Referer, Origin and Sec-Fetch-Site must be those of an allowed host; a "
        "messageId counts once. A library on a server needs the write key, which no page shows.",
    )
    METHOD = "Other methods", "405 with `Allow`; headers that name another method are not read."
    FLOOD = "A flood of hits", "`RATE_LIMIT`, by address (of IPv6 by /64) and by visitor; forged addresses do not help."
    IDENTITY = (
        "Reading or writing as somebody else",
        "The userId is that of Django's auth; the anonymousId's cookie is signed under a salt of its own; ids in "
        "links, headers and bodies of pages, `externalIds` and foreign `alias` calls are dropped or refused.",
    )
    MESSAGE_ID = "A messageId chosen to harm", "One of odd form is refused (pixel) or replaced by one of ours."
    SCRIPT = (
        "Script, markup and templates in ids, titles, traits",
        "No endpoint repeats what it is sent; each answer has a fixed type and `nosniff`. Events keep it as text.",
    )
    PATH = (
        "Path tricks, foreign keys, SSRF",
        "The CDN's files are a fixed list below one fixed host, asked without redirects; else 404, and nobody asked.",
    )
    CACHE = (
        "Cookies leaked upstream, a cache poisoned",
        "The CDN is asked by four headers of ours; public answers set no cookie and depend on the URL, Host and "
        "Accept-Encoding only; all that is personal is `private` and not stored.",
    )
    BODY = (
        "Bodies too large, deep, odd or packed",
        "Size before reading, 500,000 bytes unpacked (calls 100,000, webhooks 50,000), 20 levels, 32,000 bytes an "
        "event, 2,500 events; no NaN, no numbers past a double; gzip only, up to the limit.",
    )
    LOG = (
        "Lines forged in logs and headers",
        "Our logs name reasons and sizes, never what came; headers take nothing over.",
    )
    ADDRESS = (
        "A forged address",
        "`X-Forwarded-For` counts from the right, as far as `TRUSTED_PROXIES`; no other header.",
    )
    WEBHOOK = (
        "Forged webhooks",
        "HMAC of the whole body, compared in constant time; POST only; a repetition is one.",
    )
    WIRE = (
        "Requests that are broken on purpose",
        "Tried against gunicorn, uvicorn and granian: what these let pass is refused as above, and nothing is kept.",
    )

    @property
    def attacked(self) -> str:
        return self.value[0]

    @property
    def answered(self) -> str:
        return self.value[1]


SAME = "same"
"""As if it had not been tried."""
TAKEN = "taken"
"""Answered as a good request, and as much is kept; what that says is the client's to say."""
Answer = str | Check
"""SAME, TAKEN, the reason of a refusal, or what is compared with the good request."""


def counted(**outcomes: int) -> Check:
    """Answered as the good request is, and counted so."""

    def check(seen: Seen, good: Seen) -> None:
        assert seen.without("counted") == good.without("counted")
        assert seen.counted == outcomes

    return check


FLOODED = counted(accepted=3)
"""Nobody's rate is limited who has the secret."""
UNTOLD = counted(not_a_profile=1)

OF_PROFILES: dict[str, Answer] = {
    "the same request again": counted(accepted=2),
    "hits without end": FLOODED,
    "hits without end, each of another visitor": FLOODED,
    "hits without end, each with another X-Forwarded-For": FLOODED,
    "hits without end, from the addresses of one subscriber": FLOODED,
    "a flood that shuts out whoever has an address of IPv4": FLOODED,
    "ids by which profiles merge, and an address, in the context": UNTOLD,
    "merging the visitor with somebody else": UNTOLD,
    "a type that there is not": UNTOLD,
    "a length that is no number": "signature",
    "NaN": "malformed",
    "Infinity": "malformed",
    "a mark of byte order": "malformed",
    "UTF-16": "malformed",
    "an object for an id": "malformed",
    "a signature by SHA-1": SAME,  # the one that Segment makes
}
"""The answers of the webhook of profiles, as far as they are not those of any webhook."""


@dataclass(frozen=True)
class Attack:
    """One attack. ``answers``: the documented ones by endpoint, else by its kind; the others' is ``otherwise``."""

    name: str
    row: Row
    change: Callable[[Hit], None]
    answers: Mapping[str, Answer] | Callable[[Endpoint], Answer] = field(default_factory=dict)
    otherwise: Answer = SAME
    times: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cold(self) -> bool:
        """Whether it might reach the CDN, so that no file may be in the cache: the rest is told by what that has."""
        return self.row in (Row.PATH, Row.CACHE, Row.IDENTITY)

    def answer(self, endpoint: Endpoint) -> Answer:
        if endpoint.kind == "profiles" and self.name in OF_PROFILES:
            return OF_PROFILES[self.name]
        if callable(self.answers):
            return self.answers(endpoint)
        if endpoint.kind == "profiles":
            # It is judged as the other webhook is, but keeps a profile where that keeps an event.
            by_hook = self.answers.get("hook", self.otherwise)
            return by_hook if isinstance(by_hook, str) and by_hook != TAKEN else SAME
        by_kind = self.answers.get(endpoint.kind, self.otherwise)
        return self.answers.get(endpoint.name, by_kind)

    def __str__(self) -> str:
        return self.name


PIXELS = ("pixel", "noscript")
PAGES = ("events", "calls", "who", "reset")
"""Judged by the page that asks."""
BODIES = ("events", "server", "calls", "hook")
URL_PIXEL = "pixel with its token in the URL"


def each(kinds: tuple[str, ...], answer: Answer, **others: Answer) -> dict[str, Answer]:
    """One answer for several kinds of endpoints."""
    return {**dict.fromkeys(kinds, answer), **others}


def header(name: str, value: str | None) -> Callable[[Hit], None]:
    """A header more, another value of it, or (None) one less."""

    def change(hit: Hit) -> None:
        hit.headers.pop(name, None)
        if value is not None:
            hit.headers[name] = value

    return change


def every(*changes: Callable[[Hit], None]) -> Callable[[Hit], None]:
    """Several changes at once."""

    def change(hit: Hit) -> None:
        for one in changes:
            one(hit)

    return change


def cookie(name: str, value: str) -> Callable[[Hit], None]:
    def change(hit: Hit) -> None:
        hit.cookies[name] = value

    return change


def query(text: str) -> Callable[[Hit], None]:
    def change(hit: Hit) -> None:
        hit.query = text

    return change


def suffix(text: str) -> Callable[[Hit], None]:
    """More of a path, as it is on the wire."""

    def change(hit: Hit) -> None:
        hit.suffix = text

    return change


def body(content: bytes | Callable[[Hit], bytes], **headers: str) -> Callable[[Hit], None]:
    def change(hit: Hit) -> None:
        hit.body = content if isinstance(content, bytes) else content(hit)
        hit.headers.update({name.replace("_", "-"): value for name, value in headers.items()})

    return change


def say(**fields: Any) -> Callable[[Hit], None]:
    """Fields of the event; and of the query string, for endpoints that take no event."""

    def change(hit: Hit) -> None:
        hit.event.update(fields)
        hit.query = "&".join(f"{key}=1" for key in fields)

    return change
