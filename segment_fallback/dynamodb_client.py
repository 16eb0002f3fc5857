"""One DynamoDB client a process, and what its errors mean. The only module that imports boto3."""

from __future__ import annotations

import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from segment_fallback.exceptions import BufferUnavailable, MissingExtra

try:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
except ImportError as error:
    raise MissingExtra("DynamoDBBuffer", "dynamodb") from error

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import WriteRequestTypeDef

Answer = TypeVar("Answer", bound=Mapping[str, Any])

Item = Mapping[str, Any]
"""An item in DynamoDB's own notation: ``{"created": {"N": "1"}}``."""

BATCH = 25
"""Items in one BatchWriteItem, and statements in one BatchExecuteStatement: DynamoDB's limit."""
READ_AT_ONCE = 100
"""Keys in one BatchGetItem: DynamoDB's limit."""
NO_CREDENTIALS = 30.0
"""Seconds for which a client without usable credentials is kept: the search for them may itself be slow."""

# A visitor waits for a put: what does not answer by then goes to the spool.
CONFIG = Config(
    connect_timeout=1,
    read_timeout=3,
    retries={"mode": "standard", "total_max_attempts": 2},
    max_pool_connections=50,
    tcp_keepalive=True,
    # A fifth of what a request costs: what we ask has no form that depends on what a visitor sends.
    parameter_validation=False,
    user_agent_extra="django-segment-fallback",
)

_MISSING = "it or its state table does not exist: run manage.py segment_table --create"
_NOT_ALLOWED = "not allowed: manage.py segment_table --policy prints the IAM policy that is needed"
_CREDENTIALS = "no usable credentials: give the process a role, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
THROTTLED = "throttled: make the tables on demand, or raise their capacity or the account's quota"
_UNREACHABLE = "no answer: check region, endpoint_url and the network's way there"
ADVICE = {
    "ResourceNotFoundException": _MISSING,
    "AccessDeniedException": _NOT_ALLOWED,
    "ProvisionedThroughputExceededException": THROTTLED,
    "ThrottlingException": THROTTLED,
    "RequestLimitExceeded": THROTTLED,
    "UnrecognizedClientException": _CREDENTIALS,
    "InvalidSignatureException": _CREDENTIALS,
    "ExpiredTokenException": _CREDENTIALS,
    "NoCredentialsError": _CREDENTIALS,
    "PartialCredentialsError": _CREDENTIALS,
    "CredentialRetrievalError": _CREDENTIALS,
    "ResourceNotFound": _MISSING,
    "AccessDenied": _NOT_ALLOWED,
    "ProvisionedThroughputExceeded": THROTTLED,
    "ThrottlingError": THROTTLED,
    "NoRegionError": "no region: write the option 'region', or set AWS_DEFAULT_REGION",
    "ConnectionError": _UNREACHABLE,
    "HTTPClientError": _UNREACHABLE,
}
"""What to do, by DynamoDB's error code, that of a request or of a statement, or the class of botocore's error."""


