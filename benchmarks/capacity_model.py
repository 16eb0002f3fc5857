"""How much of everything a very large site needs: closed forms, and a day in minutes that confirms them."""

from __future__ import annotations

import math
from dataclasses import dataclass

DAY, HOUR, MINUTE = 86_400, 3_600, 60
DAYS_A_MONTH = 30.4
WRITE_UNIT = 1_024
"""Bytes of an item that one write unit of DynamoDB pays for."""
READ_UNIT = 8_192
"""Bytes that one read unit pays for, with eventual consistency."""
ATTRIBUTES = 130
"""Bytes of an item beside the event itself: the names of its attributes, its key, and when it came."""
ENVELOPE = 200


@dataclass(frozen=True)
class Charge:
    """One line of a bill."""

    what: str
    billed: str
    dollars: float


@dataclass(frozen=True, kw_only=True)
class Site:
    """What is assumed. Rates in events a second, prices in dollars."""

    views: float = 100_000_000
    """Page views a day."""
    peak: float = 2.5
    """The busiest minute of the day, as so many times the mean."""
    share: float = 0.3
    """Of the views, those that come to the site's own endpoints: all of them with FIRST_PARTY, else what is blocked."""
    event_bytes: float = 850
    """JSON of one event."""
    part_rate: float = 1_500
    """Events a second that one worker flushes from one part."""
    headroom: float = 2.0
    """What the parts flush together, as so many times the peak: what is more than 1 works off a backlog."""
    interval: float = 10
    """Seconds between two flushes of a part."""
    outage: float = 1
    """Hours for which Segment takes nothing, around the busiest minute."""
    segment_limit: float = 10_000
    """Events a second that Segment takes from the workspace. Its own limit is about 1,000; a site of this size has
    to agree on more. The views that analytics.js sends itself count, too."""
    partition_units: float = 1_000
    """Write units a second of one partition of DynamoDB."""
    write_price: float = 0.625
    """A million write units on demand."""
    read_price: float = 0.125
    """A million read units."""
    sqs_price: float = 0.40
    """A million requests to SQS."""
    put_price: float = 5.0
    """A million PUTs to S3."""
    storage_price: float = 0.023
    """A gigabyte in S3 for a month."""
    lambda_price: float = 0.0000166667
    """A gigabyte of a Lambda for a second."""
    lambda_gigabytes: float = 0.5
    archive_ratio: float = 0.15
    """What gzip leaves of the archive's JSON."""

    # Events.

    @property
    def mean(self) -> float:
        """Events a second over the day."""
        return self.views * self.share / DAY

    @property
    def busiest(self) -> float:
        """Events a second in the busiest minute."""
        return self.mean * self.peak

    def arriving(self, second: float) -> float:
        """Events a second at that time of the day: one wave around noon, and nothing beyond it where it is steep."""
        width = min(1.0, 2 / self.peak)
        angle = math.pi * 2 * (second / DAY - 0.5) / width
        wave = (1 + math.cos(angle)) / 2 if abs(angle) < math.pi else 0.0
        least = max(0.0, 2 - self.peak)
        return self.mean * (least + (self.peak - least) * wave)

    # Flushing.

    @property
    def parts(self) -> int:
        """As many as flush ``headroom`` times the peak, each by a worker of its own."""
        return max(1, math.ceil(self.busiest * self.headroom / self.part_rate))

    @property
    def workers(self) -> int:
        """Processes that flush at once: one a part."""
        return self.parts

    @property
    def direct(self) -> float:
        """Events a second that analytics.js itself sends Segment in the busiest minute."""
        return self.views * (1 - self.share) / DAY * self.peak

    @property
    def capacity(self) -> float:
        """Events a second that can be flushed: what the parts can, and what Segment takes beside the direct ones."""
        return max(0.0, min(self.parts * self.part_rate, self.segment_limit - self.direct))

    @property
    def batch(self) -> float:
        """Events of a batch: what waits after an interval, as far as Segment's limits (and its SDKs') allow."""
        full = min(2_500, (475_000 - ENVELOPE) // (self.event_bytes + 1))
        return max(1.0, min(full, self.busiest / self.parts * self.interval))

    @property
    def requests(self) -> float:
        """Requests a second to Segment in the busiest minute."""
        return self.busiest / self.batch

    @property
    def of_segment_limit(self) -> float:
        """All events a second of the busiest minute, as a share of what Segment takes."""
        return (self.busiest + self.direct) / self.segment_limit

    # An outage.

    @property
    def backlog(self) -> float:
        """Events that wait at the end of the outage, if it is as busy all the time as in the busiest minute."""
        return self.busiest * self.outage * HOUR

    @property
    def drain(self) -> float:
        """Seconds until that is flushed, if it goes on as busy. Infinite where more arrives than can be flushed."""
        spare = self.capacity - self.busiest
        return self.backlog / spare if spare > 0 else math.inf

    # DynamoDB.

    @property
    def units(self) -> int:
        """Write units of an event: its put and its delete."""
        return 2 * math.ceil((self.event_bytes + ATTRIBUTES) / WRITE_UNIT)

    @property
    def units_at_peak(self) -> float:
        """Write units a second in the busiest minute; while a backlog is worked off, deletes come at ``capacity``."""
        return (self.busiest + max(self.busiest, self.capacity)) * self.units / 2

    @property
    def partitions(self) -> int:
        return math.ceil(self.units_at_peak / self.partition_units)

    # Dollars a month.

    @property
    def events_a_month(self) -> float:
        return self.mean * DAY * DAYS_A_MONTH

    def bill(self, events: float) -> list[Charge]:
        """What so many events cost; the archive's files for a year."""
        units, reads = events * self.units, events * (self.event_bytes + ATTRIBUTES) / READ_UNIT
        seconds, files = events / self.part_rate, events / self.batch
        gigabytes = events * self.event_bytes * self.archive_ratio / 1e9
        archive = files / 1e6 * self.put_price + gigabytes * self.storage_price * 12
        return [
            Charge("DynamoDB on demand, writes", f"{units:,.0f} write units", units / 1e6 * self.write_price),
            Charge("DynamoDB on demand, reads", f"{reads:,.0f} read units", reads / 1e6 * self.read_price),
            Charge(
                f"Lambda that flushes, {self.lambda_gigabytes:g} GB",
                f"{seconds:,.0f} seconds",
                seconds * self.lambda_gigabytes * self.lambda_price,
            ),
            Charge("S3, an archive of a year", f"{files:,.0f} files, {gigabytes:,.2f} GB", archive),
        ]

    def sqs(self, events: float) -> Charge:
        """SQS in DynamoDB's place: send, receive and delete, each event by itself, as it is durable when a put ends."""
        return Charge("SQS in DynamoDB's place", f"{3 * events:,.0f} requests", 3 * events / 1e6 * self.sqs_price)


@dataclass(frozen=True)
class Day:
    """What the simulation saw."""

    arrived: float
    backlog: float
    """The most that waited."""
    drained: float
    """Seconds from the end of the outage until no more waited than arrives in a minute."""
    left: float
    """What waited at the day's end."""


def simulate(site: Site) -> Day:
    """A day, minute by minute: what arrives waits, and is flushed as far as ``capacity`` goes, but in the outage."""
    down_from, up_at = (DAY / 2 + sign * site.outage * HOUR / 2 for sign in (-1, 1))
    waiting = arrived = most = 0.0
    drained = math.inf
    for minute in range(DAY // MINUTE):
        now = minute * MINUTE
        new = site.arriving(now + MINUTE / 2) * MINUTE
        arrived += new
        up = MINUTE - max(0.0, min(now + MINUTE, up_at) - max(now, down_from))
        waiting = max(0.0, waiting + new - site.capacity * up)
        most = max(most, waiting)
        if drained == math.inf and now >= up_at and waiting <= new:
            drained = now + MINUTE - up_at
    return Day(arrived, most, drained, waiting)
