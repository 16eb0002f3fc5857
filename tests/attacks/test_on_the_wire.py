"""Attacks that exist only on the wire, by raw bytes, against the site under real servers."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import pytest
from pytest_django import DjangoDbBlocker

from segment_fallback.models import WaitingMessage
from segment_fallback.testing import LocalSegment
from tests.attacks.answers import CANARY
from tests.attacks.endpoints import ENDPOINTS, Endpoint
from tests.databases import database
from tests.serving.site import Site

BODY = b'{"writeKey": "%s", "k": "%s", "c": [1], "batch": [{"type": "track", "event": "A"}]}' % ((CANARY.encode(),) * 2)
"""No source has the key, so that nothing is to be kept whatever a server reads."""

PAGE = {
    "Host": "127.0.0.1",
    "Origin": "http://127.0.0.1",
    "Sec-Fetch-Site": "same-origin",
    "Content-Type": "text/plain",
    "Connection": "close",
}


@dataclass(frozen=True)
class Wire:
    """An attack by bytes: of the request line, of headers, of the body and of how long it says to be."""

    name: str
    line: str = "{method} {path} HTTP/1.1"
    headers: str = ""
    """As they are written, behind the usual ones; ``{port}`` and all."""
    without: tuple[str, ...] = ()
    length: bool = True
    body: bytes = BODY
    raw: bytes = b""
    """In place of all that."""

    def bytes_for(self, endpoint: Endpoint) -> bytes:
        if self.raw:
            return self.raw
        hit = endpoint.make()
        line = self.line.format(method=hit.method, path=hit.url(hit).replace(hit.token or "\0", "forged"))
        usual = {**PAGE, **({"Content-Length": str(len(self.body))} if self.length else {})}
        head = "".join(f"{name}: {value}\r\n" for name, value in usual.items() if name not in self.without)
        return f"{line}\r\n{head}{self.headers}\r\n".encode("latin-1") + self.body


def chunk(size: str, content: bytes = b"") -> bytes:
    return size.encode() + b"\r\n" + content + b"\r\n"


CHUNKED = "Transfer-Encoding: chunked\r\n"
SECOND = b"0\r\n\r\nPOST /s/ HTTP/1.1\r\nHost: evil.example\r\n\r\n"

ATTACKS = [
    Wire("a length of more than comes", headers="Content-Length: 1000\r\n", length=False),
    Wire("a length of 999,999,999", headers="Content-Length: 999999999\r\n", length=False),
    Wire("a length of 20 digits", headers=f"Content-Length: {'9' * 20}\r\n", length=False),
    Wire("a negative length", headers="Content-Length: -5\r\n", length=False),
    Wire("a length with a sign", headers=f"Content-Length: +{len(BODY)}\r\n", length=False),
    Wire("two lengths", headers="Content-Length: 5\r\n"),
    Wire("two lengths in one", headers="Content-Length: 5, 500\r\n", length=False),
    Wire("no length", length=False),
    Wire("a length and chunks", headers=CHUNKED, body=SECOND),
    Wire("chunks that are none", headers=CHUNKED, length=False),
    Wire("chunks by another name", headers="Transfer-Encoding: xchunked\r\n", length=False),
    Wire("chunks twice", headers=CHUNKED * 2, body=SECOND, length=False),
    Wire("a chunk of a negative size", headers=CHUNKED, body=chunk("-1", b"x"), length=False),
    Wire("a chunk of 2^68 bytes", headers=CHUNKED, body=chunk("F" * 17, b"x"), length=False),
    Wire("chunks of 600,000 bytes", headers=CHUNKED, body=chunk("927C0", b" " * 600_000) + chunk("0"), length=False),
    Wire("a promise to send 999,999,999 bytes", headers="Content-Length: 999999999\r\nExpect: 100-continue\r\n",
         length=False, body=b""),
    Wire("an address of another site", line="{method} http://evil.example{path} HTTP/1.1"),
    Wire("a path of another protocol", line="{method} file://{path} HTTP/1.1"),
    Wire("a path that goes up", line="{method} /x/..{path}/../../../../etc/passwd HTTP/1.1"),
    Wire("a path with a space", line="{method} {path} x HTTP/1.1"),
    Wire("a path with a null byte", line="{method} {path}\0 HTTP/1.1"),
    Wire("a path of 100,000 letters", line="{method} {path}" + "a" * 100_000 + " HTTP/1.1"),
    Wire("a method of 10,000 letters", line="G" * 10_000 + " {path} HTTP/1.1"),
    Wire("a line of HTTP/0.9", line="{method} {path}"),
    Wire("a line of HTTP/9.9", line="{method} {path} HTTP/9.9"),
    Wire("two hosts", headers="Host: evil.example\r\n"),
    Wire("no host", without=("Host",)),
    Wire("another host", headers="Host: evil.example\r\n", without=("Host",)),
    Wire("a space before a colon", headers="Host : evil.example\r\n"),
    Wire("a header on two lines", headers="X-A: 1\r\n Host: evil.example\r\n"),
    Wire("a header with a null byte", headers="Cookie: a=\0\r\n"),
    Wire("a header with a bare line's end", headers="X-A: 1\nSec-Fetch-Site: none\r\n"),
    Wire("a header's name with an underscore", headers="Sec_Fetch_Site: none\r\nX_Forwarded_For: 6.6.6.6\r\n"),
    Wire("a header of 300,000 letters", headers=f"X-A: {'x' * 300_000}\r\n"),
    Wire("5,000 headers", headers="".join(f"X-{number}: 1\r\n" for number in range(5_000))),
    Wire("the start of HTTP/2", raw=b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    Wire("the start of TLS", raw=b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(160)),
]  # fmt: skip


@pytest.fixture(scope="module")
def segment() -> Iterator[LocalSegment]:
    with LocalSegment() as segment:
        yield segment


@pytest.fixture(scope="module", params=["gunicorn threads", "uvicorn", "granian asgi"])
def site(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    segment: LocalSegment,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[Site]:
    folder: Path = tmp_path_factory.mktemp("wire")
    settings = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(folder / "site.sqlite3"),
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": "PRAGMA journal_mode=WAL"},
    }
    ours = {"FIRST_PARTY": True, "IDENTIFY": True, "CDN_HOST": segment.url, "API_HOST": segment.url}
    alias = f"wire-{uuid4().hex}"
    with database(alias, settings, django_db_blocker):
        site = Site(folder, alias, settings, ours)
        with site.served_by(request.param):
            yield site


def exchange(site: Site, content: bytes) -> bytes:
    """What the server answers before it closes, or falls silent for a second."""
    with contextlib.closing(socket.create_connection(("127.0.0.1", site.port), timeout=1)) as connection:
        answer = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            connection.sendall(content)
            while part := connection.recv(65_536):
                answer += part
        return answer


SERVERS_OWN = {500, 501, 505}
"""What the server says by itself: no such transfer coding, no such version of HTTP; and granian, where the application
gives no answer because a body broke off, 500. One of Django's own is in the log."""
DJANGOS_PAGE = b"DEBUG = True"
"""In what Django shows a developer of a URL or a host that the site does not have."""


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.name)
def test_attack_by_bytes_is_refused_and_harms_nobody(site: Site, segment: LocalSegment, attack: Wire) -> None:
    endpoints = [endpoint for endpoint in ENDPOINTS if endpoint.kind != "hook"]
    segment.clear()
    logged = len(read_log(site))

    with ThreadPoolExecutor(len(endpoints)) as threads:
        answers = list(threads.map(lambda endpoint: exchange(site, attack.bytes_for(endpoint)), endpoints))

    for endpoint, answer in zip(endpoints, answers, strict=True):
        statuses = [int(status) for status in re.findall(rb"HTTP/1\.[01] ([0-9]{3})", answer)]
        assert all(status < 500 or status in SERVERS_OWN for status in statuses), f"{endpoint}: {statuses}"
        assert CANARY.encode() not in answer, str(endpoint)
        assert b"evil.example" not in answer or DJANGOS_PAGE in answer, str(endpoint)
    assert not WaitingMessage.objects.using(site.alias).exists()
    assert not any("evil" in asked.path or CANARY in asked.path for asked in segment.requests)
    assert site.get("/sync/") == "here"
    log = read_log(site)[logged:]
    assert "Internal Server Error" not in log, log
    # Django logs how it came to refuse a host that the site does not serve.
    assert log.count("Traceback") == log.count("DisallowedHost: "), log


def read_log(site: Site) -> str:
    """What the server and the site have logged so far."""
    return (site.directory / "log").read_text(errors="replace")
