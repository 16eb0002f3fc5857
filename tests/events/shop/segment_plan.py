from __future__ import annotations

from dataclasses import dataclass

from segment_fallback.plan import planned


@planned("Order Completed")
@dataclass
class OrderCompleted:
    order_id: str
    total: float
    coupon: str | None = None
