"""Asks Segment's Profile API for users of whom the store has nothing, or nothing new.

Only by userId: by an anonymousId Segment tells of the whole person behind it, whoever sits at the browser now.

A page waits no longer than TIMEOUT, and then goes on without; the request goes on in a thread and fills the store.
Whoever asks for the same user meanwhile waits for the same request. A process asks no more than RATE times a second,
and nobody at all for a while where Segment says 429, or fails several times in a row. That a user is unknown is kept in
the store, so that all processes know.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Waited
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import quote

import requests
from django.db import connections
from requests.auth import AuthBase
from urllib3.exceptions import HTTPError

from segment_fallback import __version__
from segment_fallback.buffers.base import now_ms
from segment_fallback.conf import get_settings
from segment_fallback.conf_rules import PROFILE_API_NUMBERS
from segment_fallback.exceptions import InvalidMessage
from segment_fallback.log import log_fields
from segment_fallback.message import normalise
from segment_fallback.profiles.handler import profiles
from segment_fallback.profiles.record import Record, record_of
from segment_fallback.profiles.store import Ids

logger = logging.getLogger("segment_fallback")

HOST = "https://profiles.segment.com"
LIMIT = 200
"""Traits of one answer: the most that Segment gives."""
MAX_BYTES = 500_000
MAX_ID = 500
CONNECT_TIMEOUT = 1.0
READ_TIMEOUT = 1.0
TOTAL_TIMEOUT = 3.0
"""Seconds: to connect, for each part of the answer, and for all of its body. No page waits for them."""
WAKING = 0.2
"""The part of a page's budget in which its thread is to wake up, on a busy machine."""
MAX_REQUESTS = 8
"""Under way at once in a process."""
FAILURES = 3
"""In a row, after which nobody asks for PAUSE seconds."""
PAUSE = 10.0
LONGEST_PAUSE = 300.0
UNKNOWN = 300.0
"""Seconds after which a user of whom Segment knew nothing is asked for again."""


class Unavailable(Exception):
    """Segment does not answer, or not with a profile. ``pause``: seconds for which nobody is to ask."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


class _Token(AuthBase):
    """The header. Being given, it also keeps ``requests`` from looking into a ``.netrc``."""

    def __init__(self, token: str) -> None:
        self._header = "Basic " + base64.b64encode(f"{token}:".encode()).decode()

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = self._header
        return request


class Pulls:
    """This process's requests to the Profile API."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: dict[str, Future[Record | None]] = {}
        self._failures = 0
        self._paused_until = float("-inf")
        self._allowed, self._allowed_at = 0.0, float("-inf")
        self._session = requests.Session()
        self._session.headers.clear()
        self._session.headers.update({"User-Agent": f"django-segment-fallback/{__version__}", "Accept": "*/*"})
        # Nobody's cookies: the next request is about somebody else.
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))

    def pull(self, user_id: str, known: Record | None, *, began: float | None = None) -> Record | None:
        """What Segment knows of the user, if the store's record is none or old, and the answer comes in time. Where
        there is something to show meanwhile, nobody waits. Never raises for what the network does.

        ``began``: when the page's look-up did, by the monotonic clock.
        """
        if not is_due(known) or len(user_id) > MAX_ID:
            return None
        request = self._begin(user_id)
        if request is None or (known and known.values):
            return None
        try:
            budget = _number("TIMEOUT") * (1 - WAKING)
            return request.result(max(0.0, budget - (time.monotonic() - began if began else 0.0)))
        except Waited:
            return None

    def _begin(self, user_id: str) -> Future[Record | None] | None:
        """The request about that user which is under way, or a new one; None where none may begin."""
        key = Ids(user_id).keys[0]
        with self._lock:
            if key in self._under_way:
                return self._under_way[key]
            if len(self._under_way) >= MAX_REQUESTS or not self._may_ask():
                return None
            answer = self._under_way[key] = Future()
        # A daemon: the process need not wait for it to end.
        name = "segment_fallback.pull"
        threading.Thread(target=self._ask, args=(user_id, key, answer), name=name, daemon=True).start()
        return answer

    def _may_ask(self) -> bool:
        now = time.monotonic()
        if now < self._paused_until:
            return False
        rate = _number("RATE")
        self._allowed = min(max(rate, 1.0), self._allowed + rate * (now - self._allowed_at))
        self._allowed_at = now
        if self._allowed < 1:
            return False
        self._allowed -= 1
        if self._failures >= FAILURES:
            # One tries whether it is over; the others go on without until it is.
            self._paused_until = now + PAUSE
        return True

    def _ask(self, user_id: str, key: str, answer: Future[Record | None]) -> None:
        found = None
        try:
            found = self._fetch_and_keep(user_id)
            with self._lock:
                if self._failures >= FAILURES:
                    self._paused_until = time.monotonic()
                self._failures = 0
        except Unavailable as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - a thread of ours: nobody else would hear of it
            name = type(error).__name__
            logger.error("a profile could not be pulled: %s", name, extra=log_fields("pull_failed", reason=name))
        finally:
            with self._lock:
                self._under_way.pop(key, None)
            answer.set_result(found)
            connections.close_all()  # those of this thread

    def _fail(self, error: Unavailable) -> None:
        with self._lock:
            self._failures += 1
            pause = error.pause or (PAUSE if self._failures >= FAILURES else 0.0)
            if pause:
                self._paused_until = max(self._paused_until, time.monotonic() + pause)
        extra = log_fields("pull_failed", reason=str(error), seconds=pause)
        logger.warning("the Profile API failed, and is left alone for %.0f s: %s", pause, error, extra=extra)

    def _fetch_and_keep(self, user_id: str) -> Record:
        at, ids = now_ms(), Ids(user_id)
        traits, whole = fetch(self._session, user_id)
        before = profiles.store.records(ids).get(ids.keys[0]) if whole else None
        gone = dict.fromkeys((name for name in before.values if name not in traits), None) if before else {}
        profiles.store.update(ids, {**gone, **traits}, at, pulled=at)
        # As the store has it: a user who was deleted stays deleted.
        return profiles.store.records(ids).get(ids.keys[0]) or record_of(traits, at)

    def forget(self) -> None:
        """For the child of a fork, and for tests."""
        self.__init__()  # type: ignore[misc]