class DynamoDB:
    """The client of one table, and of others beside it. Made once a process and shared by its threads.

    ``region``, ``endpoint_url``: as boto3 finds them, by default. ``client``: further arguments of boto3's
    ``Session.client()``, such as ``aws_access_key_id``; its ``config`` wins over ours.
    """

    def __init__(
        self,
        table: str,
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        client: Mapping[str, Any] | None = None,
    ) -> None:
        if not re.fullmatch(r"[A-Za-z0-9_.-]{3,249}", table):
            raise ValueError(f"table must be 3 to 249 ASCII letters, digits, '_', '-' or '.', not {table!r}")
        if endpoint_url is not None and not re.match(r"https?://[^/]", endpoint_url):
            raise ValueError(f"endpoint_url must be like 'http://localhost:8000', not {endpoint_url!r}")
        self.table = table
        self._options = {**(client or {}), "region_name": region, "endpoint_url": endpoint_url}
        self._lock = threading.Lock()
        self._client: DynamoDBClient | None = None
        self._client_made = 0.0

    @property
    def client(self) -> DynamoDBClient:
        """The process's one client, which its threads share. Made at its first use."""
        client = self._client
        if client is None:
            with self._lock, self.guard():
                client = self._client
                if client is None:
                    config = CONFIG.merge(self._options.get("config") or Config())
                    client = boto3.Session().client("dynamodb", **{**self._options, "config": config})
                    self._client, self._client_made = client, time.monotonic()
        return client

    def scan(self, **options: Any) -> Iterator[Mapping[str, Any]]:
        """The pages of a Scan, each read (up to 1 MB) when it is asked for."""
        with self.guard():
            yield from self.client.get_paginator("scan").paginate(**options)

    def get_items(self, table: str, keys: Sequence[Mapping[str, Any]]) -> Iterator[Item]:
        """Those of these items that are there, in no order."""
        for start in range(0, len(keys), READ_AT_ONCE):
            undone: Mapping[str, Any] = {table: {"Keys": keys[start : start + READ_AT_ONCE], "ConsistentRead": True}}
            for pause in pauses():
                if pause:
                    time.sleep(pause)
                with self.guard():
                    answer = self.client.batch_get_item(RequestItems=undone)
                yield from answer["Responses"].get(table, [])
                undone = answer.get("UnprocessedKeys") or {}
                if not undone:
                    break
            else:
                raise BufferUnavailable(f"{self.where()}: {THROTTLED} ({len(undone[table]['Keys'])} items unread)")

    def attempt(self, operation: Callable[..., Answer], **request: Any) -> Answer | None:
        """The operation's answer, or None where its condition does not hold. Raises BufferUnavailable."""
        with self.guard():
            try:
                return operation(**request)
            except self.client.exceptions.ConditionalCheckFailedException:
                return None

    def delete(self, table: str, key: str, values: Sequence[str]) -> None:
        """Delete the items that have these values of the key."""
        self.write_batches(table, [{"DeleteRequest": {"Key": {key: {"S": value}}}} for value in values])

    def write_batches(self, table: str, requests: Sequence[WriteRequestTypeDef]) -> None:
        """Write and delete items, 25 at a time; what DynamoDB leaves undone is sent again, ever more slowly."""
        for start in range(0, len(requests), BATCH):
            undone: Mapping[str, Any] = {table: requests[start : start + BATCH]}
            for pause in pauses():
                if pause:
                    time.sleep(pause)
                with self.guard():
                    undone = self.client.batch_write_item(RequestItems=undone)["UnprocessedItems"]
                if not undone:
                    break
            else:
                raise BufferUnavailable(f"{self.where()}: {THROTTLED} ({len(undone[table])} writes left undone)")

    @contextmanager
    def guard(self) -> Iterator[None]:
        """boto3's errors as ours, with what to do about them."""
        try:
            yield
        except (BotoCoreError, ClientError) as error:
            names = [cls.__name__ for cls in type(error).__mro__]
            if isinstance(error, ClientError):
                names = [error.response.get("Error", {}).get("Code", "")]
            advice = next((ADVICE[name] for name in names if name in ADVICE), None)
            if advice == _CREDENTIALS and time.monotonic() > self._client_made + NO_CREDENTIALS:
                self._client = None  # the next one looks for them anew: what expired may have been replaced
            detail = f"{advice} ({error})" if advice else str(error)
            raise BufferUnavailable(f"{self.where()}: {detail}") from error

    def where(self) -> str:
        """The table, its region and endpoint: for errors."""
        client = self._client
        region = client.meta.region_name if client else self._options["region_name"]
        endpoint = client.meta.endpoint_url if client else self._options["endpoint_url"]
        place = urlsplit(endpoint or "").netloc.rpartition("@")[2] or "its default endpoint"
        return f"DynamoDB table {self.table!r} in region {region or 'unknown'} at {place}"

    def region_fault(self) -> str:
        """Why it has no region; empty where it has one. Does not connect."""
        try:
            return "" if self._options["region_name"] or boto3.Session().region_name else "finds no AWS region"
        except BotoCoreError as error:
            return f"cannot read AWS's configuration: {error}"


def pauses(tries: int = 9) -> Iterator[float]:
    """Seconds before each try: none before the first, then up to 0.05 · 2ⁿ, at most 2, at random."""
    yield 0.0
    for doublings in range(tries - 1):
        yield random.uniform(0, min(0.05 * 2**doublings, 2.0))  # noqa: S311 - jitter
