"""What every backend promises, as tests: subclass BufferContract, and give it the fixture ``make``.

``make(parts=4)`` is a new buffer object; all that one test makes stand on the same store, empty at the test's
start. That is how two processes look to each other.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar

import pytest
from django.db import connections

from segment_fallback.buffers import base
from segment_fallback.buffers.base import ARCHIVE, SPOOL, Buffer, Claim, LeaseLost, LeaseState, Limits, Waiting
from segment_fallback.buffers.event_key import MAX_EVENTS, OTHERS, EventCounter, EventKey
from segment_fallback.message import Message, Way, encode

R = TypeVar("R")

HOUR = int(time.time()) // 3600 * 3600
THREADS = 8


class Make(Protocol):
    def __call__(self, *, parts: int = 1) -> Buffer: ...


class Clock:
    """The time that buffers see, in milliseconds: it stands still unless it is set."""

    def __init__(self) -> None:
        self.now = HOUR * 1000

    def advance(self, seconds: float) -> None:
        self.now += round(seconds * 1000)


def encoded(name: str, kind: str = "track", event: str = "Order", way: Way = Way.SERVER) -> Message:
    """A message as it is made of what a site says."""
    return encode({"messageId": name, "userId": "u", "type": kind, "event": event}, way=way)


def event(name: object = "m", *, size: int = 0, **options: Any) -> Message:
    """A message whose body has ``size`` bytes, or a few."""
    body = b'{"messageId":"%s"}' % str(name).encode()
    return Message(str(name), body[:-1] + b" " * (size - len(body)) + b"}", **options)


def pixel(name: object = "m", **options: Any) -> Message:
    return event(name, way=Way.PIXEL, provisional=True, **options)


def javascript(name: object = "m", **options: Any) -> Message:
    return event(name, way=Way.JAVASCRIPT, **options)


def claimed(buffer: Buffer, part: int = 0, lease: float = 60.0) -> Claim:
    claim = buffer.claim(part, lease=lease)
    assert claim is not None
    return claim


def waiting(buffer: Buffer) -> list[Waiting]:
    """What a flush of all parts would send now."""
    found: list[Waiting] = []
    for part in range(buffer.parts):
        with claimed(buffer, part) as claim:
            found += claim.messages()
    return found


def names(messages: Sequence[Waiting]) -> list[str]:
    return sorted(message.message_id for message in messages)


def at_once(task: Callable[[int], R], threads: int = THREADS) -> list[R]:
    """The task's answers from as many threads, which begin together."""
    start = threading.Barrier(threads)

    def run(number: int) -> R:
        try:
            start.wait(timeout=30)
            return task(number)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(run, range(threads)))


