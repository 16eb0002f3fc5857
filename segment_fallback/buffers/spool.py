"""Where messages go while the buffer is down: files of Django's storage API, drained by the next flush.

A folder of this machine by default; S3 and the like through django-storages, by an alias of ``STORAGES``.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import tempfile
import time
from collections.abc import Generator, Sequence
from pathlib import Path

from django.conf import settings as django_settings
from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, Storage, storages

from segment_fallback.buffers.group_commit import GroupCommit
from segment_fallback.conf import get_settings
from segment_fallback.exceptions import BufferUnavailable, SpoolFull
from segment_fallback.log import log_fields
from segment_fallback.message import Message, Way

logger = logging.getLogger("segment_fallback")

SUFFIX = ".spool"

LAST_LINE = b"end"
"""Ends a file that was written whole. Without it a file is being written, or its writer died before it could
have told anybody that it had accepted these messages."""

ABANDONED = 7 * 86_400.0
"""Seconds after which nobody writes a file any more, though the clock of one who does be wrong by days: a file that is
removed while it is being written would take with it what its writer then believes to be safe."""

MEASURED = 10.0
"""Seconds for which the size of the spool is believed before it is measured again."""


class Spool:
    """The spool of this site. Made once a process and shared by its threads."""

    def __init__(self, storage: Storage, max_bytes: int) -> None:
        self._storage = storage
        self._max_bytes = max_bytes
        self._commit = GroupCommit(self._write)
        self._measured = float("-inf")
        self._size = 0

    def put(self, messages: Sequence[Message]) -> None:
        """Keep the messages; a file holds them when this returns. Raises SpoolFull, or BufferUnavailable."""
        self._commit.put(messages)

    def _write(self, messages: Sequence[Message]) -> None:
        content = _content(messages)
        try:
            if time.monotonic() - self._measured > MEASURED:
                self._size, self._measured = self.size(), time.monotonic()
            if self._size + len(content) > self._max_bytes:
                raise SpoolFull(f"the spool has {self._size} bytes; SPOOL_MAX_BYTES allows {self._max_bytes}")
            self._save(content)
        except (SpoolFull, BufferUnavailable):
            raise
        except Exception as error:
            # Storages raise what they like: OSError, or whatever their cloud's library has.
            raise BufferUnavailable(f"the spool failed: {type(error).__name__}") from error
        self._size += len(content)

    def _save(self, content: bytes) -> None:
        # The name sorts by time and is nobody else's.
        name = f"{time.time_ns():019d}-{secrets.token_hex(8)}{SUFFIX}"
        try:
            self._storage.save(name, ContentFile(content))
        except Exception:
            with contextlib.suppress(Exception):
                self._storage.delete(name)  # what a full disk took of it
            raise

    def files(self) -> list[str]:
        """The names of the spool's files, oldest first. Raises BufferUnavailable."""
        try:
            return sorted(name for name in self._storage.listdir("")[1] if name.endswith(SUFFIX))
        except FileNotFoundError:
            return []
        except Exception as error:
            raise BufferUnavailable(f"the spool failed: {type(error).__name__}") from error

    def size(self) -> int:
        """How many bytes the spool holds."""
        return sum(self._file_size(name) for name in self.files())

    def _file_size(self, name: str) -> int:
        try:
            return self._storage.size(name)
        except FileNotFoundError:
            return 0  # drained meanwhile

    def read(self, name: str) -> list[Message] | None:
        """The messages of one file; None while it is being written."""
        with self._storage.open(name) as file:
            lines = file.read().split(b"\n")
        if lines[-1] != LAST_LINE and time.time() - spooled_at(name) < ABANDONED:
            return None
        return [_message(line) for line in lines[:-1]]

    def drain(self) -> Generator[list[Message], None, None]:
        """The messages of each file. A file is deleted when the next is asked for: put them elsewhere before."""
        for name in self.files():
            try:
                messages = self.read(name)
            except FileNotFoundError:
                continue
            except Exception as error:  # noqa: BLE001 - what the storage raises, or a file that nobody understands
                reason = type(error).__name__
                extra = log_fields("spool_unreadable", file=name, reason=reason)
                logger.error(
                    "the spool's file %s cannot be read (%s); it is left where it is", name, reason, extra=extra
                )
                continue
            if messages is not None:
                yield messages
                self.delete(name)

    def replace(self, name: str, messages: Sequence[Message]) -> None:
        """Let a new file with these messages stand for a file. Killed in between, both are there."""
        try:
            if messages:
                self._save(_content(messages))
        except Exception as error:
            raise BufferUnavailable(f"the spool failed: {type(error).__name__}") from error
        self.delete(name)

    def delete(self, name: str) -> None:
        """Remove a file. Raises BufferUnavailable."""
        try:
            self._storage.delete(name)
        except Exception as error:
            raise BufferUnavailable(f"the spool failed: {type(error).__name__} for {name}") from error


def spooled_at(name: str) -> float:
    """When that file was written, in seconds since 1970, by its writer's clock."""
    return int(name.partition("-")[0]) / 1e9


def _content(messages: Sequence[Message]) -> bytes:
    return b"".join([*map(_line, messages), LAST_LINE])


def _line(message: Message) -> bytes:
    head = [message.message_id, message.way.value, message.provisional, message.source]
    return json.dumps(head, separators=(",", ":")).encode() + b"\t" + message.body + b"\n"


def _message(line: bytes) -> Message:
    head, _, body = line.partition(b"\t")
    message_id, way, provisional, source = json.loads(head)
    return Message(message_id, body, Way(way), provisional, source=source)


def make_spool() -> Spool:
    """The spool that the settings ask for. Raises BufferUnavailable where its storage cannot be made."""
    try:
        storage = spool_storage()
    except Exception as error:
        raise BufferUnavailable(f"the spool failed: {type(error).__name__}") from error
    return Spool(storage, get_settings().SPOOL_MAX_BYTES)


def spool_storage() -> Storage:
    """Where the spool's files are. Raises what making a storage raises."""
    alias = get_settings().SPOOL
    return storages[alias] if alias else private_folder("segment-spool")


def private_folder(name: str) -> Storage:
    """A folder that no web server serves: in the project's own, else among the machine's temporary files."""
    base = getattr(django_settings, "BASE_DIR", None) or tempfile.gettempdir()
    return FileSystemStorage(location=Path(base) / name, file_permissions_mode=0o600, directory_permissions_mode=0o700)
