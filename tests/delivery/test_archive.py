from __future__ import annotations

import gzip
import json
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Sequence
from concurrent import futures
from datetime import date, datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pytest
from django.core.files.base import ContentFile
from django.core.files.storage import storages

from segment_fallback.buffers import buffers
from segment_fallback.buffers.base import Waiting, now_ms
from segment_fallback.delivery import archiving
from segment_fallback.delivery import flush as delivery
from segment_fallback.delivery.archive import FILE_NAME, Archive, make_files, open_archive, read_line, write_line
from segment_fallback.delivery.archiving import Lane, lanes
from segment_fallback.delivery.flush import flush
from segment_fallback.delivery.transport import Answer as TransportAnswer
from segment_fallback.delivery.transport import Transport
from segment_fallback.exceptions import ArchiveUnavailable
from segment_fallback.models import Lease, WaitingMessage
from segment_fallback.signals import delivered
from segment_fallback.status import read_status
from segment_fallback.tasks import flush as flush_task
from segment_fallback.testing import Answer, LocalSegment
from tests.delivery.archives import ids, lines, moody, put, storages_in

if TYPE_CHECKING:
    from pytest_django import Settings

pytestmark = pytest.mark.django_db

HOUR = 3_600_000
NOON = 1_795_262_400_000
"""2026-11-21 12:00 UTC."""


@pytest.fixture(autouse=True)
def archive(local_segment: LocalSegment, settings: Settings, tmp_path: Path) -> Path:
    """The folder of the archive; beside it is the spool."""
    settings.STORAGES = {**settings.STORAGES, **storages_in(tmp_path)}
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "ARCHIVE": "archive", "SEND_TIMEOUT": 5}
    return tmp_path / "archive"


def opened() -> Archive:
    found = open_archive()
    assert found
    return found


def waiting(message_id: str, created: int = NOON, **fields: Any) -> Waiting:
    body = json.dumps(
        {"messageId": message_id, "type": "page", **fields}, ensure_ascii=False, separators=(",", ":")
    ).encode()
    return Waiting(None, message_id, body, "pixel", created, 'a "source",\n"message":')


# What is written.


def test_delivered_messages_are_in_a_file_of_their_hour_with_what_is_known_of_them(archive: Path) -> None:
    before = now_ms()
    put("1", "2", properties={"text": "<ü\n“ >"})
    WaitingMessage.objects.filter(message_id="2").update(way="pixel")
    assert str(flush()) == "2 delivered in 1 batch, 0 dead letters"

    [file] = [path for path in archive.rglob("*") if path.is_file()]
    first, second = lines(archive)
    hour = datetime.fromtimestamp(first["created"] / 1000, timezone.utc)
    assert file.parent.relative_to(archive).as_posix() == f"{hour:dt=%Y-%m-%d/hour=%H}"
    assert before <= first["created"] <= now_ms()
    assert [(line["way"], line["source"]) for line in (first, second)] == [("server", "default"), ("pixel", "default")]
    assert first["message"] == {
        "type": "page",
        "messageId": "1",
        "anonymousId": "a",
        "name": "Größe",
        "properties": {"text": "<ü\n“ >"},
    }
    assert buffers["default"].depth() == 0


def test_message_is_in_its_line_byte_by_byte() -> None:
    message = waiting("1", text='"message":{}} \u2028 \\ ')
    line = write_line(message)
    archived = read_line(line)
    assert archived.body == message.body
    assert (archived.created, archived.way, archived.source) == (NOON, "pixel", message.source)
    assert json.loads(line)["message"] == archived.message == json.loads(message.body)
    assert b"\n" not in line


def test_batch_at_the_turn_of_an_hour_makes_two_files() -> None:
    files = make_files([waiting("1", NOON - 1), waiting("2", NOON), waiting("3", NOON + HOUR - 1)])
    assert [name.rpartition("/")[0] for name in files] == ["dt=2026-11-21/hour=11", "dt=2026-11-21/hour=12"]
    assert all(FILE_NAME.fullmatch(name.rpartition("/")[2]) for name in files)
    assert [gzip.decompress(content).count(b"\n") for content in files.values()] == [1, 2]


