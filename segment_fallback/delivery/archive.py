"""The archive: what was delivered, as lines of JSON in gzipped files of Django's storage API, by hour of acceptance.

    dt=2026-11-21/hour=02/1795226400000-0123456789abcdef.ndjson.gz
    {"created":1795226399000,"way":"pixel","source":"default","message":{…}}

It may have a message twice: who was killed between the archive and the buffer sends and archives it again. Readers
keep one of each messageId. ``archiving.py`` fills it.
"""

from __future__ import annotations

import contextlib
import gzip
import heapq
import json
import logging
import re
import secrets
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from django.core.files.storage import Storage, storages

from segment_fallback.buffers import buffers
from segment_fallback.buffers.base import ARCHIVE, Waiting, now_ms
from segment_fallback.buffers.spool import private_folder, spool_storage
from segment_fallback.conf import DAY, get_settings
from segment_fallback.delivery.archive_files import guard, list_folder, remove_folder, save_whole, sweep
from segment_fallback.exceptions import ArchiveUnavailable, BufferUnavailable
from segment_fallback.log import log_fields

logger = logging.getLogger("segment_fallback")

SUFFIX = ".ndjson.gz"

DAY_NAME, HOUR_NAME = re.compile(r"dt=\d{4}-\d\d-\d\d"), re.compile(r"hour=\d\d")
FILE_NAME = re.compile(r"\d{13}-[0-9a-f]{16}\.ndjson(_\w+)?\.gz")
"""Ours, and as a storage renames what it has already. Other files are not touched: the bucket may not be ours alone."""
ASIDE_NAME = re.compile(rf"\d+,{DAY_NAME.pattern},{HOUR_NAME.pattern},{FILE_NAME.pattern}")

ASIDE = "archive"
"""Folder of the spool's storage for files that the archive did not take. Their names begin with their size."""

LEVEL = 6
"""Of gzip: 9 takes twice the time for a hundredth of the size."""


@dataclass(frozen=True, slots=True)
class Archived:
    """One line of the archive. ``body``: the message's JSON as it was sent; ``created`` in milliseconds since 1970."""

    created: int
    way: str
    source: str
    body: bytes

    @property
    def message(self) -> dict[str, Any]:
        """The message, parsed."""
        message: dict[str, Any] = json.loads(self.body)
        return message


def write_line(message: Waiting) -> bytes:
    """The line of a message. Its JSON, which has no line breaks, is spliced in as it is."""
    head = {"created": message.created, "way": message.way, "source": message.source}
    return json.dumps(head, separators=(",", ":")).encode()[:-1] + b',"message":' + message.body + b"}"


def read_line(line: bytes) -> Archived:
    """What a line holds. Raises ValueError or KeyError."""
    # In a JSON string the quotes would be escaped: this is the key.
    head, _, rest = line.partition(b',"message":')
    fields = json.loads(head + b"}")
    return Archived(int(fields["created"]), str(fields["way"]), str(fields["source"]), rest[:-1])


def make_files(batch: Sequence[Waiting]) -> dict[str, bytes]:
    """The files of a batch, by name: one for each hour in which its messages were accepted."""
    hours: defaultdict[str, list[bytes]] = defaultdict(list)
    for message in batch:
        hours[folder(message.created)].append(write_line(message))
    name = new_name()
    return {f"{hour}/{name}": compress(lines) for hour, lines in hours.items()}


def new_name() -> str:
    """A file's name in its folder: it sorts by time and is nobody else's."""
    return f"{now_ms():013d}-{secrets.token_hex(8)}{SUFFIX}"


def folder(moment: int) -> str:
    """The folder of the hour (UTC) in which this moment, in milliseconds since 1970, lies."""
    return f"{datetime.fromtimestamp(moment / 1000, timezone.utc):dt=%Y-%m-%d/hour=%H}"


def compress(lines: Sequence[bytes]) -> bytes:
    """A file's content."""
    return gzip.compress(b"\n".join([*lines, b""]), LEVEL, mtime=0)


def aside_name(name: str, content: bytes) -> str:
    """The name in the spool's storage of a file that the archive did not take: one folder is listed at once."""
    return f"{ASIDE}/{len(content)},{name.replace('/', ',')}"


def own_name(aside: str) -> str:
    """The name in the archive of a file that was set aside."""
    return aside.partition(",")[2].replace(",", "/")


