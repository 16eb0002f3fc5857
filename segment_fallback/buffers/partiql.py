"""The PartiQL by which a DynamoDBBuffer writes several messages in one call.

An INSERT is a conditional put, and is refused where the key exists; what it costs DynamoDB Local does not say, and we
count on one write unit for each started KB, as for a put. Each statement of a BatchExecuteStatement succeeds or fails
by itself, with one of these codes:
https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchStatementError.html
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy_boto3_dynamodb.type_defs import BatchStatementRequestTypeDef

DUPLICATE = "DuplicateItem"
SETTLED = frozenset({"", DUPLICATE, "ConditionalCheckFailed"})
"""Done, or rightly not done."""
TRY_AGAIN = frozenset(
    {
        "InternalServerError",
        "ProvisionedThroughputExceeded",
        "RequestLimitExceeded",
        "ThrottlingError",
        "TransactionConflict",
    }
)
"""Not done this time."""


def insert(table: str, item: Mapping[str, Any]) -> BatchStatementRequestTypeDef:
    """Store the item, unless its key exists."""
    values = ", ".join(f"'{name}': ?" for name in item)
    return {"Statement": f'INSERT INTO "{table}" VALUE {{{values}}}', "Parameters": list(item.values())}


def replace_provisional(table: str, item: Mapping[str, Any]) -> BatchStatementRequestTypeDef:
    """Put the item in the place of a provisional one, if that still waits.

    If it was delivered meanwhile nothing is stored: the same view has arrived.
    """
    changes = {name: value for name, value in item.items() if name != "messageId"}
    sets = " ".join(f'SET "{name}" = ?' for name in changes)
    removes = " ".join(f'REMOVE "{name}"' for name in ("provisional", "source", "notBefore") if name not in item)
    where = 'WHERE "messageId" = ? AND "provisional" = true'
    return {
        "Statement": f'UPDATE "{table}" {sets} {removes} {where}',
        "Parameters": [*changes.values(), item["messageId"]],
    }
