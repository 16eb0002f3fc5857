"""Our log records: fields for machines in each, and nothing of a visitor or a key in any."""

from __future__ import annotations

import ast
import json
import logging
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.test import Client

import segment_fallback
from segment_fallback import track
from segment_fallback.buffers.accept import accept, acceptance
from segment_fallback.buffers.database import DatabaseBuffer
from segment_fallback.buffers.spool import Spool
from segment_fallback.delivery.flush import flush
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.log import log_fields
from segment_fallback.message import Message, encode
from segment_fallback.models import Lease
from segment_fallback.testing import Answer, LocalSegment
from tests.intake.posts import Sender, basic, batch, event, single
from tests.intake.visits import Visit

if TYPE_CHECKING:
    from pytest_django import Settings

PACKAGE = Path(segment_fallback.__file__).parent
LOG_EVENTS = PACKAGE.parent / "docs/reference/log-events.md"
METHODS = {"debug", "info", "warning", "error", "exception", "critical", "log"}

KEY = "the-marked-write-key"
SECRET = "what-a-visitor-did"
PERSONAL = {"body", "bodies", "message", "messages", "traits", "properties", "payload", "write_key"}
"""Names of what no record may hold."""


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Every call of a logger in the app, and where it is."""
    for file in sorted(PACKAGE.rglob("*.py")):
        path = file.relative_to(PACKAGE)
        if path.parts[0] == "testing":
            continue  # a server for tests, which a site does not run
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            match node:
                case ast.Call(func=ast.Attribute(value=ast.Name(id="logger"), attr=method)) if method in METHODS:
                    yield f"{path}:{node.lineno}", node


def words() -> Iterator[str]:
    """The first argument of every ``log_fields`` and of what stands for it."""
    for file in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id="log_fields" | "_about"), args=[ast.Constant(value=str(word)), *_]):
                    yield word
                case ast.ClassDef(body=body):
                    for each in body:
                        match each:
                            case ast.Assign(targets=[ast.Name(id="event")], value=ast.Constant(value=str(word))):
                                yield word


def personal(call: ast.Call) -> set[str]:
    """The names of personal data whose value a call logs; how many there are may be said."""
    arguments = [*call.args, *(keyword.value for keyword in call.keywords)]
    counted = {
        id(inner)
        for argument in arguments
        for node in ast.walk(argument)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "len"
        for inner in ast.walk(node)
    }
    named = {
        node.id if isinstance(node, ast.Name) else node.attr
        for argument in arguments
        for node in ast.walk(argument)
        if isinstance(node, (ast.Name, ast.Attribute)) and id(node) not in counted
    }
    return named & PERSONAL


CALLS = list(calls())


@pytest.mark.parametrize(("where", "call"), CALLS, ids=[where for where, _ in CALLS])
def test_call_has_fields_and_no_payload(where: str, call: ast.Call) -> None:
    assert "extra" in {keyword.arg for keyword in call.keywords}, "machines read this, too: extra=log_fields(…)"
    assert personal(call) == set()


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("logger.error('%s', body)", {"body"}),
        ("logger.error('%s', message.body)", {"body", "message"}),
        ("logger.error('%s', extra=log_fields('x', reason=str(traits)))", {"traits"}),
        ("logger.error('%d', len(messages))", set()),
        ("logger.error('%s', reason)", set()),
    ],
)
def test_payload_in_a_call_is_found(source: str, found: set[str]) -> None:
    [statement] = ast.parse(source).body
    assert isinstance(statement, ast.Expr)
    assert isinstance(statement.value, ast.Call)
    assert personal(statement.value) == found


def test_words_of_the_records_are_those_of_the_documentation() -> None:
    table = LOG_EVENTS.read_text("utf-8").partition("<!-- log events -->")[2].partition("<!-- /log events -->")[0]
    documented = re.findall(r"^\| `(\w+)` ", table, re.MULTILINE)
    assert documented == sorted(set(documented))
    assert set(documented) == set(words())


def test_fields_are_one_key_that_no_record_has() -> None:
    fields = log_fields("buried", number=2, name="a name")
    record = logging.getLogger("x").makeRecord("x", logging.ERROR, "f", 1, "text", (), None, extra=fields)
    assert vars(record)["segment"] == {"event": "buried", "number": 2, "name": "a name"}


class AsJson(logging.Formatter):
    """What a site's formatter for machines does, in short."""

    def format(self, record: logging.LogRecord) -> str:
        return json.dumps({"level": record.levelname, "message": record.getMessage(), **vars(record)["segment"]})


@pytest.mark.django_db
def test_records_are_json_with_reason_and_numbers(
    local_segment: LocalSegment, caplog: pytest.LogCaptureFixture
) -> None:
    local_segment.answer_with(Answer(413), times=None)
    accept([encode({"type": "page", "messageId": "1", "anonymousId": "a"})])
    flush()
    [record] = caplog.records
    line = json.loads(AsJson().format(record))
    reason = line.pop("reason")
    assert reason.startswith("HTTP 413")
    message = f"1 messages are dead letters now: {reason}"
    assert line == {"level": "ERROR", "message": message, "event": "buried", "number": 1, "source": "default"}


