from __future__ import annotations

import errno
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.files.base import ContentFile, File
from django.core.files.storage import FileSystemStorage, Storage
from django.db import connection, transaction
from django.test import override_settings

from segment_fallback.buffers import buffers, spool
from segment_fallback.buffers.accept import accept, acceptance
from segment_fallback.buffers.base import SPOOL
from segment_fallback.buffers.spool import Spool
from segment_fallback.delivery.flush import flush
from segment_fallback.exceptions import BufferUnavailable, SpoolFull
from segment_fallback.message import Message, Way
from segment_fallback.models import WaitingMessage
from segment_fallback.testing import LocalSegment


def message(name: str, body: bytes = b'{"title":"Sch\xc3\xb6n\\n\\t"}', **more: object) -> Message:
    return Message(name, body, **more)  # type: ignore[arg-type]


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return FileSystemStorage(location=tmp_path / "spool")


def test_what_is_put_comes_out_again_once(storage: Storage) -> None:
    kept = Spool(storage, 10_000)
    messages = [message("1", way=Way.PIXEL, provisional=True), message("2", way=Way.JAVASCRIPT)]
    kept.put(messages)
    kept.put([message("3")])

    assert list(Spool(storage, 10_000).drain()) == [messages, [message("3")]]
    assert list(kept.drain()) == []
    assert kept.files() == []


def test_file_stays_until_its_messages_are_elsewhere(storage: Storage) -> None:
    kept = Spool(storage, 10_000)
    kept.put([message("1")])
    drain = kept.drain()
    assert next(drain) == [message("1")]
    drain.close()  # killed here

    assert list(kept.drain()) == [[message("1")]]


