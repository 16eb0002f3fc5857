"""A local Segment for tests and development: nothing leaves this machine, everything can be looked at.

    from segment_fallback.testing import LocalSegment, Answer

    with LocalSegment() as segment:
        segment.answer_with(Answer(status=429, headers={"Retry-After": "2"}))
        ...  # code that sends to segment.url
        [page] = segment.wait_for(1, type="page")

    from segment_fallback.testing import captured_messages

    with captured_messages() as messages:  # nothing leaves this process
        ...  # code that tracks
    messages.assert_tracked("Order Completed", user_id=user.pk, properties={"total": 12.5})

With pytest, the fixture `local_segment` does the first line of the first, and `segment_messages` that of the
second; `python -m segment_fallback.testing` runs a local Segment by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segment_fallback.testing.captured import CapturedMessages as CapturedMessages
    from segment_fallback.testing.captured import captured_messages as captured_messages
    from segment_fallback.testing.receiver import Answer as Answer
    from segment_fallback.testing.receiver import LocalSegment as LocalSegment
    from segment_fallback.testing.receiver import Received as Received
    from segment_fallback.testing.receiver import Request as Request

__all__ = ["Answer", "CapturedMessages", "LocalSegment", "Received", "Request", "captured_messages"]


def __getattr__(name: str) -> object:
    """Import on first use: pytest imports this package in every run, mostly without using it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("CapturedMessages", "captured_messages"):
        from segment_fallback.testing import captured  # needs Django, unlike the rest

        return getattr(captured, name)
    from segment_fallback.testing import receiver

    return getattr(receiver, name)
