"""Segment's calls from server code, with the buffer behind them: ``from segment_fallback import track``.

The signatures are those of segment-analytics-python 2.x, and so is what is delivered; each call has an async twin
(``atrack``). What a call has accepted is durable, at once or, in a request, as soon as the response was sent.
``send`` takes a whole message; everything else here ends in it.
"""

from __future__ import annotations

from segment_fallback.client.calls import (
    aalias,
    agroup,
    aidentify,
    alias,
    apage,
    ascreen,
    atrack,
    flush,
    group,
    identify,
    page,
    screen,
    shutdown,
    track,
)
from segment_fallback.client.scope import Person, Scope
from segment_fallback.client.sending import asend, send

__all__ = [
    "Person",
    "Scope",
    "aalias",
    "agroup",
    "aidentify",
    "alias",
    "apage",
    "ascreen",
    "asend",
    "atrack",
    "flush",
    "group",
    "identify",
    "page",
    "screen",
    "send",
    "shutdown",
    "track",
]
