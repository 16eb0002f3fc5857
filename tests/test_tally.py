from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from django.db import connection
from django.test import override_settings

from segment_fallback.buffers import buffers
from segment_fallback.message import Way
from segment_fallback.outcome import Outcome
from segment_fallback.tally import Tally
from tests.intake.visits import outcomes

SLOW = override_settings(SEGMENT_FALLBACK={"WRITE_KEY": "k", "OUTCOME_INTERVAL": 3_600})


@pytest.mark.django_db
@SLOW
def test_counts_are_added_up_before_they_are_written() -> None:
    tally = Tally()
    for _ in range(3):
        tally.add(Way.PIXEL, Outcome.ACCEPTED)
    tally.add(Way.NOSCRIPT, Outcome.GPC)
    assert outcomes() == {}

    tally.write()
    tally.write()
    assert outcomes() == {"accepted": 3, "gpc": 1}
    hour = int(time.time()) // 3600 * 3600
    assert buffers["default"].outcome_counts(hour) == {(hour, "pixel", "accepted"): 3, (hour, "noscript", "gpc"): 1}


@pytest.mark.django_db(transaction=True)
@SLOW
def test_counts_wait_while_the_buffer_is_down() -> None:
    tally = Tally()
    tally.add(Way.PIXEL, Outcome.RATE)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE segment_fallback_outcomecount RENAME TO gone")
    tally.write()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE gone RENAME TO segment_fallback_outcomecount")
    tally.write()
    assert outcomes() == {"rate": 1}


@pytest.mark.django_db
@SLOW
def test_counts_are_written_at_once_where_no_thread_is_to_be_had() -> None:
    tally = Tally()
    usual = threading.stack_size(1 << 47)  # as many bytes as a process has addresses
    try:
        for _ in range(2):
            tally.add(Way.PIXEL, Outcome.ACCEPTED)
    finally:
        threading.stack_size(usual)
    assert outcomes() == {"accepted": 2}

    tally.add(Way.PIXEL, Outcome.ACCEPTED)
    assert outcomes() == {"accepted": 2}, "threads are to be had again, and a timer runs"
    assert tally._timer is not None
    tally._timer.cancel()


@pytest.mark.django_db
@SLOW
def test_many_threads_lose_no_count() -> None:
    tally = Tally()

    def hits() -> None:
        for _ in range(200):
            tally.add(Way.PIXEL, Outcome.ACCEPTED)

    threads = [threading.Thread(target=hits) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tally.write()
    assert outcomes() == {"accepted": 1_600}


PROGRAM = """
import os, time
import django
django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from segment_fallback.outcome import Outcome
from segment_fallback.tally import tally
from segment_fallback.buffers import buffers
from segment_fallback.message import Way
{body}
"""


def run(body: str, tmp_path: Path, interval: float) -> str:
    (tmp_path / "program_settings.py").write_text(
        f"from tests.settings import *\nSEGMENT_FALLBACK = {{'WRITE_KEY': 'k', 'OUTCOME_INTERVAL': {interval}}}\n"
    )
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "program_settings",
        "TESTS_DATABASE": str(tmp_path / "db.sqlite3"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])]),
    }
    command = [sys.executable, "-c", PROGRAM.format(body=body)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout


def test_timer_writes_without_a_further_hit(tmp_path: Path) -> None:
    body = """
tally.add(Way.PIXEL, Outcome.ACCEPTED)
deadline = time.monotonic() + 30
while not buffers["default"].outcome_counts() and time.monotonic() < deadline:
    time.sleep(0.02)
print(sum(buffers["default"].outcome_counts().values()))
"""
    assert run(body, tmp_path, 0.05) == "1\n"


def test_exit_writes_what_is_pending_and_a_fork_does_not_write_it_again(tmp_path: Path) -> None:
    body = """
tally.add(Way.PIXEL, Outcome.ACCEPTED)
from django.db import connections
connections.close_all()
child = os.fork()
if not child:
    tally.write()
    os._exit(0)
os.waitpid(child, 0)
print(sum(buffers["default"].outcome_counts().values()))
"""
    assert run(body, tmp_path, 3_600) == "0\n"
    assert run("print(sum(buffers['default'].outcome_counts().values()))", tmp_path, 3_600) == "1\n"
