"""Posts batches to Segment: the request of segment-analytics-python, without the faults of its session.

The same URL, headers and JSON as its ``request.post`` (a test compares them); but a redirect is a failure
and not followed to a page that answers 200, a ``.netrc`` does not replace the write key, and nothing is logged
of what is sent.
"""

from __future__ import annotations

import base64
import enum
import functools
import gzip
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from types import TracebackType
from typing import Any

import requests
from requests.auth import AuthBase
from segment.analytics.oauth_manager import OauthManager
from segment.analytics.request import parse_retry_after
from segment.analytics.version import VERSION
from urllib3.exceptions import NewConnectionError

from segment_fallback.conf import Settings, Source

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

    ``doubtful``: the batch may have been delivered all the same.
    """

    verdict: Verdict
    retry_after: int | None = None
    detail: str = ""
    doubtful: bool = False


class _Authorization(AuthBase):
    """The header. Being given, it also keeps ``requests`` from looking into a ``.netrc``."""

    def __init__(self, header: str) -> None:
        self._header = header

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._header
        return request


class Transport:
    """One connection to one source for the length of a flush. A context manager; for one thread."""

    def __init__(self, source: Source, settings: Settings) -> None:
        self._settings = settings
        self._url = f"{source.api_host}/v1/batch"
        self._basic = "Basic " + base64.b64encode(f"{source.write_key}:".encode()).decode()
        self._oauth = oauth_manager(tuple(sorted(source.oauth.items()))) if source.oauth else None
        self._session = requests.Session()
        self._tail = f'","writeKey":{json.dumps(source.write_key)}}}'.encode()
        self.envelope = len(self._body([]))
        """Bytes of the request's JSON around the messages."""

    def send(self, bodies: Sequence[bytes], *, retry_count: int = 0) -> Answer:
        """Post messages, each the bytes of its JSON, as one batch. Never raises for what the network does.

        ``retry_count``: how often sending has failed before; Segment hears it as the SDKs say it.
        """
        body = self._body(bodies)
        headers = {"Content-Type": "application/json", "User-Agent": f"analytics-python/{VERSION}"}
        if retry_count:
            headers["X-Retry-Count"] = str(retry_count)
        if self._settings.GZIP:
            body = gzip.compress(body)
            headers["Content-Encoding"] = "gzip"
        try:
            authorization = f"Bearer {self._oauth.get_token()}" if self._oauth else self._basic
        except Exception as error:  # noqa: BLE001 - the SDK's manager raises what its libraries raise
            return Answer(Verdict.RETRY, detail=f"no OAuth token: {type(error).__name__}")
        try:
            response = self._session.post(
                self._url,
                data=body,
                headers=headers,
                auth=_Authorization(authorization),
                timeout=self._settings.SEND_TIMEOUT,
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
        return b'{"batch":[' + b",".join(bodies) + b'],"sentAt":"' + sent_at + self._tail

    def __enter__(self) -> Transport:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._session.close()


@functools.cache
def oauth_manager(arguments: tuple[tuple[str, Any], ...]) -> Any:
    """The SDK's manager of a source's tokens: one a process, because a token lives longer than a flush."""
    return OauthManager(**dict(arguments))


def judge(response: requests.Response) -> Answer:
    """The verdict on an answer of Segment's, by the retry policy of its own SDKs."""
    status = response.status_code
    detail = f"HTTP {status} {response.reason} from {response.url}"
    if 200 <= status < 300:
        return Answer(Verdict.DELIVERED)
    if status in REFUSED:
        return Answer(Verdict.REFUSED, detail=detail)
    if status in RETRIED or (status >= 500 and status not in (501, 505)):
        return Answer(Verdict.RETRY, parse_retry_after(response), detail, doubtful=status >= 500)
    return Answer(Verdict.MISCONFIGURED, detail=f"{detail}: check WRITE_KEY and API_HOST")


def _never_connected(error: requests.RequestException) -> bool:
    """Whether not even a connection came about, so that nothing can have been delivered."""
    reason = getattr(error.args[0], "reason", None) if error.args else None
    return isinstance(error, requests.ConnectTimeout) or isinstance(reason, NewConnectionError)
