"""Properties of batching, and of the search for a poison message, for whatever messages there are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from segment_fallback.buffers import buffers
from segment_fallback.buffers.base import FAR_AHEAD, Claim, Limits, Waiting, is_due
from segment_fallback.conf import Settings, Source
from segment_fallback.delivery import flush as delivery
from segment_fallback.delivery.flush import flush
from segment_fallback.delivery.transport import Answer, Transport, Verdict
from segment_fallback.message import encode
from segment_fallback.models import DeadLetter, WaitingMessage
from segment_fallback.testing import LocalSegment

if TYPE_CHECKING:
    from pytest_django import Settings as DjangoSettings


class ListClaim(Claim):
    """A claim on a list: only ``messages`` and what is made of it are of interest here."""

    def __init__(self, messages: Sequence[Waiting]) -> None:
        super().__init__(0, 60)
        self._messages = messages

    def messages(self) -> Iterator[Waiting]:
        return iter(self._messages)

    def _unused(self, *args: Any, **more: Any) -> Any:
        raise NotImplementedError

    renew = ack = bury = save_doubts = back_off = release = _unused


@st.composite
def waiting(draw: st.DrawFn) -> list[Waiting]:
    """Messages of three sources, from tiny to larger than any batch."""
    kinds = draw(st.lists(st.tuples(st.integers(2, 60) | st.just(700), st.sampled_from("abc")), max_size=60))
    return [
        Waiting(number, str(number), b"x" * size, "server", number, source)
        for number, (size, source) in enumerate(kinds)
    ]


LIMITS = st.builds(Limits, max_bytes=st.integers(60, 500), max_count=st.integers(1, 12), envelope=st.integers(0, 50))


def size(batch: Sequence[Waiting], limits: Limits) -> int:
    """Bytes of the batch on its way: a comma after each message at most."""
    return limits.envelope + sum(len(message.body) + 1 for message in batch)


@given(waiting(), LIMITS)
def test_batches_drop_nothing_double_nothing_and_keep_the_order_of_each_source(
    messages: list[Waiting], limits: Limits
) -> None:
    batches = list(ListClaim(messages).batches(limits))
    assert all(len({message.source for message in batch}) == 1 for batch in batches)
    for source in "abc":
        sent = [message for batch in batches for message in batch if message.source == source]
        assert sent == [message for message in messages if message.source == source]


@given(waiting(), LIMITS)
def test_batches_keep_to_the_limits_unless_one_message_alone_is_larger(messages: list[Waiting], limits: Limits) -> None:
    for batch in ListClaim(messages).batches(limits):
        assert 1 <= len(batch) <= limits.max_count
        assert len(batch) == 1 or size(batch, limits) <= limits.max_bytes


@given(waiting(), LIMITS)
def test_batches_are_as_full_as_the_limits_allow_but_for_a_few_that_others_overtake(
    messages: list[Waiting], limits: Limits
) -> None:
    last: dict[str, list[Waiting]] = {}
    full = overtaken = 0
    for batch in ListClaim(messages).batches(limits):
        before = last.get(batch[0].source)
        if before is not None:
            joined = [*before, batch[0]]
            is_full = len(joined) > limits.max_count or size(joined, limits) > limits.max_bytes
            full, overtaken = full + is_full, overtaken + (not is_full)
        last[batch[0].source] = batch
    assert overtaken <= (full + len(last)).bit_length()


def test_few_messages_of_a_source_do_not_wait_for_the_end_of_anothers_backlog() -> None:
    sources = ["few", "late", *["many"] * 100, "few", *["many"] * 100]
    messages = [Waiting(number, str(number), b"x", "server", number, source) for number, source in enumerate(sources)]
    batches = [(batch[0].source, len(batch)) for batch in ListClaim(messages).batches(Limits(max_count=10))]
    many = ("many", 10)
    assert batches == [many, ("few", 1), many, ("late", 1), *[many] * 8, ("few", 1), *[many] * 10]


@given(st.lists(st.binary(min_size=1, max_size=50), max_size=30), st.text(max_size=20))
def test_size_of_a_batch_is_never_less_than_that_of_its_request(bodies: list[bytes], write_key: str) -> None:
    transport = Transport(Source("default", write_key, "https://api.segment.io"), Settings())
    batch = [Waiting(number, "", body, "server", 0) for number, body in enumerate(bodies)]
    assert len(transport._body(bodies)) <= size(batch, Limits(envelope=max(transport.envelope, Limits().envelope)))


@given(st.integers(0, 2**45), st.integers(0, 2**45))
@example(0, 2**45)
def test_message_is_held_for_an_hour_at_most(not_before: int, now: int) -> None:
    assert is_due(not_before, now) is not (0 < not_before - now <= FAR_AHEAD * 1000)


# The search for what Segment refuses.


@pytest.mark.django_db
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.booleans(), min_size=1, max_size=40))
@example([True] * 20)
@example([False] * 19 + [True])
def test_exactly_the_poison_is_buried_and_all_else_delivered(local_segment: LocalSegment, poison: list[bool]) -> None:
    WaitingMessage.objects.all().delete()
    DeadLetter.objects.all().delete()
    local_segment.clear()
    local_segment.answer_normally()
    local_segment.refuse(lambda message: poison[int(message["messageId"])])
    put(len(poison))
    report = flush()

    good = [str(number) for number, bad in enumerate(poison) if not bad]
    bad = [str(number) for number, bad in enumerate(poison) if bad]
    assert [received.message_id for received in local_segment.messages] == good
    assert [letter.message.message_id for letter in buffers["default"].dead_letters()] == bad
    assert (report.delivered, report.buried, report.trouble) == (len(good), len(bad), "")
    assert buffers["default"].depth() == 0
    # Halving costs two requests for each level above each poison message.
    assert len(local_segment.requests) <= 1 + 2 * len(bad) * math.ceil(math.log2(len(poison)))


@pytest.mark.django_db
def test_search_ends_when_the_flush_is_told_to_and_loses_nothing(
    local_segment: LocalSegment, settings: DjangoSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    local_segment.refuse(lambda _: True)
    put(64)
    answers = 0
    send = Transport.send

    def send_until_told_to_end(self: Transport, bodies: Sequence[bytes], *, retry_count: int = 0) -> Answer:
        nonlocal answers
        answers += 1
        if answers == 10:
            delivery.stopping.set()
        answer = send(self, bodies, retry_count=retry_count)
        assert answer.verdict is Verdict.REFUSED
        return answer

    monkeypatch.setattr(Transport, "send", send_until_told_to_end)
    try:
        report = flush()
    finally:
        delivery.stopping.clear()
    assert answers == 10
    assert report.unfinished
    assert report.buried > 0
    assert buffers["default"].depth() == 64 - report.buried


def put(number: int) -> None:
    """Messages whose ids count from 0."""
    events = ({"type": "page", "messageId": str(n), "anonymousId": "a"} for n in range(number))
    buffers["default"].put([encode(event) for event in events])
