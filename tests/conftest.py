from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from segment_fallback.buffers.accept import acceptance
from segment_fallback.intake.verify import limiter
from tests.servers import NotInstalled, dynamodb_local, moto_server


@pytest.fixture(autouse=True)
def process_that_has_just_started() -> Iterator[None]:
    """Forget what a process remembers of earlier requests: its rate limits, which store is down, what is spooled."""
    yield
    limiter.clear()
    acceptance.forget()
    for name in acceptance.spool.files():
        acceptance.spool.delete(name)


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture(scope="session")
def dynamodb_local_url() -> Iterator[str]:
    try:
        with dynamodb_local() as url:
            yield url
    except NotInstalled as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
