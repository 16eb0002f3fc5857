"""What an endpoint does with a request, seen from all sides, and how each kind of endpoint refuses one."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.cache import caches
from django.test import Client, override_settings

from segment_fallback.cdn import views
from segment_fallback.cdn.store import store
from segment_fallback.events.event import event_of
from segment_fallback.intake.collect import _STATUS
from segment_fallback.intake.pixel import GIF
from segment_fallback.intake.verify import limiter
from segment_fallback.models import OutcomeCount, PendingEvent, WaitingMessage
from segment_fallback.outcome import Outcome
from segment_fallback.testing import LocalSegment
from tests.attacks.endpoints import Endpoint, Hit, session_cookie, sign, visitor
from tests.intake.visits import outcomes, waiting

USER_ID = 7
CANARY = "c4n4ry"
"""Part of every hostile text. No answer, no log of ours and no request to the CDN ever has it."""

UPSTREAM_HEADERS = {"host", "user-agent", "accept", "accept-encoding", "connection"}

NOW = "a time"


@dataclass(frozen=True)
class Seen:
    """All that a request did."""

    status: int
    body: bytes
    headers: dict[str, str]
    cookies: frozenset[str]
    counted: dict[str, int]
    kept: list[dict[str, Any]]
    """Events in the buffer, and in the outbox."""
    upstream: list[str]

    def without(self, *fields: str) -> Seen:
        """Without what may differ."""
        empty: dict[str, Any] = {"kept": [], "body": b"", "headers": {}, "counted": {}, "upstream": []}
        return replace(self, **{name: empty[name] for name in fields})


Check = Callable[[Seen, Seen], None]
"""Of what an attack did, beside what the good request does."""


@dataclass
class Site:
    """The site under attack. ``middleware``: whether ours answers, or URL routing alone."""

    segment: LocalSegment
    middleware: tuple[str, ...]
    log: Log
    session: str
    """The key of the visitor's."""
    client: Client = field(default_factory=Client)
    """One, because it makes its middleware once. A request has its own cookies, whatever others have set."""
    _good: dict[tuple[str, bool], Seen] = field(default_factory=dict)
    _cached: set[str] = field(default_factory=set)
    """The endpoints whose file is in the cache."""

    def good(self, endpoint: Endpoint, *, cold: bool) -> Seen:
        """What the endpoint does when nobody attacks it. ``cold``: with no file in the cache."""
        if cold:
            self.forget_files()
        elif endpoint.kind in ("file", "settings") and endpoint.name not in self._cached:
            self.send(endpoint, [endpoint.make()])
            self._cached.add(endpoint.name)
        place = endpoint.name, cold
        if place not in self._good:
            self._good[place] = self.send(endpoint, [endpoint.make()])
            for model in (WaitingMessage, OutcomeCount, PendingEvent):
                model.objects.all().delete()
            limiter.clear()
            if cold:
                self.forget_files()
        return self._good[place]

    def forget_files(self) -> None:
        """Those of the CDN."""
        store.forget()
        caches["default"].clear()
        views._first_party_settings.cache_clear()
        self._cached.clear()

    def send(self, endpoint: Endpoint, hits: list[Hit], settings: dict[str, Any] | None = None) -> Seen:
        """Send them one after the other. The answer is that of the last."""
        from django.conf import settings as django_settings

        self.segment.clear()
        keys = {**django_settings.SEGMENT_FALLBACK, **(settings or {})}
        with override_settings(SEGMENT_FALLBACK=keys, MIDDLEWARE=list(self.middleware)):
            for hit in hits:
                response = request(self.client, hit, self.session if endpoint.kind not in ("hook", "profiles") else "")
        for asked in self.segment.requests:
            assert {name.lower() for name in asked.headers} <= UPSTREAM_HEADERS
        return Seen(
            response.status_code,
            response.content,
            {name: value for name, value in response.headers.items() if name != "Retry-After"},
            frozenset(response.cookies),
            outcomes(),
            [*map(plain, waiting()), *(dict(event_of(row).payload) for row in PendingEvent.objects.all())],
            [asked.path for asked in self.segment.requests],
        )


