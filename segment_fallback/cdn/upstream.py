"""Asks Segment's CDN for a file: by a fixed list of headers, without redirects, in a limited time and size.

The request carries Host, ``User-Agent: django-segment-fallback/<version>``, ``Accept: */*``, ``Accept-Encoding: gzip``
and, to revalidate, ``If-None-Match``: nothing of the visitor's. Proxies and certificates of the environment
(``HTTPS_PROXY``, ``REQUESTS_CA_BUNDLE``) are used, a ``.netrc`` is not.
"""

from __future__ import annotations

import functools
import os
import time
import zlib
from dataclasses import dataclass
from http.cookiejar import DefaultCookiePolicy

import requests
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError

from segment_fallback import __version__
from segment_fallback.cdn.store import Missing, Unavailable

MAX_BYTES = 3_000_000
"""Of a body, as it is sent and as it is."""
CONNECT_TIMEOUT = 2.0
READ_TIMEOUT = 3.0
TOTAL_TIMEOUT = 6.0
"""Seconds: to connect, for each part of the answer, and for all of its body."""


@dataclass(frozen=True)
class Fetched:
    """A body, decompressed, with its type without parameters, and the ETag by which to ask for it again."""

    body: bytes
    content_type: str
    etag: str


class _Nobody(AuthBase):
    """No authorization. Being given, it keeps ``requests`` from looking into a ``.netrc``."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


@functools.cache
def _session() -> requests.Session:
    session = requests.Session()
    session.headers.clear()
    session.headers.update(
        {"User-Agent": f"django-segment-fallback/{__version__}", "Accept": "*/*", "Accept-Encoding": "gzip"}
    )
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return session


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_session.cache_clear)


def fetch(url: str, etag: str = "") -> Fetched | None:
    """The file at a URL of the CDN; None if it still is what had that ETag. Raises Missing or Unavailable."""
    deadline = time.monotonic() + TOTAL_TIMEOUT
    try:
        with _session().get(
            url,
            headers={"If-None-Match": etag} if etag else None,
            auth=_Nobody(),
            timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
            allow_redirects=False,
            stream=True,
        ) as response:
            if response.status_code == 304 and etag:
                return None
            if response.status_code in (403, 404, 410):  # 403 is what a bucket says that may not be listed
                raise Missing(f"HTTP {response.status_code}")
            if response.status_code != 200:
                raise Unavailable(f"HTTP {response.status_code}")
            body = _read(response, deadline)
            content_type = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            return Fetched(body, content_type, response.headers.get("ETag", "")[:200])
    except (requests.RequestException, HTTPError) as error:
        # Its text would have the URL, and with it the write key.
        raise Unavailable(type(error).__name__) from None


def _read(response: requests.Response, deadline: float) -> bytes:
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("gzip", "identity"):
        raise Unavailable(f"Content-Encoding {encoding[:40]!r}")
    body = bytearray()
    for part in response.raw.stream(65_536, decode_content=False):
        body += part
        if len(body) > MAX_BYTES:
            raise Unavailable(f"more than {MAX_BYTES:,} bytes")
        if time.monotonic() > deadline:
            raise Unavailable(f"not done in {TOTAL_TIMEOUT:.0f} s")
    return bytes(body) if encoding == "identity" else gunzip(bytes(body))


def gunzip(body: bytes) -> bytes:
    """The content of a gzip file of one member. Raises Unavailable for another, and for one past MAX_BYTES."""
    decompressor = zlib.decompressobj(wbits=31)
    try:
        plain = decompressor.decompress(body, MAX_BYTES + 1)
    except zlib.error:
        raise Unavailable("broken gzip") from None
    if len(plain) > MAX_BYTES:
        raise Unavailable(f"more than {MAX_BYTES:,} bytes")
    if not decompressor.eof or decompressor.unused_data:
        raise Unavailable("broken gzip")
    return plain
