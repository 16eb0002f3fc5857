"""Requests to the Tracking API and to the endpoint for calls, as pages and servers make them."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

from asgiref.sync import async_to_sync
from django.http import HttpResponse
from django.test import AsyncClient, Client
from django.urls import reverse

from segment_fallback.names import endpoint_names, public_key
from tests.intake.visits import CHROMIUM

WRITE_KEY = "tests-write-key"
PAGE_HEADERS = {
    "user-agent": CHROMIUM["HTTP_USER_AGENT"],
    "accept-language": CHROMIUM["HTTP_ACCEPT_LANGUAGE"],
    "sec-fetch-site": "same-origin",
    "origin": "http://testserver",
    "referer": "http://testserver/shop/",
}
BPC = {"__t": "bpc", "p": "/shop/", "u": "http://testserver/shop/?a=1#top", "s": "?a=1", "t": "A shop", "r": ""}


@dataclass
class Sender:
    """Who posts: a client of Django's, sync or async, with a cookie jar, and the headers of a page or of nobody."""

    client: Client | AsyncClient = field(default_factory=Client)
    headers: dict[str, str] = field(default_factory=lambda: dict(PAGE_HEADERS))

    def request(self, method: str, url: str, body: bytes, headers: dict[str, str | None], kind: str) -> HttpResponse:
        merged = {key: value for key, value in {**self.headers, **headers}.items() if value is not None}
        client = self.client
        if isinstance(client, Client):
            return client.generic(method, url, body, content_type=kind, headers=merged)  # type: ignore[return-value]

        async def call() -> HttpResponse:
            return await client.generic(method, url, body, content_type=kind, headers=merged)  # type: ignore[return-value]

        return async_to_sync(call)()

    def post(
        self,
        kind: str,
        body: object,
        *,
        method: str = "POST",
        content_type: str = "text/plain;charset=UTF-8",
        **headers: str | None,
    ) -> Any:
        """To where `url_of` says; bytes go as they are. A test client's answer."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {key.replace("_", "-"): value for key, value in headers.items()}
        return self.request(method, url_of(kind), data, named, content_type)


def url_of(kind: str) -> str:
    """``/e/<letter>``, where pages post, ``/e/v1/<kind>`` for longer kinds, and for ``q`` the endpoint for calls."""
    name = endpoint_names()[0]
    if kind == "q":
        return reverse("segment_fallback:calls", args=[name])
    is_letter = len(kind) == 1 and kind.islower()
    return reverse(f"segment_fallback:{'events' if is_letter else 'collect'}", args=[name, kind])


def event(**more: Any) -> dict[str, Any]:
    """A track event in the form in which analytics.js has it."""
    return {"type": "track", "event": "Bought", "messageId": "ajs-next-1", "anonymousId": "visitor", **more}


def batch(*events: Any, **more: Any) -> dict[str, Any]:
    return {"writeKey": public_key(), "batch": list(events), **more}


def single(**more: Any) -> dict[str, Any]:
    return {**event(), "writeKey": public_key(), **more}


def call(*arguments: Any, message_id: str = "0a" * 16, age: int = 0, page: Any = None) -> list[Any]:
    """A call as the page's script reports it; the first argument is the method."""
    return [message_id, age, [*arguments, BPC if page is None else page]]


def calls(*made: Any, **more: Any) -> dict[str, Any]:
    return {"k": public_key(), "c": list(made), **more}


def basic(key: str) -> str:
    return "Basic " + base64.b64encode(f"{key}:".encode()).decode()
