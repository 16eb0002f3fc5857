"""A buffer that takes all and keeps little, so that a benchmark may run for long."""

from __future__ import annotations

from collections.abc import Sequence

from segment_fallback.buffers.memory import MemoryBuffer
from segment_fallback.message import Message

FULL = 1_000


class EmptiedBuffer(MemoryBuffer):
    """MemoryBuffer; emptied when so many wait, as a flush would."""

    def write(self, messages: Sequence[Message]) -> None:
        if len(self.store.rows) >= FULL:
            self.store.rows.clear()
        super().write(messages)
