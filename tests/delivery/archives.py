"""What the tests of the archive share: storages that fail as they are told, and a look at what is archived."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.files.base import File
from django.core.files.storage import FileSystemStorage, storages

from segment_fallback.buffers import buffers
from segment_fallback.message import encode


class Moody(FileSystemStorage):
    """A folder that fails, or hangs, when it is told to."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.error: Exception | None = None
        self.failures = 0
        """How often it fails before it works again; -1 for ever."""
        self.tries = 0
        self.goes_on = threading.Event()
        self.goes_on.set()

    def _save(self, name: str, content: File[bytes]) -> str:
        self.tries += 1
        self.goes_on.wait(30)
        if self.error and self.failures:
            self.failures -= 1
            raise self.error
        return super()._save(name, content)  # type: ignore[misc, no-any-return]

    @contextmanager
    def hanging(self) -> Iterator[None]:
        self.goes_on.clear()
        try:
            yield
        finally:
            self.goes_on.set()


def storages_in(folder: Path) -> dict[str, Any]:
    """STORAGES with an archive and a spool that can fail."""
    backend = f"{__name__}.Moody"
    return {
        name: {"BACKEND": backend, "OPTIONS": {"location": str(folder / name), "file_permissions_mode": 0o600}}
        for name in ("archive", "spool")
    }


def moody(alias: str) -> Moody:
    storage = storages[alias]
    assert isinstance(storage, Moody)
    return storage


def put(*names: str, **fields: Any) -> None:
    """Let page views with these messageIds wait."""
    messages = [{"type": "page", "messageId": name, "anonymousId": "a", "name": "Größe", **fields} for name in names]
    buffers["default"].put([encode(message) for message in messages])


def lines(folder: Path) -> list[dict[str, Any]]:
    """All lines of the finished files below a folder. Asks nothing of the app."""
    texts = [gzip.decompress(path.read_bytes()).decode() for path in sorted(folder.rglob("*.ndjson.gz"))]
    return [json.loads(line) for text in texts for line in text.splitlines()]


def ids(folder: Path) -> list[str]:
    return sorted(line["message"]["messageId"] for line in lines(folder))
