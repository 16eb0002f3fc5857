"""The scheduled flush as Lambda runs it: cold and warm, frozen between two runs, cut by its timeout, many at once."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from pytest_django import DjangoDbBlocker

from segment_fallback.buffers.database import DatabaseBuffer
from segment_fallback.buffers.dynamodb import DynamoDBBuffer
from segment_fallback.management.commands.segment_table import create
from segment_fallback.message import Message
from segment_fallback.testing import Answer, LocalSegment
from tests.databases import database
from tests.deploy.function import Function, metrics
from tests.deploy.runtime import TIMED_OUT
from tests.serving.site import Site

HANDLER = "segment_fallback.aws.flush_handler"
PARTS = 4
SEND_TIMEOUT = 0.5
"""Seconds. The margin is then 6 s, and a lease 2 s."""
ENOUGH = 9.0
"""A timeout that leaves two seconds to send in, where SEND_TIMEOUT is 1."""


@pytest.fixture
def segment() -> Iterator[LocalSegment]:
    with LocalSegment(write_keys=["key"]) as segment:
        yield segment


@pytest.fixture
def site(tmp_path: Path, segment: LocalSegment, django_db_blocker: DjangoDbBlocker) -> Iterator[Site]:
    """A site on SQLite whose flush is a function."""
    database_settings = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(tmp_path / "site.sqlite3"),
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": "PRAGMA journal_mode=WAL"},
    }
    alias = f"site-{uuid4().hex}"
    with database(alias, database_settings, django_db_blocker):
        backend = {"BACKEND": "segment_fallback.buffers.database.DatabaseBuffer", "OPTIONS": {"parts": PARTS}}
        settings = {"API_HOST": segment.url, "SEND_TIMEOUT": SEND_TIMEOUT, "BUFFERS": {"default": backend}}
        yield Site(tmp_path, alias, database_settings, settings)


@pytest.fixture
def function(site: Site) -> Iterator[Function]:
    with Function(HANDLER, site.environment) as function:
        yield function


def put(site: Site, *ids: str, size: int = 0) -> DatabaseBuffer:
    buffer = DatabaseBuffer(using=site.alias, parts=PARTS)
    body = '{"type":"page","messageId":"%s","anonymousId":"a","properties":{"text":"%s"}}'
    buffer.put([Message(name, (body % (name, "x" * size)).encode()) for name in ids])
    return buffer


def arrived(segment: LocalSegment) -> list[str]:
    return sorted(str(received.message_id) for received in segment.messages)


def test_function_delivers_cold_and_warm_though_it_is_frozen_in_between(
    site: Site, segment: LocalSegment, function: Function
) -> None:
    buffer = put(site, "a", "b")
    first = function.invoke({"detail-type": "Scheduled Event", "detail": {}})
    assert first["cold"]
    put(site, "c")
    time.sleep(0.2)  # frozen: nothing happens
    assert arrived(segment) == ["a", "b"]
    second = function.invoke({"detail-type": "Scheduled Event", "detail": {}})
    assert not second["cold"]
    assert (arrived(segment), buffer.depth()) == (["a", "b", "c"], 0)
    assert [answer["result"]["delivered"] for answer in (first, second)] == [2, 1]
    assert second["result"]["trouble"] == ""


def test_function_prints_what_cloudwatch_makes_metrics_of(
    site: Site, segment: LocalSegment, function: Function
) -> None:
    put(site, "a", "b")
    segment.refuse(lambda message: message["messageId"] == "b")
    nothing_waits = {"OldestMessageAge": 0, "Waiting": 0, "Unarchived": 0}
    assert metrics(function.invoke()) == {"Delivered": 1, "DeadLetters": 1, **nothing_waits}
    segment.answer_with(Answer(status=503), times=None)
    put(site, "c")
    time.sleep(0.5)
    found = metrics(function.invoke())
    assert (found["Delivered"], found["DeadLetters"], found["Waiting"]) == (0, 0, 1)
    assert 0.5 <= found["OldestMessageAge"] < 60


def test_function_that_runs_out_of_time_ends_by_itself_and_others_go_on(
    site: Site, segment: LocalSegment, function: Function
) -> None:
    site.settings = {**site.settings, "SEND_TIMEOUT": 1.0, "SENDS_IN_FLIGHT": 1}
    names = [f"m{number}" for number in range(300)]
    buffer = put(site, *names, size=25_000)
    segment.answer_with(Answer.slow(0.6), times=None)
    with Function(HANDLER, site.environment) as short:
        answer = short.invoke(timeout=ENOUGH)
    assert answer != TIMED_OUT
    assert answer["seconds"] < ENOUGH
    delivered = answer["result"]["delivered"]
    assert 0 < delivered == len(segment.messages) < 300
    assert buffer.depth() == 300 - delivered
    segment.answer_normally()
    function.invoke()
    assert arrived(segment) == sorted(names)


def test_function_that_runs_out_of_time_does_not_read_a_table_to_count_what_it_left(
    site: Site, segment: LocalSegment, dynamodb_local_url: str
) -> None:
    credentials = {"aws_access_key_id": "tests", "aws_secret_access_key": "tests"}
    options: dict[str, Any] = {"endpoint_url": dynamodb_local_url, "region": "eu-central-1", "client": credentials}
    options |= {"table": f"tests-{uuid4().hex}", "parts": 1}
    buffer = DynamoDBBuffer(**options)
    create(buffer)
    buffer.put([Message(str(n), b'{"type":"page","text":"%s"}' % (b"x" * 25_000)) for n in range(300)])
    backend = {"BACKEND": "segment_fallback.buffers.dynamodb.DynamoDBBuffer", "OPTIONS": options}
    site.settings = {**site.settings, "SEND_TIMEOUT": 1.0, "SENDS_IN_FLIGHT": 1, "BUFFERS": {"default": backend}}
    segment.answer_with(Answer.slow(0.6), times=None)
    with Function(HANDLER, site.environment) as function:
        cut_off = function.invoke(timeout=ENOUGH)
        assert cut_off["result"]["unfinished"]
        assert metrics(cut_off)["Delivered"] < 300
        assert "Waiting" not in metrics(cut_off)
        segment.answer_normally()
        assert metrics(function.invoke())["Waiting"] == 0
    buffer.client.close()


@pytest.mark.parametrize("end", ["timeout", "kill"])
def test_function_that_is_ended_while_it_sends_loses_nothing(
    site: Site, segment: LocalSegment, function: Function, end: str
) -> None:
    site.settings = {**site.settings, "SEND_TIMEOUT": 4.0}
    buffer = put(site, "a", "b")
    segment.answer_with(Answer.hang(60, received=True), times=None)
    with Function(HANDLER, site.environment) as ended:
        # The handler has less time than it was told, as where its machine stalls: the service ends it.
        ended.begin(timeout=3 if end == "timeout" else 60, promised=60)
        segment.wait_for(1)
        if end == "timeout":
            assert ended.wait() == TIMED_OUT
        ended.lose()
    segment.answer_normally()
    assert buffer.depth() == 2
    deadline = time.monotonic() + 30
    while buffer.depth() and time.monotonic() < deadline:
        function.invoke()  # as the schedule does, until the lease has ended
        time.sleep(0.2)
    assert sorted({str(received.message_id) for received in segment.distinct}) == ["a", "b"]
    assert buffer.depth() == 0


def test_functions_at_once_share_the_parts_and_deliver_each_message_once(site: Site, segment: LocalSegment) -> None:
    names = [f"m{number}" for number in range(400)]
    buffer = put(site, *names)
    segment.answer_with(Answer.slow(0.2), times=None)
    with ExitStack() as stack:
        functions = [stack.enter_context(Function(HANDLER, site.environment)) for _ in range(3)]
        for function in functions:
            function.begin()
        answers = [function.wait()["result"] for function in functions]
    assert arrived(segment) == sorted(names)
    assert sum(answer["delivered"] for answer in answers) == 400
    assert buffer.depth() == 0


def test_event_can_name_the_parts(site: Site, segment: LocalSegment, function: Function) -> None:
    buffer = put(site, *(f"m{number}" for number in range(100)))
    part = function.invoke({"parts": [2]})["result"]["delivered"]
    assert 0 < part < 100
    assert buffer.depth() == 100 - part
    function.invoke({"buffer": "default", "parts": [0, 1, 3]})
    assert len(arrived(segment)) == 100


@pytest.mark.parametrize(
    ("event", "message"),
    [
        ({"buffer": "cloud"}, "the event names the buffer 'cloud'; BUFFERS has default"),
        ({"parts": [4]}, "the event's parts must be a list of whole numbers from 0 to 3"),
        ({"parts": [-1]}, "the event's parts must be a list of whole numbers from 0 to 3"),
        ({"parts": "0"}, "the event's parts must be a list of whole numbers from 0 to 3"),
        ({"parts": [True]}, "the event's parts must be a list of whole numbers from 0 to 3"),
    ],
)
def test_event_that_names_what_is_not_there_is_an_error(function: Function, event: object, message: str) -> None:
    answer = function.invoke(event)
    assert (answer["error"], answer["message"]) == ("ValueError", message)


def test_timeout_that_leaves_no_time_is_an_error_that_says_what_to_do(site: Site, function: Function) -> None:
    buffer = put(site, "a")
    answer = function.invoke(timeout=3)  # Lambda's default
    assert answer["error"] == "ImproperlyConfigured"
    assert re.match(
        r"[1-3] s are left of the function's timeout, and a batch may take 6 s: give the", answer["message"]
    )
    assert buffer.depth() == 1


def test_wrong_or_missing_write_key_is_an_error_and_keeps_messages(site: Site, segment: LocalSegment) -> None:
    buffer = put(site, "a")
    segment.write_keys = frozenset({"another"})
    with Function(HANDLER, site.environment) as function:
        answer = function.invoke()
    assert answer["error"] == "ImproperlyConfigured"
    assert answer["message"].endswith("check WRITE_KEY and API_HOST")
    assert metrics(answer)["Delivered"] == 0
    site.settings = {**site.settings, "WRITE_KEY": ""}
    with Function(HANDLER, site.environment) as function:
        answer = function.invoke()
    said = "SEGMENT_FALLBACK['WRITE_KEY'] is not set, and SOURCES has none either"
    assert (answer["error"], answer["message"]) == ("ImproperlyConfigured", said)
    assert buffer.depth() == 1


def test_site_may_have_sources_of_its_own_only(site: Site) -> None:
    site.settings = {**site.settings, "WRITE_KEY": "", "SOURCES": {"docs": {"WRITE_KEY": "docs-key"}}}
    with Function(HANDLER, site.environment) as function:
        assert "error" not in function.invoke()


def test_buffer_that_does_not_answer_is_an_error(site: Site) -> None:
    site.database = {**site.database, "NAME": str(site.directory / "no-such-folder" / "site.sqlite3")}
    with Function(HANDLER, site.environment) as function:
        answer = function.invoke()
    assert answer["error"] == "BufferUnavailable"
    assert "OldestMessageAge" not in metrics(answer)


def test_segment_that_fails_is_no_error_of_the_function(site: Site, segment: LocalSegment, function: Function) -> None:
    put(site, "a")
    segment.answer_with(Answer(status=503))
    answer: dict[str, Any] = function.invoke()["result"]
    assert answer["delivered"] == 0
    assert answer["trouble"].startswith("HTTP 503")