def test_concurrent_puts_share_files(storage: Storage) -> None:
    kept = Spool(storage, 10_000_000)
    threads = [threading.Thread(target=kept.put, args=[[message(str(number))]]) for number in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files = len(kept.files())
    drained = [each.message_id for messages in kept.drain() for each in messages]
    assert sorted(drained, key=int) == [str(number) for number in range(40)]
    assert files <= 40


def test_cap_refuses_the_newest_and_lets_in_again_after_a_drain(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spool, "MEASURED", -1)
    kept = Spool(storage, 200)
    kept.put([message("1", b"x" * 100)])
    with pytest.raises(SpoolFull, match="SPOOL_MAX_BYTES allows 200"):
        kept.put([message("2", b"x" * 100)])
    assert [[m.message_id for m in messages] for messages in kept.drain()] == [["1"]]
    kept.put([message("2", b"x" * 100)])


def test_cap_counts_what_other_processes_have_spooled(storage: Storage) -> None:
    Spool(storage, 200).put([message("1", b"x" * 100)])
    with pytest.raises(SpoolFull):
        Spool(storage, 200).put([message("2", b"x" * 100)])


@pytest.mark.parametrize("days_behind", [0, 1])
def test_file_that_is_being_written_is_left_alone_whatever_its_writers_clock(
    storage: Storage, days_behind: int
) -> None:
    started = time.time_ns() - days_behind * 86_400 * 10**9
    name = storage.save(f"{started:019d}-0.spool", ContentFile(b'["1","pixel",true,"default"]\t{}\n["2","pi'))
    assert list(Spool(storage, 200).drain()) == []
    assert storage.exists(name)


def test_file_whose_writer_died_long_ago_gives_its_whole_lines(storage: Storage) -> None:
    name = storage.save(
        f"{time.time_ns() - 8 * 86_400 * 10**9:019d}-0.spool",
        ContentFile(b'["1","pixel",true,"default"]\t{}\n["2","pi'),
    )
    assert list(Spool(storage, 200).drain()) == [[message("1", b"{}", way=Way.PIXEL, provisional=True)]]
    assert not storage.exists(name)


@pytest.mark.parametrize("content", [b"nonsense\nend", b'["1","by ship",true,"default"]\t{}\nend', b'["1"]\t{}\nend'])
def test_file_that_cannot_be_read_is_kept_and_stops_nothing(
    storage: Storage, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    name = storage.save("0000000000000000001-0.spool", ContentFile(content))
    kept = Spool(storage, 10_000)
    kept.put([message("1")])
    assert list(kept.drain()) == [[message("1")]]
    assert storage.exists(name)
    assert name in caplog.text


def test_other_files_of_the_storage_are_not_touched(storage: Storage) -> None:
    storage.save("README.txt", ContentFile(b"mine"))
    assert list(Spool(storage, 200).drain()) == []
    assert storage.exists("README.txt")


def test_storage_that_fails_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    broken = Spool(FileSystemStorage(location=tmp_path / "file" / "spool"), 10_000)
    with pytest.raises(BufferUnavailable, match="the spool failed: NotADirectoryError"):
        broken.put([message("1")])
    with pytest.raises(BufferUnavailable, match="the spool failed: NotADirectoryError"):
        broken.files()


def test_what_a_full_disk_took_of_a_file_is_removed(tmp_path: Path) -> None:
    class FullDisk(FileSystemStorage):
        def _save(self, name: str, content: File[bytes]) -> str:
            super()._save(name, ContentFile(content.read(10)))  # type: ignore[misc]
            raise OSError(errno.ENOSPC, "No space left on device")

    full = Spool(FullDisk(location=tmp_path), 10_000)
    with pytest.raises(BufferUnavailable, match="the spool failed: OSError"):
        full.put([message("1")])
    assert full.files() == []


def test_file_of_another_user_stops_nothing(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, refused = Spool(storage, 10_000), storage.save("0000000000000000001-0.spool", ContentFile(b"end"))
    kept.put([message("1")])
    read = storage.open

    def open_own(name: str, mode: str = "rb") -> File[Any]:
        if name == refused:
            raise PermissionError(name)
        return read(name, mode)

    monkeypatch.setattr(storage, "open", open_own)
    assert list(kept.drain()) == [[message("1")]]
    assert kept.files() == [refused]


def test_default_is_a_private_folder_of_the_project(tmp_path: Path) -> None:
    with override_settings(BASE_DIR=tmp_path, SEGMENT_FALLBACK={"WRITE_KEY": "k"}):
        spool.make_spool().put([message("1")])
    folder = tmp_path / "segment-spool"
    [file] = folder.iterdir()
    assert folder.stat().st_mode & 0o777 == 0o700
    assert file.stat().st_mode & 0o777 == 0o600


# With the buffer.


@pytest.fixture
def outage(transactional_db: None) -> Iterator[None]:
    """A buffer that is down until the test ends the outage by `mend`."""
    rename("segment_fallback_waitingmessage", "gone")
    yield
    if "gone" in connection.introspection.table_names():
        mend()


def rename(old: str, new: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")


def mend() -> None:
    rename("gone", "segment_fallback_waitingmessage")


@pytest.mark.usefixtures("outage")
def test_buffer_that_is_down_is_not_asked_again_for_a_while(caplog: pytest.LogCaptureFixture) -> None:
    for number in range(5):
        accept([message(str(number))])
    assert caplog.text.count("messages go to the spool") == 1
    assert len(list(acceptance.spool.drain())) == 5


@pytest.mark.django_db(transaction=True)
def test_broken_transaction_of_one_caller_sends_nobody_else_to_the_spool(caplog: pytest.LogCaptureFixture) -> None:
    with transaction.atomic():
        transaction.set_rollback(True)  # as Django REST framework does where it refuses
        accept([message("broken")])
    accept([message("healthy")])
    assert list(WaitingMessage.objects.values_list("message_id", flat=True)) == ["healthy"]
    assert [[m.message_id for m in messages] for messages in acceptance.spool.drain()] == [["broken"]]
    assert caplog.text == ""


@pytest.mark.usefixtures("outage")
def test_buffer_that_fails_within_a_transaction_is_down_for_all(caplog: pytest.LogCaptureFixture) -> None:
    with transaction.atomic():
        accept([message("1")])
    accept([message("2")])
    assert caplog.text.count("messages go to the spool") == 1
    assert len(list(acceptance.spool.drain())) == 2


@pytest.mark.usefixtures("outage")
def test_next_flush_after_an_outage_delivers_what_was_spooled(local_segment: LocalSegment) -> None:
    accept([message("1", b'{"messageId":"1"}')])
    assert "database" in flush().trouble
    assert local_segment.messages == []

    mend()
    report = flush()
    assert (report.unspooled, report.delivered) == (1, 1)
    assert "1 drained from the spool" in str(report)
    assert [received.message_id for received in local_segment.messages] == ["1"]
    assert acceptance.spool.files() == []


@pytest.mark.django_db
def test_spool_that_cannot_be_made_stops_no_flush(local_segment: LocalSegment, settings: Any) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "SPOOL": "nowhere"}
    accept([message("a")])
    report = flush()
    assert (report.delivered, report.trouble) == (1, "the spool failed: InvalidStorageError")


@pytest.mark.django_db
def test_two_do_not_drain_together() -> None:
    acceptance.spool.put([message("1")])
    other = buffers["default"].claim(SPOOL)
    assert other
    assert acceptance.drain(60) == 0
    other.release()
    assert acceptance.drain(60) == 1
    assert list(WaitingMessage.objects.values_list("message_id", flat=True)) == ["1"]


@pytest.mark.django_db
def test_message_that_reached_the_buffer_too_waits_once() -> None:
    buffers["default"].put([message("1")])
    acceptance.spool.put([message("1"), message("2")])
    acceptance.drain(60)
    assert WaitingMessage.objects.count() == 2
