"""How many messages were delivered, by event, hour and way: the function, the command, and the rebuilding."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta, timezone
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.core.management import CommandError, call_command

from segment_fallback.buffers import base, buffers
from segment_fallback.buffers.event_key import EventKey
from segment_fallback.delivery.counts import Count, event_counts, rebuild
from segment_fallback.delivery.flush import flush
from segment_fallback.exceptions import ArchiveUnavailable
from segment_fallback.message import Way, encode
from segment_fallback.models import WaitingMessage
from segment_fallback.testing import LocalSegment
from tests.delivery.archives import storages_in

if TYPE_CHECKING:
    from pytest_django import Settings

ROOT = Path(__file__).parents[2]


def now() -> datetime:
    return datetime.now(timezone.utc)


def hour() -> datetime:
    """The start of the present one."""
    return now().replace(minute=0, second=0, microsecond=0)


def put(number: int, event: str = "Order Completed", way: Way = Way.SERVER, *, hours_ago: int = 0) -> None:
    """Let so many messages wait, as if accepted so long ago."""
    kind = "track" if event else "page"
    fields = {"type": kind, "userId": "u", **({"event": event} if event else {})}
    names = [f"{event or 'page'}-{way.value}-{hours_ago}-{index}".replace(" ", "") for index in range(number)]
    buffers["default"].put([encode({**fields, "messageId": name}, way=way) for name in names])
    created = base.now_ms() - hours_ago * 3_600_000
    WaitingMessage.objects.filter(message_id__in=names).update(created=created)


@pytest.fixture
def delivered(db: None, local_segment: LocalSegment) -> None:
    put(3)
    put(2, hours_ago=1)
    put(4, "", Way.PIXEL, hours_ago=1)
    put(1, "Sign-up", Way.JAVASCRIPT, hours_ago=30)
    put(5, "=1+1", Way.CALL)
    assert flush().delivered == 15


def run(*arguments: str) -> str:
    out = StringIO()
    call_command("segment_counts", *arguments, stdout=out, stderr=out)
    return out.getvalue()


@pytest.mark.usefixtures("delivered")
def test_function_gives_hours_in_order() -> None:
    earlier = hour() - timedelta(hours=1)
    assert event_counts(now() - timedelta(hours=2), types=["page", "track"], ways=["server", "pixel"]) == [
        Count(earlier, "pixel", "page", "", 4),
        Count(earlier, "server", "track", "Order Completed", 2),
        Count(hour(), "server", "track", "Order Completed", 3),
    ]
    assert [count.count for count in event_counts(hour() - timedelta(days=3), earlier)] == [1]
    assert event_counts(hour(), events=["Nothing"]) == []


@pytest.mark.usefixtures("delivered")
def test_counts_of_all_buffers_are_added(settings: Settings) -> None:
    old = {"BACKEND": "segment_fallback.buffers.memory.MemoryBuffer"}
    own = {"BACKEND": "segment_fallback.buffers.database.DatabaseBuffer"}
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "BUFFERS": {"default": own, "old": old}}
    key = EventKey(int(hour().timestamp()), "server", "track", "Order Completed")
    buffers["old"].set_event_counts(key.hour, {key: 10})
    assert [count.count for count in event_counts(hour(), events=["Order Completed"])] == [13]


@pytest.mark.usefixtures("delivered")
def test_table_of_a_day_by_event() -> None:
    assert run() == (
        "event            pixel  call  server  total\n"
        "page                 4     0       0      4\n"
        "Order Completed      0     0       5      5\n"
        "=1+1                 0     5       0      5\n"
        "total                4     5       5     14\n"
    )


@pytest.mark.usefixtures("delivered")
def test_table_of_one_event_by_hour_in_the_sites_time_zone(settings: Settings) -> None:
    settings.TIME_ZONE = "Asia/Kolkata"
    local = hour().astimezone(timezone(timedelta(hours=5, minutes=30)))
    earlier = local - timedelta(hours=1)
    assert run("--event", "Order Completed", "--since", "2d") == (
        "hour              server  total\n"
        f"{earlier:%Y-%m-%d %H:%M}       2      2\n"
        f"{local:%Y-%m-%d %H:%M}       3      3\n"
        "total                  5      5\n"
    )
    assert run("--since", "2d", "--by", "day", "--type", "page").splitlines()[1].split() == [
        f"{earlier:%Y-%m-%d}",
        "4",
        "4",
    ]


@pytest.mark.usefixtures("delivered")
def test_json_and_csv_have_a_line_for_each_count() -> None:
    lines = [json.loads(line) for line in run("--json", "--since", "3h").splitlines()]
    assert len(lines) == 4
    assert {
        "hour": hour().isoformat(),
        "way": "server",
        "type": "track",
        "event": "Order Completed",
        "count": 3,
    } in lines
    rows = list(csv.DictReader(StringIO(run("--csv", "--way", "call"))))
    # A spreadsheet would compute what begins with '='.
    assert [(row["event"], row["count"]) for row in rows] == [("'=1+1", "5")]


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--since", "yesterday"], "'yesterday' is no moment: write 24h, 7d, 2026-11-21"),
        (["--since", "2026-13-01"], "is no moment"),
        (["--since", "99999999d"], "is no moment"),
        (["--since", "999999w"], "is no moment"),
        (["--since", "1h", "--until", "2h"], "--until must be later than --since"),
        (["--json", "--csv"], "Which one, --json or --csv?"),
        (["--way", "profile"], "invalid choice: 'profile'"),
        (["--rebuild", "--event", "x"], "--rebuild counts whole hours"),
        (["--rebuild"], "there is none: the setting ARCHIVE says where it is to be"),
    ],
)
def test_mistake_is_explained(arguments: list[str], complaint: str) -> None:
    with pytest.raises(CommandError, match=re.escape(complaint)):
        run(*arguments)


@pytest.mark.django_db
def test_nothing_is_said_to_be_nothing() -> None:
    assert run("--since", "2026-11-20", "--until", "2026-11-21T10:00+01:00") == (
        "Nothing was delivered of what was accepted then.\n"
    )


@pytest.fixture
def archive(settings: Settings, tmp_path: Path) -> None:
    settings.STORAGES = {**settings.STORAGES, **storages_in(tmp_path)}
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "ARCHIVE": "archive", "SPOOL": "spool"}


@pytest.mark.usefixtures("archive", "delivered")
def test_rebuilding_mends_hours_that_were_counted_wrong() -> None:
    earlier = hour() - timedelta(hours=1)
    right = event_counts(hour() - timedelta(days=2), hour())
    wrong = EventKey(int(earlier.timestamp()), "server", "track", "Wrong")
    buffers["default"].set_event_counts(wrong.hour, {wrong: 70})
    said = run("--rebuild", "--since", "2d", "--json")
    assert event_counts(hour() - timedelta(days=2), hour()) == right
    assert f"{earlier:%Y-%m-%d %H:%MZ}: 6 deliveries, 70 before\n" in said
    assert "2 hours counted anew from the archive.\n" in said


@pytest.mark.usefixtures("archive", "delivered")
def test_batch_that_was_archived_twice_counts_once() -> None:
    put(2, hours_ago=1)  # the same messageIds, as after a kill
    flush()
    earlier = hour() - timedelta(hours=1)
    orders = {"events": ["Order Completed"]}
    assert [count.count for count in event_counts(earlier, hour(), **orders)] == [4]
    rebuild(earlier)
    assert [count.count for count in event_counts(earlier, hour(), **orders)] == [2]


@pytest.mark.django_db
@pytest.mark.usefixtures("archive")
def test_message_that_two_sources_have_counts_twice(settings: Settings, local_segment: LocalSegment) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "SOURCES": {"docs": {"WRITE_KEY": "docs-key"}}}
    earlier = hour() - timedelta(hours=1)
    for source in ("default", "docs"):
        put(1, hours_ago=1)
        WaitingMessage.objects.update(source=source)
        flush()
    assert len(local_segment.messages) == 2
    rebuild(earlier)
    assert [count.count for count in event_counts(earlier, hour())] == [2]


@pytest.mark.usefixtures("archive", "delivered")
def test_hours_that_are_not_over_are_left_alone() -> None:
    put(1, "Late", hours_ago=29)
    assert rebuild(hour() - timedelta(days=2)) == 1  # the one 30 hours ago
    flush()
    assert rebuild(hour() - timedelta(days=2)) == 3


@pytest.mark.usefixtures("delivered")
def test_hours_without_an_archive_keep_their_counts(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(ArchiveUnavailable):
        rebuild(hour() - timedelta(days=2))
    settings.STORAGES = {**settings.STORAGES, **storages_in(tmp_path)}
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "ARCHIVE": "archive", "SPOOL": "spool"}
    assert rebuild(hour() - timedelta(days=2)) == 0
    assert sum(count.count for count in event_counts(hour() - timedelta(days=2))) == 15


STOP_AT = """
import os, sys, time, pathlib, django; django.setup()
from django.core.management import call_command
from segment_fallback.buffers import database_counts
from segment_fallback.buffers.database import DatabaseBuffer

