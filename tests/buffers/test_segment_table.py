from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command

from segment_fallback.buffers import buffers
from segment_fallback.buffers.dynamodb import DynamoDBBuffer
from segment_fallback.management.commands import segment_table
from tests.buffers.contract import claimed, event
from tests.buffers.test_dynamodb import BACKEND, CREDENTIALS, on, refusal
from tests.servers import free_port

Configure = Callable[[str], DynamoDBBuffer]


@pytest.fixture
def configure(settings: Any) -> Iterator[Configure]:
    """Names a DynamoDBBuffer at this URL in the settings, under the alias ``cloud``, and returns it."""

    def configure(url: str) -> DynamoDBBuffer:
        options = {"table": f"tests-{uuid4().hex}", "endpoint_url": url, "region": "eu-west-1", "client": CREDENTIALS}
        database = {"BACKEND": "segment_fallback.buffers.database.DatabaseBuffer"}
        aliases = {"default": database, "cloud": {"BACKEND": BACKEND, "OPTIONS": options}}
        settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "BUFFERS": aliases}
        buffer = buffers["cloud"]
        assert isinstance(buffer, DynamoDBBuffer)
        return buffer

    yield configure
    buffers.forget()


@pytest.fixture(params=["moto_url", "dynamodb_local_url"])
def buffer(request: pytest.FixtureRequest, configure: Configure) -> DynamoDBBuffer:
    return configure(request.getfixturevalue(request.param))


def run(*arguments: str, alias: str = "cloud") -> str:
    output = io.StringIO()
    call_command("segment_table", "--buffer", alias, *arguments, stdout=output)
    return output.getvalue()


def test_create_makes_tables_that_the_buffer_can_use(buffer: DynamoDBBuffer) -> None:
    text = run("--create")
    for table in (buffer.table, buffer.state_table):
        assert f"{table}: created, on demand\n" in text
    assert f"{buffer.state_table}: counts expire after 400 days from now on\n" in text
    buffer.put([event()])
    with claimed(buffer) as claim:
        claim.renew()


def test_create_again_changes_nothing_and_loses_nothing(buffer: DynamoDBBuffer) -> None:
    run("--create")
    buffer.put([event()])
    text = run("--create")
    assert f"{buffer.table}: exists\n" in text
    assert "counts expire after 400 days already" in text
    assert "created" not in text
    assert buffer.depth() == 1


def test_create_makes_only_what_is_missing(buffer: DynamoDBBuffer) -> None:
    run("--create")
    buffer.client.delete_table(TableName=buffer.state_table)
    text = run("--create")
    assert f"{buffer.table}: exists\n" in text
    assert f"{buffer.state_table}: created" in text


def test_tables_are_on_demand_and_counts_expire(buffer: DynamoDBBuffer) -> None:
    run("--create")
    for table, key in ((buffer.table, "messageId"), (buffer.state_table, "id")):
        found = buffer.client.describe_table(TableName=table)["Table"]
        assert found["BillingModeSummary"]["BillingMode"] == "PAY_PER_REQUEST"
        assert found["KeySchema"] == [{"AttributeName": key, "KeyType": "HASH"}]
    expiry = buffer.client.describe_time_to_live(TableName=buffer.state_table)["TimeToLiveDescription"]
    assert expiry == {"TimeToLiveStatus": "ENABLED", "AttributeName": "expires"}
    messages = buffer.client.describe_time_to_live(TableName=buffer.table)["TimeToLiveDescription"]
    assert messages["TimeToLiveStatus"] == "DISABLED"


def test_create_backs_up_where_that_is_supported(configure: Configure, moto_url: str) -> None:
    buffer = configure(moto_url)
    assert run("--create").count("point-in-time recovery is on\n") == 2
    found = buffer.client.describe_continuous_backups(TableName=buffer.table)["ContinuousBackupsDescription"]
    assert found["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"] == "ENABLED"
    assert run("--create").count("point-in-time recovery is on already\n") == 2


def test_create_says_where_backups_are_not_supported(configure: Configure, dynamodb_local_url: str) -> None:
    configure(dynamodb_local_url)
    assert run("--create").count("point-in-time recovery is not to be had here\n") == 2


@pytest.mark.parametrize(("refused", "end"), [(3, "is on"), (1000, "is not to be had yet: run this again")])
def test_create_waits_until_a_new_table_can_be_backed_up(
    configure: Configure, moto_url: str, monkeypatch: pytest.MonkeyPatch, refused: int, end: str
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(segment_table, "time", SimpleNamespace(sleep=pauses.append))
    buffer = configure(moto_url)

    def too_early(**kwargs: Any) -> Any:
        return refusal("ContinuousBackupsUnavailableException") if len(pauses) < refused else None

    on(buffer, "before-call.dynamodb.UpdateContinuousBackups", too_early)
    assert f"{buffer.table}: point-in-time recovery {end}" in run("--create")
    assert len(pauses) == min(refused, 2 * segment_table.BACKUP_TRIES)


def test_status_says_what_exists(buffer: DynamoDBBuffer) -> None:
    missing = "missing; run with --create"
    assert run() == f"{buffer.table}: {missing}\n{buffer.state_table}: {missing}\n"
    run("--create")
    assert run() == f"{buffer.table}: active\n{buffer.state_table}: active\n"


def test_policy_is_json_for_these_tables_and_connects_to_nothing(configure: Configure) -> None:
    buffer = configure(f"http://127.0.0.1:{free_port()}")
    printed = json.loads(run("--policy"))
    assert printed["Version"] == "2012-10-17"
    assert [statement["Resource"] for statement in printed["Statement"]] == [
        f"arn:aws:dynamodb:eu-west-1:*:table/{buffer.table}",
        f"arn:aws:dynamodb:eu-west-1:*:table/{buffer.state_table}",
    ]


def test_table_of_something_else_is_left_alone(configure: Configure, moto_url: str) -> None:
    buffer = configure(moto_url)
    buffer.client.create_table(
        TableName=buffer.table,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=[{"AttributeName": "order", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "order", "AttributeType": "S"}],
    )
    with pytest.raises(CommandError, match="its key is not 'messageId'"):
        run("--create")


def test_refused_backup_is_an_error(configure: Configure, moto_url: str) -> None:
    on(
        configure(moto_url),
        "before-call.dynamodb.UpdateContinuousBackups",
        lambda **_: refusal("AccessDeniedException"),
    )
    with pytest.raises(CommandError, match="not allowed"):
        run("--create")


def test_endpoint_that_is_down_is_an_error(configure: Configure) -> None:
    configure(f"http://127.0.0.1:{free_port()}")
    with pytest.raises(CommandError, match="no answer"):
        run()


@pytest.mark.parametrize(
    ("alias", "text"), [("default", "'default' is a DatabaseBuffer, which has no"), ("nowhere", "no alias 'nowhere'")]
)
def test_other_aliases_are_errors(configure: Configure, alias: str, text: str) -> None:
    configure("http://127.0.0.1:1")
    with pytest.raises(CommandError, match=text):
        run(alias=alias)
