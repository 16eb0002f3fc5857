"""Processes that are told to end in the middle of a flush."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segment_fallback.testing import Answer, LocalSegment

ROOT = Path(__file__).parents[2]

FILL = """
import django; django.setup()
from django.core.management import call_command
call_command("migrate", verbosity=0)
from segment_fallback.buffers import buffers
from segment_fallback.message import encode
buffers["default"].put([
    encode({"type": "page", "messageId": f"m{n}", "anonymousId": "a", "properties": {"text": "x" * 30_000}})
    for n in range(60)
])
"""
LEFT = """
import django; django.setup()
from segment_fallback.models import Lease, WaitingMessage
print(WaitingMessage.objects.count(), Lease.objects.exclude(owner="").count())
"""


@pytest.fixture
def environment(tmp_path: Path, local_segment: LocalSegment) -> dict[str, str]:
    (tmp_path / "shutdown_settings.py").write_text(
        "from tests.settings import *\n"
        f"SEGMENT_FALLBACK = {{'WRITE_KEY': 'k', 'API_HOST': {local_segment.url!r}, 'SPOOL': 'spool',"
        " 'SENDS_IN_FLIGHT': 2}\n"
    )
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "shutdown_settings",
        "TESTS_DATABASE": str(tmp_path / "db.sqlite3"),
        "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
    }


def python(code: str, environment: dict[str, str]) -> str:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True, timeout=60).stdout


CELERY = ["-m", "celery", "--app", "tests.delivery.celery_app", "worker", "--pool", "threads", "--concurrency", "1"]
PROGRAMS = {"segment_flush": ["-m", "django", "segment_flush"], "Celery": CELERY}


@pytest.mark.parametrize("program", PROGRAMS)
def test_sigterm_ends_a_flush_between_two_batches(
    program: str, environment: dict[str, str], local_segment: LocalSegment
) -> None:
    python(FILL, environment)
    local_segment.answer_with(Answer.slow(0.7), times=None)
    process = subprocess.Popen(
        [sys.executable, *PROGRAMS[program]],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    try:
        deadline = time.monotonic() + 60
        while not local_segment.requests and not local_segment.messages:
            assert time.monotonic() < deadline, "nothing was flushed"
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=30)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, output.decode()

    local_segment.answer_normally()
    delivered = {received.message_id for received in local_segment.messages}
    left, leases = map(int, python(LEFT, environment).split())
    assert 0 < len(delivered) < 60, "it ended in the middle"
    assert len(delivered) == len(local_segment.messages), "nothing was sent twice"
    assert (left, leases) == (60 - len(delivered), 0), "what was not delivered waits, and the part is free"
