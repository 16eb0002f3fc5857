"""Every endpoint, with the request that it is there for: what each attack is made of."""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from django.conf import settings as django_settings
from django.core.signing import TimestampSigner
from django.urls import reverse

from segment_fallback import urls
from segment_fallback.conf import get_settings
from segment_fallback.intake import identity
from segment_fallback.names import endpoint_names, id_cookies, public_key
from segment_fallback.page import script, token
from tests.attacks.urls import WEBHOOK_SECRET
from tests.cdn.conftest import BUNDLE, bundle_url, integration_url, script_url, settings_url
from tests.intake.posts import PAGE_HEADERS, WRITE_KEY, batch, call, calls, event, single, url_of
from tests.intake.visits import encode

ADDRESS = "8.8.8.8"
"""The visitor's: a public one, because others are not limited."""
VISITOR = "the-visitor"
MESSAGE_ID = "0a" * 16
INTEGRATION = "actions/braze/0123456789abcdef0123.js"


@dataclass
class Hit:
    """A request in the parts that an attack changes. It is put together when it is sent."""

    url: Callable[[Hit], str]
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=lambda: dict(PAGE_HEADERS))
    cookies: dict[str, str] = field(default_factory=dict)
    query: str = ""
    suffix: str = ""
    """Behind the path, as it is on the wire."""
    address: str = ADDRESS
    environ: dict[str, str] = field(default_factory=dict)
    """What else the server says of the request, in WSGI's words."""
    turn: int = 0
    """How many requests of the same attack went before."""

    token: str | None = None
    """The page's token; None where the endpoint takes none."""
    message_id: str = MESSAGE_ID
    said: dict[str, Any] = field(default_factory=dict)
    """What the pixel's URL says of the view, in the order of its lines."""
    key: str = ""
    """The source's, where it is in the URL."""
    content: Any = None
    """The body, before it is JSON."""
    event: dict[str, Any] = field(default_factory=dict)
    """The part of ``content`` that says what happened; belongs to nothing where no body is expected."""
    options: dict[str, Any] = field(default_factory=dict)
    """Where a call may name ids; for other endpoints the same as ``event``."""
    body: bytes | None = None
    """In place of ``content``."""
    content_type: str = ""
    signature: str | None = None
    algorithm: str = "sha256"
    """Of the signature."""

    def __post_init__(self) -> None:
        self.options = self.options or self.event

    def packed(self) -> bytes:
        if self.body is not None:
            return self.body
        return b"" if self.content is None else json.dumps(self.content).encode()


@dataclass(frozen=True)
class Endpoint:
    """One thing that a client may ask. ``kind`` says by which rules it is answered."""

    name: str
    route: str
    kind: str
    make: Callable[[], Hit]
    methods: tuple[str, ...]
    """Those that are answered, the usual one first."""

    @property
    def counts(self) -> bool:
        """Whether each refusal is counted."""
        return self.kind in ("pixel", "noscript", "events", "server", "metrics", "calls", "profiles")

    @property
    def takes_json(self) -> bool:
        return self.kind in ("events", "server", "calls", "hook", "profiles")

    def __str__(self) -> str:
        return self.name


def visitor() -> dict[str, str]:
    """The cookies of somebody who was here before. The session's come from a test's own sign-in."""
    signed = TimestampSigner(salt=identity.SALT).sign(f"m:{VISITOR}")
    return {identity.ANONYMOUS_ID_COOKIE: VISITOR, id_cookies()[0]: signed}


def own_name() -> str:
    return endpoint_names()[0]


def _pixel(*, cookie: bool) -> Hit:
    signed = token.sign(token.Page("/shop/", "Product"))
    said = dict.fromkeys(("age", "zone", "more", "canonical", "title", "search", "referrer"), "")
    hit = Hit(_cookie_url if cookie else _token_url, token=signed, said={**said, "age": 0, "title": "A shop"})
    del hit.headers["origin"]
    return hit


def _cookie_url(hit: Hit) -> str:
    """The token is the cookie of the URL; without it the URL is the same."""
    if hit.token is not None:
        hit.cookies[own_name()] = hit.token
    return f"/s/{own_name()}/p/{quote(hit.message_id, safe='')}/{encode(*hit.said.values())}"


def _token_url(hit: Hit) -> str:
    url = f"/s/{own_name()}/p/{quote(hit.message_id, safe='')}/{encode(*hit.said.values())}"
    return url if hit.token is None else f"{url}/{quote(hit.token, safe='')}"


def _noscript() -> Hit:
    hit = Hit(lambda hit: f"/s/{own_name()}/n/{quote(hit.token or ':', safe='')}")
    hit.token = token.sign(token.Page("/shop/", "Product"))
    del hit.headers["origin"]
    return hit


def _json(kind: str, content: Any, happened: dict[str, Any]) -> Hit:
    return Hit(
        lambda hit: url_of(kind), "POST", content=content, event=happened, content_type="text/plain;charset=UTF-8"
    )


def _single() -> Hit:
    content = single(messageId=MESSAGE_ID, anonymousId=VISITOR, properties={})
    return _json("t", content, content)


def _batch() -> Hit:
    happened = event(messageId=MESSAGE_ID, anonymousId=VISITOR, properties={})
    return _json("b", batch(happened), happened)


def _server() -> Hit:
    happened = event(messageId=MESSAGE_ID, anonymousId=VISITOR, properties={})
    hit = _json("batch", {"writeKey": WRITE_KEY, "batch": [happened]}, happened)
    hit.headers, hit.content_type = {"user-agent": "analytics-python/2.4.0"}, "application/json"
    return hit


