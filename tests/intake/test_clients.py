"""Segment's own libraries for servers, unchanged, against our Tracking API."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import segment.analytics
from django.core.handlers.wsgi import WSGIHandler
from django.core.servers.basehttp import WSGIServer
from django.db import connections
from django.test import override_settings
from django.test.testcases import LiveServerThread, QuietWSGIRequestHandler
from segment.analytics.request import APIError

from segment_fallback.models import WaitingMessage
from segment_fallback.names import public_key
from tests.intake.posts import WRITE_KEY, url_of
from tests.intake.visits import outcomes, waiting

pytestmark = pytest.mark.django_db(transaction=True)

TYPES = ["alias", "group", "identify", "page", "screen", "track"]


@pytest.fixture(autouse=True)
def first_party() -> Iterator[None]:
    base = {"WRITE_KEY": WRITE_KEY, "OUTCOME_INTERVAL": 0, "SPOOL": "spool", "FIRST_PARTY": True}
    with override_settings(SEGMENT_FALLBACK=base, ALLOWED_HOSTS=["127.0.0.1"]):
        yield


def without_static_files(_handler: object) -> WSGIHandler:
    return WSGIHandler()


class OneByOne(LiveServerThread):
    """Requests that come at once wait for each other: they share the test's one connection to the database."""

    def _create_server(self, connections_override: Any = None) -> WSGIServer:
        return WSGIServer((self.host, self.port), QuietWSGIRequestHandler, allow_reuse_address=False)


@pytest.fixture
def site(transactional_db: None) -> Iterator[str]:
    """The URL of a server in a thread, on the test's own database."""
    connection = connections["default"]
    shared = {"default": connection} if connection.settings_dict["NAME"].startswith("file:memorydb") else {}
    thread = OneByOne("127.0.0.1", without_static_files, connections_override=shared)  # type: ignore[arg-type]
    thread.daemon = True
    connection.inc_thread_sharing()
    thread.start()
    thread.is_ready.wait(30)
    assert thread.error is None
    yield f"http://127.0.0.1:{thread.port}"
    thread.terminate()
    connection.dec_thread_sharing()


class Client(segment.analytics.Client):  # type: ignore[misc]
    """segment-analytics-python, its host pointing to the site; keeps the errors that it meets."""

    def __init__(self, site: str, key: str = WRITE_KEY, **options: Any) -> None:
        self.errors: list[APIError] = []
        host = site + url_of("batch").removesuffix("/v1/batch")
        super().__init__(key, host=host, on_error=lambda e, _batch: self.errors.append(e), max_retries=0, **options)


@pytest.mark.parametrize("gzip", [False, True], ids=["plain", "gzip"])
def test_segment_analytics_python_delivers_every_type(site: str, gzip: bool) -> None:
    client = Client(site, gzip=gzip)
    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    client.identify("ada", {"plan": "gold"})
    client.track("ada", "Bought", {"price": 9.5, "name": "Ü </script>"}, timestamp=when)
    client.page(None, "Shop", anonymous_id="visitor", context={"ip": "198.51.100.7"})
    client.screen("ada", "App", "Start")
    client.group("ada", "staff", {"size": 5})
    client.alias("visitor", "ada")
    client.shutdown()

    assert client.errors == []
    messages = {message["type"]: message for message in waiting()}
    assert sorted(messages) == TYPES
    assert messages["track"]["properties"] == {"price": 9.5, "name": "Ü </script>"}
    moment = datetime.fromisoformat(messages["track"]["timestamp"].replace("Z", "+00:00"))
    assert abs((moment - when).total_seconds()) < 5
    assert messages["page"]["context"]["ip"] == "198.51.100.7"
    assert messages["page"]["anonymousId"] == "visitor"
    assert "ip" not in messages["track"]["context"]
    assert (messages["alias"]["previousId"], messages["alias"]["userId"]) == ("visitor", "ada")
    assert {message["context"]["library"]["name"] for message in messages.values()} == {"analytics-python"}
    assert set(WaitingMessage.objects.values_list("way", flat=True)) == {"server"}
    assert outcomes() == {"accepted": 6}


def test_segment_analytics_python_delivers_many(site: str) -> None:
    client = Client(site, upload_size=100)
    for number in range(1_000):
        client.track("ada", "Bought", {"number": number})
    client.shutdown()

    assert client.errors == []
    assert sorted(message["properties"]["number"] for message in waiting()) == list(range(1_000))


def test_segment_analytics_python_gives_up_at_once_with_a_key_that_is_public(site: str) -> None:
    client = Client(site, public_key())
    client.track("ada", "Bought")
    client.shutdown()

    [error] = client.errors
    assert (error.status, json.loads(error.message)) == (403, {"success": False, "reason": "write_key"})
    assert (waiting(), outcomes()) == ([], {"write_key": 1})


def node(site: str, key: str) -> list[str]:
    script = Path(__file__).with_name("node_client.cjs")
    command = ["node", str(script), key, site, url_of("batch")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    errors: list[str] = json.loads(done.stdout.splitlines()[-1])
    return errors


def test_analytics_node_delivers_every_type(site: str) -> None:
    assert node(site, WRITE_KEY) == []
    messages = {message["type"]: message for message in waiting()}
    assert sorted(messages) == TYPES
    assert messages["track"]["properties"] == {"price": 9.5, "name": "Ü </script>"}
    assert messages["page"]["context"]["ip"] == "198.51.100.7"
    assert messages["track"]["messageId"].startswith("node-next-")
    assert {message["context"]["library"]["name"] for message in messages.values()} == {"@segment/analytics-node"}
    assert set(WaitingMessage.objects.values_list("way", flat=True)) == {"server"}
    assert outcomes() == {"accepted": 6}


def test_analytics_node_is_refused_with_a_key_that_is_public(site: str) -> None:
    assert node(site, public_key())
    assert waiting() == []
    assert set(outcomes()) == {"write_key"}
