"""Both ends of the count. What was accepted is written down by whoever was told so; nothing here asks the app."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterable
from pathlib import Path

OFFERED = "offered"
"""Written before a message is handed over."""
ACCEPTED = "accepted"
"""Written after the app has said that it was taken."""


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