class Archive:
    """The archive that the settings ask for. Holds nothing but their values: make one whenever one is needed.

    Where a storage fails its methods raise ArchiveUnavailable; but for ``save`` and ``set_aside``, which raise what
    the storage raises.
    """

    def __init__(self, alias: str | bool, max_aside: int) -> None:
        self._alias = alias
        self._max_aside = max_aside

    @property
    def storage(self) -> Storage:
        """Where the files are."""
        return storages[self._alias] if isinstance(self._alias, str) else private_folder("segment-archive")

    def save(self, files: dict[str, bytes]) -> None:
        """Keep the files."""
        for name, content in files.items():
            save_whole(self.storage, name, content)

    def set_aside(self, files: dict[str, bytes]) -> None:
        """Keep the files in the spool's storage, until ``move_on``."""
        spool = spool_storage()
        size = sum(int(name.partition("/")[2].partition(",")[0]) for name in self.aside())
        if size + sum(map(len, files.values())) > self._max_aside:
            raise ArchiveUnavailable(f"what waits for it has {size} bytes; SPOOL_MAX_BYTES allows {self._max_aside}")
        for name, content in files.items():
            save_whole(spool, aside_name(name, content), content)

    def move_on(self) -> int:
        """Bring what was set aside into the archive; how many files. Two may do it at once."""
        moved = 0
        with guard():
            storage, spool = self.storage, spool_storage()
            for name in self.aside():
                with contextlib.suppress(FileNotFoundError):  # another has moved it meanwhile
                    with spool.open(name) as file:
                        content = file.read()
                    save_whole(storage, own_name(name), content)
                    spool.delete(name)
                    moved += 1
        return moved

    def files(self, since: int = 0, until: int | None = None) -> Iterator[str]:
        """The names of all files, of hours between these moments, the first and the last included; oldest hour first.

        Both in milliseconds since 1970. Those that are set aside are among them. Other methods take the names.
        """
        first, last = folder(since), folder(until) if until is not None else "e"
        aside = [name for name in self.aside() if first <= hour_of(name) <= last]
        yield from heapq.merge(self._files(first, last), aside, key=hour_of)

    def _files(self, first: str, last: str) -> Iterator[str]:
        with guard():
            storage = self.storage
            for day in sorted(filter(DAY_NAME.fullmatch, list_folder(storage, "")[0])):
                if not first[: len(day)] <= day <= last:
                    continue
                for hour in sorted(filter(HOUR_NAME.fullmatch, list_folder(storage, day)[0])):
                    place = f"{day}/{hour}"
                    if first <= place <= last:
                        names = filter(FILE_NAME.fullmatch, list_folder(storage, place)[1])
                        yield from (f"{place}/{name}" for name in sorted(names))

    def aside(self) -> list[str]:
        """The names of the files that the archive did not take yet, oldest hour first."""
        with guard():
            names = list_folder(spool_storage(), ASIDE)[1]
        return sorted((f"{ASIDE}/{name}" for name in names if ASIDE_NAME.fullmatch(name)), key=own_name)

    def read(self, name: str) -> list[Archived]:
        """What a file holds; nothing, where it is gone meanwhile."""
        try:
            return [read_line(line) for line in self.lines(name)]
        except (KeyError, TypeError, ValueError) as error:
            raise _garbled(name) from error

    def lines(self, name: str) -> list[bytes]:
        """The lines of a file, as they are."""
        with guard():
            try:
                with self._holder(name).open(name) as file:
                    content: bytes = file.read()
            except FileNotFoundError:
                return []
        try:
            # A storage may have unpacked it by itself.
            text = gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content
        except (EOFError, OSError, zlib.error) as error:
            raise _garbled(name) from error
        return text.split(b"\n")[:-1]

    def replace(self, name: str, lines: Sequence[bytes]) -> None:
        """Let a new file with these lines stand for a file; without lines, none. Killed in between, both are there."""
        with guard():
            storage = self._holder(name)
            if lines:
                content, new = compress(lines), f"{hour_of(name)}/{new_name()}"
                save_whole(storage, aside_name(new, content) if name.startswith(ASIDE) else new, content)
            storage.delete(name)

    def prune(self, days: float) -> int:
        """Delete the files of days (UTC) that ended longer ago than that; how many."""
        last, deleted = folder(round((time.time() - days * DAY) * 1000)).partition("/")[0], 0
        with guard():
            storage = self.storage
            for day in sorted(filter(DAY_NAME.fullmatch, list_folder(storage, "")[0])):
                if day < last:
                    deleted += _delete_day(storage, day)
        return deleted

    def sweep(self) -> int:
        """Delete what writers left who died a day ago or earlier; how many files."""
        with guard():
            return sweep(self.storage) + sweep(spool_storage())

    def _holder(self, name: str) -> Storage:
        return spool_storage() if name.startswith(ASIDE) else self.storage


def hour_of(name: str) -> str:
    """The folder of a file in the archive, or of one that is set aside for it."""
    return (own_name(name) if name.startswith(ASIDE) else name).rpartition("/")[0]


def _delete_day(storage: Storage, day: str) -> int:
    deleted = 0
    for hour in filter(HOUR_NAME.fullmatch, list_folder(storage, day)[0]):
        for name in filter(FILE_NAME.fullmatch, list_folder(storage, f"{day}/{hour}")[1]):
            storage.delete(f"{day}/{hour}/{name}")
            deleted += 1
        remove_folder(storage, f"{day}/{hour}")
    remove_folder(storage, day)
    return deleted


def _garbled(name: str) -> ArchiveUnavailable:
    return ArchiveUnavailable(f"the archive's file {name} is not as it was written")


def open_archive() -> Archive | None:
    """The archive of the settings; None where there is to be none."""
    settings = get_settings()
    return Archive(settings.ARCHIVE, settings.SPOOL_MAX_BYTES) if settings.ARCHIVE else None


def archive_failed(number: int, detail: str) -> None:
    """So many messages were delivered and will never be in the archive."""
    extra = log_fields("unarchived", number=number, reason=detail)
    logger.error("%d delivered messages are not in the archive: %s", number, detail, extra=extra)
    with contextlib.suppress(BufferUnavailable):  # it is in the log
        buffers["default"].note_failure(ARCHIVE, detail, number)