def _calls() -> Hit:
    happened: dict[str, Any] = {"event": "Bought", "properties": {}}
    hit = _json("q", None, happened)
    hit.options = {"anonymousId": VISITOR}
    hit.content = calls(call("track", happened, hit.options, message_id=MESSAGE_ID))
    return hit


def _metrics() -> Hit:
    return _json("m", {"series": [{"type": "Counter"}]}, {})


def _hook() -> Hit:
    content = {"id": "in_1", "properties": {}}
    hit = Hit(lambda hit: "/hooks/paid", "POST", content=content, event=content, content_type="application/json")
    hit.headers, hit.cookies = {"user-agent": "a payment service"}, {}
    return hit


def _profile_hook() -> Hit:
    personas = {"computation_class": "audience", "computation_key": "vip"}
    content = {
        "type": "identify",
        "userId": "7",
        "timestamp": "2026-01-01T00:00:00Z",
        "context": {"personas": personas},
        "traits": {"vip": True},
        "properties": {},
    }
    hit = Hit(
        lambda hit: reverse("segment_fallback:profile_webhook", args=[own_name()]),
        "POST",
        content=content,
        event=content,
        content_type="application/json",
    )
    hit.headers, hit.cookies, hit.algorithm = {"user-agent": "Segment.io/1.0"}, {}, "sha1"
    return hit


def sign(hit: Hit) -> str:
    """As the sender of the webhook does: whatever the body is by now."""
    if hit.signature is not None:
        return hit.signature
    return hmac.new(WEBHOOK_SECRET.encode(), hit.packed(), hit.algorithm).hexdigest()


def _own(name: str, *, post: bool = False) -> Callable[[], Hit]:
    return lambda: Hit(
        lambda hit: reverse(f"segment_fallback:{name}", args=[own_name()]), method="POST" if post else "GET"
    )


def _file(url: Callable[[Hit], str]) -> Callable[[], Hit]:
    def make() -> Hit:
        hit = Hit(url, key=public_key())
        del hit.headers["origin"]
        return hit

    return make


def _keyed(url: Callable[[], str]) -> Callable[[Hit], str]:
    return lambda hit: url().replace(public_key(), hit.key)


def _long(name: str, argument: str) -> Callable[[Hit], str]:
    return lambda hit: reverse(f"segment_fallback:{name}", args=[own_name(), argument])


def _script_file(hit: Hit) -> str:
    return reverse("segment_fallback:page_script", args=[own_name(), script.digest(get_settings())])


_NAME = "<segment_endpoint_name:name>"
GET, POST, IMAGE = ("GET", "HEAD"), ("POST",), ("GET", "POST")
EVENTS = ("POST", "OPTIONS")

ENDPOINTS = [
    Endpoint("pixel", f"{_NAME}/p/<slug:message_id>/<segment_data:data>", "pixel", lambda: _pixel(cookie=True), IMAGE),
    Endpoint(
        "pixel with its token in the URL",
        f"{_NAME}/p/<slug:message_id>/<segment_data:data>/<str:token>",
        "pixel",
        lambda: _pixel(cookie=False),
        IMAGE,
    ),
    Endpoint("noscript", f"{_NAME}/n/<str:token>", "noscript", _noscript, IMAGE),
    Endpoint("event", f"{_NAME}/e/<segment_letter:kind>", "events", _single, EVENTS),
    Endpoint("batch", f"{_NAME}/e/<segment_letter:kind>", "events", _batch, EVENTS),
    Endpoint("metrics", f"{_NAME}/e/<segment_letter:kind>", "metrics", _metrics, EVENTS),
    Endpoint("server", f"{_NAME}/e/v1/<slug:kind>", "server", _server, EVENTS),
    Endpoint("calls", f"{_NAME}/q", "calls", _calls, POST),
    Endpoint("who am I", f"{_NAME}/w", "who", _own("who_am_i"), ("GET",)),
    Endpoint("reset", f"{_NAME}/r", "reset", _own("reset", post=True), POST),
    Endpoint("variations", f"{_NAME}/v", "who", _own("variations", post=True), POST),
    Endpoint("page's script", f"{_NAME}/f/<slug:digest>", "page's script", _file(_script_file), GET),
    Endpoint("analytics.js", f"{_NAME}/c/<slug:key>", "file", _file(_keyed(script_url)), GET),
    Endpoint("bundle", f"{_NAME}/c/b/<str:file>", "file", _file(lambda hit: bundle_url()), GET),
    Endpoint("integration", f"{_NAME}/c/i/<path:path>", "file", _file(lambda hit: integration_url(INTEGRATION)), GET),
    Endpoint("settings", f"{_NAME}/c/<slug:key>/s", "settings", _file(_keyed(settings_url)), GET),
    Endpoint(
        "settings, by Segment's path",
        f"{_NAME}/c/v1/projects/<slug:key>/settings",
        "settings",
        _file(lambda hit: _long("cdn_settings", hit.key)(hit)),
        GET,
    ),
    Endpoint(
        "bundle, by Segment's path",
        f"{_NAME}/c/analytics-next/bundles/<str:file>",
        "file",
        _file(_long("cdn_bundle", BUNDLE)),
        GET,
    ),
    Endpoint(
        "integration, by Segment's path",
        f"{_NAME}/c/next-integrations/<path:path>",
        "file",
        _file(_long("cdn_integration", INTEGRATION)),
        GET,
    ),
    Endpoint("webhook of profiles", f"{_NAME}/h", "profiles", _profile_hook, POST),
    Endpoint("webhook", "hooks/paid", "hook", _hook, POST),
]


def routes() -> set[str]:
    """What the URLconf has now."""
    return {str(pattern.pattern) for pattern in urls.urlpatterns} | {"hooks/paid"}


def session_cookie() -> str:
    name: str = django_settings.SESSION_COOKIE_NAME
    return name
