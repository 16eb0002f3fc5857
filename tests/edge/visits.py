"""Visitors as plain HTTP clients: they read what the page carries and send what its script would."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from segment_fallback.message import new_message_id
from segment_fallback.models import WaitingMessage
from tests.edge.servers import Edge
from tests.intake.visits import encode
from tests.page.html import parse

CHROMIUM = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Chrome/156.0.0.0",
    "Accept-Language": "en-GB,en;q=0.9",
    "Sec-Fetch-Site": "same-origin",
}


@dataclass(frozen=True)
class View:
    """A page view, from the page's own HTML."""

    edge: Edge
    path: str
    html: str

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of the page's script."""
        return parse(self._snippet).config

    @property
    def noscript(self) -> str:
        """The URL of the image for browsers without scripts."""
        return str(parse(self._snippet).attributes("img")["src"])

    @property
    def _snippet(self) -> str:
        return self.html[self.html.index("<script>") : self.html.index("</noscript>") + len("</noscript>")]

    def headers(self, cookie: str = "", search: str = "") -> dict[str, str]:
        return {**CHROMIUM, "Referer": self.edge.url + self.path + search, **({"Cookie": cookie} if cookie else {})}

    def pixel(self, cookie: str = "", search: str = "") -> tuple[str, str, Mapping[str, str]]:
        """messageId, path and headers of the pixel, as the page's script requests it."""
        config, message_id = self.config, new_message_id()
        seen = encode(0, "Europe/Berlin", "", "", "Shop", search)
        cookies = "; ".join(filter(None, [cookie, f"{config['c']}={config['t']}"]))
        return message_id, f"{config['b']}p/{message_id}/{seen}", self.headers(cookies, search)


def view(edge: Edge, path: str) -> View:
    return View(edge, path, edge.get(path).body.decode())


def waiting(edge: Edge) -> list[dict[str, Any]]:
    """The messages in the site's buffer, oldest first. Not by Django, which refuses where Playwright runs."""
    with contextlib.closing(sqlite3.connect(edge.directory / "site.sqlite3")) as connection:
        rows = connection.execute(f"SELECT body FROM {WaitingMessage._meta.db_table} ORDER BY id")  # noqa: S608
        return [json.loads(body) for (body,) in rows]


def arrived(edge: Edge, path: str) -> list[dict[str, Any]]:
    """Those of one page."""
    return [event for event in waiting(edge) if event["context"]["page"]["path"] == path]
