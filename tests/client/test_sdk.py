"""Existing code that calls segment-analytics-python, with this app installed."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import segment.analytics
from segment.analytics.client import Client

from segment_fallback.client import sdk
from segment_fallback.models import WaitingMessage
from segment_fallback.testing import CapturedMessages
from tests.intake.visits import outcomes, waiting

ROOT = Path(__file__).parents[2]


@pytest.fixture
def python(tmp_path: Path) -> Any:
    """Runs code in a process of a site that has the app and a database; what it printed."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "TESTS_DATABASE": str(tmp_path / "db.sqlite3"),
        "PYTHONPATH": str(ROOT),
    }

    def python(code: str) -> list[str]:
        command = [sys.executable, "-W", "error", "-c", code]
        run = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )
        assert run.returncode == 0, run.stderr
        return run.stdout.split("\n")[:-1]

    python(
        "import django; django.setup(); from django.core.management import call_command as c;c('migrate', verbosity=0)"
    )
    return python


COUNT = "from segment_fallback.models import WaitingMessage; print(WaitingMessage.objects.count())"
KEY = "analytics.write_key = 'tests-write-key'"


@pytest.mark.parametrize(
    "code",
    [
        f"import django; django.setup(); import segment.analytics as analytics; {KEY}; analytics.track('u', 'E')",
        f"import segment.analytics as analytics; {KEY}; import django; django.setup(); analytics.track('u', 'E')",
        "from segment.analytics import Client; import django; django.setup();Client('tests-write-key').track('u', 'E')",
        "import django; django.setup(); from segment.analytics.client import Client;"
        "Client('tests-write-key', sync_mode=True, thread=4).track('u', 'E')",
    ],
    ids=["imported after", "imported before", "class before", "class after"],
)
def test_call_waits_in_our_buffer_whoever_imported_the_sdk_when(python: Any, code: str) -> None:
    threads = "import threading; print([t.name for t in threading.enumerate() if 'Consumer' in type(t).__name__])"
    assert python(f"{code}\n{COUNT}\n{threads}") == ["1", "[]"]


def test_no_thread_of_the_sdks_is_started() -> None:
    before = set(threading.enumerate())
    client = Client("tests-write-key", thread=3)
    assert set(threading.enumerate()) == before
    assert not any(consumer.is_alive() for consumer in client.consumers)


def test_sdk_is_not_imported_for_our_sake(python: Any) -> None:
    code = "import django, sys; django.setup(); import segment_fallback.client; print('segment' in sys.modules)"
    assert python(code) == ["False"]


def test_client_from_before_the_app_was_ready_has_its_messages_kept(python: Any) -> None:
    code = (
        f"import segment.analytics as analytics; {KEY}; analytics.host = 'http://127.0.0.1:9'\n"
        "analytics.max_retries = 0; analytics.identify('before'); analytics.flush()\n"
        "import django; django.setup(); analytics.track('u', 'E'); analytics.shutdown()"
    )
    assert python(f"import logging; logging.disable()\n{code}\n{COUNT}") == ["1"]


def test_setting_leaves_the_sdk_as_it_is(python: Any) -> None:
    code = (
        "from django.conf import settings\n"
        "settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, 'CAPTURE_SDK': False}\n"
        "import django, sys; django.setup()\n"
        "from segment.analytics import Client; print(hasattr(Client, 'segment_fallback'))"
    )
    assert python(code) == ["False"]


def test_client_of_another_write_key_is_left_alone() -> None:
    client = Client("another key", host="http://127.0.0.1:9", send=True, max_retries=0)
    try:
        assert client.segment_fallback is None
        assert all(consumer.is_alive() for consumer in client.consumers)
    finally:
        client.join()


@pytest.mark.django_db
def test_message_goes_to_the_source_of_its_write_key(settings: Any) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "SOURCES": {"docs": {"WRITE_KEY": "docs-key"}}}
    assert Client("docs-key").track("u", "E")[0]
    assert WaitingMessage.objects.get().source == "docs"


@pytest.mark.django_db
def test_flush_join_and_shutdown_return_at_once() -> None:
    for sync_mode in (True, False):
        client = Client("tests-write-key", sync_mode=sync_mode)
        client.track("u", "E")
        client.flush()
        client.join()
        client.shutdown()
    assert len(waiting()) == 2


@pytest.mark.django_db
def test_client_that_shall_not_send_does_not() -> None:
    assert Client("tests-write-key", send=False).track("u", "E")[0]
    assert waiting() == []


@pytest.mark.django_db
def test_message_past_the_limit_is_counted_where_the_sdk_raises() -> None:
    assert Client("tests-write-key").track("u", "E", {"text": "x" * 40_000})[0] is False
    assert outcomes() == {"size": 1}


def test_sdk_call_is_delivered_as_the_sdk_would(segment_messages: CapturedMessages) -> None:
    """Nothing of the request's visitor is added."""
    segment.analytics.write_key = "tests-write-key"
    assert segment.analytics.track("u", "E", {"a": 1})[0]
    message = segment_messages.assert_tracked("E", user_id="u", properties={"a": 1})
    assert message["context"] == {"library": {"name": "analytics-python", "version": segment.analytics.__version__}}


def test_sdk_of_another_shape_is_left_alone(caplog: Any) -> None:
    class Other:
        def __init__(self) -> None: ...

    sdk.change(SimpleNamespace(Client=Other))  # type: ignore[arg-type]
    assert "does not know this version" in caplog.text
    assert not hasattr(Other, "segment_fallback")


def test_change_happens_once() -> None:
    enqueue = Client._enqueue
    sdk.capture()
    sdk.change(sys.modules[sdk.MODULE])
    assert Client._enqueue is enqueue


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_child_of_a_fork_keeps_its_messages(python: Any) -> None:
    """The SDK's own client says True in the child, and its messages are lost."""
    code = (
        f"import django; django.setup(); import segment.analytics as analytics, os; {KEY}\n"
        "import segment_fallback; from django.db import connections\n"
        "analytics.track('u', 'parent'); segment_fallback.track('u', 'parent'); connections.close_all()\n"
        "import warnings; warnings.simplefilter('ignore')\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    analytics.track('u', 'child'); segment_fallback.track('u', 'child'); os._exit(0)\n"
        "assert os.waitpid(child, 0)[1] == 0"
    )
    assert python(f"{code}\n{COUNT}") == ["4"]


def test_call_outside_of_a_request_survives_whatever_follows(python: Any) -> None:
    code = f"import django; django.setup(); import segment.analytics as analytics, os, signal; {KEY}\n"
    python(f"{code}pid = os.fork()\nif not pid:\n    analytics.track('u', 'E'); os._exit(1)\nos.waitpid(pid, 0)")
    python(f"{code}pid = os.fork()\nif not pid:\n    analytics.track('u', 'E'); os.kill(os.getpid(), 9)\nos.wait()")
    assert python(f"import django; django.setup(); {COUNT}") == ["2"]
