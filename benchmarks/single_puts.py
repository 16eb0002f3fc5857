"""What everybody would write: one PutItem a request."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from segment_fallback.buffers.base import now_ms
from segment_fallback.buffers.dynamodb import DynamoDBBuffer
from segment_fallback.message import Message

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef


class SinglePutsBuffer(DynamoDBBuffer):
    """DynamoDBBuffer, but for its puts: a conditional PutItem a message, by one client a process as boto3 makes it."""

    @functools.cached_property
    def puts(self) -> DynamoDBClient:
        endpoint = self._options["endpoint_url"]
        config = Config(max_pool_connections=50)  # of its own accord, boto3 keeps 10 and opens the others anew
        return boto3.client("dynamodb", self._options["region_name"], endpoint_url=endpoint, config=config)

    def put(self, messages: Sequence[Message]) -> None:
        for message in messages:
            item: dict[str, AttributeValueTypeDef] = {
                "messageId": {"S": message.message_id},
                "body": {"S": message.body.decode()},
                "way": {"S": message.way.value},
                "created": {"N": str(now_ms())},
            }
            if message.provisional:
                item["provisional"] = {"BOOL": True}
            try:
                self.puts.put_item(
                    TableName=self.table, Item=item, ConditionExpression="attribute_not_exists(messageId)"
                )
            except ClientError as error:
                if error.response["Error"]["Code"] != "ConditionalCheckFailedException":
                    raise