def is_due(known: Record | None) -> bool:
    """Whether Segment is to be asked: never of somebody who was to be forgotten."""
    if known is None:
        return True
    refresh = _number("REFRESH")
    age = (now_ms() - known.pulled) / 1000
    return not known.deleted and age > (refresh if known.values else min(UNKNOWN, refresh))


def fetch(session: requests.Session, user_id: str) -> tuple[dict[str, Any], bool]:
    """The user's traits, and whether they are all; none of a user whom Segment does not know. Raises Unavailable,
    whose text names neither the user nor the token."""
    deadline = time.monotonic() + TOTAL_TIMEOUT
    api = get_settings().PROFILE_API
    host, space = str(api.get("HOST", HOST)).rstrip("/"), quote(api["SPACE"], safe="")
    user = quote(user_id, safe="", errors="replace")
    url = f"{host}/v1/spaces/{space}/collections/users/profiles/user_id:{user}/traits?limit={LIMIT}"
    try:
        with session.get(
            url,
            auth=_Token(api["TOKEN"]),
            headers={"Accept-Encoding": "identity"},
            timeout=(CONNECT_TIMEOUT, READ_TIMEOUT),
            allow_redirects=False,
            stream=True,
        ) as response:
            body = _read(response, deadline)
            return _traits(response, body)
    except (requests.RequestException, HTTPError) as error:
        # Its text would have the URL, and with it the userId.
        raise Unavailable(type(error).__name__) from None


def _read(response: requests.Response, deadline: float) -> bytes:
    body = bytearray()
    # A byte at a time where that is how it comes: else the deadline would not be looked at.
    while part := response.raw.read1(65_536):
        body += part
        if len(body) > MAX_BYTES:
            raise Unavailable(f"more than {MAX_BYTES:,} bytes")
        if time.monotonic() > deadline:
            raise Unavailable(f"not done in {TOTAL_TIMEOUT:.0f} s")
    return bytes(body)


def _traits(response: requests.Response, body: bytes) -> tuple[dict[str, Any], bool]:
    status = response.status_code
    if status == 404:
        return {}, True
    if status == 429:
        raise Unavailable("HTTP 429", _retry_after(response))
    if status in (401, 403):
        raise Unavailable(f"HTTP {status}: check SPACE, TOKEN and HOST in PROFILE_API", LONGEST_PAUSE)
    if status != 200:
        raise Unavailable(f"HTTP {status}")
    try:
        answer = json.loads(body)
        traits = normalise(answer["traits"])
        if not isinstance(traits, dict):
            raise TypeError("not an object")
        whole = not answer.get("cursor", {}).get("has_more")
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, InvalidMessage):
        raise Unavailable("an answer that is no profile") from None
    return traits, whole


def _retry_after(response: requests.Response) -> float:
    text = response.headers.get("Retry-After", "")
    return min(float(text), LONGEST_PAUSE) if text.isascii() and text.isdigit() and len(text) < 6 else PAUSE


def _number(key: str) -> float:
    return float(get_settings().PROFILE_API.get(key, PROFILE_API_NUMBERS[key]))


pulls = Pulls()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=pulls.forget)
