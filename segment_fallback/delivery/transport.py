"""Posts batches to Segment: the request of segment-analytics-python, without the faults of its session.

The same URL, headers and JSON as its ``request.post`` (a test compares them); but a redirect is a failure
and not followed to a page that answers 200, a ``.netrc`` does not replace the write key, and nothing is logged
of what is sent.
"""

from __future__ import annotations

import base64
import contextlib
import enum
import functools
import gzip
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from types import TracebackType
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from segment.analytics.oauth_manager import OauthManager
from segment.analytics.request import parse_retry_after
from segment.analytics.version import VERSION
from urllib3.exceptions import NewConnectionError

from segment_fallback.conf import Settings, Source, get_settings, get_source
from segment_fallback.tracing import span

RETRIED = frozenset({408, 410, 429, 460})
"""Besides 5xx but 501 and 505: what the SDKs retry."""

REFUSED = frozenset({400, 413, 422})
"""Segment does not want something that is in the batch."""

TOKEN_REFUSED = frozenset({400, 401, 403, 511})
"""After which the SDK asks for a new OAuth token."""


class Verdict(str, enum.Enum):
    """What came of a batch."""

    DELIVERED = "delivered"
    RETRY = "retry"
    """Segment, or the way there, has a passing trouble."""
    REFUSED = "refused"
    """At least one message of the batch is not accepted."""
    MISCONFIGURED = "misconfigured"
    """Wrong key or host: no message's fault, and nothing that time mends. Kept until somebody mends it."""


@dataclass(frozen=True)
class Answer:
    """A verdict, the seconds that Segment asks to wait (if it does), and one line for people.

    ``doubtful``: the batch may have been delivered all the same. ``status``: of HTTP; None where nobody answered.
    """

    verdict: Verdict
    retry_after: int | None = None
    detail: str = ""
    doubtful: bool = False
    status: int | None = None


class _Authorization(AuthBase):
    """The header. Being given, it also keeps ``requests`` from looking into a ``.netrc``."""

    def __init__(self, header: str) -> None:
        self._header = header

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._header
        return request


