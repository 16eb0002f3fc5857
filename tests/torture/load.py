"""The load generator: hands messages over, by ``accept`` and by pixel hits, and writes down what was promised."""

# ruff: noqa: S311 - nothing here is secret
from __future__ import annotations

import contextlib
import http.client
import random
import secrets
import time

from django.urls import reverse

from segment_fallback.buffers.accept import accept
from segment_fallback.exceptions import BufferUnavailable, SpoolFull
from segment_fallback.message import Message, Way, encode, new_message_id
from segment_fallback.names import endpoint_names
from segment_fallback.page.token import Page, sign
from tests.intake import visits
from tests.torture.books import ACCEPTED, OFFERED, Ledger
from tests.torture.site import DIR
from tests.torture.upstream import POISON

PAUSE = 0.01
"""Seconds between two offers: some hundred messages a second are enough to be in the middle of something."""


class Load:
    """Offers messages until it is killed."""

    def __init__(self, web_port: int) -> None:
        self._offered = Ledger(DIR / "books", OFFERED)
        self._accepted = Ledger(DIR / "books", ACCEPTED)
        self._host = f"127.0.0.1:{web_port}"
        self._token = sign(Page("/shop/", "Shop"))
        self._retried: list[str] = []

    def run(self) -> None:
        while True:
            if random.random() < 0.4:
                self.hit()
            else:
                self.offer()
            time.sleep(random.uniform(0, 2 * PAUSE))

    def offer(self) -> None:
        """Some messages of server code and of analytics.js."""
        ids = [message_id for _ in range(random.randint(1, 8)) for message_id in _message_ids()]
        self._offered.write(ids)
        with contextlib.suppress(BufferUnavailable, SpoolFull):
            accept([_message(message_id) for message_id in ids])
            self._accepted.write(ids)

    def hit(self) -> None:
        """One page view by the pixel; as the page's script does, it is tried again if nobody took it."""
        message_id = self._retried.pop() if self._retried else new_message_id()
        self._offered.write([message_id])
        if self._request(message_id):
            self._accepted.write([message_id])
            if random.random() < 0.1:  # and now analytics.js answers after all
                with contextlib.suppress(BufferUnavailable, SpoolFull):
                    accept([_message(message_id, Way.JAVASCRIPT)])
        elif len(self._retried) < 10:
            self._retried.append(message_id)

    def _request(self, message_id: str) -> bool:
        """Whether the page view was accepted, as far as its browser can tell."""
        data = visits.encode(0, "Europe/Berlin", "", "", message_id, "?utm_source=torture")
        name = endpoint_names()[0]
        headers = {
            "Cookie": f"{name}={self._token}",
            "Referer": f"http://{self._host}/shop/?utm_source=torture",
            "Sec-Fetch-Site": "same-origin",
            "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Chrome/156.0.0.0",
        }
        with contextlib.closing(http.client.HTTPConnection(self._host, timeout=5)) as connection:
            try:
                connection.request(
                    "GET", reverse("segment_fallback:pixel", args=[name, message_id, data]), None, headers
                )
                answer = connection.getresponse()
                answer.read()
            except (OSError, http.client.HTTPException):
                return False
            outcome = answer.headers.get("X-Segment-Fallback")
            if answer.status not in (200, 503):
                raise AssertionError(f"the pixel answered {answer.status} {outcome}")
            return (answer.status, outcome) == (200, "accepted")


def _message_ids() -> list[str]:
    """One new id; now and then two that only case tells apart."""
    message_id = secrets.token_hex(14)
    return [f"aJs-{message_id}", f"ajs-{message_id}"] if random.random() < 0.1 else [message_id]


def _message(message_id: str, way: Way | None = None) -> Message:
    way = way or random.choice([Way.SERVER, Way.JAVASCRIPT])
    event = {
        "type": "track",
        "event": POISON if random.random() < 0.02 else "Order",
        "messageId": message_id,
        "anonymousId": "torture",
        "properties": {"title": message_id, "text": "ü" * random.choice([10, 200, 2_000])},
    }
    return encode(event, way=way)
