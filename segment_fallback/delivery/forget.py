"""Deletes what this app keeps of one person: for privacy requests.

Whatever is killed, nobody else's messages are lost; what was not reached yet, the next time does.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import DatabaseError, router

from segment_fallback.buffers import buffers
from segment_fallback.buffers.accept import acceptance
from segment_fallback.buffers.base import SPOOL, Buffer, now_ms
from segment_fallback.conf import get_settings
from segment_fallback.delivery.archive import ASIDE, open_archive, read_line
from segment_fallback.exceptions import ArchiveUnavailable
from segment_fallback.models import PendingEvent

CHUNK = 100

PAUSE = 0.2
"""Seconds between two looks whether others have ended."""


@dataclass(frozen=True)
class Person:
    """Who is meant: all these ids."""

    user_ids: frozenset[str] = frozenset()
    anonymous_ids: frozenset[str] = frozenset()

    def is_meant_by(self, fields: Mapping[str, Any]) -> bool:
        """Whether a message (or who caused an event) names one of the ids, itself, in ``previousId`` or in ``context``.

        Exactly, as text. That it names another's id, too, does not keep it.
        """
        context = fields.get("context")
        for place in (fields, context if isinstance(context, Mapping) else {}):
            user, anonymous, previous = (_text(place.get(key)) for key in ("userId", "anonymousId", "previousId"))
            if user in self.user_ids or anonymous in self.anonymous_ids:
                return True
            if previous in self.user_ids | self.anonymous_ids:
                return True
        return False

    def is_in(self, body: bytes) -> bool:
        """The same of a message's JSON. It is parsed only if it has one of the ids anywhere in it."""
        return any(needle in body for needle in self._needles) and self.is_meant_by(json.loads(body))

    @property
    def _needles(self) -> list[bytes]:
        # As message.encode() writes them.
        texts = (json.dumps(text, ensure_ascii=False)[1:-1] for text in self.user_ids | self.anonymous_ids)
        return [text.encode(errors="replace") for text in texts]


def _text(value: object) -> str | None:
    return str(value) if isinstance(value, (str, int, float)) else None


@dataclass
class Forgetting:
    """What is being done, and what came of it. ``tell`` hears how far it is."""

    person: Person
    dry_run: bool = False
    tell: Callable[[str], object] = lambda text: None
    counts: dict[str, int] = field(default_factory=dict)
    """Messages or events, by place."""
    left: list[str] = field(default_factory=list)
    """Where something of the person may still be, and why."""


def forget(work: Forgetting) -> None:
    """Delete the person's messages from all of ``places``, in turn. Raises BufferUnavailable or ArchiveUnavailable."""
    for name, place in places.items():
        work.counts[name] = place(work)


def spool(work: Forgetting) -> int:
    """The files of the spool, while nobody drains it."""
    if not acceptance.spool.files():
        return 0
    deadline = _deadline()
    while (claim := buffers["default"].claim(SPOOL, lease=4 * get_settings().SEND_TIMEOUT)) is None:
        if time.monotonic() > deadline:
            work.left.append("the spool is being drained at the moment")
            return 0
        time.sleep(PAUSE)
    found = 0
    with claim:
        for name in acceptance.spool.files():
            claim.renew()
            messages = acceptance.spool.read(name)
            if messages is None:
                work.left.append("a file of the spool is being written at the moment")
                continue
            kept = [message for message in messages if not work.person.is_in(message.body)]
            found += len(messages) - len(kept)
            if len(kept) < len(messages) and not work.dry_run:
                acceptance.spool.replace(name, kept)
    return found


def waiting(work: Forgetting) -> int:
    """The waiting messages of all buffers; and whoever has read some of them already, to send them, ends first."""
    found = 0
    for alias in buffers:
        buffer = buffers[alias]
        ids = [message.message_id for message in buffer.waiting_messages() if work.person.is_in(message.body)]
        found += len(ids)
        if not work.dry_run:
            _in_chunks(buffer.discard, ids)
            if not _flushers_end(buffer):
                work.left.append("a flush that may have read messages before is still running")
    return found


def _flushers_end(buffer: Buffer) -> bool:
    """Wait for those who flush now; what they deliver is archived after that. Whether they have ended."""
    deadline = _deadline()
    began = running = _flushers(buffer)
    while running and time.monotonic() < deadline:
        time.sleep(PAUSE)
        running = began & _flushers(buffer)
    return not running


def _flushers(buffer: Buffer) -> set[tuple[int, str]]:
    now = now_ms()
    held = [lease for lease in buffer.leases() if lease.part >= 0 and lease.owner and lease.expires > now]
    return {(lease.part, lease.owner) for lease in held}


def _deadline() -> float:
    """Until when to wait for others: they end with their budget, or die, and then their leases end."""
    settings = get_settings()
    return time.monotonic() + settings.FLUSH_BUDGET + 4 * settings.SEND_TIMEOUT


def dead_letters(work: Forgetting) -> int:
    """The dead letters of all buffers."""
    found = 0
    for alias in buffers:
        letters = buffers[alias].dead_letters()
        ids = [letter.message.message_id for letter in letters if work.person.is_in(letter.message.body)]
        found += len(ids)
        if not work.dry_run:
            _in_chunks(buffers[alias].remove_dead_letters, ids)
    return found


def events(work: Forgetting) -> int:
    """Events of the gateway that the person caused. Whom their payloads are about, only the site knows."""
    rows = PendingEvent.objects.using(router.db_for_write(PendingEvent))
    try:
        causes = rows.values_list("pk", "caller").iterator(chunk_size=500)
        keys = [key for key, caller in causes if work.person.is_meant_by(json.loads(caller))]
        if not work.dry_run:
            _in_chunks(lambda chunk: rows.filter(pk__in=chunk).delete(), keys)
    except DatabaseError as error:
        work.left.append(f"the table of events cannot be read: {type(error).__name__}")
        return 0
    return len(keys)


def archive(work: Forgetting) -> int:
    """The archive, and what is set aside for it."""
    opened, found = open_archive(), 0
    if opened is None:
        return 0
    for name in opened.files():
        work.tell(name)
        try:
            lines = opened.lines(name)
            kept = [line for line in lines if not work.person.is_in(read_line(line).body)]
        except (ArchiveUnavailable, KeyError, TypeError, ValueError):
            work.left.append(f"the archive's file {name} is not as it was written")
            continue
        found += len(lines) - len(kept)
        if len(kept) < len(lines) and not work.dry_run:
            opened.replace(name, kept)
            if name.startswith(ASIDE):
                work.left.append("a file that was set aside may be on its way into the archive at the moment")
    if not work.dry_run:
        opened.sweep()
    return found


def _in_chunks(remove: Callable[[Sequence[Any]], object], keys: Sequence[Any]) -> None:
    for start in range(0, len(keys), CHUNK):
        remove(keys[start : start + CHUNK])


places: dict[str, Callable[[Forgetting], int]] = {
    "spool": spool,
    "waiting": waiting,
    "dead letters": dead_letters,
    "events": events,
    "archive": archive,
}
"""Whatever keeps something of people. In the order of a message's way, so that none slips by; an app may add its own:
a function that deletes (unless ``dry_run``) and says how many."""
