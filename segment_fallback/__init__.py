"""Twilio Segment for Django sites whose visitors block it.

The public calls are imported at their first use: that this app is installed costs no process anything.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segment_fallback.client import aalias as aalias
    from segment_fallback.client import agroup as agroup
    from segment_fallback.client import aidentify as aidentify
    from segment_fallback.client import alias as alias
    from segment_fallback.client import apage as apage
    from segment_fallback.client import ascreen as ascreen
    from segment_fallback.client import atrack as atrack
    from segment_fallback.client import flush as flush
    from segment_fallback.client import group as group
    from segment_fallback.client import identify as identify
    from segment_fallback.client import page as page
    from segment_fallback.client import screen as screen
    from segment_fallback.client import shutdown as shutdown
    from segment_fallback.client import track as track
    from segment_fallback.events import aemit as aemit
    from segment_fallback.events import emit as emit
    from segment_fallback.events import on as on

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "aalias",
    "aemit",
    "agroup",
    "aidentify",
    "alias",
    "apage",
    "ascreen",
    "atrack",
    "emit",
    "flush",
    "group",
    "identify",
    "on",
    "page",
    "screen",
    "shutdown",
    "track",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in ("aemit", "emit", "on"):
        from segment_fallback import events

        return getattr(events, name)
    from segment_fallback import client

    return getattr(client, name)
