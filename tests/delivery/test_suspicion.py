from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import pytest

from segment_fallback.buffers import buffers
from segment_fallback.delivery.flush import flush
from segment_fallback.delivery.suspicion import FAILURES
from segment_fallback.message import encode
from segment_fallback.models import DeadLetter, Lease
from segment_fallback.testing import LocalSegment

if TYPE_CHECKING:
    from pytest_django import Settings

pytestmark = pytest.mark.django_db

DISLIKED = "union select"


class Firewall(ThreadingHTTPServer):
    """A proxy before Segment, which answers by itself to what it dislikes; with ``down`` to everything."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream, self.status, self.down, self.asked = upstream, 403, False, 0


class _Handler(BaseHTTPRequestHandler):
    server: Firewall

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked += 1
        status = self.server.status
        if not self.server.down and DISLIKED.encode() not in body:
            headers = {name: self.headers[name] for name in ("Authorization", "Content-Type")}
            request = urllib.request.Request(self.server.upstream + self.path, body, headers)
            with urllib.request.urlopen(request, timeout=10) as answer:
                status = answer.status
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - of the base class
        pass


@pytest.fixture
def firewall(local_segment: LocalSegment, settings: Settings) -> Iterator[Firewall]:
    with Firewall(local_segment.url) as firewall:
        Thread(target=firewall.serve_forever, daemon=True).start()
        host = f"http://127.0.0.1:{firewall.server_port}"
        settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "API_HOST": host}
        yield firewall
        firewall.shutdown()


def put(*names: str, disliked: frozenset[str] = frozenset()) -> None:
    page = {"type": "page", "anonymousId": "a"}
    buffers["default"].put(
        [encode({**page, "messageId": name, "name": DISLIKED if name in disliked else "Shop"}) for name in names]
    )


def flush_again(times: int = 1) -> int:
    """How many messages flushes deliver, each when the part has waited its time."""
    number = 0
    for _ in range(times):
        Lease.objects.update(not_before=0)
        number += flush().delivered
    return number


def waiting() -> set[str]:
    return {message.message_id for message in buffers["default"].waiting_messages()}


@pytest.mark.parametrize("status", [403, 406, 500, 503])
@pytest.mark.parametrize("disliked", [{"0"}, {"12"}, {"0", "1", "2", "3"}, {"5", "9"}])
def test_what_a_firewall_dislikes_holds_up_nothing_else(
    firewall: Firewall, local_segment: LocalSegment, status: int, disliked: set[str]
) -> None:
    firewall.status = status
    names = [str(number) for number in range(13)]
    put(*names, disliked=frozenset(disliked))
    assert flush_again(FAILURES) == 0
    assert flush_again() == 13 - len(disliked)
    assert sorted(str(each.message_id) for each in local_segment.messages) == sorted(set(names) - disliked)
    assert waiting() == disliked
    assert not DeadLetter.objects.exists()


def test_what_comes_later_passes_too(firewall: Firewall, local_segment: LocalSegment) -> None:
    put("bad", disliked=frozenset({"bad"}))
    put("1", "2")
    assert flush_again(FAILURES + 1) == 2
    put("3", "4")
    assert flush_again(FAILURES + 1) == 2
    assert waiting() == {"bad"}
    assert len(local_segment.messages) == 4


def test_source_whose_every_answer_is_so_is_asked_a_few_times_and_waits(firewall: Firewall) -> None:
    firewall.down, firewall.status = True, 500
    put(*map(str, range(500)))
    assert flush_again(FAILURES) == 0
    assert firewall.asked == FAILURES
    assert flush_again() == 0
    assert firewall.asked - FAILURES < 20
    lease = Lease.objects.get(part=0)
    assert (lease.failures, lease.owner, len(waiting())) == (FAILURES + 1, "", 500)
    firewall.asked = 0
    assert flush_again(FAILURES - 1) == 0
    assert firewall.asked == FAILURES - 1

    firewall.down = False
    assert flush_again() == 500
