from __future__ import annotations

from collections.abc import Iterator

import pytest

from segment_fallback.buffers.accept import acceptance
from segment_fallback.intake.verify import limiter


@pytest.fixture(autouse=True)
def process_that_has_just_started() -> Iterator[None]:
    """Forget what a process remembers of earlier requests: its rate limits, which store is down, what is spooled."""
    yield
    limiter.clear()
    acceptance.forget()
    for name in acceptance.spool.files():
        acceptance.spool.delete(name)
