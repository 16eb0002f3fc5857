"""What packing would gain: the messages of one joined write in one item. Nothing reads these items."""

from __future__ import annotations

import functools
import secrets
import zlib
from collections.abc import Sequence

from segment_fallback.buffers.base import now_ms
from segment_fallback.buffers.dynamodb import DynamoDBBuffer
from segment_fallback.buffers.group_commit import GroupCommit
from segment_fallback.message import Message

JOINED = 200
"""Messages in one item: far fewer than fill its 400 KB when they are compressed, but for the very largest."""

WRITERS = 2
PATIENCE = 0.01
"""Seconds. Packs gain most where they are large, so fewer are written at once than of DynamoDBBuffer's puts."""


class PackedPutsBuffer(DynamoDBBuffer):
    """DynamoDBBuffer, but for its puts: one PutItem a joined write, its messages compressed."""

    @functools.cached_property
    def _group_commit(self) -> GroupCommit:
        return GroupCommit(self.write, max_joined=JOINED, writers=WRITERS, patience=PATIENCE)

    def write(self, messages: Sequence[Message]) -> None:
        pack = zlib.compress(b"\n".join(message.body for message in messages), 1)
        self.attempt(
            self.client.put_item,
            TableName=self.table,
            Item={
                "messageId": {"S": f"pack {secrets.token_hex(16)}"},
                "messages": {"B": pack},
                "created": {"N": str(now_ms())},
            },
        )