def test_nothing_is_archived_unless_it_is_asked_for(archive: Path, settings: Settings) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "ARCHIVE": False}
    put("1")
    assert flush().delivered == 1
    assert not archive.exists()


def test_true_is_a_private_folder_of_the_project(settings: Settings, tmp_path: Path) -> None:
    settings.BASE_DIR = tmp_path
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "ARCHIVE": True}
    put("1")
    flush()
    folder = tmp_path / "segment-archive"
    assert ids(folder) == ["1"]
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_dir()} == {0o700}
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()} == {0o600}


def test_what_segment_refuses_is_a_dead_letter_and_not_archived(archive: Path, local_segment: LocalSegment) -> None:
    local_segment.refuse(lambda message: message["messageId"] == "2")
    put("1", "2", "3")
    flush()
    assert ids(archive) == ["1", "3"]
    assert [letter.message.message_id for letter in buffers["default"].dead_letters()] == ["2"]


def test_duckdb_reads_it_as_the_docs_say(archive: Path) -> None:
    opened().save(make_files([waiting("1", NOON - 1), waiting("2", NOON, name="Größe"), waiting("3", NOON)]))
    opened().save(make_files([waiting("3", NOON)]))  # twice, as after a kill
    docs = (Path(__file__).parents[2] / "docs/how-to/archive.md").read_text()
    [block] = [block for block in re.findall(r"```sql\n(.*?)```", docs, re.DOTALL) if "read_json" in block]
    view, query = block.replace("segment-archive/", f"{archive}/").strip().rstrip(";").split(";")
    with duckdb.connect() as connection:
        connection.execute(view)
        assert connection.execute(query).fetchall() == [(date(2026, 11, 21), "pixel", 3)]
        rows = "SELECT hour, epoch_ms(accepted), message->>'$.name' FROM events ORDER BY ALL"
        assert connection.execute(rows).fetchall() == [(11, NOON - 1, None), (12, NOON, "Größe"), (12, NOON, None)]


# While it fails.


def test_delivery_goes_on_while_a_batch_is_being_archived(archive: Path, local_segment: LocalSegment) -> None:
    put(*map(str, range(40)), properties={"text": "x" * 30_000})
    waiting_then = []

    def go_on_after_the_last(**kwargs: Any) -> None:
        if len(local_segment.messages) == 40:
            waiting_then.append(WaitingMessage.objects.count())
            moody("archive").goes_on.set()

    delivered.connect(go_on_after_the_last)
    try:
        with moody("archive").hanging():
            report = flush()
    finally:
        delivered.disconnect(go_on_after_the_last)
    assert waiting_then, "it was all sent before anything was archived"
    assert waiting_then[0] == 40, "nothing is acknowledged before it is archived"
    assert (report.delivered, report.unarchived, WaitingMessage.objects.count()) == (40, 0, 0)
    assert ids(archive) == sorted(map(str, range(40)))


def test_storage_that_fails_for_a_moment_is_tried_again(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "PAUSES", (0.01, 0.01))
    moody("archive").error, moody("archive").failures = OSError("busy"), 2
    put("1")
    assert flush().unarchived == 0
    assert (ids(archive), moody("archive").tries) == (["1"], 3)


