"""The fault suite in short, on every backend. ``make torture`` runs it for longer, with Celery."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.servers import NotInstalled
from tests.torture.backends import BACKENDS
from tests.torture.run import Order, Torture

# As with the browser: the same whatever the Python, and too slow to be run on each.
pytestmark = pytest.mark.e2e

KILLS = 25


@pytest.mark.parametrize("backend", BACKENDS)
def test_every_accepted_message_is_accounted_for(backend: str, tmp_path: Path) -> None:
    seed = random.randrange(10_000)  # noqa: S311 - nothing here is secret
    try:
        result = Torture(Order(backend, seconds=30, kills=KILLS, seed=seed), tmp_path).run()
    except NotInstalled as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))
    assert not result.faults, result
    assert result.done["killed"].total() == KILLS
