"""Makes, shows and explains the tables of a DynamoDBBuffer, and that of DynamoDBProfiles."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser

from segment_fallback.buffers import buffers
from segment_fallback.buffers.base import KEEP_COUNTS
from segment_fallback.conf import DAY
from segment_fallback.exceptions import BufferUnavailable, MissingExtra, ProfilesUnavailable
from segment_fallback.profiles import profiles

if TYPE_CHECKING:
    from segment_fallback.buffers.dynamodb import DynamoDBBuffer
    from segment_fallback.profiles.dynamodb import DynamoDBProfiles

BACKUP_TRIES = 30
"""How often, once a second, backups are asked of a table that is too new to have them."""


class Command(BaseCommand):
    help = (
        "Says whether the tables of a DynamoDBBuffer exist, makes them, or prints the IAM policy that the site needs."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        what = parser.add_mutually_exclusive_group()
        what.add_argument("--create", action="store_true", help="make what is missing; may be repeated")
        what.add_argument("--policy", action="store_true", help="print the least that the site must be allowed")
        where = parser.add_mutually_exclusive_group()
        where.add_argument("--buffer", metavar="ALIAS", default="default", help="alias in BUFFERS")
        where.add_argument("--profiles", action="store_true", help="the table of PROFILES instead")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["profiles"]:
            self._handle_profiles(**options)
            return
        buffer = dynamodb_buffer(options["buffer"])
        try:
            if options["policy"]:
                self.stdout.write(json.dumps(policy(buffer), indent=2))
                return
            for line in create(buffer) if options["create"] else status(buffer):
                self.stdout.write(line)
        except BufferUnavailable as error:
            raise CommandError(str(error)) from error

    def _handle_profiles(self, **options: Any) -> None:
        store = dynamodb_profiles()
        try:
            if options["policy"]:
                self.stdout.write(json.dumps(store.policy(), indent=2))
                return
            for line in store.create_table() if options["create"] else store.status():
                self.stdout.write(line)
        except ProfilesUnavailable as error:
            raise CommandError(str(error)) from error


def dynamodb_profiles() -> DynamoDBProfiles:
    """The store of profiles. Raises CommandError where it is none of DynamoDB's."""
    try:
        store = profiles.store
        from segment_fallback.profiles.dynamodb import DynamoDBProfiles
    except (ImproperlyConfigured, MissingExtra) as error:
        raise CommandError(str(error)) from error
    if not isinstance(store, DynamoDBProfiles):
        raise CommandError(f"PROFILES is a {type(store).__name__}, which has no DynamoDB table.")
    return store


def dynamodb_buffer(alias: str) -> DynamoDBBuffer:
    """The buffer of that alias. Raises CommandError where it is none of DynamoDB's."""
    try:
        buffer = buffers[alias]
        from segment_fallback.buffers.dynamodb import DynamoDBBuffer
    except (ImproperlyConfigured, MissingExtra) as error:
        raise CommandError(str(error)) from error
    if not isinstance(buffer, DynamoDBBuffer):
        raise CommandError(f"The buffer {alias!r} is a {type(buffer).__name__}, which has no DynamoDB tables.")
    return buffer


def tables(buffer: DynamoDBBuffer) -> dict[str, str]:
    """The key of each table."""
    return {buffer.table: "messageId", buffer.state_table: "id"}


def status(buffer: DynamoDBBuffer) -> list[str]:
    """A line about each table."""
    lines = []
    for table in tables(buffer):
        found = describe(buffer, table)
        lines.append(f"{table}: {found['TableStatus'].lower()}" if found else f"{table}: missing; run with --create")
    return lines


def describe(buffer: DynamoDBBuffer, table: str) -> Any:
    """DynamoDB's description of the table, or None if there is none."""
    with buffer.guard():
        try:
            return buffer.client.describe_table(TableName=table)["Table"]
        except buffer.client.exceptions.ResourceNotFoundException:
            return None


def create(buffer: DynamoDBBuffer) -> list[str]:
    """Make what is missing, wait until it is there, and say what was done."""
    lines = [f"{table}: {_create_table(buffer, table, key)}" for table, key in tables(buffer).items()]
    lines.append(f"{buffer.state_table}: {_expire_counts(buffer)}")
    return lines + [f"{table}: {_back_up(buffer, table)}" for table in tables(buffer)]


def _create_table(buffer: DynamoDBBuffer, table: str, key: str) -> str:
    found = describe(buffer, table)
    if found and found["KeySchema"] != [{"AttributeName": key, "KeyType": "HASH"}]:
        raise CommandError(f"{table} is a table of something else: its key is not {key!r}. Choose another name.")
    with buffer.guard():
        if not found:
            buffer.client.create_table(
                TableName=table,
                BillingMode="PAY_PER_REQUEST",
                KeySchema=[{"AttributeName": key, "KeyType": "HASH"}],
                AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"}],
            )
        waiter = buffer.client.get_waiter("table_exists")
        waiter.wait(TableName=table, WaiterConfig={"Delay": 2, "MaxAttempts": 60})
    return "exists" if found else "created, on demand"


def _expire_counts(buffer: DynamoDBBuffer) -> str:
    table, done = buffer.state_table, f"counts expire after {KEEP_COUNTS // DAY} days"
    with buffer.guard():
        found = buffer.client.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
        if found["TimeToLiveStatus"] in ("ENABLED", "ENABLING"):
            return f"{done} already"
        specification: Any = {"AttributeName": "expires", "Enabled": True}
        buffer.client.update_time_to_live(TableName=table, TimeToLiveSpecification=specification)
    return f"{done} from now on"


def _back_up(buffer: DynamoDBBuffer, table: str) -> str:
    """Point-in-time recovery. DynamoDB Local has none, and AWS none in a table's first seconds."""
    client = buffer.client
    with buffer.guard():
        for _ in range(BACKUP_TRIES):
            try:
                found = client.describe_continuous_backups(TableName=table)["ContinuousBackupsDescription"]
                recovery = found.get("PointInTimeRecoveryDescription", {})
                if recovery.get("PointInTimeRecoveryStatus") == "ENABLED":
                    return "point-in-time recovery is on already"
                client.update_continuous_backups(
                    TableName=table, PointInTimeRecoverySpecification={"PointInTimeRecoveryEnabled": True}
                )
            except client.exceptions.ContinuousBackupsUnavailableException:
                time.sleep(1)
            except client.exceptions.ClientError as error:
                if error.response["Error"]["Code"] != "UnknownOperationException":
                    raise
                return "point-in-time recovery is not to be had here"
            else:
                return "point-in-time recovery is on"
    return "point-in-time recovery is not to be had yet: run this again in a few minutes"


def policy(buffer: DynamoDBBuffer) -> dict[str, Any]:
    """The least that a site and its flusher must be allowed. Making the tables takes more, and is not theirs to do."""
    meta = buffer.client.meta
    arn = f"arn:{meta.partition}:dynamodb:{meta.region_name}:*:table"
    actions = {
        buffer.table: ["PutItem", "PartiQLInsert", "PartiQLUpdate", "Scan", "BatchWriteItem"],
        buffer.state_table: ["UpdateItem", "Scan", "BatchGetItem", "BatchWriteItem"],
    }
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": [f"dynamodb:{name}" for name in names], "Resource": f"{arn}/{table}"}
            for table, names in actions.items()
        ],
    }
