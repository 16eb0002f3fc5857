from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from django.core.files.storage import storages
from django.core.management import CommandError, call_command
from django.db import connection

from segment_fallback.buffers import buffers
from segment_fallback.buffers.accept import acceptance
from segment_fallback.buffers.base import SPOOL, Waiting, now_ms
from segment_fallback.delivery import forget
from segment_fallback.delivery.archive import Archive, compress, make_files, open_archive
from segment_fallback.delivery.flush import flush
from segment_fallback.delivery.forget import Forgetting, Person
from segment_fallback.message import encode
from segment_fallback.models import Lease, PendingEvent, WaitingMessage
from segment_fallback.testing import LocalSegment
from tests.delivery.archives import ids, moody, put, storages_in

if TYPE_CHECKING:
    from pytest_django import Settings

pytestmark = pytest.mark.django_db

X = 'x"\\ü@example.com'
"""A userId that is written otherwise in JSON."""


@pytest.fixture(autouse=True)
def archive(local_segment: LocalSegment, settings: Settings, tmp_path: Path) -> Path:
    settings.STORAGES = {**settings.STORAGES, **storages_in(tmp_path)}
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "ARCHIVE": "archive"}
    acceptance.forget()
    return tmp_path / "archive"


def opened() -> Archive:
    found = open_archive()
    assert found
    return found


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("segment_forget", *arguments, stdout=out)
    return out.getvalue()


def event(name: str, **caller: Any) -> None:
    caller = {"anonymousId": "another", **caller}
    now = now_ms()
    PendingEvent.objects.create(
        event_id=name, name="e", payload="{}", caller=json.dumps(caller), occurred=now, created=now, next_try=now
    )


def fill(prefix: str, **caller: Any) -> None:
    """A message in each place."""
    put(f"{prefix}-archived", **caller)
    flush()
    buffers["default"].bury(
        [encode({"type": "page", "messageId": f"{prefix}-dead", "anonymousId": "a", **caller})], "x"
    )
    acceptance.spool.put([encode({"type": "page", "messageId": f"{prefix}-spooled", "anonymousId": "a", **caller})])
    event(f"{prefix}-event", **caller)


def kept(archive: Path) -> list[str]:
    """What there is, wherever."""
    return sorted(
        [
            *ids(archive),
            *WaitingMessage.objects.values_list("message_id", flat=True),
            *(letter.message.message_id for letter in buffers["default"].dead_letters()),
            *(m.message_id for name in acceptance.spool.files() for m in acceptance.spool.read(name) or ()),
            *PendingEvent.objects.values_list("event_id", flat=True),
        ]
    )


def test_person_is_deleted_everywhere_and_nobody_else(archive: Path) -> None:
    put("y-archived", userId="y")  # in one file with the person's
    fill("x", userId=X)
    acceptance.drain(60)
    flush()
    fill("y2", userId="y")
    put("x-waiting", userId=X)
    put("y-waiting", userId="y")
    acceptance.spool.put(
        [
            encode({"type": "page", "messageId": f"{who}-spooled-2", "userId": user})
            for who, user in (("x", X), ("y", "y"))
        ]
    )
    before = kept(archive)
    theirs = [name for name in before if name.startswith("x")]
    assert len(theirs) == 6

    assert run("--user-id", X, "--dry-run") == "spool: 1\nwaiting: 1\ndead letters: 1\nevents: 1\narchive: 2\n"
    assert kept(archive) == before
    assert "6 deleted. What Segment has, and sent on, stays there" in run("--user-id", X, "--yes")
    assert kept(archive) == [name for name in before if not name.startswith("x")]
    assert run("--user-id", X, "--yes").startswith("spool: 0\nwaiting: 0\ndead letters: 0\nevents: 0\narchive: 0\n")


@pytest.mark.parametrize(
    ("fields", "meant"),
    [
        ({"userId": "7"}, True),
        ({"userId": 7}, True),
        ({"anonymousId": "anon"}, True),
        ({"anonymousId": "7"}, False),
        ({"userId": "anon"}, False),
        ({"userId": "77"}, False),
        ({"userId": "other", "anonymousId": "anon"}, True),
        ({"type": "alias", "previousId": "anon", "userId": "other"}, True),
        ({"type": "alias", "previousId": "7", "userId": "other"}, True),
        ({"context": {"userId": "7"}}, True),
        ({"context": {"anonymousId": "anon"}}, True),
        ({"context": "7"}, False),
        ({"groupId": "7", "properties": {"userId": "7"}, "traits": {"id": "7"}}, False),
        ({"userId": None, "anonymousId": ["anon"]}, False),
        ({"userId": "ANON"}, False),
    ],
)
def test_person_is_meant_by_their_ids_and_by_nothing_else(fields: dict[str, Any], meant: bool) -> None:
    person = Person(frozenset({"7"}), frozenset({"anon"}))
    assert person.is_meant_by(fields) is meant
    assert person.is_in(json.dumps(fields).encode()) is meant


