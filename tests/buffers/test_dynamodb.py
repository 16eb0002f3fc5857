from __future__ import annotations

import importlib
import json
import logging
import re
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from botocore.config import Config
from django.core.exceptions import ImproperlyConfigured

from segment_fallback import dynamodb_client
from segment_fallback.buffers import dynamodb, dynamodb_claim, make_buffer
from segment_fallback.buffers.base import Buffer, Claim, Limits, Waiting
from segment_fallback.buffers.dynamodb import WRITERS, DynamoDBBuffer
from segment_fallback.buffers.dynamodb_claim import DynamoDBClaim
from segment_fallback.exceptions import BufferUnavailable, MissingExtra
from segment_fallback.management.commands.segment_table import create, policy, tables
from tests.buffers.contract import (
    HOUR,
    BufferContract,
    Make,
    at_once,
    claimed,
    encoded,
    event,
    javascript,
    names,
    pixel,
    waiting,
)
from tests.servers import free_port

BACKEND = "segment_fallback.buffers.dynamodb.DynamoDBBuffer"
CREDENTIALS = {"aws_access_key_id": "tests", "aws_secret_access_key": "tests"}


def at(url: str, **options: Any) -> DynamoDBBuffer:
    return DynamoDBBuffer(**{"endpoint_url": url, "region": "eu-central-1", "client": CREDENTIALS, **options})


def create_tables(buffer: DynamoDBBuffer) -> None:
    """The tables and no more: dynalite has neither expiry nor backups."""
    for table, key in tables(buffer).items():
        buffer.client.create_table(
            TableName=table,
            BillingMode="PAY_PER_REQUEST",
            KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
        )
    for table in tables(buffer):
        while buffer.client.describe_table(TableName=table)["Table"]["TableStatus"] != "ACTIVE":
            time.sleep(0.01)


def maker(url: str, create: Callable[[DynamoDBBuffer], object] = create) -> Make:
    table = f"tests-{uuid4().hex}"
    first = at(url, table=table)
    create(first)

    def make(*, parts: int = 1) -> Buffer:
        buffer = at(url, table=table, parts=parts)
        buffer._client = first.client  # boto3 takes its time to make one
        return buffer

    return make


class TestContractOnMoto(BufferContract):
    def test_claim_by_many_at_once_has_one_winner(self, make: Make) -> None:
        # moto looks at a condition and writes in two steps: of those who come at once, it may let in several.
        claims = [make().claim(0) for _ in range(4)]
        assert [claim is not None for claim in claims] == [True, False, False, False]

    def test_counts_of_many_at_once_add_up(self, make: Make) -> None:
        # For the same reason it loses some of those who add at once.
        for number in range(4):
            make().add_outcome_counts({(HOUR, "pixel", "accepted"): number})
        assert make().outcome_counts() == {(HOUR, "pixel", "accepted"): 6}

    @pytest.fixture
    def make(self, moto_url: str) -> Make:
        return maker(moto_url)


class TestContractOnDynamoDBLocal(BufferContract):
    @pytest.fixture
    def make(self, dynamodb_local_url: str) -> Make:
        return maker(dynamodb_local_url)


class TestContractOnDynalite(BufferContract):
    @pytest.fixture
    def make(self, dynalite_url: str) -> Make:
        return maker(dynalite_url, create_tables)


@pytest.fixture
def buffer(dynamodb_local_url: str) -> DynamoDBBuffer:
    buffer = at(dynamodb_local_url, table=f"tests-{uuid4().hex}", parts=1)
    create(buffer)
    return buffer


@pytest.fixture
def joining(buffer: DynamoDBBuffer) -> DynamoDBBuffer:
    """A buffer that has learned that it can join puts."""
    buffer.put([event("x"), event("y")])
    with claimed(buffer) as claim:
        claim.ack(list(claim.messages()))
    return buffer


@pytest.fixture
def statements(joining: DynamoDBBuffer) -> list[list[str]]:
    """The first word of each statement, by call."""
    seen: list[list[str]] = []

    def note(params: dict[str, Any], **kwargs: Any) -> None:
        seen.append([s["Statement"].split()[0] for s in json.loads(params["body"])["Statements"]])

    on(joining, "before-call.dynamodb.BatchExecuteStatement", note)
    return seen


