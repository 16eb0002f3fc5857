"""A local Segment for tests and development: nothing leaves this machine, everything can be looked at.

    from segment_fallback.testing import LocalSegment, Answer

    with LocalSegment() as segment:
        segment.answer_with(Answer(status=429, headers={"Retry-After": "2"}))
        ...  # code that sends to segment.url
        [page] = segment.wait_for(1, type="page")

With pytest, the fixture `local_segment` does the first line; `python -m segment_fallback.testing` runs it
by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segment_fallback.testing.receiver import Answer as Answer
    from segment_fallback.testing.receiver import LocalSegment as LocalSegment
    from segment_fallback.testing.receiver import Received as Received
    from segment_fallback.testing.receiver import Request as Request

__all__ = ["Answer", "LocalSegment", "Received", "Request"]


def __getattr__(name: str) -> object:
    """Import on first use: pytest imports this package in every run, mostly without using it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from segment_fallback.testing import receiver

    return getattr(receiver, name)
