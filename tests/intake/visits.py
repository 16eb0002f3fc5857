"""Page views as a browser makes them, for the tests of the pixel."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings as django_settings
from django.http import HttpResponse
from django.test import Client, override_settings
from django.urls import reverse

from segment_fallback.message import new_message_id
from segment_fallback.models import OutcomeCount, WaitingMessage
from segment_fallback.names import endpoint_names
from segment_fallback.page import token

CHROMIUM = {
    "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64) Chrome/156.0.0.0",
    "HTTP_ACCEPT_LANGUAGE": "en-GB,en;q=0.9",
    "HTTP_SEC_FETCH_SITE": "same-origin",
    "HTTP_SEC_CH_UA": '"Chromium";v="156", "Not A;Brand";v="24"',
    "HTTP_SEC_CH_UA_MOBILE": "?0",
    "HTTP_SEC_CH_UA_PLATFORM": '"Linux"',
}


def encode(*lines: object) -> str:
    """What the page's script writes into the pixel's URL, of all lines but the last ones, where they are empty."""
    return base64.b64encode("\n".join(map(str, lines)).encode()).decode().replace("/", "_")


@dataclass
class Visit:
    """One page view; ``send()`` makes the request that the page's script, or the noscript image, makes."""

    path: str = "/shop/"
    name: str | None = None
    category: str | None = None
    properties: dict[str, Any] = field(default_factory=dict)
    search: str = ""
    title: str = "A shop"
    referrer: str = ""
    canonical: str = ""
    timezone: str = "Europe/Berlin"
    age: int = 0
    more: str = ""
    referer: str | None = "http://testserver/shop/"
    method: str = "GET"
    message_id: str = field(default_factory=new_message_id)
    token: str | None = None
    consent: dict[str, Any] | None = None
    """CONSENT, of the site; and what the visitor's cookie of the name ``c`` says."""
    consents: str | None = None
    data: str | None = None
    script: bool = True
    cookie: bool = True
    """Whether the script could leave the token in a cookie; else it is in the URL."""
    headers: dict[str, str] = field(default_factory=dict)
    client: Client = field(default_factory=Client)

    def send(self) -> HttpResponse:
        page = token.Page(self.path, self.name, self.category, self.properties)
        signed = token.sign(page) if self.token is None else self.token
        name = endpoint_names()[0]
        if self.script:
            url = self._url(name)
            if self.cookie:
                self.client.cookies[name] = signed
            else:
                url += f"/{signed}"
        else:
            url = reverse("segment_fallback:noscript", args=[name, signed])
        if self.consents is not None:
            self.client.cookies["c"] = self.consents
        headers = {**CHROMIUM, **({"HTTP_REFERER": self.referer} if self.referer else {}), **self.headers}
        keys = {**django_settings.SEGMENT_FALLBACK, **({"CONSENT": self.consent} if self.consent else {})}
        with override_settings(SEGMENT_FALLBACK=keys):
            return self.client.generic(self.method, url, **headers)  # type: ignore[arg-type,return-value]

    def _url(self, name: str) -> str:
        lines = [self.age, self.timezone, self.more, self.canonical, self.title, self.search, self.referrer]
        data = encode(*lines) if self.data is None else self.data
        return reverse("segment_fallback:pixel", args=[name, self.message_id, data])


def waiting() -> list[dict[str, Any]]:
    """The messages in the buffer, oldest first."""
    return [json.loads(bytes(row.body)) for row in WaitingMessage.objects.order_by("id")]


def outcomes() -> dict[str, int]:
    """How the hits so far ended."""
    return {row.outcome: row.count for row in OutcomeCount.objects.all()}