def stop(*args, **kwargs):
    pathlib.Path(os.environ["REACHED"]).touch()
    time.sleep(60)

if sys.argv[1] == "forgotten, not counted":
    database_counts.add = stop
elif sys.argv[1] == "counted, not committed":
    add = database_counts.add
    database_counts.add = lambda *args: (add(*args), stop())
elif sys.argv[1] == "committed":
    atomically = DatabaseBuffer.atomically
    DatabaseBuffer.atomically = lambda *args: (atomically(*args), stop())
call_command("segment_flush")
"""
FILL = """
import django; django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from segment_fallback.buffers import buffers
from segment_fallback.message import encode
fields = {"type": "track", "event": "Order", "userId": "u", "properties": {"text": "x" * 30_000}}
buffers["default"].put([encode({**fields, "messageId": f"m{number}"}) for number in range(60)])
"""
COUNTED = """
import django; django.setup()
from segment_fallback.buffers import buffers
from segment_fallback.models import Lease
print(sum(buffers["default"].event_counts().values()), buffers["default"].depth())
Lease.objects.update(expires=0)
"""


@pytest.mark.parametrize("step", ["forgotten, not counted", "counted, not committed", "committed"])
def test_flusher_killed_while_it_counts_counts_each_message_once(
    step: str, tmp_path: Path, local_segment: LocalSegment
) -> None:
    (tmp_path / "killed_settings.py").write_text(
        f"from tests.settings import *\nSEGMENT_FALLBACK = {{'WRITE_KEY': 'k', 'API_HOST': {local_segment.url!r}}}\n"
    )
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "killed_settings",
        "TESTS_DATABASE": str(tmp_path / "db.sqlite3"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "REACHED": str(tmp_path / "reached"),
    }

    def python(*arguments: str) -> str:
        command: Any = [sys.executable, *arguments]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout

    python("-c", FILL)
    killed = subprocess.Popen([sys.executable, "-c", STOP_AT, step], env=environment)
    deadline = time.monotonic() + 60
    while not (tmp_path / "reached").exists():
        assert killed.poll() is None, "it ended before"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    killed.send_signal(signal.SIGKILL)
    killed.wait(30)

    counted, waiting = map(int, python("-c", COUNTED).split())
    assert counted + waiting == 60
    assert (counted > 0) == (step == "committed")
    python("-m", "django", "segment_flush")
    assert python("-c", COUNTED) == "60 0\n"