def on(buffer: DynamoDBBuffer, happening: str, handler: Callable[..., Any]) -> None:
    """Let botocore call the handler whenever this happens. https://botocore.amazonaws.com/v1/documentation/api/latest/topics/events.html"""
    buffer.client.meta.events.register(happening, handler)


def answer(status: int, body: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """What a handler of ``before-call`` returns in the place of DynamoDB's answer."""
    return SimpleNamespace(status_code=status), {"ResponseMetadata": {}, **body}


def refusal(code: str) -> tuple[Any, dict[str, Any]]:
    return answer(400, {"Error": {"Code": code, "Message": "told by the test"}})


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds for which the module would have slept."""
    pauses: list[float] = []
    for module in (dynamodb, dynamodb_client):
        monkeypatch.setattr(module, "time", SimpleNamespace(sleep=pauses.append, monotonic=time.monotonic))
    return pauses


# what it costs


@pytest.fixture
def units(buffer: DynamoDBBuffer) -> Callable[[], float]:
    """The capacity units that were consumed since it was last called."""
    consumed: list[float] = []

    def ask(params: dict[str, Any], **kwargs: Any) -> None:
        params["ReturnConsumedCapacity"] = "TOTAL"

    def note(parsed: Mapping[str, Any], **kwargs: Any) -> None:
        used = parsed["ConsumedCapacity"]
        consumed.extend(table["CapacityUnits"] for table in (used if isinstance(used, list) else [used]))

    for operation in ("PutItem", "UpdateItem", "BatchWriteItem", "Scan"):
        on(buffer, f"before-parameter-build.dynamodb.{operation}", ask)
        on(buffer, f"after-call.dynamodb.{operation}", note)

    def units() -> float:
        total = sum(consumed)
        consumed.clear()
        return total

    return units


def test_event_of_a_kilobyte_costs_two_writes(buffer: DynamoDBBuffer, units: Callable[[], float]) -> None:
    buffer.put([event("x" * 32, size=900)])
    assert units() == 1
    with claimed(buffer) as claim:
        batch = list(claim.messages())
        units()
        claim.ack(batch)
        assert units() == 1


def test_counts_of_all_batches_cost_one_write_at_the_end(buffer: DynamoDBBuffer, units: Callable[[], float]) -> None:
    buffer.put([encoded(str(number)) for number in range(60)])
    with claimed(buffer) as claim:
        batches = list(claim.batches(Limits(max_count=20)))
        units()
        for batch in batches:
            claim.renew()
            claim.ack(batch)
        assert units() == 3 + 60
        assert buffer.event_counts() == {}
    assert units() == 1 + 1
    assert sum(buffer.event_counts().values()) == 60


def test_counts_are_written_every_few_seconds(buffer: DynamoDBBuffer, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a flusher that is killed leaves no more uncounted than that."""
    seconds = iter([0.0, 4.9, 5.0, 6.0, 10.9])
    monkeypatch.setattr(dynamodb_claim, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    buffer.put([encoded(str(number)) for number in range(5)])
    counted = []
    claim = claimed(buffer)
    for message in list(claim.messages()):
        claim.ack([message])
        counted.append(sum(buffer.event_counts().values()))
    assert counted == [0, 0, 3, 3, 3]


def test_counts_that_are_refused_are_told_and_not_written_again(
    buffer: DynamoDBBuffer, caplog: pytest.LogCaptureFixture
) -> None:
    """They may have been written all the same."""

    def refuse(params: dict[str, Any], **kwargs: Any) -> Any:
        return refusal("ThrottlingException") if b"events#" in params["body"] else None

    on(buffer, "before-call.dynamodb.UpdateItem", refuse)
    buffer.put([encoded("1"), encoded("2")])
    with claimed(buffer) as claim:
        claim.ack(list(claim.messages()))
    (record,) = caplog.records
    assert "2 delivered messages were not counted: DynamoDB table" in record.message
    claim.release()
    assert len(caplog.records) == 1
    assert buffer.depth() == 0
    claimed(buffer)


def test_joined_events_cost_a_statement_each_and_no_more(
    joining: DynamoDBBuffer, units: Callable[[], float], statements: list[list[str]]
) -> None:
    """A statement writes one item, once. DynamoDB Local does not say what PartiQL consumes."""
    joining.put([event(f"{number:032}", size=900) for number in range(60)])
    assert statements == [["INSERT"] * 25, ["INSERT"] * 25, ["INSERT"] * 10]
    assert units() == 0
    with claimed(joining) as claim:
        batch = list(claim.messages())
        units()
        claim.ack(batch)
        assert units() == 60


def test_javascript_costs_two_writes_only_where_something_waits(
    joining: DynamoDBBuffer, units: Callable[[], float], statements: list[list[str]]
) -> None:
    joining.put([pixel("a"), pixel("b")])
    joining.put([javascript("a"), javascript("c"), javascript("b"), pixel("b")])
    assert statements == [["INSERT"] * 2, ["INSERT"] * 3, ["UPDATE"] * 2, ["INSERT"]]
    assert units() == 0
    assert [message.way for message in waiting(joining)] == ["javascript"] * 3


def test_flush_of_an_empty_part_costs_two_writes_and_a_read(buffer: DynamoDBBuffer, units: Callable[[], float]) -> None:
    with claimed(buffer) as claim:
        assert units() == 1
        assert list(claim.batches()) == []
        assert units() <= 1
    assert units() == 1


def test_counts_of_an_hour_cost_one_write(buffer: DynamoDBBuffer, units: Callable[[], float]) -> None:
    buffer.add_outcome_counts(
        {(HOUR, way, outcome): 1 for way in ("pixel", "noscript") for outcome in ("accepted", "bot")}
    )
    assert units() == 1


# pages


@pytest.fixture
def three_pages(buffer: DynamoDBBuffer) -> list[str]:
    """The names of events that a Scan gives in three pages, of 1 MB each."""
    names = [str(number) for number in range(8)]
    for name in names:
        buffer.put([event(name, size=300_000)])
    return sorted(names)


def test_next_page_is_read_while_one_is_sent(buffer: DynamoDBBuffer, three_pages: list[str]) -> None:
    answers = threading.Semaphore(0)
    on(buffer, "after-call.dynamodb.Scan", lambda **kwargs: answers.release())
    with claimed(buffer) as claim:
        messages = claim.messages()
        first = next(messages)
        assert answers.acquire(timeout=30)
        assert answers.acquire(timeout=30), "the second page was not asked for"
        assert not answers.acquire(timeout=0.2), "no more than one page is read ahead"
        assert names([first, *messages]) == three_pages


def test_page_that_cannot_be_read_ahead_is_an_error_when_it_is_needed(
    buffer: DynamoDBBuffer, three_pages: list[str]
) -> None:
    def refuse(params: dict[str, Any], **kwargs: Any) -> Any:
        return refusal("InternalServerError") if b"ExclusiveStartKey" in params["body"] else None

    on(buffer, "before-call.dynamodb.Scan", refuse)
    found: list[str] = []
    with claimed(buffer) as claim, pytest.raises(BufferUnavailable, match="told by the test"):
        found.extend(message.message_id for message in claim.messages())
    assert 0 < len(found) < len(three_pages)


def test_only_a_further_page_takes_a_thread_and_release_ends_it(buffer: DynamoDBBuffer, three_pages: list[str]) -> None:
    def readers() -> list[str]:
        return [thread.name for thread in threading.enumerate() if thread.name.startswith("segment_fallback.scan")]

    with claimed(buffer) as claim:
        next(claim.messages())
        assert len(readers()) == 1
        claim.ack(list(claim.messages()))
    assert readers() == []
    buffer.put([event()])
    with claimed(buffer) as claim:
        assert names(list(claim.messages())) == ["m"]
        assert readers() == []


def test_pages_are_read_where_no_thread_is_to_be_had(buffer: DynamoDBBuffer, three_pages: list[str]) -> None:
    """As at the end of a process."""
    claim = claimed(buffer)
    claim.release()
    assert names(list(claim.messages())) == three_pages


# what goes wrong

WAITING = Waiting("m", "m", b"{}", "pixel", 1)
OPERATIONS: dict[str, Callable[[DynamoDBBuffer, Claim], object]] = {
    "put": lambda buffer, claim: buffer.put([event(), javascript("j")]),
    "claim": lambda buffer, claim: buffer.claim(0),
    "depth": lambda buffer, claim: buffer.depth(),
    "oldest": lambda buffer, claim: buffer.oldest(),
    "dead_letters": lambda buffer, claim: list(buffer.dead_letters()),
    "add_outcome_counts": lambda buffer, claim: buffer.add_outcome_counts({(HOUR, "pixel", "accepted"): 1}),
    "outcome_counts": lambda buffer, claim: buffer.outcome_counts(),
    "messages": lambda buffer, claim: list(claim.messages()),
    "renew": lambda buffer, claim: claim.renew(),
    "ack": lambda buffer, claim: claim.ack([WAITING]),
    "bury": lambda buffer, claim: claim.bury([WAITING], "no", 1),
    "back_off": lambda buffer, claim: claim.back_off(1),
    "release": lambda buffer, claim: claim.release(),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_missing_table_names_the_command_that_makes_it(dynamodb_local_url: str, name: str) -> None:
    buffer = at(dynamodb_local_url, table="tests-nowhere")
    wanted = r"DynamoDB table 'tests-nowhere' in region eu-central-1 at 127\.0\.0\.1:.*manage.py segment_table --create"
    with pytest.raises(BufferUnavailable, match=wanted):
        OPERATIONS[name](buffer, DynamoDBClaim(buffer, 0, 60))


def test_closed_endpoint_is_unavailable() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    with pytest.raises(BufferUnavailable, match=f"at {url[7:]}: no answer: check region, endpoint_url"):
        at(url).put([event()])


def test_silent_endpoint_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        options = {**CREDENTIALS, "config": Config(read_timeout=0.1)}
        buffer = at(f"http://127.0.0.1:{listener.getsockname()[1]}", client=options)
        with pytest.raises(BufferUnavailable, match="no answer"):
            buffer.put([event()])


def test_visitor_waits_a_few_seconds_at_most() -> None:
    config: Any = at("http://127.0.0.1:1").client.meta.config
    assert (config.connect_timeout, config.read_timeout) == (1, 3)
    assert config.retries == {"mode": "standard", "total_max_attempts": 2}


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        ("ThrottlingException", "throttled: make the tables on demand"),
        ("ProvisionedThroughputExceededException", "throttled"),
        ("AccessDeniedException", "segment_table --policy"),
        ("ExpiredTokenException", "no usable credentials"),
        ("InternalServerError", "told by the test"),
    ],
)
def test_refusal_says_what_to_do(code: str, advice: str) -> None:
    buffer = at("http://127.0.0.1:1")
    on(buffer, "before-call.dynamodb", lambda **kwargs: refusal(code))
    with pytest.raises(BufferUnavailable, match=f"{advice}.*{code}|{code}.*{advice}"):
        buffer.put([event()])


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that knows nothing of AWS."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, "/nonexistent")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.usefixtures("bare")
def test_missing_credentials_are_looked_for_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = at("http://127.0.0.1:1", client=None)
    first = buffer.client
    for _ in range(2):
        with pytest.raises(BufferUnavailable, match="no usable credentials: give the process a role"):
            buffer.put([event()])
        assert buffer.client is first
    monkeypatch.setattr(dynamodb_client, "NO_CREDENTIALS", -1)
    with pytest.raises(BufferUnavailable, match="no usable credentials"):
        buffer.put([event()])
    assert buffer.client is not first


@pytest.mark.usefixtures("bare")
def test_expired_credentials_are_read_anew(
    dynamodb_local_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a program outside keeps a file of short-lived credentials up to date."""
    monkeypatch.setattr(dynamodb_client, "NO_CREDENTIALS", -1)
    file = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(file))
    file.write_text("[default]\naws_access_key_id = old\naws_secret_access_key = s\n")
    buffer = at(dynamodb_local_url, client=None, table=f"tests-{uuid4().hex}")
    on(buffer, "before-call.dynamodb", lambda **kwargs: refusal("ExpiredTokenException"))
    file.write_text("[default]\naws_access_key_id = new\naws_secret_access_key = s\n")
    with pytest.raises(BufferUnavailable, match="no usable credentials"):
        buffer.put([event()])
    create_tables(buffer)
    buffer.put([event()])
    assert buffer.depth() == 1


@pytest.mark.usefixtures("bare")
def test_missing_region_is_said_by_check_and_by_put() -> None:
    buffer = DynamoDBBuffer(client=CREDENTIALS)
    (found,) = buffer.check()
    assert found.id == "segment_fallback.W006"
    assert "AWS_DEFAULT_REGION" in str(found.hint)
    with pytest.raises(BufferUnavailable, match="in region unknown at its default endpoint: no region: write"):
        buffer.put([event()])


@pytest.mark.usefixtures("bare")
def test_check_names_a_profile_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    (found,) = DynamoDBBuffer().check()
    assert "nobody" in found.msg


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"table": "a b"}, "table must be"),
        ({"table": "x" * 250}, "table must be"),
        ({"table": 7}, "expected string"),
        ({"parts": 0}, "parts must be"),
        ({"parts": "4"}, "parts must be"),
        ({"parts": 1.5}, "parts must be"),
        ({"endpoint_url": "localhost:8000"}, "endpoint_url must be like"),
        ({"tables": "a"}, "'tables'"),
    ],
)
def test_wrong_option_is_named(options: Mapping[str, Any], text: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=text):
        make_buffer("default", {"BACKEND": BACKEND, "OPTIONS": options})


def test_missing_boto3_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("segment_fallback.buffers.dynamodb", "segment_fallback.dynamodb_client"):
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(MissingExtra, match=r"pip install 'django-segment-fallback\[dynamodb\]'"):
        importlib.import_module("segment_fallback.buffers.dynamodb")


# what DynamoDB leaves undone


class Throttle:
    """Stands before DynamoDB and leaves every write of a BatchWriteItem undone, for so many times."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.asked: list[int] = []

    def __call__(self, params: dict[str, Any], **kwargs: Any) -> Any:
        request = json.loads(params["body"])["RequestItems"]
        ((table, writes),) = request.items()
        self.asked.append(len(writes))
        if len(self.asked) > self.times:
            return None
        return answer(200, {"UnprocessedItems": {table: writes}})


def test_undone_deletes_are_sent_again_ever_more_slowly(
    buffer: DynamoDBBuffer, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamodb_client, "random", SimpleNamespace(uniform=lambda low, high: high))
    buffer.put([event(number) for number in range(30)])
    pauses.clear()
    throttle = Throttle(times=3)
    on(buffer, "before-call.dynamodb.BatchWriteItem", throttle)
    with claimed(buffer) as claim:
        claim.ack(list(claim.messages()))
    assert throttle.asked == [25, 25, 25, 25, 5]
    assert pauses == [0.05, 0.1, 0.2]
    assert buffer.depth() == 0


def test_deletes_that_stay_undone_are_an_error_and_lose_nothing(buffer: DynamoDBBuffer, pauses: list[float]) -> None:
    buffer.put([event(number) for number in range(3)])
    on(buffer, "before-call.dynamodb.BatchWriteItem", Throttle(times=100))
    claim = claimed(buffer)
    pauses.clear()
    with pytest.raises(BufferUnavailable, match=r"throttled.*3 writes left undone"):
        claim.ack(list(claim.messages()))
    assert len(pauses) == 8
    assert sum(pauses) < 10
    assert buffer.depth() == 3


def test_message_whose_burial_was_cut_short_is_not_lost(buffer: DynamoDBBuffer, pauses: list[float]) -> None:
    buffer.put([event()])
    throttle = Throttle(times=9)

    def refuse_deletes(params: dict[str, Any], **kwargs: Any) -> Any:
        return throttle(params) if b"DeleteRequest" in params["body"] else None

    on(buffer, "before-call.dynamodb.BatchWriteItem", refuse_deletes)
    claim = claimed(buffer)
    with pytest.raises(BufferUnavailable):
        claim.bury(list(claim.messages()), "no", 1)
    assert buffer.depth() == 1
    claim.bury(list(claim.messages()), "no", 1)
    assert buffer.depth() == 0
    assert names([letter.message for letter in buffer.dead_letters()]) == ["m"]


def test_claim_whose_answer_was_lost_may_be_tried_again(buffer: DynamoDBBuffer) -> None:
    claim = claimed(buffer)
    assert isinstance(claim, DynamoDBClaim)
    assert claim.take()
    assert buffer.claim(0) is None


# joined puts


class Answers:
    """Stands before DynamoDB, and answers some statements of a joined put in its place with an error.

    ``refuse``: the code for the n-th call's statement about this messageId, or None.
    """

    def __init__(self, buffer: DynamoDBBuffer, refuse: Callable[[int, str], str | None]) -> None:
        self.buffer, self.refuse = buffer, refuse
        self.asked: list[list[str]] = []
        on(buffer, "before-call.dynamodb.BatchExecuteStatement", self)

    def __call__(self, params: dict[str, Any], **kwargs: Any) -> Any:
        names = [statement["Parameters"][0]["S"] for statement in json.loads(params["body"])["Statements"]]
        self.asked.append(names)
        codes = [self.refuse(len(self.asked), name) for name in names]
        for name, code in zip(names, codes, strict=True):
            if code is None:
                item = {"messageId": {"S": name}, "body": {"S": "{}"}, "way": {"S": "server"}, "created": {"N": "1"}}
                self.buffer.client.put_item(TableName=self.buffer.table, Item=item)
        return answer(200, {"Responses": [{"Error": {"Code": code}} if code else {} for code in codes]})


def test_concurrent_puts_are_joined(joining: DynamoDBBuffer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The writers are held up until all others wait."""
    sizes: list[int] = []
    commit = joining._group_commit
    monkeypatch.setattr(commit, "_patience", -1.0)

    def hold_up(**kwargs: Any) -> None:
        deadline = time.monotonic() + 30
        while len(commit._queue) < 12 - WRITERS and not sizes and time.monotonic() < deadline:
            time.sleep(0.001)

    def count(params: dict[str, Any], **kwargs: Any) -> None:
        sizes.append(len(json.loads(params["body"])["Statements"]))

    on(joining, "before-call.dynamodb.PutItem", hold_up)
    on(joining, "before-call.dynamodb.BatchExecuteStatement", count)
    at_once(lambda number: joining.put([event(number)]), threads=12)
    assert sum(sizes) == 12 - WRITERS
    assert names(waiting(joining)) == sorted(str(number) for number in range(12))


def test_throttled_statements_are_sent_again_and_only_those(joining: DynamoDBBuffer, pauses: list[float]) -> None:
    codes = {"1": "ThrottlingError", "2": "ProvisionedThroughputExceeded", "3": "InternalServerError"}
    answers = Answers(joining, lambda call, name: codes.get(name) if call < 3 else None)
    joining.put([event(number) for number in range(5)])
    assert answers.asked == [["0", "1", "2", "3", "4"], ["1", "2", "3"], ["1", "2", "3"]]
    assert len(pauses) == 2
    assert joining.depth() == 5


@pytest.mark.parametrize(
    ("code", "text", "tries"),
    [
        ("ThrottlingError", "throttled: make the tables on demand", 4),
        ("RequestLimitExceeded", "throttled", 4),
        ("AccessDenied", "segment_table --policy", 1),
        ("ResourceNotFound", "segment_table --create", 1),
        ("ValidationError", "failed", 1),
    ],
)
def test_refused_statement_is_an_error_and_may_be_put_again(
    joining: DynamoDBBuffer, pauses: list[float], code: str, text: str, tries: int
) -> None:
    Answers(joining, lambda call, name: code if name == "b" and call <= tries else None)
    with pytest.raises(BufferUnavailable, match=rf"DynamoDB table .*{text}.*\({code}: 1 of 3 writes\)"):
        joining.put([event("a"), event("b"), event("c")])
    assert len(pauses) == tries - 1
    assert sum(pauses) < 0.5
    assert joining.depth() == 2
    joining.put([event("b"), event("d")])
    assert joining.depth() == 4


def test_error_without_a_code_is_an_error(joining: DynamoDBBuffer) -> None:
    on(
        joining,
        "before-call.dynamodb.BatchExecuteStatement",
        lambda **kwargs: answer(200, {"Responses": [{}, {"Error": {}}]}),
    )
    with pytest.raises(BufferUnavailable, match="1 of 2 writes"):
        joining.put([event("a"), event("b")])


@pytest.mark.parametrize("code", ["ThrottlingException", "ExpiredTokenException", "ResourceNotFoundException"])
def test_refused_joined_put_says_what_to_do(joining: DynamoDBBuffer, code: str) -> None:
    on(joining, "before-call.dynamodb.BatchExecuteStatement", lambda **kwargs: refusal(code))
    with pytest.raises(BufferUnavailable, match=re.escape(dynamodb_client.ADVICE[code])):
        joining.put([event("a"), event("b")])


@pytest.mark.parametrize("url", ["moto_url", "dynalite_url"])
def test_emulator_without_partiql_is_asked_once(
    request: pytest.FixtureRequest, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    buffer = at(request.getfixturevalue(url), table=f"tests-{uuid4().hex}", parts=1)
    create_tables(buffer)
    asked: list[str] = []
    on(buffer, "before-call.dynamodb.BatchExecuteStatement", lambda **kwargs: asked.append("again"))
    assert buffer.joins_writes()
    for three in ("abc", "def"):
        buffer.put([event(name) for name in three])
        assert not buffer.joins_writes()
    assert asked == ["again"]
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    assert buffer.depth() == 6


def test_policy_of_before_partiql_still_lets_messages_in(
    buffer: DynamoDBBuffer, caplog: pytest.LogCaptureFixture
) -> None:
    on(buffer, "before-call.dynamodb.BatchExecuteStatement", lambda **kwargs: refusal("AccessDeniedException"))
    buffer.put([event("a"), event("b")])
    assert buffer.depth() == 2
    assert "segment_table --policy" in caplog.text


def test_store_that_inserts_a_key_twice_gets_single_puts(buffer: DynamoDBBuffer) -> None:
    answers = Answers(buffer, lambda call, name: None)
    buffer.put([javascript("a"), javascript("b"), javascript("c")])
    buffer.put([event("b"), event("c")])
    assert answers.asked == [["a"]]
    assert buffer.depth() == 3
    assert {message.way for message in waiting(buffer) if message.message_id != "a"} == {"javascript"}


def test_joined_puts_are_tried_again_after_a_while(buffer: DynamoDBBuffer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamodb, "SINGLY", -1)
    answers = Answers(buffer, lambda call, name: None)
    for _ in range(2):
        buffer.put([event("a"), event("b")])
    assert answers.asked == [["a"], ["a"]]


# its make


def test_threads_share_one_client() -> None:
    buffer = at("http://127.0.0.1:1")
    assert len({id(client) for client in at_once(lambda _: buffer.client)}) == 1


def test_nothing_is_connected_or_looked_up_before_the_first_use() -> None:
    assert DynamoDBBuffer()._client is None


def test_counts_expire_after_400_days_and_nothing_else_does(buffer: DynamoDBBuffer) -> None:
    buffer.add_outcome_counts({(HOUR, "pixel", "accepted"): 1})
    buffer.put([event(), event("dead")])
    with claimed(buffer) as claim:
        claim.bury([message for message in claim.messages() if message.message_id == "dead"], "no", 1)
        tables = (buffer.table, buffer.state_table)
        items = [item for table in tables for page in buffer.scan(TableName=table) for item in page["Items"]]
    assert len(items) == 4
    assert [item["expires"]["N"] for item in items if "expires" in item] == [str(HOUR + 400 * 86_400)]


def test_policy_allows_what_the_buffer_does_and_no_more(buffer: DynamoDBBuffer) -> None:
    done: set[tuple[str, str]] = set()

    def note(params: dict[str, Any], model: Any, **kwargs: Any) -> None:
        request = json.loads(params["body"])
        # https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ql-iam.html
        for statement in request.get("Statements", ()):
            verb, table = re.match(r'(\w+)(?: INTO)? "(.+?)"', statement["Statement"]).groups()  # type: ignore[union-attr]
            done.add((table, f"dynamodb:PartiQL{verb.title()}"))
        if "Statements" not in request:
            for table in request.get("RequestItems", [request.get("TableName")]):
                done.add((table, f"dynamodb:{model.name}"))

    on(buffer, "before-call.dynamodb", note)
    buffer.put([event(), pixel("j"), event("j")])
    buffer.put([javascript("j"), javascript("j")])
    buffer.add_outcome_counts({(HOUR, "pixel", "accepted"): 1})
    with claimed(buffer) as claim:
        claim.renew()
        first, second = claim.messages()
        claim.ack([first])
        claim.bury([second], "no", 1)
        claim.back_off(1)
    assert [buffer.depth(), buffer.oldest(), len(list(buffer.dead_letters())), len(buffer.outcome_counts())] == [
        0,
        None,
        1,
        1,
    ]
    allowed = {
        (statement["Resource"].rpartition("/")[2], action)
        for statement in policy(buffer)["Statement"]
        for action in statement["Action"]
    }
    assert done == allowed


def test_doubts_past_what_an_item_holds_keep_the_oldest(buffer: DynamoDBBuffer) -> None:
    with claimed(buffer) as claim:
        claim.doubts = {f"{number:099}": HOUR * 1000 + number for number in range(5_000)}
        claim.save_doubts()
    assert claimed(buffer).doubts == {f"{number:099}": HOUR * 1000 + number for number in range(3_000)}
