from __future__ import annotations

from segment_fallback import on, track
from segment_fallback.events import Event


@on("order.completed")
def completed(event: Event) -> None:
    track(event.payload["user"], "Order Completed", {"total": event.payload["total"]})