def test_person_is_deleted_from_dynamodb_in_all_its_parts(dynamodb_local_url: str, settings: Settings) -> None:
    options = {
        "endpoint_url": dynamodb_local_url,
        "region": "eu-central-1",
        "client": {"aws_access_key_id": "tests", "aws_secret_access_key": "tests"},
        "table": f"tests-{uuid4().hex}",
        "parts": 3,
    }
    buffer = {"BACKEND": "segment_fallback.buffers.dynamodb.DynamoDBBuffer", "OPTIONS": options}
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "BUFFERS": {"default": buffer}}
    call_command("segment_table", "--create", stdout=StringIO())
    put(*map(str, range(10)), userId="x")
    put("y", userId="y")
    buffers["default"].bury([encode({"type": "page", "messageId": "dead", "userId": "x"})], "refused")
    assert run("--user-id", "x", "--yes").startswith("spool: 0\nwaiting: 10\ndead letters: 1\n")
    assert [message.message_id for message in buffers["default"].waiting_messages()] == ["y"]
    assert list(buffers["default"].dead_letters()) == []


def test_several_ids_are_one_person(archive: Path) -> None:
    for number in range(3):
        put(str(number), anonymousId=f"a{number}", userId=f"u{number}")
    run("--user-id", "u0", "--anonymous-id", "a2", "--yes")
    assert kept(archive) == ["1"]


def test_what_is_set_aside_is_looked_through_and_stays_aside(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put("1", userId="x")
    put("2", userId="y")
    moody("archive").error, moody("archive").failures = OSError("x"), -1
    flush()
    assert run("--user-id", "x", "--yes").endswith("archive: 1\n1 deleted. " + segment())
    assert "may be on its way into the archive at the moment. Run this again." in capsys.readouterr().err
    assert ids(tmp_path / "spool") == ["2"]
    assert len(opened().aside()) == 1
    moody("archive").error = None
    assert opened().move_on() == 1
    assert ids(tmp_path / "archive") == ["2"]


def segment() -> str:
    from segment_fallback.management.commands.segment_forget import AT_SEGMENT

    return f"{AT_SEGMENT}\n"


def test_new_file_is_there_before_the_old_one_is_deleted(archive: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put("1", userId="x")
    put("2", userId="y")
    flush()
    storage = storages["archive"]

    def killed(name: str) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(storage, "delete", killed)
        with pytest.raises(KeyboardInterrupt):
            run("--user-id", "x", "--yes")
    assert ids(archive) == ["1", "2", "2"]
    run("--user-id", "x", "--yes")
    assert ids(archive) == ["2", "2"], "twice, as readers bear it"


def test_archive_that_fails_ends_it_and_says_what_was_done(monkeypatch: pytest.MonkeyPatch) -> None:
    put("1", userId="x")
    put("2", userId="y")
    flush()
    put("3", userId="x")
    moody("archive").error, moody("archive").failures = OSError("x"), -1
    with pytest.raises(
        CommandError, match=r"It ended early: the archive's storage failed: OSError\. Done: spool 0, waiting 1"
    ):
        run("--user-id", "x", "--yes")
    assert ids(Path(moody("archive").location)) == ["1", "2"]


def test_garbled_file_is_named_and_the_others_are_done(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for hour in range(3):
        body = encode({"type": "page", "messageId": str(hour), "userId": "x"}).body
        opened().save(make_files([Waiting(None, str(hour), body, "pixel", hour * 3_600_000)]))
    first, second, _ = opened().files()
    (archive / first).write_bytes(b"\x1f\x8bcut")
    (archive / second).write_bytes(compress([b'"x"']))
    assert "archive: 1" in run("--user-id", "x", "--yes")
    errors = capsys.readouterr().err
    assert f"Not complete: the archive's file {first} is not as it was written. Run this again." in errors


def test_spool_that_is_being_drained_is_named(capsys: pytest.CaptureFixture[str], settings: Settings) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "SEND_TIMEOUT": 0.1, "FLUSH_BUDGET": 0.1}
    acceptance.spool.put([encode({"type": "page", "messageId": "1", "userId": "x"})])
    claim = buffers["default"].claim(SPOOL)
    assert claim
    assert run("--user-id", "x", "--yes").startswith("spool: 0\n")
    assert "Not complete: the spool is being drained at the moment" in capsys.readouterr().err
    claim.release()
    assert run("--user-id", "x", "--yes").startswith("spool: 1\n")


def test_file_of_the_spool_that_is_being_written_is_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    acceptance.spool.put([encode({"type": "page", "messageId": "1", "userId": "y"})])
    (tmp_path / "spool" / f"{time.time_ns():019d}-0.spool").write_bytes(b'["2","pix')
    run("--user-id", "x", "--yes")
    assert "a file of the spool is being written" in capsys.readouterr().err


@pytest.mark.django_db(transaction=True)
def test_flusher_that_has_read_the_message_already_ends_first(archive: Path) -> None:
    """It delivers and archives what was deleted from the buffer under its hands; then that is deleted, too."""
    put("1", userId="x")
    claim = buffers["default"].claim(0)
    assert claim
    [message] = claim.messages()

    def deliver_later() -> None:
        time.sleep(0.5)
        opened().save(make_files([message]))
        Lease.objects.update(owner="", expires=0)
        connection.close()

    flusher = threading.Thread(target=deliver_later)
    flusher.start()
    out = run("--user-id", "x", "--yes")
    flusher.join()
    assert "waiting: 1\ndead letters: 0\nevents: 0\narchive: 1\n" in out
    assert ids(archive) == []


def test_flusher_that_does_not_end_is_named(capsys: pytest.CaptureFixture[str], settings: Settings) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "SEND_TIMEOUT": 0.1, "FLUSH_BUDGET": 0.1}
    assert buffers["default"].claim(0)
    run("--user-id", "x", "--yes")
    assert "Not complete: a flush that may have read messages before is still running" in capsys.readouterr().err


@pytest.mark.django_db(transaction=True)
def test_site_without_the_table_of_events_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    put("1", userId="x")
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE segment_fallback_pendingevent RENAME TO gone")
        try:
            assert "waiting: 1" in run("--user-id", "x", "--yes")
        finally:
            cursor.execute("ALTER TABLE gone RENAME TO segment_fallback_pendingevent")
    assert "the table of events cannot be read: OperationalError" in capsys.readouterr().err


def test_app_can_have_a_place_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Person, bool]] = []

    def profiles(work: Forgetting) -> int:
        asked.append((work.person, work.dry_run))
        return 3

    monkeypatch.setitem(forget.places, "profiles", profiles)
    assert "profiles: 3\n" in run("--user-id", "x", "--anonymous-id", "a", "--dry-run")
    assert asked == [(Person(frozenset({"x"}), frozenset({"a"})), True)]


