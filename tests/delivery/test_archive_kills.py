"""Flushers that are killed between the steps: send, archive, acknowledge."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from segment_fallback.testing import Answer, LocalSegment
from tests.delivery.archives import ids

ROOT = Path(__file__).parents[2]

FILL = """
import django; django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from tests.delivery.archives import put
put(*(f"m{n}" for n in range(60)), properties={"text": "x" * 30_000})
"""
LEFT = """
import django; django.setup()
from segment_fallback.models import Lease, WaitingMessage
print(*WaitingMessage.objects.values_list("message_id", flat=True))
Lease.objects.update(expires=0)
"""
STOP_AT = """
import os, sys, time, pathlib, django; django.setup()
from django.core.management import call_command
from segment_fallback.buffers.database import DatabaseClaim
from segment_fallback.delivery import archive, archive_files, archiving

def stop(*args, **kwargs):
    pathlib.Path(os.environ["REACHED"]).touch()
    time.sleep(60)

step = sys.argv[1]
if step == "half a file":
    def save(storage, name, content):
        path = pathlib.Path(storage.path(name + archive_files.PART))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content[:-50])
        stop()
    archive.save_whole = save
elif step == "archived":
    DatabaseClaim.ack = stop
elif step == "acknowledged":
    archiving.JOINED_BATCHES = 1
    ack = DatabaseClaim.ack
    DatabaseClaim.ack = lambda *args: (ack(*args), stop())
call_command("segment_flush")
"""


@pytest.fixture
def environment(tmp_path: Path, local_segment: LocalSegment) -> dict[str, str]:
    (tmp_path / "killed_settings.py").write_text(
        "from tests.settings import *\n"
        "from tests.delivery.archives import storages_in\n"
        "from pathlib import Path\n"
        f"STORAGES = {{**STORAGES, **storages_in(Path({str(tmp_path)!r}))}}\n"
        f"SEGMENT_FALLBACK = {{'WRITE_KEY': 'k', 'API_HOST': {local_segment.url!r}, 'SPOOL': 'spool',"
        " 'ARCHIVE': 'archive', 'SENDS_IN_FLIGHT': 2}\n"
    )
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "killed_settings",
        "TESTS_DATABASE": str(tmp_path / "db.sqlite3"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
        "REACHED": str(tmp_path / "reached"),
    }


def python(code: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout


def flushed_until(reached: Callable[[], bool], signal_: int, command: list[str], environment: dict[str, str]) -> int:
    """Run a flush, give it the signal as soon as it has come so far, and wait for its end; its exit status."""
    process = subprocess.Popen([sys.executable, *command], env=environment, cwd=ROOT)
    try:
        deadline = time.monotonic() + 60
        while not reached():
            assert time.monotonic() < deadline
            assert process.poll() is None, "it ended before"
            time.sleep(0.02)
        process.send_signal(signal_)
        return process.wait(30)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("step", ["half a file", "archived", "acknowledged"])
def test_flusher_killed_at_any_step_loses_no_line(step: str, environment: dict[str, str], tmp_path: Path) -> None:
    python(FILL, environment)
    reached = Path(environment["REACHED"])
    flushed_until(reached.exists, signal.SIGKILL, ["-c", STOP_AT, step], environment)

    everything = {f"m{number}" for number in range(60)}
    waiting = set(python(LEFT, environment).split())
    archived = ids(tmp_path / "archive")  # which also reads every file to its end
    assert waiting
    assert set(archived) | waiting == everything
    assert bool(archived) == (step != "half a file")
    assert (len(waiting) < 60) == (step == "acknowledged")

    subprocess.run([sys.executable, "-m", "django", "segment_flush"], env=environment, check=True, timeout=60)
    assert python(LEFT, environment).split() == []
    assert set(ids(tmp_path / "archive")) == everything


def test_sigterm_archives_and_acknowledges_what_was_sent(
    environment: dict[str, str], tmp_path: Path, local_segment: LocalSegment
) -> None:
    python(FILL, environment)
    local_segment.answer_with(Answer.slow(0.5), times=None)
    command = ["-m", "django", "segment_flush"]
    status = flushed_until(lambda: bool(local_segment.messages), signal.SIGTERM, command, environment)
    assert status == 0
    delivered = {str(received.message_id) for received in local_segment.messages}
    assert 0 < len(delivered) < 60
    assert set(ids(tmp_path / "archive")) == delivered
    assert set(python(LEFT, environment).split()) == {f"m{number}" for number in range(60)} - delivered


def test_archive_that_hangs_keeps_no_process_from_ending(
    environment: dict[str, str], tmp_path: Path, local_segment: LocalSegment
) -> None:
    python(FILL, environment)
    hang = (
        "import django; django.setup()\n"
        "from tests.delivery.archives import moody\n"
        "from segment_fallback.delivery import archiving\n"
        "from segment_fallback.delivery.flush import flush\n"
        "moody('archive').goes_on.clear(); moody('spool').goes_on.clear()\n"
        "archiving.PATIENCE = archiving.ASIDE_PATIENCE = 0.5\n"
        "print(flush())\n"
    )
    started = time.monotonic()
    assert "60 delivered in 4 batches, 0 dead letters, 60 missing in the archive" in python(hang, environment)
    assert time.monotonic() - started < 20
    assert python(LEFT, environment).split() == []
    assert len(local_segment.messages) == 60