class Log(logging.Handler):
    """All that is logged, by anybody."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)

    def check(self) -> None:
        """One line each, without control characters; ours say nothing that a client sent, and nothing fails."""
        for record in self.records:
            text = record.getMessage()
            assert text.isprintable(), f"{record.name} logged {text!r}"
            # Django tells the site of hosts that it does not serve.
            expected = record.name == "django.security.DisallowedHost"
            assert record.levelno < logging.ERROR or expected, f"{record.name} logged {text!r}"
            if record.name.startswith("segment_fallback"):
                assert CANARY not in text


def plain(message: dict[str, Any]) -> dict[str, Any]:
    """The event without what is never twice the same."""
    return {**message, "timestamp": NOW} | ({"messageId": ""} if "noscript" in str(message["context"]) else {})


def request(client: Client, hit: Hit, session: str) -> Any:
    url = hit.url(hit) + hit.suffix
    body = hit.packed()
    cookies = dict(hit.cookies)
    if session:
        cookies = {**visitor(), session_cookie(): session, **cookies}
    environ = {
        "QUERY_STRING": hit.query,
        "REMOTE_ADDR": hit.address,
        "HTTP_COOKIE": "; ".join(f"{name}={value}" for name, value in cookies.items()),
        "HTTP_X_SIGNATURE": sign(hit),
        **hit.environ,
    }
    return client.generic(hit.method, url, body, hit.content_type, headers=hit.headers, **environ)  # type: ignore[arg-type]


def sign_in() -> str:
    """A session of the visitor's own."""
    client = Client()
    client.force_login(User.objects.create(pk=USER_ID, username="ada"))
    return client.cookies[session_cookie()].value


def sign_out() -> None:
    User.objects.all().delete()
    Session.objects.all().delete()


# How they refuse

DJANGOS = {"missing": 404, "bad request": 400}
"""Refusals without a reason of ours: there is no such URL, or Django serves no such host."""


def check_refused(endpoint: Endpoint, method: str, reason: str, seen: Seen) -> None:
    """Refused for that reason, as this kind of endpoint does, and nothing came of it."""
    if reason in DJANGOS:
        assert seen.status == DJANGOS[reason]
        assert len(seen.body) < 200
    else:
        assert (seen.status, seen.body) == refusal(endpoint, method, reason)
    assert seen.kept == []
    assert seen.upstream == []
    assert seen.cookies == frozenset()
    assert "X-Segment-Fallback" not in seen.headers
    assert seen.counted == ({reason: 1} if endpoint.counts and reason not in DJANGOS else {})
    if reason not in DJANGOS and endpoint.kind not in ("hook", "page's script"):
        assert "no-store" in seen.headers["Cache-Control"]
        assert seen.headers["X-Content-Type-Options"] == "nosniff"
    if seen.status == 405:
        assert set(seen.headers["Allow"].split(", ")) >= {name for name in endpoint.methods if name != "OPTIONS"}


def refusal(endpoint: Endpoint, method: str, reason: str) -> tuple[int, bytes]:
    """Status and body."""
    status, body = _REFUSALS[endpoint.kind](reason)
    if method == "HEAD":
        return 200 if endpoint.kind in ("pixel", "noscript") else status, b""
    return status, body


def _image(reason: str) -> tuple[int, bytes]:
    return (405 if reason == "method" else 200), GIF


def _tracking_api(reason: str) -> tuple[int, bytes]:
    outcome = next(outcome for outcome in Outcome if outcome.value == reason)
    return _STATUS.get(outcome, 403), json.dumps({"success": False, "reason": reason}).encode()


def _calls(reason: str) -> tuple[int, bytes]:
    return (405 if reason == "method" else 204), b""


def _person(reason: str) -> tuple[int, bytes]:
    return (405, b"") if reason == "method" else (403, json.dumps({"reason": reason}).encode())


def _file(reason: str) -> tuple[int, bytes]:
    return {"method": 405}[reason], b""


def _webhook(reason: str) -> tuple[int, bytes]:
    return {"method": 405, "malformed": 400, "signature": 403, "size": 413}[reason], b""


_REFUSALS: dict[str, Callable[[str], tuple[int, bytes]]] = {
    "pixel": _image,
    "noscript": _image,
    "events": _tracking_api,
    "server": _tracking_api,
    "metrics": _tracking_api,
    "calls": _calls,
    "who": _person,
    "reset": _person,
    "page's script": _file,
    "file": _file,
    "settings": _file,
    "hook": _webhook,
    "profiles": _webhook,
}
