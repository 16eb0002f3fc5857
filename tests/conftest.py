from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from segment_fallback.buffers.accept import acceptance
from segment_fallback.delivery.archiving import lanes
from segment_fallback.delivery.forward import lines
from segment_fallback.intake.verify import limiter
from segment_fallback.profiles.lookup import lookup
from segment_fallback.status import cheap, full
from tests.servers import DatabaseServer, NotInstalled, dynalite, dynamodb_local, mariadb, moto_server, postgresql

Server = TypeVar("Server")


MARKED = {
    "e2e": ("e2e", "example", "test_in_chromium.py", "test_browser_clients.py"),
    "slow": ("torture", "serving", "edge", "deploy", "test_conservation.py", "test_on_the_wire.py"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        for mark, places in MARKED.items():
            if set(places) & set(item.path.relative_to(Path(__file__).parent).parts):
                item.add_marker(mark)


@pytest.fixture(autouse=True)
def process_that_has_just_started() -> Iterator[None]:
    """Forget what a process remembers of earlier requests: its rate limits, what is down, what is spooled."""
    yield
    limiter.clear()
    acceptance.forget()
    lines.forget()
    cheap.forget()
    full.forget()
    lanes.forget()
    lookup.forget()
    for name in acceptance.spool.files():
        acceptance.spool.delete(name)


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture(scope="session")
def dynamodb_local_url() -> Iterator[str]:
    with installed(dynamodb_local()) as url:
        yield url


@pytest.fixture(scope="session")
def dynalite_url() -> Iterator[str]:
    with installed(dynalite()) as url:
        yield url


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[DatabaseServer]:
    with installed(postgresql("-c", "fsync=off", "-c", "deadlock_timeout=100ms")) as server:
        yield server


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[DatabaseServer]:
    with installed(mariadb()) as server:
        yield server


@contextlib.contextmanager
def installed(server: contextlib.AbstractContextManager[Server]) -> Iterator[Server]:
    """The running server, or a skip with a line that says what to install; in CI nothing may be missing."""
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(server)
        except NotInstalled as error:
            if os.environ.get("CI"):
                raise
            pytest.skip(str(error))
        yield running
