"""Several batches on their way at once: each is settled by its own answer, whatever becomes of the others."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from segment_fallback.buffers import buffers
from segment_fallback.buffers.base import Limits, now_ms
from segment_fallback.buffers.database_claim import DatabaseClaim
from segment_fallback.conf import get_settings, get_source
from segment_fallback.delivery import flush as delivery
from segment_fallback.delivery.archiving import JOINED_BATCHES, Archiving
from segment_fallback.delivery.flush import flush
from segment_fallback.delivery.in_flight import Flight, InFlight
from segment_fallback.delivery.transport import Answer as TransportAnswer
from segment_fallback.delivery.transport import Transport, Verdict
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.message import encode
from segment_fallback.models import DeadLetter, Lease, WaitingMessage
from segment_fallback.signals import delivered
from segment_fallback.testing import Answer, LocalSegment

if TYPE_CHECKING:
    from pytest_django import Settings

pytestmark = pytest.mark.django_db

ROOT = Path(__file__).parents[2]
IN_A_BATCH = 15
"""Messages of 30,000 bytes that fit in one."""
PATIENCE = 20.0


@pytest.fixture(autouse=True)
def segment(local_segment: LocalSegment, settings: Settings) -> LocalSegment:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "SEND_TIMEOUT": 5, "SENDS_IN_FLIGHT": 4}
    return local_segment


def put_batches(number: int) -> None:
    """So many batches wait."""
    names = [f"{batch}-{n}" for batch in range(number) for n in range(IN_A_BATCH)]
    events = (
        {"type": "page", "messageId": name, "anonymousId": "a", "properties": {"text": "x" * 30_000}} for name in names
    )
    buffers["default"].put([encode(event) for event in events])


def waiting() -> list[str]:
    """The batches of which messages wait, in order."""
    return sorted({name.partition("-")[0] for name in WaitingMessage.objects.values_list("message_id", flat=True)})


def batch_of(bodies: Sequence[bytes]) -> int:
    """The number of the batch to which these belong."""
    return int(bodies[0].partition(b'"messageId":"')[2].partition(b"-")[0])


Script = Callable[[int], None]


@pytest.fixture
def before_sending(monkeypatch: pytest.MonkeyPatch) -> Callable[[Script], None]:
    """Let a function be called with a batch's number, in the thread that sends it, before it is sent."""
    send = Transport.send

    def install(script: Script) -> None:
        def scripted(self: Transport, bodies: Sequence[bytes], *, retry_count: int = 0) -> TransportAnswer:
            script(batch_of(bodies))
            return send(self, bodies, retry_count=retry_count)

        monkeypatch.setattr(Transport, "send", scripted)

    return install


class Gate:
    """Where batches are held, until there are so many of them."""

    def __init__(self, number: int) -> None:
        self._barrier = threading.Barrier(number)

    def __call__(self, batch: int) -> None:
        self._barrier.wait(PATIENCE)


@pytest.fixture
def when_delivered() -> Iterator[Callable[[Callable[[], object]], None]]:
    """Let a function be called in the flusher's own thread whenever a batch was delivered."""
    connected: list[Callable[..., None]] = []

    def install(act: Callable[[], object]) -> None:
        def receive(**kwargs: Any) -> None:
            act()

        delivered.connect(receive)
        connected.append(receive)

    yield install
    for each in connected:
        delivered.disconnect(each)


def test_so_many_are_in_flight_and_no_more(before_sending: Callable[[Script], None]) -> None:
    put_batches(8)
    lock, flying, most, gate = threading.Lock(), 0, 0, Gate(4)

    def count(batch: int) -> None:
        nonlocal flying, most
        with lock:
            flying += 1
            most = max(most, flying)
        gate(batch)  # ends only if four come here at once
        time.sleep(0.05)
        with lock:
            flying -= 1

    before_sending(count)
    assert flush().batches == 8
    assert most == 4


