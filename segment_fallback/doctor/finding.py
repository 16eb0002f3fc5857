"""A finding: what is wrong, why it matters, how to mend it. Kinds of findings are declared beside what finds them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

DOCS = "docs/reference/doctor.md"
"""Where each kind has an anchor of its id."""


class Level(IntEnum):
    """How grave a finding is. Events are lost by an error; a warning costs something else, or may lose some."""

    OK = 0
    INFO = 20
    WARNING = 30
    ERROR = 40


@dataclass(frozen=True, slots=True)
class Finding:
    """What an examination found. ``subject`` is the page's URL, or empty for the set-up."""

    id: str
    level: Level
    what: str
    why: str = ""
    cure: str = ""
    subject: str = ""

    @property
    def link(self) -> str:
        """Where the documentation says more."""
        return f"{DOCS}#{self.id}"

    def as_json(self) -> dict[str, str]:
        """For programs; the level by its name in lower case."""
        return {
            "id": self.id,
            "level": self.level.name.lower(),
            "subject": self.subject,
            "what": self.what,
            "why": self.why,
            "cure": self.cure,
            "link": self.link,
        }


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of finding, with what is always so about it. Where there is nothing to mend, the cure is empty."""

    id: str
    level: Level
    why: str
    cure: str

    def __call__(self, what: str, cure: str = "", level: Level | None = None) -> Finding:
        """A finding of this kind; with a cure or a level of its own where more is known."""
        level = self.level if level is None else level
        return Finding(self.id, level, printable(what), self.why, printable(cure or self.cure))

    def ok(self, what: str) -> Finding:
        """That there is nothing of this kind."""
        return Finding(self.id, Level.OK, printable(what))


def printable(text: str) -> str:
    """The text without what would command a terminal: parts of it come from strangers' pages."""
    return "".join(c if c.isprintable() else "?" for c in text)


KINDS: dict[str, Kind] = {}
"""Every kind by its id, once the modules of this package are imported."""

Findings = Iterator[Finding]


def kind(id: str, level: Level, why: str, cure: str) -> Kind:  # noqa: A002 - as Django's checks have it
    """Declare a kind. Raises ValueError for an id that is taken."""
    if id in KINDS:
        raise ValueError(f"two kinds have the id {id!r}")
    KINDS[id] = Kind(id, level, why, cure)
    return KINDS[id]
