"""What commands that change much ask and show."""

from __future__ import annotations

import sys

from django.core.management.base import CommandError, OutputWrapper


def confirm(warning: str, question: str) -> None:
    """Go on only if the person at the terminal says yes. Raises CommandError if not, or if nobody is there."""
    if not sys.stdin.isatty():
        raise CommandError(f"{warning} Nothing was done: add --yes to do it all the same.")
    try:
        answer = input(f"{warning}\n{question} [y/N] ")
    except (EOFError, KeyboardInterrupt):
        answer = ""
    if answer.strip().lower() not in ("y", "yes"):
        raise CommandError("Nothing was done.")


class ProgressLine:
    """One line of a terminal that is written over and over. Elsewhere, as in a log, it says nothing."""

    def __init__(self, out: OutputWrapper) -> None:
        self._out = out
        self._width = 0

    def show(self, text: str) -> None:
        """Show this instead of what was shown before."""
        if self._out.isatty():
            self._out.write(f"\r{text:<{self._width}}", ending="")
            self._out.flush()
            self._width = len(text)

    def clear(self) -> None:
        """Leave no trace."""
        if self._width:
            self.show("")
            self._out.write("\r", ending="")
            self._width = 0
