"""What a shop's year looks like on its dashboard. The same each time but for the day on which it ends."""

from __future__ import annotations

import math
import random
import time

from django.contrib.auth.models import User

from segment_fallback.buffers import last_events
from segment_fallback.buffers.base import ARCHIVE, SPOOL, now_ms
from segment_fallback.message import Way, encode, new_message_id
from segment_fallback.models import DeadLetter, EventCount, Lease, OutcomeCount, WaitingMessage

HOUR = 3_600
CHANCE = random.Random(1)  # noqa: S311 - nothing here is secret
EVENTS = ["Product Viewed", "Product Added", "Cart Viewed", "Checkout Started", "Order Completed"]
SHARES = {Way.JAVASCRIPT: 0.76, Way.PIXEL: 0.19, Way.NOSCRIPT: 0.02, Way.CALL: 0.03}
REFUSED = {"gpc": 41, "dnt": 22, "rate": 18, "cross_site": 7, "token_expired": 5, "referer_mismatch": 3, "prefetch": 29}
REASONS = [("HTTP 400 Bad Request", 7), ("HTTP 413 Request Entity Too Large", 3), ("plan: Order Completed", 2)]


def fill(*, hours: int = 400 * 24, trouble: bool = True) -> None:
    """Counts of so many hours, a few waiting messages and dead letters; ``trouble``: a part that fails."""
    now = int(time.time())
    this_hour = now // HOUR * HOUR
    events, outcomes = [], []
    for ago in range(hours):
        hour = this_hour - ago * HOUR
        visits = _visits(hour) * ((now - hour) / HOUR if ago == 0 else 1)
        for way, share in SHARES.items():
            events.append(EventCount(hour=hour, way=way, type="page", count=round(visits * share)))
            for n, event in enumerate(EVENTS, 2):
                count = round(visits * share / n**2.5)
                events.append(EventCount(hour=hour, way=way, type="track", event=event, count=count))
            outcomes.append(OutcomeCount(hour=hour, way=way, outcome="accepted", count=round(visits * share * 1.4)))
        events.append(EventCount(hour=hour, way="server", type="track", event="Order Paid", count=round(visits / 30)))
        if ago < 8 * 24:
            outcomes += [
                OutcomeCount(hour=hour, way="pixel", outcome=word, count=round(visits * number / 4_000))
                for word, number in REFUSED.items()
            ]
    EventCount.objects.bulk_create(events, batch_size=500)
    OutcomeCount.objects.bulk_create(outcomes, batch_size=500)
    wait(37)
    bury()
    leases(trouble)
    remember()


def _visits(hour: int) -> float:
    local = time.gmtime(hour)
    day = 0.15 + max(0.0, math.sin((local.tm_hour - 5) / 18 * math.pi)) ** 1.5
    week = (1, 0.97, 0.98, 1.02, 1.1, 1.3, 1.25)[local.tm_wday]
    season = 1 + 0.35 * math.sin((local.tm_yday - 240) / 365 * 2 * math.pi)
    return float(900 * day * week * season * CHANCE.uniform(0.88, 1.12))


def wait(number: int) -> None:
    now = now_ms()
    WaitingMessage.objects.bulk_create(
        [
            WaitingMessage(message_id=f"waits-{n}", body=b"{}", way="pixel", created=now - CHANCE.randint(1, 46_000))
            for n in range(number)
        ],
        batch_size=500,
    )


def bury() -> None:
    now = now_ms()
    for reason, number in REASONS:
        for _ in range(number):
            name = f"{CHANCE.getrandbits(128):032x}"
            event = CHANCE.choice(EVENTS)
            message = encode({"messageId": name, "anonymousId": "a", "type": "track", "event": event})
            age = CHANCE.randint(2 * 3_600_000, 9 * 86_400_000)
            DeadLetter.objects.create(
                message_id=name, body=message.body, way="javascript", reason=reason, attempts=CHANCE.randint(1, 4),
                created=now - age, buried=now - age,
            )  # fmt: skip


def leases(trouble: bool) -> None:
    now = now_ms()
    Lease.objects.create(part=0, flushed=now - 4_000)
    Lease.objects.create(part=1, flushed=now - 6_000, owner="a", expires=now + 55_000)
    Lease.objects.create(part=2, flushed=now - 9_000)
    Lease.objects.create(part=SPOOL, flushed=now - 3 * 86_400_000)
    if trouble:
        Lease.objects.filter(part=2).update(
            flushed=now - 190_000, failures=3, error="HTTP 429 Too Many Requests", error_at=now - 12_000,
            not_before=now + 18_000,
        )  # fmt: skip
        Lease.objects.create(part=ARCHIVE, failures=120, error="[Errno 28] No space left", error_at=now - 7_200_000)
        DeadLetter.objects.filter(pk=1).update(buried=now - 600_000)


def remember() -> None:
    for n, event in enumerate(EVENTS * 2):
        message = {
            "messageId": new_message_id(),
            "anonymousId": new_message_id(),
            "userId": "ada@example.org",
            "type": "track",
            "event": event,
            "properties": {"sku": "SG-101", "price": 184.0, "tags": ["white", "large"], "gift": n % 2 == 0},
            "context": {"page": {"path": "/pieces/moon-jar/", "title": "Moon jar"}, "ip": "192.0.2.1"},
        }
        last_events.remember([encode(message, way=CHANCE.choice([Way.JAVASCRIPT, Way.PIXEL, Way.CALL]))])


def users() -> None:
    """``admin`` may do everything; ``viewer`` may look."""
    from django.contrib.auth.models import Permission

    User.objects.create_superuser("admin", password="admin")
    viewer = User.objects.create_user("viewer", password="viewer", is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_dashboard"))
