from __future__ import annotations

import io
import os
import pty
import subprocess
import sys
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command

from segment_fallback.buffers import buffers
from segment_fallback.buffers.base import Waiting, now_ms
from segment_fallback.delivery import replay
from segment_fallback.delivery.archive import Archive, make_files, open_archive
from segment_fallback.delivery.flush import flush
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.message import Message, Way, encode
from segment_fallback.models import WaitingMessage
from segment_fallback.testing import LocalSegment
from tests.delivery.archives import moody, put, storages_in

if TYPE_CHECKING:
    from pytest_django import Settings

pytestmark = pytest.mark.django_db

HOUR = 3_600_000
ALL = ("--since", "2020-01-01")
STAMP = "2026-11-20T10:00:00.000Z"


@pytest.fixture(autouse=True)
def archive(local_segment: LocalSegment, settings: Settings, tmp_path: Path) -> Path:
    settings.STORAGES = {**settings.STORAGES, **storages_in(tmp_path)}
    sources = {"docs": {"WRITE_KEY": "docs-key"}}
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "ARCHIVE": "archive", "SOURCES": sources}
    return tmp_path / "archive"


def opened() -> Archive:
    found = open_archive()
    assert found
    return found


def delivered(message_id: str, hours_ago: float = 0, source: str = "default", **fields: Any) -> None:
    """Something that was accepted, delivered and archived so long ago."""
    event = {"type": "page", "messageId": message_id, "anonymousId": "a", "timestamp": STAMP, **fields}
    message = encode(event, way=Way.PIXEL)
    created = now_ms() - round(hours_ago * HOUR)
    opened().save(make_files([Waiting(None, message_id, message.body, message.way.value, created, source)]))


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("segment_replay", *arguments, stdout=out)
    return out.getvalue()


def waiting() -> list[str]:
    return sorted(WaitingMessage.objects.values_list("message_id", flat=True))


def test_message_is_sent_again_as_it_was(local_segment: LocalSegment) -> None:
    put("1", timestamp=STAMP, properties={"title": "Größe"})
    flush()
    assert run(*ALL) == "1 message found.\n1 wait for the next flush.\n"
    assert WaitingMessage.objects.get().way == "server"
    assert flush().delivered == 1
    first, second = local_segment.messages
    assert first.message == second.message
    assert second.message["timestamp"] == STAMP


def test_message_goes_to_another_source(local_segment: LocalSegment) -> None:
    delivered("1", hours_ago=50)
    assert run(*ALL, "--to", "docs") == "1 message found.\n1 wait for the next flush.\n", "nothing to warn about"
    flush()
    assert [(found.message_id, found.write_key) for found in local_segment.messages] == [("1", "docs-key")]
    assert WaitingMessage.objects.count() == 0


def test_message_waits_for_several_sources_at_once(local_segment: LocalSegment) -> None:
    delivered("1")
    for source in ("docs", "default", "docs"):
        assert run(*ALL, "--to", source) == "1 message found.\n1 wait for the next flush.\n"
    assert flush().delivered == 2
    delivered_to = [(found.message_id, found.write_key) for found in local_segment.messages]
    assert sorted(delivered_to) == [("1", "docs-key"), ("1", "tests-write-key")]
    assert run(*ALL) == "2 messages found.\n2 wait for the next flush.\n"


def test_source_that_is_not_there_any_more_is_named() -> None:
    delivered("1", source="old")
    errors = StringIO()
    call_command("segment_replay", *ALL, "--source", "old", "--dry-run", stdout=StringIO(), stderr=errors)
    assert errors.getvalue() == "There is no source 'old' now; there are default, docs.\n"


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        (["--event", "Order"], ["1", "4"]),
        (["--event", "Order", "--event", "Home"], ["1", "2", "4"]),
        (["--type", "page"], ["2", "3", "5"]),
        (["--source", "docs"], ["4"]),
        (["--event", "Order", "--source", "default", "--type", "track"], ["1"]),
        (["--type", "alias"], []),
        (["--event", "order"], []),
    ],
)
def test_filters(arguments: list[str], found: list[str]) -> None:
    delivered("1", type="track", event="Order")
    delivered("2", name="Home")
    delivered("3", name=["Home"])
    delivered("4", type="track", event="Order", source="docs")
    delivered("5")
    run(*ALL, *arguments)
    assert waiting() == found


