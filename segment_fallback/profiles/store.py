"""Where profiles are kept: the interface, and all of it that is the same for every backend.

A backend keeps one text by key, and writes it only where nobody else has written since it was read. What the texts
mean, which value is the newest and what becomes of two ids of one person is said here and in ``record.py``.
"""

from __future__ import annotations

import abc
import hashlib
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from django.core.checks import CheckMessage

from segment_fallback.buffers.base import now_ms
from segment_fallback.conf import get_settings
from segment_fallback.exceptions import ProfilesUnavailable
from segment_fallback.profiles.record import Record, joined, record_of

TRIES = 12
"""How often a write is tried where others write the same profile."""


@dataclass(frozen=True)
class Ids:
    """Who is meant: a userId, an anonymousId, or both of one person."""

    user_id: str | None = None
    anonymous_id: str | None = None

    @property
    def keys(self) -> tuple[str, ...]:
        """Under which stores keep what is known, the userId's first. Hashes: no store and no log names anybody."""
        named = (("u", self.user_id), ("a", self.anonymous_id))
        return tuple(f"{kind}-{_digest(value)}" for kind, value in named if value)

    def __bool__(self) -> bool:
        return bool(self.user_id or self.anonymous_id)


def _digest(value: str) -> str:
    return hashlib.sha256(value.encode(errors="surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Profile:
    """What is known of a visitor: his traits, audiences among them as ``True`` and ``False``."""

    traits: Mapping[str, Any] = field(default_factory=dict, repr=False)
    user_id: str | None = field(default=None, repr=False)
    """None where the visitor is not signed in."""
    updated: int = 0
    """When a trait last changed, in milliseconds since 1970 (UTC)."""


@dataclass(frozen=True)
class Stored:
    """A text as it is in a store. ``version`` tells it from what was there before, and comes after."""

    text: str
    version: int


class ProfileStore(abc.ABC):
    """A store of profiles. Subclasses keep texts: ``read`` and ``write``.

    Every method raises ProfilesUnavailable where the store is down. What is older than PROFILE_TTL is not taken: by
    then a store may have forgotten what came after it.
    """

    def get(self, ids: Ids) -> Profile | None:
        """What is known of the ids, which must be of one person; None where nothing is."""
        return profile(ids, self.records(ids).values())

    def records(self, ids: Ids) -> dict[str, Record]:
        """What is kept, by key; keys of which nothing is kept are missing."""
        return {key: Record.decode(stored.text) for key, stored in self.read(ids.keys).items()}

    def update(self, ids: Ids, traits: Mapping[str, Any], at: int, *, pulled: int = 0) -> bool:
        """These traits hold from that time on (milliseconds since 1970). None takes a trait away. False for what is
        too old to be taken.

        Kept under the userId if there is one, else under the anonymousId. What is known of a user is thus shown to
        nobody who has no more than the browser.
        """
        if not ids or at <= now_ms() - ttl_ms():
            return False
        self._join(ids.keys[0], record_of(traits, at, pulled=pulled))
        return True

    def merge(self, ids: Ids) -> None:
        """Who had the anonymousId is the user: what is known of it is his from now on, and no longer its own."""
        if not (ids.user_id and ids.anonymous_id):
            return
        user, anonymous = ids.keys
        stored = self.read([anonymous]).get(anonymous)
        if stored is None or not (known := Record.decode(stored.text)).traits:
            return
        self._join(user, Record(known.traits))
        self._join(anonymous, Record(deleted=known.updated))

    def delete(self, ids: Ids, at: int | None = None) -> None:
        """Forget what was known at that time (by default now) of each of the ids.

        The time of it is kept under the id's hash, so that what is older and comes again is not taken.
        """
        for key in ids.keys:
            self._join(key, Record(deleted=min(now_ms() if at is None else at, now_ms())))

    def _join(self, key: str, record: Record) -> None:
        """Add to what is kept, whoever else does at the same time."""
        for tried in range(TRIES):
            stored = self.read([key]).get(key)
            before = Record.decode(stored.text) if stored else Record()
            after = before.joined(record)
            if after == before and stored:
                return
            if self.write(key, after.encode(), stored.version if stored else 0, expires=now_ms() + ttl_ms()):
                return
            time.sleep(random.uniform(0, 0.002 * 2 ** min(tried, 6)))  # noqa: S311 - jitter
        raise ProfilesUnavailable("too many write the same profile")

    @abc.abstractmethod
    def read(self, keys: Sequence[str]) -> dict[str, Stored]:
        """The texts of the keys that there are, in one request to the store. None that has expired."""

    @abc.abstractmethod
    def write(self, key: str, text: str, version: int, *, expires: int) -> bool:
        """Replace the text that has that version (0: there is none), until ``expires`` (milliseconds since 1970).
        False, and nothing is written, where another one is there by now."""

    def check(self) -> list[CheckMessage]:
        """What is wrong with the set-up; connects to nothing."""
        return []


def profile(ids: Ids, records: Iterable[Record]) -> Profile | None:
    """The records of one person as a profile; None where they have no trait."""
    whole = joined(records)
    if not (values := whole.values):
        return None
    return Profile(MappingProxyType(values), ids.user_id, whole.updated)


def ttl_ms() -> int:
    return int(get_settings().PROFILE_TTL * 1000)
