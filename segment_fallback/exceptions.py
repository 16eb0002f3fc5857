"""Every error this app raises by itself.

SegmentFallbackError
├── InvalidMessage          a message that Segment would refuse or drop
├── BufferUnavailable       what the buffer stands on is down: try again later
├── SpoolFull               the buffer is down, and the spool is at its cap
├── ProfilesUnavailable     what the profiles stand on is down: try again later
├── ArchiveUnavailable      the archive's storage, or one of its files, cannot be read or written
├── PlanViolation           a message that the tracking plan does not allow
└── MissingExtra            an optional package is needed (also an ImportError)
"""

from __future__ import annotations


class SegmentFallbackError(Exception):
    """The base class: catch this to catch them all."""


class InvalidMessage(SegmentFallbackError, ValueError):
    """A message that Segment would refuse, or drop without a word. ``code`` names the rule it breaks."""

    def __init__(self, code: str, explanation: str) -> None:
        super().__init__(explanation)
        self.code = code


class BufferUnavailable(SegmentFallbackError):
    """The database or the table behind the buffer does not answer. Nothing was accepted."""


class SpoolFull(SegmentFallbackError):
    """The buffer is down and the spool has reached SPOOL_MAX_BYTES. Nothing was accepted."""


class ProfilesUnavailable(SegmentFallbackError):
    """The store of profiles does not answer. Nothing was changed."""


class ArchiveUnavailable(SegmentFallbackError):
    """The archive's storage does not answer, or one of its files is not as it was written."""


class PlanViolation(SegmentFallbackError, ValueError):
    """A message is not as the tracking plan has it. Raised in development only."""


class MissingExtra(SegmentFallbackError, ImportError):
    """A part of this app needs a package that is not installed; the text names the extra that brings it."""

    def __init__(self, part: str, extra: str) -> None:
        super().__init__(f"{part} needs an optional package: pip install 'django-segment-fallback[{extra}]'")