def test_range_is_of_the_acceptance_to_the_millisecond() -> None:
    for number, later in enumerate((0, 1, HOUR - 1, HOUR)):
        body = encode({"type": "page", "messageId": str(number), "anonymousId": "a"}).body
        opened().save(make_files([Waiting(None, str(number), body, "pixel", 1_795_262_400_000 + later)]))
    between = ("--since", "2026-11-21T13:00:00.001+01:00", "--until", "2026-11-21 13:00Z", "--yes")
    assert run(*between) == "2 wait for the next flush.\n"
    assert waiting() == ["1", "2"]


def test_what_was_archived_twice_is_sent_once() -> None:
    put("1", "2")
    flush()
    [name] = opened().files()
    lines = opened().lines(name)
    opened().replace(name, lines + lines)
    body = opened().read(next(opened().files()))[0]
    opened().save(make_files([Waiting(None, "1", body.body, body.way, body.created, body.source)]))
    assert run(*ALL) == "2 messages found.\n2 wait for the next flush.\n"


def test_what_is_set_aside_is_replayed_too() -> None:
    put("1")
    moody("archive").error, moody("archive").failures = OSError("x"), -1
    flush()
    assert len(opened().aside()) == 1
    assert run(*ALL) == "1 message found.\n1 wait for the next flush.\n"


def test_what_segment_would_count_twice_needs_a_yes() -> None:
    delivered("old", hours_ago=24)
    delivered("new", hours_ago=22)
    delivered("other", hours_ago=24, source="docs")
    assert "2 of them were accepted more than 23 hours ago" in run(*ALL, "--dry-run")
    assert "1 of them were accepted more than 23 hours ago" in run(*ALL, "--dry-run", "--to", "docs")
    assert waiting() == []
    with pytest.raises(CommandError, match=r"counts them once more\. Nothing was done: add --yes"):
        run(*ALL)
    assert waiting() == []
    assert run(*ALL, "--yes") == "3 wait for the next flush.\n"
    assert waiting() == ["new", "old", "other"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("answer", "sent"), [("y\n", True), ("YES\n", True), ("n\n", False), ("\n", False), ("", False)]
)
def test_question_is_answered_at_a_terminal(answer: str, sent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    delivered("old", hours_ago=24)
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    if sent:
        run(*ALL)
    else:
        with pytest.raises(CommandError, match=r"^Nothing was done\.$"):
            run(*ALL)
    assert waiting() == ["old"][: int(sent)]


def test_dry_run_changes_nothing() -> None:
    delivered("1")
    assert run(*ALL, "--dry-run", "--yes") == "1 message found.\n"
    assert run("--since", "2020-01-01", "--until", "2020-01-02", "--dry-run") == "0 messages found.\n"
    assert waiting() == []


def test_replay_that_ends_early_says_how_far_it_came_and_goes_on_when_run_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(replay, "CHUNK", 2)
    for number in range(5):
        delivered(str(number), hours_ago=5 - number)
    put_back = buffers["default"].put
    failures: list[BaseException] = []

    def put_once(messages: list[Message]) -> None:
        put_back(messages)
        monkeypatch.setattr(buffers["default"], "put", fail)

    def fail(messages: list[Message]) -> None:
        raise failures.pop()

    for error in (BufferUnavailable("the database is down"), KeyboardInterrupt()):
        failures.append(error)
        monkeypatch.setattr(buffers["default"], "put", put_once)
        with pytest.raises(CommandError, match=r"^2 wait for the next flush, those before dt=.*/hour=\d\d among them"):
            run(*ALL)
        monkeypatch.setattr(buffers["default"], "put", put_back)
    assert waiting() == ["0", "1"]
    run(*ALL)
    assert waiting() == ["0", "1", "2", "3", "4"]


def test_file_that_nobody_can_read_is_named_and_passed_over(archive: Path, capsys: pytest.CaptureFixture[str]) -> None:
    delivered("1")
    delivered("2", hours_ago=2)
    name = next(opened().files())
    (archive / name).write_bytes(b"\x1f\x8bcut")
    assert run(*ALL).endswith("1 wait for the next flush.\n")
    assert f"Passed over: the archive's file {name} is not as it was written." in capsys.readouterr().err
    assert waiting() == ["1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--since", "yesterday"], "--since: 'yesterday' is no moment: write 24h"),
        (["--since", "24h", "--until", "2026-13-01"], "--until: '2026-13-01' is no moment"),
        (["--since", "2026-11-20", "--until", "2026-11-20"], "--since must be before --until"),
        (["--since", "2026-11-20", "--to", "dosc"], "no source 'dosc' with a write key; there are default, docs"),
        (["--since", "2026-11-20", "--type", "pages"], "invalid choice: 'pages'"),
        ([], "--since"),
    ],
)
def test_mistake_is_named(arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        run(*arguments)


def test_site_without_an_archive_is_told(settings: Settings) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "ARCHIVE": False}
    for command in (["segment_replay", *ALL], ["segment_archive"]):
        with pytest.raises(CommandError, match="There is no archive: the setting ARCHIVE says where"):
            call_command(*command)


