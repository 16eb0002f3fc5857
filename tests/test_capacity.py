"""The model of a very large site: its closed forms, and the day that confirms them."""

from __future__ import annotations

import math

import pytest

from benchmarks.capacity import rows
from benchmarks.capacity_model import DAY, HOUR, Site, simulate

SMALL = Site(views=864_000, share=0.5, peak=2, part_rate=15, segment_limit=1_000)
"""Five events a second, ten at the peak."""


def test_rates_follow_from_the_views() -> None:
    assert (SMALL.mean, SMALL.busiest, SMALL.direct) == (5, 10, 10)


@pytest.mark.parametrize("peak", [1, 1.5, 2, 2.5, 4])
def test_curve_of_the_day_has_the_mean_and_the_peak_that_were_asked_for(peak: float) -> None:
    site = Site(peak=peak)
    curve = [site.arriving(second) for second in range(0, DAY, 60)]
    assert sum(curve) / len(curve) == pytest.approx(site.mean, rel=0.001)
    assert max(curve) == pytest.approx(site.busiest, rel=0.001)
    assert min(curve) >= 0


@pytest.mark.parametrize(("headroom", "parts"), [(1, 1), (1.5, 1), (1.6, 2), (3.1, 3), (0.01, 1)])
def test_parts_flush_the_peak_with_headroom(headroom: float, parts: int) -> None:
    site = Site(views=864_000, share=0.5, peak=2, part_rate=15, headroom=headroom)
    assert (site.parts, site.workers) == (parts, parts)


def test_segment_bounds_what_is_flushed_and_direct_events_count_too() -> None:
    assert SMALL.capacity == 30
    assert Site(views=864_000, share=0.5, peak=2, part_rate=15, segment_limit=25).capacity == 15
    assert Site(segment_limit=10).capacity == 0


def test_backlog_of_an_outage_is_worked_off_by_what_is_spare() -> None:
    assert SMALL.backlog == 36_000
    assert SMALL.drain == 36_000 / (30 - 10)


def test_backlog_that_cannot_be_worked_off_never_is() -> None:
    assert Site(segment_limit=1_000).drain == math.inf


@pytest.mark.parametrize(("size", "units"), [(500, 2), (894, 2), (895, 4), (32_000, 64)])
def test_an_event_costs_a_unit_a_started_kilobyte_twice(size: int, units: int) -> None:
    assert Site(event_bytes=size).units == units


def test_partitions_carry_the_puts_and_the_deletes_of_a_backlog() -> None:
    assert SMALL.units_at_peak == 10 + 30
    assert Site(views=864_000, share=0.5, peak=2, part_rate=15, partition_units=15).partitions == 3


@pytest.mark.parametrize(
    ("size", "interval", "batch"), [(850, 10, 100), (850, 1, 10), (850, 1_000, 557), (100, 1_000, 2_500)]
)
def test_batch_is_what_waits_as_far_as_segment_takes_it(size: int, interval: float, batch: int) -> None:
    site = Site(views=864_000, share=0.5, peak=2, part_rate=30, event_bytes=size, interval=interval)
    assert site.parts == 1
    assert site.batch == batch
    assert site.requests == 10 / site.batch


def test_bill_of_a_million_events() -> None:
    charges = {charge.what: charge for charge in Site(write_price=1, read_price=8.192).bill(1e6)}
    assert charges["DynamoDB on demand, writes"].dollars == 2
    assert charges["DynamoDB on demand, reads"].dollars == pytest.approx((850 + 130) / 1_000)
    assert Site(sqs_price=0.5).sqs(1e6).dollars == 1.5


def test_rows_of_the_bill_add_up() -> None:
    _, *charges, total, comparison = rows(Site())
    assert sum(float(dollars) for *_, dollars in charges) == pytest.approx(float(total[2]), abs=0.02)
    assert comparison[0].startswith("for comparison")


def test_a_day_without_a_wave_is_what_the_closed_forms_say() -> None:
    site = Site(views=864_000, share=0.5, peak=1, part_rate=15)
    day = simulate(site)
    assert day.arrived == pytest.approx(5 * DAY)
    assert day.backlog == pytest.approx(site.backlog)
    assert day.drained == pytest.approx(site.drain, abs=120)
    assert day.left == 0


@pytest.mark.parametrize("outage", [0.5, 1, 3])
def test_a_real_day_is_no_worse_than_the_closed_forms(outage: float) -> None:
    site = Site(outage=outage)
    day = simulate(site)
    assert 0.9 * site.backlog < day.backlog <= site.backlog
    assert day.drained <= site.drain + 60
    assert day.left == 0


def test_a_day_without_an_outage_leaves_nothing_waiting() -> None:
    assert simulate(Site(outage=0)).backlog == 0


def test_a_day_that_flushes_too_little_ends_with_what_is_left() -> None:
    site = Site(segment_limit=1_000)
    assert simulate(site).left == pytest.approx(site.mean * DAY - flushed(site), rel=0.01)


def flushed(site: Site) -> float:
    """Events that go out in a day with an hour's outage, while there is always something to send."""
    busy = sum(min(site.arriving(second), site.capacity) * 60 for second in range(0, DAY, 60))
    return max(busy - site.capacity * HOUR, 0)
