"""A thousand visitors of one cached page: Django makes the page once, and hears of every view."""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from django.test import override_settings
from pytest_django import DjangoDbBlocker

from segment_fallback.delivery.flush import flush
from segment_fallback.testing import LocalSegment
from tests.edge.servers import Edge, ask
from tests.edge.visits import View, arrived, waiting

VISITORS = 1_000
THREADS = 20


def visit(edge: Edge, page: str, cookies: Sequence[str]) -> list[str]:
    """Visits one after another over one connection, each with its cookies; their messageIds."""
    sent = []
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", edge.port, timeout=30)) as connection:
        for cookie in cookies:
            html = ask(connection, page, {"Cookie": cookie}).body.decode()
            message_id, path, headers = View(edge, page, html).pixel(cookie)
            assert ask(connection, path, headers).status == 200
            sent.append(message_id)
    return sent


def test_thousand_visitors_cost_one_page_and_make_a_thousand_events(
    edge: Edge, page: str, segment: LocalSegment, django_db_blocker: DjangoDbBlocker
) -> None:
    ada = edge.sign_in("ada")
    everybody = [f"ajs_anonymous_id=visitor-{n}; {ada if n % 10 == 0 else ''}" for n in range(VISITORS)]
    if edge.kind == "django":
        # It lets all render who come before the first copy is there; an edge of its own lets them wait for it.
        edge.get(page)
    with ThreadPoolExecutor(THREADS) as threads:
        shares = [everybody[first::THREADS] for first in range(THREADS)]
        sent = {
            message_id for share in threads.map(lambda each: visit(edge, page, each), shares) for message_id in share
        }
    assert len(sent) == VISITORS
    assert edge.made(page) == 1

    events = arrived(edge, page)
    assert {event["messageId"] for event in events} == sent
    assert len(events) == VISITORS
    assert {event["anonymousId"] for event in events} == {f"visitor-{n}" for n in range(VISITORS)}
    assert len([event for event in events if event["userId"]]) == VISITORS / 10

    segment.clear()
    backend = {"BACKEND": "segment_fallback.buffers.database.DatabaseBuffer", "OPTIONS": {"using": edge.alias}}
    own = {"WRITE_KEY": "edge-write-key", "API_HOST": segment.url, "SPOOL": "spool"}
    with (
        django_db_blocker.unblock(),
        override_settings(SEGMENT_FALLBACK={**own, "BUFFERS": {"default": backend}}),
    ):
        flush(budget=60)
    assert waiting(edge) == []
    delivered = [str(received.message_id) for received in segment.messages]
    assert sent <= set(delivered)
    assert len(set(delivered)) == len(delivered)