class Transport:
    """The connections to one source: one for the length of a flush, as a context manager; or those of many threads.

    ``timeout``: seconds to connect, and to wait for each part of the answer; by default SEND_TIMEOUT for either.
    ``connections``: how many are kept for the next to send.
    """

    def __init__(
        self, source: Source, settings: Settings, *, timeout: tuple[float, float] | None = None, connections: int = 1
    ) -> None:
        self._settings = settings
        self._source = source.alias
        self._timeout = timeout or settings.SEND_TIMEOUT
        self._url = f"{source.api_host}/v1/batch"
        self._basic = "Basic " + base64.b64encode(f"{source.write_key}:".encode()).decode()
        self._oauth = oauth_manager(tuple(sorted(source.oauth.items()))) if source.oauth else None
        self._session = requests.Session()
        # Nobody's cookies: the next events are another visitor's.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))
        for scheme in ("https://", "http://"):
            self._session.mount(scheme, HTTPAdapter(pool_maxsize=connections))
        self._tail = f'","writeKey":{json.dumps(source.write_key)}}}'.encode()
        self.envelope = len(self._body([]))
        """Bytes of the request's JSON around the messages."""

    def send(self, bodies: Sequence[bytes], *, retry_count: int = 0) -> Answer:
        """Post messages, each the bytes of its JSON, as one batch. Never raises for what the network does.

        ``retry_count``: how often sending has failed before; Segment hears it as the SDKs say it.
        """
        body = self._body(bodies)
        with span("send", source=self._source, messages=len(bodies), bytes=len(body)) as current:
            answer = self._post(body, retry_count)
            current.set(verdict=answer.verdict.value, **({"status": answer.status} if answer.status else {}))
            if answer.verdict is not Verdict.DELIVERED:
                current.fail(answer.detail)
        return answer

    def _post(self, body: bytes, retry_count: int) -> Answer:
        headers = {"Content-Type": "application/json", "User-Agent": f"analytics-python/{VERSION}"}
        if retry_count:
            headers["X-Retry-Count"] = str(retry_count)
        if self._settings.GZIP:
            body = gzip.compress(body)
            headers["Content-Encoding"] = "gzip"
        try:
            authorization = f"Bearer {self._oauth.get_token()}" if self._oauth else self._basic
        except NoToken as error:
            return Answer(error.verdict, detail=str(error))
        try:
            response = self._session.post(
                self._url,
                data=body,
                headers=headers,
                auth=_Authorization(authorization),
                timeout=self._timeout,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            detail = f"{type(error).__name__} from {self._url}"
            return Answer(Verdict.RETRY, detail=detail, doubtful=not _never_connected(error))
        if self._oauth and response.status_code in TOKEN_REFUSED:
            self._oauth.clear_token()
        return judge(response)

    def _body(self, bodies: Sequence[bytes]) -> bytes:
        sent_at = datetime.now(timezone.utc).isoformat(timespec="microseconds").encode()
        parts = [part for body in bodies for part in (b",", body)][1:]
        # One join: each further copy of half a megabyte takes as long as the request's headers.
        return b"".join([b'{"batch":[', *parts, b'],"sentAt":"', sent_at, self._tail])

    def __enter__(self) -> Transport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()


class Transports(contextlib.ExitStack):
    """The transport of each source, opened at its first use and kept for the length of a flush."""

    def __init__(self, connections: int) -> None:
        super().__init__()
        self._connections = connections
        self._opened: dict[str, Transport | None] = {}

    def __getitem__(self, alias: str) -> Transport | None:
        """The transport of a source; None where the settings know no such source."""
        if alias not in self._opened:
            source = get_source(alias)
            self._opened[alias] = self.enter_context(self._open(source)) if source else None
        return self._opened[alias]

    def _open(self, source: Source) -> Transport:
        return Transport(source, get_settings(), connections=self._connections)


class NoToken(Exception):
    """The OAuth server gave no token: for now, or until somebody mends the settings."""

    def __init__(self, verdict: Verdict, detail: str) -> None:
        super().__init__(f"no OAuth token: {detail}")
        self.verdict = verdict


class Tokens(OauthManager):  # type: ignore[misc]
    """The SDK's manager of a source's tokens, without its threads.

    Those refresh a token for ever, end with a fork, and where the server answers what they do not expect they
    die, and ``get_token`` waits for them without end: longer than a lease lasts.
    """

    _good = ""
    _expires = 0.0

    def clear_token(self) -> None:
        """Segment did not take the token."""
        self._expires = 0.0

    def get_token(self) -> str:
        """A token that is good for a while yet. Waits ``timeout`` seconds at most, and as long for another thread
        that asks for it. Raises NoToken."""
        if not self.token_mutex.acquire(timeout=self.timeout):
            raise NoToken(Verdict.RETRY, f"{self.auth_server} lets others wait")
        try:
            if time.monotonic() >= self._expires:
                self._renew()
            return self._good
        finally:
            self.token_mutex.release()

    def _renew(self) -> None:
        try:
            response = self._request_token()
        except requests.RequestException as error:
            raise NoToken(Verdict.RETRY, f"{type(error).__name__} from {self.auth_server}") from error
        except Exception as error:  # whatever the JWT's library has against the key
            detail = f"{type(error).__name__}: check client_key in OAUTH"
            raise NoToken(Verdict.MISCONFIGURED, detail) from error
        self._heed_clock(response)
        self._good, lifetime = _token(response)
        self._expires = time.monotonic() + lifetime / 2

    def _heed_clock(self, response: requests.Response) -> None:
        """The server refuses a request that its own clock dates otherwise."""
        with contextlib.suppress(KeyError, TypeError, ValueError):
            self.clock_skew = int(time.time() - parsedate_to_datetime(response.headers["Date"]).timestamp())


def _token(response: requests.Response) -> tuple[str, float]:
    """The token of an answer, and for how many seconds it is good. Raises NoToken."""
    status = response.status_code
    detail = f"HTTP {status} from {urlsplit(response.url).netloc}"
    if 400 <= status < 500 and status not in RETRIED:
        raise NoToken(Verdict.MISCONFIGURED, f"{detail}: check OAUTH")
    try:
        answer = response.json()
        if status == 200 and isinstance(answer["access_token"], str):
            return answer["access_token"], float(answer.get("expires_in", 120))
    except (KeyError, TypeError, ValueError):
        detail += ", without a token"
    raise NoToken(Verdict.RETRY, detail)


@functools.cache
def oauth_manager(arguments: tuple[tuple[str, Any], ...]) -> Tokens:
    """A source's tokens: one manager a process, because a token lives longer than a flush."""
    return Tokens(**dict(arguments))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=oauth_manager.cache_clear)


def judge(response: requests.Response) -> Answer:
    """The verdict on an answer of Segment's, by the retry policy of its own SDKs."""
    status = response.status_code
    detail = f"HTTP {status} {response.reason} from {response.url}"
    if 200 <= status < 300:
        return Answer(Verdict.DELIVERED, status=status)
    if status in REFUSED:
        return Answer(Verdict.REFUSED, detail=detail, status=status)
    if status in RETRIED or (status >= 500 and status not in (501, 505)):
        return Answer(Verdict.RETRY, parse_retry_after(response), detail, status >= 500, status)
    return Answer(Verdict.MISCONFIGURED, detail=f"{detail}: check WRITE_KEY and API_HOST", status=status)


def _never_connected(error: requests.RequestException) -> bool:
    """Whether not even a connection came about, so that nothing can have been delivered."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(error, requests.ConnectTimeout) or isinstance(reason, NewConnectionError)