def test_storage_that_is_down_is_left_alone_and_gets_all_when_it_is_back(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(archiving, "PAUSES", (0.01,))
    storage = moody("archive")
    storage.error, storage.failures = OSError("secret/path"), -1
    put(*map(str, range(80)), properties={"text": "x" * 30_000})
    report = flush()
    assert (report.delivered, report.unarchived, report.trouble) == (80, 0, "")
    assert storage.tries <= 2 * archiving.OUTSTANDING, "it is not asked for each batch"
    assert "the archive failed; what is delivered meanwhile is set aside in the spool: OSError" in caplog.text
    assert "secret" not in caplog.text
    assert (lines(archive), len(ids(tmp_path / "spool"))) == ([], 80)
    assert WaitingMessage.objects.count() == 0

    storage.error = None
    lanes.forget()  # a minute later
    flush()
    assert sorted(ids(archive), key=int) == list(map(str, range(80)))
    assert lines(tmp_path / "spool") == []


def test_storage_that_hangs_holds_delivery_up_once(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(archiving, "PATIENCE", 0.5)
    put(*map(str, range(150)), properties={"text": "x" * 30_000})
    with moody("archive").hanging():
        started = time.monotonic()
        report = flush()
        took = time.monotonic() - started
        assert (report.delivered, report.unarchived) == (150, 0)
        assert "it does not answer" in caplog.text
        assert len(ids(tmp_path / "spool")) == 150
        assert took < 3, "ten batches did not wait one after the other"
        put("more")
        assert flush().delivered == 1
    # What hung ends after all; and what was set aside has the same name.
    lanes.archive.submit(lambda: None).result(10)
    lanes.forget()
    flush()
    assert sorted(set(ids(archive))) == sorted([*map(str, range(150)), "more"])
    names = [path.name for path in archive.rglob("*.gz")]
    assert len(names) == len(set(names))


def test_lease_is_kept_while_the_archive_hangs(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "SEND_TIMEOUT": 0.25}
    monkeypatch.setattr(archiving, "PATIENCE", 2.5)
    put("1")
    others: list[int] = []
    end = archiving.Archiving._end

    def end_and_look(self: archiving.Archiving, batch: Sequence[Waiting]) -> None:
        others.append(Lease.objects.get().expires - now_ms())
        end(self, batch)

    monkeypatch.setattr(archiving.Archiving, "_end", end_and_look)
    with moody("archive").hanging():
        assert flush().delivered == 1
    assert others[0] > 0, "the lease of a second was renewed for two and a half"


def test_what_nobody_takes_is_counted_and_delivered_all_the_same(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(archiving, "PAUSES", ())
    for alias in ("archive", "spool"):
        moody(alias).error, moody(alias).failures = OSError("x"), -1
    put("1", "2")
    report = flush()
    assert str(report) == "2 delivered in 1 batch, 0 dead letters, 2 missing in the archive"
    assert read_status().unarchived == 2
    assert "2 delivered messages are not in the archive: OSError; set aside: OSError" in caplog.text
    put("3")
    assert flush().unarchived == 1
    assert WaitingMessage.objects.count() == 0


def test_what_is_set_aside_has_a_cap(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(archiving, "PAUSES", ())
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "SPOOL_MAX_BYTES": 250}
    moody("archive").error, moody("archive").failures = OSError("x"), -1
    put("1")
    assert flush().unarchived == 0
    put("2")
    assert flush().unarchived == 1
    assert "SPOOL_MAX_BYTES allows 250" in caplog.text


def test_alias_that_storages_has_not_stops_no_delivery(settings: Settings, tmp_path: Path) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "ARCHIVE": "nowhere"}
    put("1")
    report = flush()
    assert (report.delivered, report.trouble, ids(tmp_path / "spool")) == (1, "", ["1"])


def test_process_that_can_start_no_thread_delivers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start = threading.Thread.start

    def refused(self: threading.Thread) -> None:
        if self.name == "segment_fallback.archive":  # the local Segment has threads, too
            raise RuntimeError("can't start new thread")
        start(self)

    put("1")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refused)
        report = flush()
    assert (report.delivered, report.unarchived, WaitingMessage.objects.count()) == (1, 1, 0)
    assert "can't start new thread" in caplog.text


def test_flusher_that_lost_its_lease_acknowledges_what_it_sent(
    archive: Path, local_segment: LocalSegment, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "SENDS_IN_FLIGHT": 1}
    put(*map(str, range(40)), properties={"text": "x" * 30_000})

    def lose(**kwargs: Any) -> None:
        Lease.objects.update(owner="another")

    monkeypatch.setattr(delivery, "FRESH", 0)
    delivered.connect(lose)
    try:
        report = flush()
    finally:
        delivered.disconnect(lose)
    assert "another flusher" in report.trouble
    sent = sorted(str(received.message_id) for received in local_segment.messages)
    assert 0 < len(sent) < 40
    assert ids(archive) == sent
    assert WaitingMessage.objects.count() == 40 - len(sent)


def test_back_off_comes_after_the_acknowledgements(
    archive: Path, local_segment: LocalSegment, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "SENDS_IN_FLIGHT": 1}
    put(*map(str, range(40)), properties={"text": "x" * 30_000})
    send = Transport.send

    def send_and_fail_from_now_on(self: Transport, bodies: Sequence[bytes], *, retry_count: int = 0) -> TransportAnswer:
        answer = send(self, bodies, retry_count=retry_count)
        local_segment.answer_with(Answer(status=503))
        return answer

    monkeypatch.setattr(Transport, "send", send_and_fail_from_now_on)
    report = flush()
    assert 0 < report.delivered < 40
    assert "503" in report.trouble
    assert ids(archive) == sorted(str(received.message_id) for received in local_segment.messages)
    assert WaitingMessage.objects.count() == 40 - report.delivered
    assert (Lease.objects.get().failures, flush().busy) == (1, 1)


def test_file_is_never_seen_by_halves(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    replace = Path.replace

    def look_and_replace(self: Path, target: Path) -> Path:
        seen.append([path.name for path in archive.rglob("*.gz")])
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", look_and_replace)
    opened().save(make_files([waiting("1")]))
    assert seen == [[]]
    assert ids(archive) == ["1"]


def test_child_of_a_fork_archives_with_threads_of_its_own(archive: Path) -> None:
    flush()
    put("parent")
    flush()
    assert lanes.archive._started
    child = os.fork()
    if not child:
        # No database here: its connection is the parent's.
        done = archiving.Writing(opened(), [waiting("child", now_ms())])
        os._exit(0 if done.wait(10) and done.kept else 1)
    deadline = time.monotonic() + 20
    while not (ended := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.02)
    assert ended[1] == 0
    assert ids(archive) == ["child", "parent"]


def test_lane_gives_up_those_that_are_stuck_and_opens_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "RESPITE", 0)
    lane, goes_on = Lane(2), threading.Event()
    stuck = [lane.submit(goes_on.wait) for _ in range(2)]
    queued = lane.submit(lambda: None)
    time.sleep(0.05)
    for future in (*stuck, queued):
        lane.give_up(future)
    lane.close()
    assert queued.cancelled()
    assert not lane.is_open()
    goes_on.set()
    lane.submit(lambda: None).result(10)
    assert lane.is_open()


# Retention and upkeep.


def test_flush_deletes_what_is_older_than_the_setting_says_and_nothing_of_others(
    archive: Path, settings: Settings
) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "ARCHIVE_DAYS": 10}
    for days in (12, 11, 9, 0):
        opened().save(make_files([waiting(f"{days} days", now_ms() - days * 24 * HOUR)]))
    old = archive / "dt=2020-01-01" / "hour=00"
    old.mkdir(parents=True)
    (old / "part-0001.ndjson.gz").write_bytes(b"another's")
    flush()
    assert {path.name for path in archive.rglob("*.gz")} >= {"part-0001.ndjson.gz"}
    (old / "part-0001.ndjson.gz").unlink()
    assert ids(archive) == ["0 days", "9 days"]
    assert len(list(archive.glob("dt=*"))) == 3, "empty folders are gone"


