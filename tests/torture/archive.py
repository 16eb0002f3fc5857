"""The archive that is tortured: a folder, which at times cannot be written to."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

KEPT = "archive-kept"
"""The folder; the site knows a link to it."""


def make(directory: Path) -> None:
    (directory / KEPT).mkdir()
    (directory / "no-folder").touch()
    (directory / "archive").symlink_to(KEPT)


@contextlib.contextmanager
def unwritable(directory: Path) -> Iterator[None]:
    """Let the archive be a file, where a folder is needed: whoever is writing is interrupted, too."""
    for target in ("no-folder", KEPT):
        link = directory / "archive-next"
        link.symlink_to(target)
        link.replace(directory / "archive")
        if target != KEPT:
            yield
