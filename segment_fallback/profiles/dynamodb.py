"""Profiles in a DynamoDB table, made by ``manage.py segment_table --profiles --create``.

Key ``id``: ``text``, ``version``, and ``expires`` (seconds since 1970), by which DynamoDB deletes them. A look-up costs
a read unit for each id and 4 KB, a change as much and a write unit for each KB.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from segment_fallback.dynamodb_client import DynamoDB
from segment_fallback.exceptions import BufferUnavailable, MissingExtra, ProfilesUnavailable
from segment_fallback.profiles.store import ProfileStore, Stored

try:
    from botocore.config import Config
except ImportError as error:
    raise MissingExtra("DynamoDBProfiles", "dynamodb") from error

# A page waits for a read, and does without.
CONFIG = Config(connect_timeout=0.5, read_timeout=1, retries={"mode": "standard", "total_max_attempts": 1})


class DynamoDBProfiles(ProfileStore):
    """Profiles in a DynamoDB table.

    ``table``: its name. ``region``, ``endpoint_url``, ``client``: as DynamoDB takes them.
    """

    def __init__(
        self,
        *,
        table: str = "segment-profiles",
        region: str | None = None,
        endpoint_url: str | None = None,
        client: Mapping[str, Any] | None = None,
    ) -> None:
        options = {**(client or {})}
        options["config"] = CONFIG.merge(options.get("config") or Config())
        self.table = table
        self.dynamodb = DynamoDB(table, region=region, endpoint_url=endpoint_url, client=options)

    def read(self, keys: Sequence[str]) -> dict[str, Stored]:
        if not keys:
            return {}
        request: Any = {self.table: {"Keys": [{"id": {"S": key}} for key in keys], "ConsistentRead": True}}
        with self._guard():
            answer = self.dynamodb.client.batch_get_item(RequestItems=request)
        if answer.get("UnprocessedKeys"):
            raise ProfilesUnavailable("DynamoDB is throttled")
        now = time.time()
        return {
            item["id"]["S"]: Stored(item["text"]["S"], int(item["version"]["N"]))
            for item in answer["Responses"].get(self.table, [])
            if float(item["expires"]["N"]) > now
        }

    def write(self, key: str, text: str, version: int, *, expires: int) -> bool:
        # What has expired may be there for days yet.
        condition, values = "attribute_not_exists(id) OR expires <= :now", {":now": {"N": str(int(time.time()))}}
        if version:
            condition, values = "version = :version", {":version": {"N": str(version)}}
        with self._guard():
            done = self.dynamodb.attempt(
                self.dynamodb.client.put_item,
                TableName=self.table,
                Item={
                    "id": {"S": key},
                    "text": {"S": text},
                    "version": {"N": str(version + 1)},
                    "expires": {"N": str(expires // 1000)},
                },
                ConditionExpression=condition,
                ExpressionAttributeValues=values,
            )
        return done is not None

    def status(self) -> list[str]:
        """A line about the table."""
        client = self.dynamodb.client
        with self._guard():
            try:
                found = client.describe_table(TableName=self.table)["Table"]
            except client.exceptions.ResourceNotFoundException:
                return [f"{self.table}: missing; run with --create"]
        return [f"{self.table}: {found['TableStatus'].lower()}"]

    def create_table(self) -> list[str]:
        """Make the table where it is missing, on demand, let its items expire, and say what was done."""
        client, lines = self.dynamodb.client, []
        with self._guard():
            try:
                client.create_table(
                    TableName=self.table,
                    BillingMode="PAY_PER_REQUEST",
                    KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
                    AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
                )
                lines.append(f"{self.table}: created, on demand")
            except client.exceptions.ResourceInUseException:
                lines.append(f"{self.table}: exists")
            waiter = client.get_waiter("table_exists")
            waiter.wait(TableName=self.table, WaiterConfig={"Delay": 2, "MaxAttempts": 60})
            found = client.describe_time_to_live(TableName=self.table)["TimeToLiveDescription"]
            if found["TimeToLiveStatus"] in ("ENABLED", "ENABLING"):
                return [*lines, f"{self.table}: profiles expire already"]
            specification: Any = {"AttributeName": "expires", "Enabled": True}
            client.update_time_to_live(TableName=self.table, TimeToLiveSpecification=specification)
        return [*lines, f"{self.table}: profiles expire from now on"]

    def policy(self) -> dict[str, Any]:
        """The least that a site must be allowed."""
        meta = self.dynamodb.client.meta
        resource = f"arn:{meta.partition}:dynamodb:{meta.region_name}:*:table/{self.table}"
        actions = ["dynamodb:BatchGetItem", "dynamodb:PutItem"]
        statement = {"Effect": "Allow", "Action": actions, "Resource": resource}
        return {"Version": "2012-10-17", "Statement": [statement]}

    @contextmanager
    def _guard(self) -> Iterator[None]:
        try:
            with self.dynamodb.guard():
                yield
        except BufferUnavailable as error:
            raise ProfilesUnavailable(str(error)) from error
