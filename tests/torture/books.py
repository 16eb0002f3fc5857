"""Both ends of the count. What was accepted is written down by whoever was told so; nothing here asks the app."""

from __future__ import annotations

import gzip
import json
import os
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

OFFERED = "offered"
"""Written before a message is handed over."""
ACCEPTED = "accepted"
"""Written after the app has said that it was taken."""


@dataclass
class Count:
    """Where every message is, by messageId, at one moment."""

    offered: set[str]
    accepted: set[str]
    delivered: set[str]
    waiting: set[str]
    spooled: set[str]
    dead: set[str]
    archived: set[str]
    """In the archive, or set aside for it."""

    @property
    def known(self) -> set[str]:
        return self.delivered | self.waiting | self.spooled | self.dead

    @property
    def lost(self) -> set[str]:
        """Accepted, and nowhere."""
        return self.accepted - self.known

    @property
    def unarchived(self) -> set[str]:
        """Accepted, neither waiting nor given up, and not in the archive."""
        return self.accepted - self.archived - self.waiting - self.spooled - self.dead

    @property
    def unexplained(self) -> set[str]:
        """Somewhere, and never offered."""
        return (self.known | self.archived) - self.offered

    def __str__(self) -> str:
        names = ("offered", "accepted", "delivered", "waiting", "spooled", "dead", "archived", "lost", "unexplained")
        return ", ".join(f"{name} {len(getattr(self, name)):,}" for name in names)


class Ledger:
    """A file of ids, one a line, each on the disk before anything else happens. A process has its own."""

    def __init__(self, directory: Path, name: str) -> None:
        directory.mkdir(exist_ok=True)
        path = directory / f"{name}-{os.getpid()}-{secrets.token_hex(4)}"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, ids: Iterable[str]) -> None:
        os.write(self._file, "".join(f"{message_id}\n" for message_id in ids).encode())
        os.fsync(self._file)


def read_ledgers(directory: Path, name: str) -> set[str]:
    """The ids in all ledgers of that name. A line that a kill has cut short does not count."""
    ids: set[str] = set()
    for path in directory.glob(f"{name}-*"):
        ids.update(path.read_text().split("\n")[:-1])
    return ids


def read_spool(directory: Path) -> set[str]:
    """The ids in the spool's finished files; in others is nothing that anybody was promised."""
    ids: set[str] = set()
    for path in directory.glob("*.spool") if directory.exists() else ():
        *lines, last = path.read_bytes().split(b"\n")
        if last == b"end":
            ids.update(json.loads(line.partition(b"\t")[0])[0] for line in lines)
    return ids


def read_archive(directory: Path) -> set[str]:
    """The ids in all finished files below the folder, each of which must be whole."""
    ids: set[str] = set()
    for path in directory.rglob("*.ndjson.gz"):
        lines = gzip.decompress(path.read_bytes()).splitlines()
        ids.update(json.loads(line)["message"]["messageId"] for line in lines)
    return ids