def test_storage_that_fails_is_told(settings: Settings) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "ARCHIVE": "nowhere"}
    for command in (["segment_replay", *ALL], ["segment_archive"]):
        with pytest.raises(CommandError, match="the archive's storage failed: InvalidStorageError"):
            call_command(*command)


def test_progress_is_shown_at_a_terminal_and_leaves_no_trace(tmp_path: Path, archive: Path) -> None:
    for number in range(3):
        delivered(str(number), hours_ago=number)
    (tmp_path / "replay_settings.py").write_text(
        "from tests.settings import *\n"
        "from pathlib import Path\n"
        "from tests.delivery.archives import storages_in\n"
        f"STORAGES = {{**STORAGES, **storages_in(Path({str(tmp_path)!r}))}}\n"
        "SEGMENT_FALLBACK = {**SEGMENT_FALLBACK, 'ARCHIVE': 'archive'}\n"
    )
    code = (
        "import django; django.setup()\n"
        "from django.core.management import call_command\n"
        "from segment_fallback.delivery import replay\n"
        "replay.CHUNK = 1\n"
        "call_command('migrate', verbosity=0)\n"
        "call_command('segment_replay', '--since', '2020-01-01')\n"
    )
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "replay_settings",
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[2])]),
    }
    ours, theirs = pty.openpty()
    subprocess.run([sys.executable, "-c", code], env=environment, stdout=theirs, check=True, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 10_000).decode()
    os.close(ours)
    assert "/hour=" in shown
    assert ": 2 wait" in shown
    assert shown.endswith("\r3 wait for the next flush.\r\n")


# segment_archive


def overview(*arguments: str) -> str:
    out = StringIO()
    call_command("segment_archive", *arguments, stdout=out)
    return out.getvalue()


def test_archive_command_says_what_there_is_and_deletes_what_is_old() -> None:
    assert overview() == "The archive is empty.\n"
    delivered("1", hours_ago=1_000)
    delivered("2")
    first, second = (name.rpartition("/")[0] for name in opened().files())
    assert overview() == f"2 files, from {first} to {second}.\n"
    assert overview("--delete-older-than", "30") == "1 files deleted.\n"
    assert len(list(opened().files())) == 1
    with pytest.raises(CommandError, match="DAYS must be from 0 to"):
        overview("--delete-older-than", "-1")


def test_archive_command_counts_what_is_set_aside() -> None:
    moody("archive").error, moody("archive").failures = OSError("x"), -1
    put("1")
    flush()
    assert "1 files, from dt=" in overview()
    assert "; 1 of them wait in the spool's storage." in overview()
