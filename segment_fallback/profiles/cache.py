"""Profiles in one of Django's caches: quick, and as lasting as the cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from django.conf import settings as django_settings
from django.core import checks
from django.core.cache import BaseCache, caches

from segment_fallback.buffers.base import now_ms
from segment_fallback.exceptions import ProfilesUnavailable
from segment_fallback.profiles.store import ProfileStore, Stored

Result = TypeVar("Result")

PREFIX = "segment_fallback:profile:"
LOCKED = 5
"""Seconds after which the lock of a writer who died is open again."""


class CacheProfiles(ProfileStore):
    """Profiles in a cache that all processes share: Redis, Memcached, a database's.

    ``alias``: of Django's CACHES. What the cache evicts is forgotten, the times of deletions among it; so it suits
    sites that ask the Profile API, too, or whose cache evicts nothing.
    """

    def __init__(self, *, alias: str = "default") -> None:
        self.alias = alias

    @property
    def _cache(self) -> BaseCache:
        return caches[self.alias]

    def read(self, keys: Sequence[str]) -> dict[str, Stored]:
        found = self._run(lambda: self._cache.get_many([PREFIX + key for key in keys]))
        return {key.removeprefix(PREFIX): Stored(text, version) for key, (version, text) in found.items()}

    def write(self, key: str, text: str, version: int, *, expires: int) -> bool:
        # Caches have no "set where it is unchanged"; they have "add where nothing is", which makes a lock.
        lock = f"{PREFIX}{key}:lock"
        if not self._run(lambda: self._cache.add(lock, 1, LOCKED)):
            return False
        try:
            stored = self.read([key]).get(key)
            if (stored.version if stored else 0) != version:
                return False
            seconds = max(1, (expires - now_ms()) // 1000)
            self._run(lambda: self._cache.set(PREFIX + key, (version + 1, text), seconds))
        finally:
            self._run(lambda: self._cache.delete(lock))
        return True

    def check(self) -> list[checks.CheckMessage]:
        config = django_settings.CACHES.get(self.alias)
        if config is None:
            text = f"CacheProfiles' option 'alias' names the cache {self.alias!r}, which is not in CACHES."
            hint = f"Write one of {', '.join(sorted(django_settings.CACHES))}."
            return [checks.Error(text, hint=hint, id="segment_fallback.E014")]
        if config["BACKEND"].rpartition(".")[2] in ("LocMemCache", "DummyCache"):
            text = f"CacheProfiles uses the cache {self.alias!r}, which no two processes share."
            hint = "Choose one of Redis, Memcached or a database, or another store."
            return [checks.Warning(text, hint=hint, id="segment_fallback.W015")]
        return []

    def _run(self, work: Callable[[], Result]) -> Result:
        try:
            return work()
        except Exception as error:  # each cache raises its own
            raise ProfilesUnavailable(f"the cache {self.alias!r} failed: {type(error).__name__}") from error
