"""Keeps the CDN's files in Django's cache, fetches each once however many ask for it, and serves it stale in need.

Within a process one caller fetches and the others wait for its result; between processes a lease in the cache
does the same. Whoever finds a file that is only past its freshness, and somebody fetching already, takes it as it is.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, replace
from gzip import compress
from typing import Any

from django.core.cache import caches

from segment_fallback import __version__
from segment_fallback.cdn import rewrite
from segment_fallback.cdn.files import File
from segment_fallback.conf import get_settings
from segment_fallback.log import log_fields

logger = logging.getLogger("segment_fallback")

FRESH = 300.0
"""Seconds after which a file is asked for again, by its ETag."""
FRESH_IF_IMMUTABLE = 30 * 86_400.0
KEEP = 30 * 86_400
"""Seconds for which a file that cannot be had anew is served as it was."""
KEEP_NEWS = 600
"""Seconds for which it is remembered that a file could not be had: clients may make up many names."""
RESPITE = 30.0
"""Seconds for which the CDN is not asked again for what it has just failed to give."""
LEASE = 15
"""Seconds after which another process may fetch, although the one that does has not said that it is done."""
WAIT = 6.0
"""Seconds that a visitor's request waits for a file that somebody else is fetching for the first time."""
NEW_NAMES = 120
"""How many names, made up by clients perhaps, a process asks the CDN for in a minute."""


class Missing(Exception):
    """The CDN has no such file."""


class Unavailable(Exception):
    """The CDN does not answer, or with what is not to be used."""


@dataclass(frozen=True)
class Entry:
    """A file as it is served, in gzip; or, with another status than 200, the news that it could not be had."""

    status: int
    fresh_until: float = 0.0
    body: bytes = b""
    tag: str = ""
    """Of the content, for our own ETag."""
    etag: str = ""
    """The CDN's."""
    failing: bool = False

    @property
    def fresh(self) -> bool:
        return time.time() < self.fresh_until

    @property
    def usable(self) -> bool:
        """Whether it can be served, if need be stale."""
        return self.status == 200


def make_entry(body: bytes, *, fresh: float = 0.0, etag: str = "") -> Entry:
    """An entry that holds a body."""
    tag = hashlib.sha256(body).hexdigest()[:32]
    return Entry(200, time.time() + fresh, compress(body, 9, mtime=0), tag, etag)


class Store:
    """The way to the CDN's files. One a process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[str, Future[Entry]] = {}
        self._minute = 0
        self._new_names = 0
        self._cache_is_down = False

    def get(self, file: File, place: rewrite.Place) -> Entry:
        """The file, rewritten for that place. Never raises for what the CDN or the cache do."""
        key = hashlib.sha256(repr((__version__, file.path, place)).encode()).hexdigest()
        key = f"segment_fallback.cdn.{key}"
        entry = self._read(key)
        if entry and entry.fresh:
            return entry
        with self._lock:
            flight = self._flights.get(key)
            leads = flight is None
            if flight is None:
                flight = self._flights[key] = Future()
        if not leads:
            return entry if entry and entry.usable else self._result(flight)
        entry = Entry(502)
        try:
            entry = self._renew(key, file, place)
        finally:
            with self._lock:
                del self._flights[key]
            flight.set_result(entry)
        return entry

    @staticmethod
    def _result(flight: Future[Entry]) -> Entry:
        try:
            return flight.result(WAIT)
        except FutureTimeoutError:  # the built-in one only since Python 3.11
            return Entry(502)

    def _renew(self, key: str, file: File, place: rewrite.Place) -> Entry:
        """Fetch the file, unless another process does or has just done so."""
        lease = f"{key}.lease"
        leased = self._cache("add", lease, 1, LEASE) is not False
        try:
            entry = self._read(key)
            if entry and (entry.fresh or (entry.usable and not leased)):
                return entry
            if not leased:
                return self._await(key)
            if file.named_by_client and not (entry and entry.usable) and not self._may_ask():
                return Entry(502)
            entry = self._fetch(file, place, entry)
            self._cache("set", key, entry, KEEP if entry.usable else KEEP_NEWS)
            return entry
        finally:
            if leased:
                self._cache("delete", lease)

    def _fetch(self, file: File, place: rewrite.Place, known: Entry | None) -> Entry:
        from segment_fallback.cdn import upstream  # loads `requests`

        fresh = FRESH_IF_IMMUTABLE if file.immutable else FRESH
        usable = known if known and known.usable else None
        status = 502
        try:
            fetched = upstream.fetch(place.cdn_host + file.path, usable.etag if usable else "")
            if fetched is None:
                return replace(usable or Entry(status), fresh_until=time.time() + fresh, failing=False)
            body = rewrite.prepare(file, place, fetched.content_type, fetched.body)
            return make_entry(body, fresh=fresh, etag=fetched.etag)
        except (Missing, Unavailable, ValueError) as error:
            reason = str(error)
            status = 404 if isinstance(error, Missing) else 502
        # Names that the CDN does not know are for clients to make up, but not to fill logs with.
        if not (known and known.failing) and not (status == 404 and file.named_by_client):
            how = "served stale" if usable else "not served"
            extra = log_fields("cdn_failed", file=file.title, instead=how, reason=reason)
            logger.warning("%s: not to be had from CDN_HOST, %s: %s", file.title, how, reason, extra=extra)
        return replace(usable or Entry(status), fresh_until=time.time() + RESPITE, failing=True)

    def _await(self, key: str) -> Entry:
        """What the process that holds the lease gets."""
        deadline = time.monotonic() + WAIT
        while time.monotonic() < deadline:
            time.sleep(0.05)
            entry = self._read(key)
            if entry and (entry.fresh or entry.usable):
                return entry
        return Entry(502)

    def _may_ask(self) -> bool:
        with self._lock:
            minute = int(time.monotonic() // 60)
            if minute != self._minute:
                self._minute, self._new_names = minute, 0
            self._new_names += 1
            return self._new_names <= NEW_NAMES

    def _read(self, key: str) -> Entry | None:
        found = self._cache("get", key)
        return found if isinstance(found, Entry) else None

    def _cache(self, operation: str, *arguments: object) -> Any:
        """Use Django's cache; where that is down, do without."""
        try:
            result = getattr(caches[get_settings().CDN_CACHE], operation)(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever the cache raises, a visitor's request goes on
            if not self._cache_is_down:
                name = type(error).__name__
                extra = log_fields("cdn_uncached", reason=name)
                logger.warning("files of Segment's CDN are not cached: %s", name, extra=extra)
            self._cache_is_down = True
            return None
        self._cache_is_down = False
        return result

    def forget(self) -> None:
        """For the child of a fork, and for tests."""
        self.__init__()  # type: ignore[misc]


store = Store()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=store.forget)
