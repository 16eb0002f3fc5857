from __future__ import annotations

import pytest

from segment_fallback.buffers.base import Buffer
from segment_fallback.buffers.memory import MemoryBuffer, Store
from tests.buffers.contract import BufferContract, Make


class TestContract(BufferContract):
    @pytest.fixture
    def make(self) -> Make:
        store = Store()

        def make(*, parts: int = 1) -> Buffer:
            return MemoryBuffer(parts=parts, store=store)

        return make


def test_buffers_share_nothing_by_themselves() -> None:
    one, other = MemoryBuffer(), MemoryBuffer()
    assert one.store is not other.store


def test_parts_below_one_are_refused() -> None:
    with pytest.raises(ValueError, match="parts must be at least 1, not 0"):
        MemoryBuffer(parts=0)
