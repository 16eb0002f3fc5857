"""What the archive asks of a storage of Django's: whole files or none, lists of what is there, and a guard."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from django.core.files.base import ContentFile
from django.core.files.storage import FileSystemStorage, Storage

from segment_fallback.conf import DAY
from segment_fallback.exceptions import ArchiveUnavailable

PART = ".part"
"""Ends the name of a file that is being written, or whose writer died."""


@contextlib.contextmanager
def guard() -> Iterator[None]:
    """Whatever a storage raises becomes ArchiveUnavailable."""
    try:
        yield
    except ArchiveUnavailable:
        raise
    except Exception as error:
        # Storages raise what they like: OSError, or whatever their cloud's library has.
        raise ArchiveUnavailable(f"the archive's storage failed: {type(error).__name__}") from error


def local_path(storage: Storage, name: str) -> Path | None:
    """The path of a file, where the storage is a folder. Other storages have paths that nobody else understands."""
    return Path(storage.path(name)) if isinstance(storage, FileSystemStorage) else None


def save_whole(storage: Storage, name: str, content: bytes) -> None:
    """Save a file of which nobody ever sees a half. Object stores have no halves; in a folder it gets its name last."""
    path = local_path(storage, name)
    if path is None:
        storage.save(name, ContentFile(content))
        return
    part = f"{name}{PART}"
    try:
        part = storage.save(part, ContentFile(content))
        Path(storage.path(part)).replace(path)
    except Exception:
        with contextlib.suppress(Exception):
            storage.delete(part)  # what a full disk took of it
        raise


def list_folder(storage: Storage, name: str) -> tuple[list[str], list[str]]:
    """The folders and the files in a folder; none, where there is no such folder."""
    try:
        return storage.listdir(name)
    except FileNotFoundError:
        return [], []


def remove_folder(storage: Storage, name: str) -> None:
    """Remove a folder, if it is one and empty; object stores have none."""
    path = local_path(storage, name)
    if path is not None:
        with contextlib.suppress(OSError):
            path.rmdir()


def sweep(storage: Storage) -> int:
    """Delete what writers left who died a day ago or earlier; how many files."""
    root, swept = local_path(storage, ""), 0
    for path in root.rglob(f"*{PART}") if root else ():
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < time.time() - DAY:
                path.unlink()
                swept += 1
    return swept