def everything(caplog: pytest.LogCaptureFixture) -> str:
    """All that any handler could write of the records."""
    formatter = logging.Formatter()
    return "".join(f"{formatter.format(record)} {vars(record)!r}\n" for record in caplog.records)


def logged(caplog: pytest.LogCaptureFixture) -> set[str]:
    return {vars(record)["segment"]["event"] for record in caplog.records if record.name == "segment_fallback"}


def marked(name: str) -> Message:
    return encode({"type": "track", "event": "Bought", "messageId": name, "userId": "u", "properties": {"a": SECRET}})


@pytest.fixture
def marks(settings: Settings, local_segment: LocalSegment, caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A site with a write key that is found where it is written; at the end neither key nor payload was."""
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "WRITE_KEY": KEY, "RATE_LIMIT": 0}
    caplog.set_level(logging.DEBUG)
    yield
    text = everything(caplog)
    assert SECRET not in text
    assert KEY not in text
    assert basic(KEY).partition(" ")[2] not in text


@pytest.mark.django_db
@pytest.mark.parametrize("status", [400, 401, 413, 429, 500])
def test_flush_that_segment_refuses_logs_no_secret(
    marks: None, status: int, local_segment: LocalSegment, caplog: pytest.LogCaptureFixture
) -> None:
    said = json.dumps({"error": SECRET, "key": KEY}).encode()
    local_segment.answer_with(Answer(status, body=said), times=None)
    accept([marked("1"), marked("2")])
    flush()
    Lease.objects.update(not_before=0)
    flush()
    assert logged(caplog) == ({"buried"} if status in (400, 413) else {"backing_off"})


@pytest.mark.django_db
def test_hits_that_are_refused_log_no_secret(marks: None, caplog: pytest.LogCaptureFixture) -> None:
    sender = Sender(client=Client())
    for kind, body in (
        ("t", single(properties={"a": SECRET}, writeKey=KEY)),
        ("t", b"{" + SECRET.encode() + KEY.encode()),
        ("b", batch(event(properties={"a": SECRET}), {"type": SECRET}, SECRET)),
        ("q", {"k": KEY, "c": [SECRET]}),
    ):
        sender.post(kind, body)
        sender.post(kind, body, authorization=basic(KEY), origin=None, referer=None, sec_fetch_site=None)
    Visit(properties={"a": SECRET}, referer=f"http://elsewhere.example/{SECRET}").send()
    Visit(properties={"a": SECRET}, title=SECRET, data="notbase64").send()
    track("", SECRET, {"a": SECRET})
    track("u", "Bought", {"a": SECRET * 5_000})
    track("u", "Bought", {SECRET: object()})
    assert logged(caplog) >= {"call_refused", "left_out"}


@pytest.mark.django_db
def test_buffer_and_spool_that_fail_log_no_secret(
    marks: None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*arguments: Any) -> None:
        raise BufferUnavailable("the database 'default' failed: it is gone")

    monkeypatch.setattr(DatabaseBuffer, "put", fail)
    Visit(properties={"a": SECRET}).send()
    monkeypatch.setattr(Spool, "put", fail)
    Visit(properties={"a": SECRET}).send()
    Sender().post("t", single(properties={"a": SECRET}))
    track("u", "Bought", {"a": SECRET})
    assert logged(caplog) == {"spooling", "unbuffered", "lost"}


@pytest.mark.django_db
def test_spool_that_nobody_can_read_logs_no_secret(marks: None, caplog: pytest.LogCaptureFixture) -> None:
    acceptance.spool.put([marked("1")])
    [name] = acceptance.spool.files()
    storage = acceptance.spool._storage
    with storage.open(name) as file:
        content = file.read()
    storage.delete(name)
    with storage.open(name, "wb") as file:
        file.write(SECRET.encode() + KEY.encode() + content)
    flush()
    assert logged(caplog) == {"spool_unreadable"}


def test_dynamodb_that_fails_logs_no_secret(
    marks: None, settings: Settings, moto_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": SECRET}
    options = {"table": "no-such-table", "endpoint_url": moto_url, "region": "eu-central-1", "client": keys}
    dynamodb = {"BACKEND": "segment_fallback.buffers.dynamodb.DynamoDBBuffer", "OPTIONS": options}
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "BUFFERS": {"default": dynamodb}}
    caplog.set_level(logging.DEBUG, "segment_fallback")
    for library in ("boto3", "botocore", "urllib3"):
        caplog.set_level(logging.WARNING, library)
    accept([marked("1"), marked("2")])
    flush()
    Visit(properties={"a": SECRET}).send()
    assert logged(caplog) >= {"spooling", "drain_failed", "flush_failed", "untallied"}
