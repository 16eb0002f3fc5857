"""Profiles in a database table: the store for sites that have one."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TypeVar

from django.core import checks
from django.db import IntegrityError, connections, router, transaction
from django.db.models import QuerySet

from segment_fallback.buffers.base import now_ms
from segment_fallback.buffers.database import DatabaseBuffer
from segment_fallback.exceptions import BufferUnavailable, ProfilesUnavailable
from segment_fallback.models import KeptProfile
from segment_fallback.profiles.store import ProfileStore, Stored

Result = TypeVar("Result")

SWEPT_EACH = 100
SWEPT_AT_ONCE = 500


class DatabaseProfiles(ProfileStore):
    """Profiles in the table of ``KeptProfile``.

    ``using``: the alias of the database; by default the one that Django's routers name. Rows that have expired are
    not seen, and deleted by ``sweep``, which one in SWEPT_EACH new profiles calls.
    """

    def __init__(self, *, using: str | None = None) -> None:
        self._using = using

    @property
    def using(self) -> str:
        return self._using or router.db_for_write(KeptProfile)

    @property
    def _rows(self) -> QuerySet[KeptProfile]:
        rows: QuerySet[KeptProfile] = KeptProfile.objects.using(self.using)
        return rows

    def read(self, keys: Sequence[str]) -> dict[str, Stored]:
        # Neither a model's instance nor another query: every page pays for this one.
        rows = self._rows.filter(key__in=keys, expires__gt=now_ms()).values_list("key", "text", "version")
        return {key: Stored(text, version) for key, text, version in self._apart(lambda: list(rows))}

    def write(self, key: str, text: str, version: int, *, expires: int) -> bool:
        if version:
            ours = self._rows.filter(key=key, version=version)
            return bool(self._apart(lambda: ours.update(text=text, version=version + 1, expires=expires)))
        if random.randrange(SWEPT_EACH) == 0:  # noqa: S311 - no secret
            self.sweep()
        row = KeptProfile(key=key, text=text, version=1, expires=expires)
        return self._run(lambda: self._insert(row))

    def _insert(self, row: KeptProfile) -> bool:
        try:
            with transaction.atomic(using=self.using):
                self._rows.filter(key=row.key, expires__lte=now_ms()).delete()
                row.save(force_insert=True, using=self.using)
        except IntegrityError:
            return False
        return True

    def sweep(self) -> int:
        """Delete what has expired: SWEPT_AT_ONCE rows at most. How many there were."""
        expired = self._rows.filter(expires__lte=now_ms())
        keys = self._apart(lambda: list(expired.values_list("key", flat=True)[:SWEPT_AT_ONCE]))
        # Not by the keys alone: one of them may have been written again by now.
        removed: int = self._apart(lambda: expired.filter(key__in=keys).delete()[0])
        return removed

    def check(self) -> list[checks.CheckMessage]:
        if self._using is None or self._using in connections:
            return []
        text = f"DatabaseProfiles' option 'using' names the database {self._using!r}, which is not in DATABASES."
        hint = f"Write one of {', '.join(sorted(connections))}."
        return [checks.Error(text, hint=hint, id="segment_fallback.E012")]

    def _apart(self, work: Callable[[], Result]) -> Result:
        """The work's result; in a savepoint where the caller is in a transaction, which an error must not spoil."""

        def within() -> Result:
            with transaction.atomic(using=self.using):
                return work()

        return self._run(within if connections[self.using].in_atomic_block else work)

    def _run(self, work: Callable[[], Result]) -> Result:
        try:
            # It knows how each database says that it is down, or that another one is in the way.
            return DatabaseBuffer(using=self.using).run(work)
        except BufferUnavailable as error:
            raise ProfilesUnavailable(str(error)) from error
