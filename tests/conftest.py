from __future__ import annotations

from collections.abc import Iterator

import pytest

from segment_fallback.intake.verify import limiter


@pytest.fixture(autouse=True)
def fresh_rate_limits() -> Iterator[None]:
    yield
    limiter.clear()