class BufferContract:
    @pytest.fixture
    def make(self) -> Make:
        raise NotImplementedError("a subclass says how its buffers are made")

    @pytest.fixture
    def buffer(self, make: Make) -> Buffer:
        return make()

    @pytest.fixture
    def clock(self, monkeypatch: pytest.MonkeyPatch) -> Clock:
        clock = Clock()
        monkeypatch.setattr(base, "time", SimpleNamespace(time_ns=lambda: clock.now * 1_000_000))
        return clock

    # put

    def test_put_is_seen_by_another_process(self, make: Make, clock: Clock) -> None:
        make().put([event("a"), event("b", way=Way.NOSCRIPT)])
        found = sorted(waiting(make()), key=lambda message: message.message_id)
        assert [(m.message_id, m.body, m.way, m.created) for m in found] == [
            ("a", event("a").body, "server", clock.now),
            ("b", event("b").body, "noscript", clock.now),
        ]

    def test_put_of_nothing_changes_nothing(self, buffer: Buffer) -> None:
        buffer.put([])
        assert buffer.depth() == 0

    @pytest.mark.parametrize(
        "text",
        [
            "{}",
            '{"title":"Größe 10 € \u2028 日本語 😀"}',
            r'{"title":"a \"quote\", a \\ and \u0000"}',
            '{"title": "  spaces  "}  ',
            '{"title":"' + "é" * 15_990 + '"}',
        ],
        ids=["empty", "unicode", "escapes", "spaces", "32 KB"],
    )
    def test_body_comes_back_byte_by_byte(self, buffer: Buffer, text: str) -> None:
        buffer.put([Message("m", text.encode())])
        assert [message.body for message in waiting(buffer)] == [text.encode()]

    @pytest.mark.parametrize("message_id", ["x" * 99, "lease#0", "dead#m", "'\";--", "~!{}"])
    def test_any_message_id_will_do(self, buffer: Buffer, message_id: str) -> None:
        buffer.put([Message(message_id, b"{}")])
        assert names(waiting(buffer)) == [message_id]
        assert buffer.claim(0) is not None

    @pytest.mark.parametrize("together", [True, False])
    @pytest.mark.parametrize(
        ("first", "second"),
        [
            (event(), event(size=100)),
            (javascript(), javascript(size=100)),
            (javascript(), pixel(size=100)),
            (event(), javascript(size=100)),
            (pixel(), pixel(size=100)),
            (pixel(), event(size=100)),
        ],
    )
    def test_second_message_of_an_id_changes_nothing(
        self, buffer: Buffer, first: Message, second: Message, together: bool
    ) -> None:
        for messages in [[first, second]] if together else [[first], [second]]:
            buffer.put(messages)
        assert [(m.body, m.way) for m in waiting(buffer)] == [(first.body, first.way.value)]
        assert buffer.depth() == 1

    @pytest.mark.parametrize("together", [True, False])
    def test_javascript_takes_the_place_of_a_held_pixel(self, buffer: Buffer, together: bool) -> None:
        first, second = pixel(hold=30), javascript(size=100)
        for messages in [[first, second]] if together else [[first], [second]]:
            buffer.put(messages)
        assert [(m.body, m.way) for m in waiting(buffer)] == [(second.body, "javascript")]
        assert buffer.depth() == 1

    @pytest.mark.parametrize("together", [True, False])
    def test_javascript_that_took_the_place_stays(self, buffer: Buffer, together: bool) -> None:
        messages = [pixel(), javascript(size=100), pixel(size=200), javascript(size=300)]
        for each in [messages] if together else [[message] for message in messages]:
            buffer.put(each)
        assert [len(m.body) for m in waiting(buffer)] == [100]

    def test_duplicate_among_new_messages_stops_none_of_them(self, buffer: Buffer) -> None:
        buffer.put([event("a")])
        buffer.put([event("b"), event("a", size=100), event("c")])
        assert names(waiting(buffer)) == ["a", "b", "c"]

    def test_held_message_is_not_sent_before_its_time(self, buffer: Buffer, clock: Clock) -> None:
        buffer.put([pixel("held", hold=2.5), event("free")])
        assert names(waiting(buffer)) == ["free"]
        assert buffer.depth() == 2
        clock.advance(2.499)
        assert names(waiting(buffer)) == ["free"]
        clock.advance(0.001)
        assert names(waiting(buffer)) == ["free", "held"]

    def test_ids_that_differ_in_case_are_two(self, buffer: Buffer) -> None:
        buffer.put([event("a1"), event("A1")])
        buffer.put([event("A1", size=100)])
        assert names(waiting(buffer)) == ["A1", "a1"]
        with claimed(buffer) as claim:
            claim.bury(list(claim.messages()), "no", 1)
        assert names([letter.message for letter in buffer.dead_letters()]) == ["A1", "a1"]

    def test_any_reason_will_do(self, buffer: Buffer) -> None:
        buffer.put([event()])
        with claimed(buffer) as claim:
            claim.bury(list(claim.messages()), "no\x00 \U0001f600\u0142 more", 1)
        (letter,) = buffer.dead_letters()
        assert letter.reason.startswith("no")
        assert letter.reason.endswith(" more")

    def test_source_is_kept_to_the_dead_letter(self, buffer: Buffer) -> None:
        buffer.put([event("a"), event("b", source="docs")])
        found = waiting(buffer)
        assert {message.message_id: message.source for message in found} == {"a": "default", "b": "docs"}
        with claimed(buffer) as claim:
            claim.bury(found, "no", 1)
        letters = [letter.message for letter in buffer.dead_letters()]
        assert {message.message_id: message.source for message in letters} == {"a": "default", "b": "docs"}

    def test_puts_at_once_all_arrive(self, make: Make) -> None:
        buffer = make(parts=2)
        at_once(lambda number: buffer.put([event(f"{number}-{i}") for i in range(5)]))
        assert names(waiting(buffer)) == sorted(f"{n}-{i}" for n in range(THREADS) for i in range(5))

    def test_same_message_at_once_waits_once(self, make: Make) -> None:
        ways = (pixel, javascript)
        at_once(lambda number: make().put([ways[number % 2](name) for name in "abc"]))
        found = waiting(make())
        assert names(found) == ["a", "b", "c"]
        assert {message.way for message in found} == {"javascript"}

    # claim, renew, release

    def test_claim_is_exclusive_until_released(self, make: Make) -> None:
        first = claimed(make())
        assert make().claim(0) is None
        first.release()
        claimed(make())

    def test_claim_of_one_part_leaves_the_others_free(self, make: Make) -> None:
        buffer = make(parts=2)
        claimed(buffer, 0)
        claimed(buffer, 1)

    def test_context_manager_releases_after_an_error(self, buffer: Buffer) -> None:
        with pytest.raises(ZeroDivisionError), claimed(buffer):
            raise ZeroDivisionError
        claimed(buffer)

    def test_claim_by_many_at_once_has_one_winner(self, make: Make) -> None:
        for _ in range(3):
            claims = at_once(lambda _: make().claim(0))
            winners = [claim for claim in claims if claim is not None]
            assert len(winners) == 1
            winners[0].release()

    def test_lease_expires_by_itself(self, make: Make, clock: Clock) -> None:
        claimed(make(), lease=10)
        clock.advance(9.999)
        assert make().claim(0) is None
        clock.advance(0.001)
        claimed(make())

    def test_long_lease_binds_who_claims_a_short_one(self, make: Make, clock: Clock) -> None:
        claimed(make(), lease=300)
        clock.advance(200)
        assert make().claim(0, lease=1) is None

    def test_lease_of_a_clock_that_is_years_ahead_binds_nobody(self, make: Make, clock: Clock) -> None:
        clock.advance(10 * 365 * 86_400)
        claimed(make())
        clock.advance(-10 * 365 * 86_400)
        claimed(make())

    def test_renewed_lease_lasts_from_then(self, make: Make, clock: Clock) -> None:
        claim = claimed(make(), lease=10)
        clock.advance(8)
        claim.renew()
        clock.advance(8)
        assert make().claim(0) is None
        clock.advance(2)
        claimed(make())

    def test_expired_lease_that_nobody_took_can_be_renewed(self, make: Make, clock: Clock) -> None:
        claim = claimed(make(), lease=10)
        clock.advance(60)
        claim.renew()
        assert make().claim(0) is None

    def test_renew_after_another_took_over_is_lost(self, make: Make, clock: Clock) -> None:
        claim = claimed(make(), lease=10)
        clock.advance(10)
        claimed(make())
        with pytest.raises(LeaseLost, match="part 0"):
            claim.renew()

    def test_renew_after_release_is_lost(self, buffer: Buffer) -> None:
        claim = claimed(buffer)
        claim.release()
        with pytest.raises(LeaseLost):
            claim.renew()

    def test_former_owner_can_neither_release_nor_back_off(self, make: Make, clock: Clock) -> None:
        former = claimed(make(), lease=10)
        clock.advance(10)
        owner = claimed(make(), lease=10)
        former.release()
        former.back_off(100)
        assert make().claim(0) is None
        owner.renew()
        owner.release()
        assert claimed(make()).failures == 0

    def test_lease_of_the_spool_is_its_own(self, make: Make) -> None:
        with claimed(make(), SPOOL):
            assert make().claim(SPOOL) is None
            claimed(make(), 0)
        claimed(make(), SPOOL)

    # ack, bury, back_off, doubt

    def test_ack_forgets_what_was_delivered_only(self, make: Make) -> None:
        make().put([event(name) for name in "abc"])
        with claimed(make()) as claim:
            claim.ack([message for message in claim.messages() if message.message_id != "b"])
            claim.ack([])
        assert names(waiting(make())) == ["b"]

    def test_ack_twice_changes_nothing(self, buffer: Buffer) -> None:
        buffer.put([event("a"), event("b")])
        with claimed(buffer) as claim:
            batch = [message for message in claim.messages() if message.message_id == "a"]
            claim.ack(batch)
            claim.ack(batch)
        assert buffer.depth() == 1

    def test_id_of_a_delivered_message_may_wait_again(self, buffer: Buffer) -> None:
        buffer.put([event()])
        with claimed(buffer) as claim:
            claim.ack(list(claim.messages()))
        buffer.put([event(size=100)])
        assert [len(message.body) for message in waiting(buffer)] == [100]

    def test_buried_messages_are_dead_letters_in_their_order(self, make: Make, clock: Clock) -> None:
        with claimed(make()) as claim:
            for name in "bca":
                clock.advance(1)
                make().put([event(name, size=100, way=Way.PIXEL)])
                claim.bury(list(claim.messages()), f"no {name}", 1)
        letters = list(make().dead_letters())
        assert [(d.message.message_id, d.message.body, d.message.way, d.reason, d.attempts) for d in letters] == [
            (name, event(name, size=100).body, "pixel", f"no {name}", 1) for name in "bca"
        ]
        times = [clock.now - 2000, clock.now - 1000, clock.now]
        assert [d.message.created for d in letters] == [d.buried for d in letters] == times
        assert make().depth() == 0

    def test_dead_letters_are_counted_from_a_moment_on(self, make: Make, clock: Clock) -> None:
        buffer = make()
        buffer.bury([event("1")], "no")
        clock.advance(60)
        buffer.bury([event("2"), event("3")], "no")
        assert [make().dead_letter_count(since) for since in (0, clock.now, clock.now + 1)] == [3, 2, 0]

    def test_bury_of_many_leaves_the_others(self, buffer: Buffer) -> None:
        buffer.put([event(number) for number in range(60)])
        with claimed(buffer) as claim:
            batch = list(claim.messages())
            claim.bury(batch[:55], "x" * 10_000, 1)
        assert names([letter.message for letter in buffer.dead_letters()]) == names(batch[:55])
        assert {letter.reason for letter in buffer.dead_letters()} == {"x" * 200}
        assert names(waiting(buffer)) == names(batch[55:])

    def test_dead_letters_that_are_removed_are_gone_and_the_others_stay(self, buffer: Buffer) -> None:
        buffer.put([event(name) for name in "abc"])
        with claimed(buffer) as claim:
            claim.bury(list(claim.messages()), "no", 7)
        assert {letter.attempts for letter in buffer.dead_letters()} == {7}
        assert buffer.remove_dead_letters(["a", "c"]) == 2
        assert [letter.message.message_id for letter in buffer.dead_letters()] == ["b"]
        assert buffer.remove_dead_letters([]) == 0

    def test_bury_of_the_same_id_again_is_one_letter(self, buffer: Buffer) -> None:
        for _ in range(2):
            buffer.put([event()])
            with claimed(buffer) as claim:
                claim.bury(list(claim.messages()), "no", 1)
        assert [letter.message.message_id for letter in buffer.dead_letters()] == ["m"]
        assert buffer.depth() == 0

    def test_message_can_be_buried_without_that_it_waits(self, buffer: Buffer) -> None:
        buffer.put([event("waits")])
        buffer.bury([event("bad", source="docs")], "plan: no")
        (letter,) = buffer.dead_letters()
        found = letter.message
        assert (found.message_id, found.source, letter.reason, letter.attempts) == ("bad", "docs", "plan: no", 0)
        assert found.body == event("bad").body
        assert names(waiting(buffer)) == ["waits"]

    def test_back_off_keeps_everybody_away_until_then(self, make: Make, clock: Clock) -> None:
        claimed(make()).back_off(5)
        clock.advance(4.999)
        assert make().claim(0) is None
        clock.advance(0.001)
        claimed(make())

    def test_back_off_is_300_seconds_at_most(self, make: Make, clock: Clock) -> None:
        claimed(make()).back_off(100_000)
        clock.advance(299)
        assert make().claim(0) is None
        clock.advance(1)
        claimed(make())

    def test_back_off_of_a_clock_that_is_years_ahead_binds_nobody(self, make: Make, clock: Clock) -> None:
        clock.advance(10 * 365 * 86_400)
        claimed(make()).back_off(60)
        clock.advance(-10 * 365 * 86_400)
        claimed(make())

    def test_failures_count_until_a_delivery(self, make: Make, clock: Clock) -> None:
        make().put([event("a"), event("b")])
        for failures in range(3):
            claim = claimed(make())
            assert claim.failures == failures
            claim.back_off(1)
            clock.advance(1)
        with claimed(make()) as claim:
            assert claim.failures == 3
            claim.ack(list(claim.messages())[:1])
            assert claim.failures == 0
        assert claimed(make()).failures == 0

    def test_back_off_lets_go_of_the_part(self, buffer: Buffer) -> None:
        with claimed(buffer) as claim:
            claim.back_off(0)
            claimed(buffer)

    def test_doubts_outlive_the_claim_until_the_message_has_left(self, make: Make, clock: Clock) -> None:
        make().put([event(name) for name in "abc"])
        first = clock.now
        with claimed(make()) as claim:
            assert claim.doubts == {}
            claim.doubt([message for message in claim.messages() if message.message_id != "c"])
        clock.advance(60)
        with claimed(make()) as claim:
            assert claim.doubts == {"a": first, "b": first}
            claim.doubt(list(claim.messages()))
        with claimed(make()) as claim:
            assert claim.doubts == {"a": first, "b": first, "c": clock.now}
            by_name = {message.message_id: message for message in claim.messages()}
            claim.ack([by_name["a"]])
            claim.bury([by_name["b"]], "no", 1)
            assert claim.doubts == {"c": clock.now}
        with claimed(make()) as claim:
            assert claim.doubts == {"c": clock.now}
            claim.ack(list(claim.messages()))
        assert claimed(make()).doubts == {}

    def test_doubts_of_a_whole_batch_are_kept(self, make: Make) -> None:
        batch = [Waiting(number, f"{number:099}", b"{}", "server", 1) for number in range(2_500)]
        with claimed(make()) as claim:
            claim.doubt(batch)
        assert claimed(make()).doubts == claim.doubts != {}

    def test_former_owner_changes_no_doubts(self, make: Make, clock: Clock) -> None:
        make().put([event("a")])
        former = claimed(make(), lease=10)
        batch = list(former.messages())
        clock.advance(10)
        with claimed(make()):
            former.doubt(batch)
        assert claimed(make()).doubts == {}

    # batches

    def test_batches_are_for_one_source_each(self, buffer: Buffer) -> None:
        buffer.put([event(number, source=f"source-{number % 3}") for number in range(9)])
        with claimed(buffer) as claim:
            batches = list(claim.batches(Limits(max_count=2)))
        assert sorted(len(batch) for batch in batches) == [1, 1, 1, 2, 2, 2]
        assert all(len({message.source for message in batch}) == 1 for batch in batches)

    def test_batches_are_full_to_the_byte(self, buffer: Buffer) -> None:
        buffer.put([event(number, size=100) for number in range(7)])
        exact = 50 + 3 * 101
        with claimed(buffer) as claim:
            assert [len(b) for b in claim.batches(Limits(max_bytes=exact, envelope=50))] == [3, 3, 1]
            assert [len(b) for b in claim.batches(Limits(max_bytes=exact - 1, envelope=50))] == [2, 2, 2, 1]

    def test_batches_stop_at_the_count(self, buffer: Buffer) -> None:
        buffer.put([event(number) for number in range(5)])
        with claimed(buffer) as claim:
            assert [len(batch) for batch in claim.batches(Limits(max_count=2))] == [2, 2, 1]

    def test_message_past_the_limit_goes_alone(self, buffer: Buffer) -> None:
        buffer.put([event("small"), event("large", size=1000), event("other")])
        with claimed(buffer) as claim:
            batches = list(claim.batches(Limits(max_bytes=500)))
        assert ["large"] in [names(batch) for batch in batches]
        assert names([message for batch in batches for message in batch]) == ["large", "other", "small"]

    def test_no_batch_of_an_empty_part(self, buffer: Buffer) -> None:
        with claimed(buffer) as claim:
            assert list(claim.batches()) == []

    def test_oldest_come_first(self, buffer: Buffer, clock: Clock) -> None:
        for name in "cabed":
            buffer.put([event(name)])
            clock.advance(1)
        with claimed(buffer) as claim:
            assert [message.message_id for message in claim.messages()] == list("cabed")

    def test_pages_are_read_on_while_messages_are_acknowledged(self, buffer: Buffer) -> None:
        """520 messages of 4,200 bytes: past what a database or DynamoDB reads in one go."""
        at_once(lambda number: buffer.put([event(f"{number}-{i}", size=4200) for i in range(65)]))
        sent: Counter[str] = Counter()
        with claimed(buffer) as claim:
            for batch in claim.batches(Limits(max_bytes=250_000)):
                assert sum(len(message.body) + 1 for message in batch) <= 250_000
                sent.update(message.message_id for message in batch)
                claim.ack(batch)
        assert sent == Counter(f"{n}-{i}" for n in range(THREADS) for i in range(65))
        assert buffer.depth() == 0

    # parts

    def test_each_message_is_in_one_part(self, make: Make) -> None:
        buffer = make(parts=4)
        buffer.put([event(number) for number in range(80)])
        parts = [names(list(claimed(buffer, part).messages())) for part in range(4)]
        assert sum(bool(part) for part in parts) > 1
        assert sorted(name for part in parts for name in part) == sorted(str(number) for number in range(80))

    @pytest.mark.parametrize("parts", [1, 3, 9])
    def test_change_of_parts_strands_nothing(self, make: Make, parts: int) -> None:
        make(parts=5).put([event(number) for number in range(40)])
        assert names(waiting(make(parts=parts))) == sorted(str(number) for number in range(40))

    # figures

    def test_depth_and_oldest(self, make: Make, clock: Clock) -> None:
        buffer = make(parts=3)
        assert (buffer.depth(), buffer.oldest()) == (0, None)
        start = clock.now
        for name in "bac":
            buffer.put([event(name)])
            clock.advance(1)
        assert (buffer.depth(), buffer.oldest()) == (3, start)
        for part in range(3):
            with claimed(buffer, part) as claim:
                claim.ack([message for message in claim.messages() if message.message_id == "b"])
        assert (buffer.depth(), buffer.oldest()) == (2, start + 1000)

    def test_counts_add_up(self, make: Make) -> None:
        accepted, refused, later = (HOUR, "pixel", "accepted"), (HOUR, "pixel", "bot"), (HOUR + 3600, "pixel", "bot")
        make().add_outcome_counts({accepted: 2, refused: 1})
        make().add_outcome_counts({accepted: 40, later: 7})
        make().add_outcome_counts({})
        assert make().outcome_counts() == {accepted: 42, refused: 1, later: 7}
        assert make().outcome_counts(HOUR) == make().outcome_counts()
        assert make().outcome_counts(HOUR + 1) == {later: 7}

    def test_counts_of_many_at_once_add_up(self, make: Make) -> None:
        keys = [(HOUR, way.value, "accepted") for way in Way]
        at_once(lambda number: make().add_outcome_counts(dict.fromkeys(keys, number)))
        assert make().outcome_counts() == dict.fromkeys(keys, sum(range(THREADS)))

    def test_counts_dead_letters_and_messages_do_not_mix(self, buffer: Buffer) -> None:
        buffer.put([event("a"), event("b")])
        buffer.add_outcome_counts({(HOUR, "pixel", "accepted"): 1})
        with claimed(buffer) as claim:
            claim.bury([message for message in claim.messages() if message.message_id == "a"], "no", 1)
        assert buffer.depth() == 1
        assert len(list(buffer.dead_letters())) == 1
        assert len(buffer.outcome_counts()) == 1

    def test_delivered_messages_are_counted_by_event_hour_and_way(self, make: Make, clock: Clock) -> None:
        buffer = make()
        buffer.put([encoded("1"), encoded("2"), encoded("3", event="order"), encoded("4", "page", way=Way.PIXEL)])
        clock.advance(3_600)
        buffer.put([encoded("5"), encoded("6", event="Ordr \u00e9\u4e2d#\x00")])
        with claimed(buffer) as claim:
            claim.ack([message for message in claim.messages() if message.message_id != "2"])
        later = HOUR + 3_600
        counts = {
            EventKey(HOUR, "server", "track", "Order"): 1,
            EventKey(HOUR, "server", "track", "order"): 1,
            EventKey(HOUR, "pixel", "page"): 1,
            EventKey(later, "server", "track", "Order"): 1,
            EventKey(later, "server", "track", "Ordr \u00e9\u4e2d#?"): 1,
        }
        assert make().event_counts() == counts
        with claimed(buffer) as claim:
            claim.ack(list(claim.messages()))
        counts[EventKey(HOUR, "server", "track", "Order")] = 2
        assert make().event_counts(HOUR) == counts
        assert make().event_counts(HOUR + 1) == {key: number for key, number in counts.items() if key.hour == later}

    def test_what_is_buried_or_discarded_is_not_counted(self, buffer: Buffer) -> None:
        buffer.put([encoded("1"), encoded("2")])
        with claimed(buffer) as claim:
            claim.bury([m for m in claim.messages() if m.message_id == "1"], "no", 1)
        buffer.discard(["2"])
        assert buffer.event_counts() == {}

    def test_counts_can_be_summed_up_by_steps_ways_and_types(self, make: Make) -> None:
        since = HOUR - 5 * 3600
        for hours, counts in enumerate([{"Order": 1}, {"Order": 2, "": 3}, {}, {"Order": 4, "Größe 1%": 5}]):
            hour = since + hours * 3600
            make().set_event_counts(
                hour, {EventKey(hour, "pixel", "track" if name else "page", name): n for name, n in counts.items()}
            )
        make().set_event_counts(since - 3600, {EventKey(since - 3600, "pixel", "page"): 9})
        later = since + 2 * 3600
        assert make().way_counts(since, 2 * 3600) == {
            (since, "pixel", "track"): 3,
            (since, "pixel", "page"): 3,
            (later, "pixel", "track"): 9,
        }
        assert make().way_counts(since)[later + 3600, "pixel", "track"] == 9
        assert make().way_counts(HOUR) == {}

    def test_counts_of_an_hour_can_be_replaced(self, make: Make, clock: Clock) -> None:
        buffer = make()
        buffer.put([encoded("1"), encoded("2", event="Sign-up")])
        with claimed(buffer) as claim:
            claim.ack(list(claim.messages()))
        right = {EventKey(HOUR, "server", "track", "Order"): 7}
        buffer.set_event_counts(HOUR, right)
        buffer.set_event_counts(HOUR - 3_600, {})
        assert make().event_counts() == right

    def test_who_invents_names_cannot_fill_the_counts(self) -> None:
        names = [f"name {number}" for number in range(MAX_EVENTS)]
        counted = EventCounter().count(
            [
                Waiting(0, "", encoded("m", event=name).body, "server", HOUR * 1000)
                for name in [*names, "x", "y", *names]
            ]
        )
        assert counted[EventKey(HOUR, "server", "track", OTHERS)] == 2
        assert counted[EventKey(HOUR, "server", "track", "name 7")] == 2

    def test_waiting_messages_are_all_there_while_a_part_is_claimed(self, make: Make) -> None:
        buffer = make(parts=3)
        buffer.put([event(number, hold=60) for number in range(30)])
        with claimed(buffer, 1):
            assert names(list(make(parts=3).waiting_messages())) == sorted(str(number) for number in range(30))

    def test_discarded_messages_are_gone_and_the_others_stay(self, make: Make) -> None:
        buffer = make(parts=2)
        buffer.put([event(number) for number in range(9)])
        assert buffer.discard(["3", "4"]) == 2
        assert names(list(buffer.waiting_messages())) == list("0125678")
        assert buffer.discard([]) == 0

    def test_leases_tell_who_flushes_and_what_went_wrong(self, make: Make, clock: Clock) -> None:
        buffer = make(parts=2)
        assert buffer.leases() == []
        claim = claimed(buffer, 1)
        assert make(parts=2).leases() == [LeaseState(1, claim.owner, clock.now + 60_000)]
        claim.back_off(10, "HTTP 503\n\x00\u00e9" + "x" * 300)
        error = "HTTP 503???" + "x" * 189
        failed = LeaseState(1, not_before=clock.now + 10_000, failures=1, error=error, error_at=clock.now)
        assert make(parts=2).leases() == [failed]
        clock.advance(11)
        with claimed(buffer, 1) as claim:
            claim.renew()
        with pytest.raises(ZeroDivisionError), claimed(buffer, 0):
            raise ZeroDivisionError
        states = make(parts=2).leases()
        assert [state.part for state in states] == [0, 1]
        assert [state.flushed for state in states] == [0, clock.now]
        assert (states[1].failures, states[1].error, states[1].owner) == (1, error, "")

    def test_failures_without_a_claim_are_noted(self, make: Make, clock: Clock) -> None:
        make().note_failure(ARCHIVE, "no space", 25)
        clock.advance(5)
        make().note_failure(ARCHIVE, "no route", 5)
        assert make().leases() == [LeaseState(ARCHIVE, failures=30, error="no route", error_at=clock.now)]

    def test_check_finds_nothing(self, buffer: Buffer) -> None:
        assert buffer.check() == []