def test_slow_first_answer_keeps_no_other_from_being_acknowledged(
    before_sending: Callable[[Script], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_batches(6)
    others = threading.Event()

    def hold_the_first(batch: int) -> None:
        if batch == 0:
            assert others.wait(PATIENCE)

    left: list[list[str]] = []
    ack = DatabaseClaim.ack

    def acknowledge(self: DatabaseClaim, batch: Sequence[Any]) -> None:
        ack(self, batch)
        left.append(waiting())
        if left[-1] == ["0"]:
            others.set()

    before_sending(hold_the_first)
    monkeypatch.setattr(DatabaseClaim, "ack", acknowledge)
    report = flush()
    assert ["0"] in left, "the others were acknowledged while the first one's answer was outstanding"
    assert (report.batches, waiting()) == (6, [])


def test_acknowledgements_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    put_batches(JOINED_BATCHES + 1)
    acknowledged: list[int] = []
    ack = DatabaseClaim.ack

    def acknowledge(self: DatabaseClaim, batch: Sequence[Any]) -> None:
        acknowledged.append(len(batch))
        ack(self, batch)

    monkeypatch.setattr(DatabaseClaim, "ack", acknowledge)
    claim = claimed()
    archiving = Archiving(claim)
    for batch in list(claim.batches(Limits())):
        archiving.add(batch)
    assert acknowledged == [JOINED_BATCHES * IN_A_BATCH]
    archiving.settle()
    assert acknowledged == [JOINED_BATCHES * IN_A_BATCH, IN_A_BATCH]
    assert sum(buffers["default"].event_counts().values()) == (JOINED_BATCHES + 1) * IN_A_BATCH
    claim.release()


def test_429_stops_all_further_sends_and_those_in_flight_count(
    segment: LocalSegment, before_sending: Callable[[Script], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_batches(12)
    segment.answer_with(Answer(status=429, headers={"Retry-After": "120"}))
    gate, heard = Gate(4), threading.Event()
    stop = delivery.Flusher._stop

    def stop_and_tell(self: delivery.Flusher, source: str, answer: TransportAnswer) -> None:
        stop(self, source, answer)
        heard.set()

    def let_the_first_go_ahead(batch: int) -> None:
        gate(batch)
        assert batch == 0 or heard.wait(PATIENCE)

    monkeypatch.setattr(delivery.Flusher, "_stop", stop_and_tell)
    before_sending(let_the_first_go_ahead)
    report = flush()

    assert len(segment.requests) == 4
    assert sorted(request.status or 0 for request in segment.requests) == [200, 200, 200, 429]
    assert (report.batches, len(waiting())) == (3, 9)
    lease = Lease.objects.get()
    assert (lease.failures, lease.doubts) == (1, "")
    assert 100_000 < lease.not_before - now_ms() <= 120_000
    assert flush().busy == 1


def test_longest_wait_that_segment_asks_for_counts(
    segment: LocalSegment, before_sending: Callable[[Script], None]
) -> None:
    put_batches(4)
    for seconds in ("1", "200", "20"):
        segment.answer_with(Answer(status=429, headers={"Retry-After": seconds}))
    before_sending(Gate(4))
    assert "429" in flush().trouble
    assert 190_000 < Lease.objects.get().not_before - now_ms() <= 200_000


def test_all_that_got_no_clear_answer_is_remembered(
    segment: LocalSegment, before_sending: Callable[[Script], None]
) -> None:
    put_batches(6)
    segment.answer_with(Answer.cut(received=True), times=4)
    before_sending(Gate(4))
    assert flush().delivered == 0
    received = {str(message.message_id) for message in segment.messages}
    claim = claimed()
    assert set(claim.doubts) == received
    assert len(received) == 4 * IN_A_BATCH
    claim.release()


def claimed() -> DatabaseClaim:
    Lease.objects.update(not_before=0)
    claim = buffers["default"].claim(0)
    assert isinstance(claim, DatabaseClaim)
    return claim


def test_after_a_failure_one_batch_tries_it_alone(
    segment: LocalSegment, before_sending: Callable[[Script], None]
) -> None:
    put_batches(6)
    segment.answer_with(Answer(status=503), times=4)
    before_sending(Gate(4))
    flush()
    assert len(segment.requests) == 4
    Lease.objects.update(not_before=0)
    segment.answer_with(Answer(status=503))
    before_sending(lambda batch: None)
    assert "503" in flush().trouble
    assert len(segment.requests) == 5

    Lease.objects.update(not_before=0)
    assert flush().trouble == ""
    assert (waiting(), Lease.objects.get().failures) == ([], 0)


def test_lease_lost_with_others_in_flight_acknowledges_them_and_sends_no_more(
    segment: LocalSegment,
    before_sending: Callable[[Script], None],
    when_delivered: Callable[[Callable[[], object]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(delivery, "FRESH", 0)
    put_batches(12)
    before_sending(Gate(4))
    when_delivered(lambda: Lease.objects.update(owner="another"))
    report = flush()

    assert "another flusher" in report.trouble
    assert (len(segment.requests), report.batches, len(waiting())) == (4, 4, 8)
    assert Lease.objects.get().owner == "another"


def test_lease_is_renewed_while_answers_are_outstanding(
    settings: Settings, before_sending: Callable[[Script], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "SEND_TIMEOUT": 1}
    put_batches(1)
    before_sending(lambda batch: time.sleep(6))
    renewed: list[float] = []
    renew = DatabaseClaim.renew

    def renew_and_note(self: DatabaseClaim) -> None:
        renewed.append(time.monotonic())
        renew(self)

    monkeypatch.setattr(DatabaseClaim, "renew", renew_and_note)
    assert flush().delivered == IN_A_BATCH
    assert len(renewed) >= 4
    assert max(after - before for before, after in itertools.pairwise(renewed)) < 4, "that long it lasts"


def test_buffer_that_fails_with_others_in_flight_loses_none_of_their_answers(
    segment: LocalSegment, before_sending: Callable[[Script], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    put_batches(5)
    gate, failed = Gate(4), threading.Event()

    def let_the_first_go_ahead(batch: int) -> None:
        gate(batch)
        assert batch == 0 or failed.wait(PATIENCE)

    before_sending(let_the_first_go_ahead)
    segment.answer_with(Answer.cut(received=True))
    doubt = DatabaseClaim.doubt

    def fail_once(self: DatabaseClaim, batch: Sequence[Any]) -> None:
        monkeypatch.setattr(DatabaseClaim, "doubt", doubt)
        failed.set()
        raise BufferUnavailable("the database 'default' failed: for this test")

    monkeypatch.setattr(DatabaseClaim, "doubt", fail_once)
    report = flush()
    assert "for this test" in report.trouble
    # One could not be noted; the three beside it were acknowledged, and the fifth was never sent.
    assert (report.batches, len(waiting()), len(segment.requests)) == (3, 2, 4)


def test_refused_batch_among_delivered_ones_costs_the_poison_only(
    segment: LocalSegment, before_sending: Callable[[Script], None]
) -> None:
    put_batches(4)
    segment.refuse(lambda message: message["messageId"] in ("1-3", "1-4", "2-0"))
    report = flush()
    assert (report.delivered, report.buried, report.trouble) == (4 * IN_A_BATCH - 3, 3, "")
    assert set(DeadLetter.objects.values_list("message_id", flat=True)) == {"1-3", "1-4", "2-0"}
    assert len(segment.messages) == len(segment.distinct) == report.delivered
    assert waiting() == []


def test_stop_lets_those_in_flight_end_and_sends_no_more(
    segment: LocalSegment, before_sending: Callable[[Script], None]
) -> None:
    put_batches(12)
    gate = Gate(4)

    def stop(batch: int) -> None:
        gate(batch)
        delivery.stopping.set()

    before_sending(stop)
    try:
        report = flush()
    finally:
        delivery.stopping.clear()
    assert (len(segment.requests), report.batches, len(waiting())) == (4, 4, 8)
    assert Lease.objects.get().owner == ""


def test_there_is_room_for_the_doubts_about_all_that_is_in_flight(
    segment: LocalSegment, before_sending: Callable[[Script], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DatabaseClaim, "max_doubts", 2 * IN_A_BATCH)
    put_batches(6)
    lock, flying, most, gate = threading.Lock(), 0, 0, Gate(2)

    def count(batch: int) -> None:
        nonlocal flying, most
        with lock:
            flying += 1
            most = max(most, flying)
        gate(batch)
        with lock:
            flying -= 1

    before_sending(count)
    assert flush().batches == 6
    assert most == 2


def test_without_threads_it_is_sent_all_the_same(segment: LocalSegment) -> None:
    put_batches(1)
    pool = ThreadPoolExecutor()
    pool.shutdown()
    in_flight, source = InFlight(pool), get_source()
    assert source
    with Transport(source, get_settings()) as transport:
        in_flight.start(Flight(list(buffers["default"].waiting_messages()), transport), 0)
        assert in_flight.wait(0)
    [(_, answer)] = in_flight.landed()
    assert answer.result().verdict is Verdict.DELIVERED
    assert len(segment.messages) == IN_A_BATCH


FILL = """
import django; django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from tests.delivery.test_in_flight import put_batches
put_batches(8)
"""
LEFT = """
import django; django.setup()
from segment_fallback.models import Lease, WaitingMessage
print(*WaitingMessage.objects.values_list("message_id", flat=True))
Lease.objects.update(expires=0)
"""


def test_flusher_killed_with_several_in_flight_loses_nothing(segment: LocalSegment, tmp_path: Path) -> None:
    (tmp_path / "killed_settings.py").write_text(
        "from tests.settings import *\n"
        f"SEGMENT_FALLBACK = {{'WRITE_KEY': 'k', 'API_HOST': {segment.url!r}, 'SPOOL': 'spool'}}\n"
    )
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "killed_settings",
        "TESTS_DATABASE": str(tmp_path / "db.sqlite3"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
    }

    def python(*arguments: str) -> str:
        command = [sys.executable, *arguments]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout

    python("-c", FILL)
    segment.answer_with(Answer.slow(0.1), times=3)
    segment.answer_with(Answer.hang(60, received=True), times=None)
    process = subprocess.Popen([sys.executable, "-m", "django", "segment_flush"], env=environment, cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while len(segment.messages) < 8 * IN_A_BATCH:
            assert time.monotonic() < deadline, "five did not come to be in flight"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()

    left = set(python("-c", LEFT).split())
    assert len(left) >= 5 * IN_A_BATCH, "what got no answer waits"
    segment.answer_normally()
    python("-m", "django", "segment_flush")
    assert python("-c", LEFT).split() == []
    assert len(segment.distinct) == 8 * IN_A_BATCH