def test_without_an_archive_the_other_places_are_done(settings: Settings, archive: Path) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "ARCHIVE": False}
    put("1", userId="x")
    assert "1 deleted." in run("--user-id", "x", "--yes")
    assert kept(archive) == []


@pytest.mark.parametrize("arguments", [[], ["--user-id", ""], ["--user-id", "x", "--anonymous-id", ""]])
def test_nobody_is_nobody(arguments: list[str]) -> None:
    put("1", userId="x")
    with pytest.raises(CommandError, match="Who\\? Give --user-id or --anonymous-id, not empty"):
        run(*arguments, "--yes")
    assert WaitingMessage.objects.count() == 1


def test_nothing_is_deleted_without_a_yes() -> None:
    put("1", userId="x")
    with pytest.raises(CommandError, match=r"Messages and events found: 1\. Nothing was done: add --yes"):
        run("--user-id", "x")
    assert WaitingMessage.objects.count() == 1
    assert run("--user-id", "nobody").endswith("archive: 0\n")


def test_killed_in_the_middle_nobody_elses_messages_are_lost(tmp_path: Path) -> None:
    """A real process, killed at moments that differ from time to time, until it comes to its end."""
    for number in range(40):
        lines = [{"type": "page", "messageId": f"{who}{number}", "userId": who} for who in ("x", "y", "z")]
        batch = [
            Waiting(None, str(line["messageId"]), encode(line).body, "pixel", number * 3_600_000) for line in lines
        ]
        opened().save(make_files(batch))
    (tmp_path / "forget_settings.py").write_text(
        "from tests.settings import *\n"
        "from pathlib import Path\n"
        "from tests.delivery.archives import storages_in\n"
        f"STORAGES = {{**STORAGES, **storages_in(Path({str(tmp_path)!r}))}}\n"
        "SEGMENT_FALLBACK = {**SEGMENT_FALLBACK, 'ARCHIVE': 'archive'}\n"
    )
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "forget_settings",
        "TESTS_DATABASE": str(tmp_path / "db.sqlite3"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])]),
    }
    command = [sys.executable, "-m", "django"]
    subprocess.run([*command, "migrate", "--verbosity", "0"], env=environment, check=True, timeout=60)
    others = {f"{who}{number}" for number in range(40) for who in "yz"}
    folder, kills = tmp_path / "archive", 0
    while {name for name in ids(folder) if name.startswith("x")}:
        left = len([name for name in ids(folder) if name.startswith("x")])
        process = subprocess.Popen(
            [*command, "segment_forget", "--user-id", "x", "--yes"], env=environment, stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 30
        while process.poll() is None and time.monotonic() < deadline:
            if kills < 4 and len([name for name in ids_now(folder) if name.startswith("x")]) < left - kills:
                process.send_signal(signal.SIGKILL)
                kills += 1
                break
        process.wait(30)
        assert set(ids(folder)) >= others
    assert kills
    assert set(ids(folder)) == others


def ids_now(folder: Path) -> list[str]:
    """The same while files come and go."""
    while True:
        try:
            return ids(folder)
        except FileNotFoundError:
            continue