def test_retention_is_looked_at_once_an_hour(archive: Path, settings: Settings) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "ARCHIVE_DAYS": 10}
    flush()
    opened().save(make_files([waiting("old", now_ms() - 20 * 24 * HOUR)]))
    flush()
    assert ids(archive) == ["old"]
    lanes.pruned -= archiving.HOUR
    flush()
    assert ids(archive) == []


def test_upkeep_that_has_not_ended_is_not_begun_again(archive: Path) -> None:
    begun = archiving.begin_upkeep()
    assert begun
    archiving.end_upkeep(begun)
    lanes.kept_up = futures.Future()
    assert archiving.begin_upkeep() is None
    lanes.kept_up.set_result(None)
    assert archiving.begin_upkeep()


def test_task_of_several_parts_keeps_the_archive_up(
    archive: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What each part's task has to do is the other tests' business; here no worker takes them."""
    buffer = {"BACKEND": "segment_fallback.buffers.database.DatabaseBuffer", "OPTIONS": {"parts": 2}}
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "BUFFERS": {"default": buffer}}
    monkeypatch.setattr("segment_fallback.celery_tasks.flush_part.delay", lambda *part: None)
    opened().set_aside(make_files([waiting("1")]))
    assert "2 parts to flush" in flush_task()
    assert lanes.kept_up
    lanes.kept_up.result(10)
    assert (ids(archive), opened().aside()) == (["1"], [])


def test_without_a_number_of_days_it_is_kept_for_ever(archive: Path, settings: Settings) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "ARCHIVE_DAYS": 0}
    opened().save(make_files([waiting("old", 0)]))
    flush()
    assert ids(archive) == ["old"]


def test_upkeep_that_fails_is_logged_and_stops_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object, name: str) -> tuple[list[str], list[str]]:
        raise PermissionError("secret")

    monkeypatch.setattr(type(moody("archive")), "listdir", broken)
    put("1")
    with caplog.at_level(logging.ERROR):
        assert flush().delivered == 1
    assert "the archive's upkeep failed: the archive's storage failed: PermissionError" in caplog.text
    assert "secret" not in caplog.text


def test_what_dead_writers_left_is_swept_after_a_day(archive: Path, tmp_path: Path) -> None:
    left = [archive / "dt=2026-11-21/hour=12/1-a.ndjson.gz.part", tmp_path / "spool/archive/1-b.ndjson.gz.part"]
    for path in left:
        path.parent.mkdir(parents=True)
        path.write_bytes(b"")
    assert opened().sweep() == 0
    for path in left:
        os.utime(path, (0, 0))
    assert opened().sweep() == 2
    assert not any(path.exists() for path in left)


# Reading.


def test_files_are_found_by_hour_and_in_order() -> None:
    archive = opened()
    for hours in (30, 0, 1, 2):
        archive.save(make_files([waiting(str(hours), NOON + hours * HOUR)]))
    storages["archive"].save("dt=2026-11-21/hour=12/notes.ndjson.gz", ContentFile(b"another's"))

    def found(*between: int) -> list[str]:
        return [archive.read(name)[0].message["messageId"] for name in archive.files(*between)]

    assert found() == ["0", "1", "2", "30"]
    assert found(NOON + HOUR, NOON + 2 * HOUR) == ["1", "2"]
    assert found(NOON + HOUR + 1, NOON + 2 * HOUR - 1) == ["1"]
    assert found(NOON + 3 * HOUR) == ["30"]


@pytest.mark.parametrize("content", [b"", b"\x1f\x8bcut", gzip.compress(b"nonsense\n"), gzip.compress(b"x" * 99)[:-9]])
def test_file_that_is_garbled_is_named(archive: Path, content: bytes) -> None:
    opened().save(make_files([waiting("1")]))
    [name] = opened().files()
    (archive / name).write_bytes(content)
    if content:
        with pytest.raises(ArchiveUnavailable, match=f"the archive's file {name} is not as it was written"):
            opened().read(name)
    else:
        assert opened().read(name) == []


def test_file_that_is_gone_has_no_lines() -> None:
    assert opened().read("dt=2026-11-21/hour=12/1795262400000-0123456789abcdef.ndjson.gz") == []


def test_flusher_without_an_archive_acknowledges_what_was_delivered(settings: Settings) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "ARCHIVE": False}
    put("1")
    claim = buffers["default"].claim(0)
    assert claim
    archive = archiving.Archiving(claim)
    archive.add(list(claim.messages()))
    archive.acknowledge()
    assert WaitingMessage.objects.count() == 0
