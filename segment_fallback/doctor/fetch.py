"""Fetches what visitors, edges and Segment answer: in a limited time and size, and never with an exception."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.cookiejar import DefaultCookiePolicy
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import requests
from requests.auth import AuthBase, HTTPBasicAuth
from requests.structures import CaseInsensitiveDict
from urllib3.exceptions import HTTPError

MAX_BYTES = 5_000_000
"""Of a page, unpacked: what is more is not read."""
CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 10.0
TOTAL_TIMEOUT = 20.0
"""Seconds: to connect, for each part of the answer, and for all of its body."""
MAX_REDIRECTS = 10

BROWSER = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.5 Mobile/15E148 Safari/604.1"  # noqa: E501
VISITOR = {
    "User-Agent": BROWSER,
    "Accept": "text/html,application/xhtml+xml,*/*;q=0.8",
    "Accept-Language": "en",
    "Accept-Encoding": "gzip",
}


@dataclass(frozen=True)
class Answer:
    """What came back. ``url`` is the last one, behind redirects; ``cut`` says that the body went on."""

    url: str
    status: int
    headers: CaseInsensitiveDict[str]
    body: bytes
    cookies: Mapping[str, str] = field(default_factory=dict)
    """The cookies that it sets, with their values."""
    cut: bool = False

    @property
    def content_type(self) -> str:
        """Without parameters, in lower case."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @property
    def charset(self) -> str:
        """That of the header, or empty."""
        message = Message()
        message["Content-Type"] = self.headers.get("Content-Type", "")
        return message.get_content_charset("")


@dataclass(frozen=True)
class NoAnswer:
    """Why nothing came back. ``problem``: ``url``, ``tls``, ``timeout``, ``redirects`` or ``connection``."""

    problem: str
    detail: str


class _Nobody(AuthBase):
    """No authorization. Being given, it keeps ``requests`` from looking into a ``.netrc``."""

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        return request


def split(url: str) -> SplitResult | None:
    """A URL of http or https in its parts; None for what is none."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        return None
    return parts if usable else None


def origin(url: str) -> str:
    """Scheme and host of a URL."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def without_login(url: str) -> str:
    """A URL without the user and password that may be in it: what is shown, and what a browser sends as Referer."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _login(url: str) -> AuthBase:
    """A URL's own user and password, for sites that are not open yet."""
    parts = urlsplit(url)
    return HTTPBasicAuth(unquote(parts.username), unquote(parts.password or "")) if parts.username else _Nobody()


def fetch(url: str, *, follow: bool = True, **headers: str) -> Answer | NoAnswer:
    """GET a URL as a visitor without cookies; further headers by their names, with ``_`` for ``-``."""
    if split(url) is None:
        return NoAnswer("url", "it is no URL of http or https")
    more = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with _session() as session:
            return _get(session, url, {**VISITOR, **more}, follow=follow)
    except requests.exceptions.SSLError as error:
        return NoAnswer("tls", _reason(error))
    except requests.exceptions.Timeout:
        return NoAnswer("timeout", f"no answer within {READ_TIMEOUT:.0f} s")
    except (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema, UnicodeError):
        return NoAnswer("url", "it is no URL of http or https")
    except (requests.RequestException, HTTPError, OSError) as error:
        return NoAnswer("connection", _reason(error))


@contextmanager
def _session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.headers.clear()
        session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        yield session


def _get(session: requests.Session, url: str, headers: dict[str, str], *, follow: bool) -> Answer | NoAnswer:
    for _ in range(MAX_REDIRECTS + 1):
        with session.get(
            url,
            headers=headers,
            auth=_login(url),
            timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
            allow_redirects=False,
            stream=True,
        ) as response:
            target = response.headers.get("Location", "")
            if not follow or not target or response.status_code not in (301, 302, 303, 307, 308):
                return _answer(response)
            url = urljoin(url, target)
            if split(url) is None:
                return NoAnswer("redirects", "a redirect leads to what is no URL of http or https")
    return NoAnswer("redirects", f"more than {MAX_REDIRECTS} redirects")


def _answer(response: requests.Response) -> Answer | NoAnswer:
    deadline = time.monotonic() + TOTAL_TIMEOUT
    unpack = zlib.decompressobj(wbits=31) if response.headers.get("Content-Encoding", "").lower() == "gzip" else None
    body = bytearray()
    for part in response.raw.stream(65_536, decode_content=False):
        try:
            body += unpack.decompress(part, MAX_BYTES + 1 - len(body)) if unpack else part
        except zlib.error:
            return NoAnswer("connection", "its gzip is broken")
        if len(body) > MAX_BYTES:
            break
        if time.monotonic() > deadline:
            return NoAnswer("timeout", f"not done in {TOTAL_TIMEOUT:.0f} s")
    cookies = {
        cookie.partition("=")[0].strip(): cookie.partition("=")[2].partition(";")[0] for cookie in _set(response)
    }
    cut = len(body) > MAX_BYTES
    return Answer(response.url, response.status_code, response.headers, bytes(body[:MAX_BYTES]), cookies, cut)


def _set(response: requests.Response) -> list[str]:
    """Each Set-Cookie header: ``requests`` joins them, and the jar takes none."""
    return list(response.raw.headers.getlist("Set-Cookie"))


def _reason(error: Exception) -> str:
    """The innermost error in one line: its text may have the URL in it, so only what is known to have none."""
    inner: object = error
    while isinstance(inner, Exception):
        deeper = getattr(inner, "reason", None) or (inner.args[0] if inner.args else None)
        if not isinstance(deeper, Exception):
            break
        inner = deeper
    if isinstance(inner, OSError):
        return (inner.strerror or inner.__class__.__name__)[:200]
    text = str(inner)
    for known in ("Name or service not known", "Failed to resolve", "Connection refused", "No route to host"):
        if known in text:
            return known
    return type(inner).__name__
