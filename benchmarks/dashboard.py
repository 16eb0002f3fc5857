"""How long does the dashboard take? ``python -m benchmarks.dashboard``

With 100,000 waiting messages and a year of counts (20 events an hour on each of 3 ways: 525,600 rows) in SQLite, and
in PostgreSQL with ``--postgresql``: milliseconds of server time for the page, the median of its runs and the first
one, for which nothing is in the cache, and the number of queries.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django
from django.core.cache import cache
from django.core.management import call_command
from django.db import connections
from django.test import Client
from django.test.utils import CaptureQueriesContext

HOUR = 3_600
CHUNK = 10_000


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--waiting", type=int, default=100_000)
    options.add_argument("--hours", type=int, default=8_760)
    options.add_argument("--runs", type=int, default=20)
    options.add_argument("--postgresql", action="store_true", help="instead of SQLite")
    arguments = options.parse_args()
    with database(arguments.postgresql) as settings:
        os.environ["DJANGO_SETTINGS_MODULE"] = "tests.dashboard.project"
        from django.conf import settings as django_settings

        django_settings.DATABASES = {"default": settings}
        django_settings.DEBUG = False
        django.setup()
        call_command("migrate", verbosity=0)
        fill(arguments.waiting, arguments.hours)
        measure(arguments.runs)
        connections["default"].close()


@contextlib.contextmanager
def database(postgresql: bool) -> Iterator[dict[str, Any]]:
    """A database of our own: a file, or a server with nothing but its defaults."""
    if postgresql:
        from tests.servers import postgresql as server

        with server() as running:
            yield running.settings
    else:
        options = {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL"}
        with tempfile.TemporaryDirectory() as folder:
            name = str(Path(folder) / "db.sqlite3")
            yield {"ENGINE": "django.db.backends.sqlite3", "NAME": name, "OPTIONS": options}


def fill(waiting: int, hours: int) -> None:
    from segment_fallback.models import EventCount, OutcomeCount
    from tests.dashboard import fill as rows

    rows.users()
    rows.wait(waiting)
    rows.bury()
    rows.leases(trouble=True)
    now = int(time.time()) // HOUR * HOUR
    keys = itertools.product(range(hours), ("javascript", "pixel", "noscript"), range(20))
    counts = (
        EventCount(
            hour=now - ago * HOUR,
            way=way,
            type=("page", "identify")[n] if n < 2 else "track",
            event=f"Event {n}" if n > 1 else "",
            count=n + ago % 7,
        )
        for ago, way, n in keys
    )
    while chunk := list(itertools.islice(counts, CHUNK)):
        EventCount.objects.bulk_create(chunk)
    words = ("accepted", "gpc", "dnt", "rate", "cross_site")
    OutcomeCount.objects.bulk_create(
        [
            OutcomeCount(hour=now - ago * HOUR, way=way, outcome=word, count=3)
            for ago, way, word in itertools.product(range(hours), ("javascript", "pixel", "noscript"), words)
        ],
        batch_size=CHUNK,
    )
    with connections["default"].cursor() as cursor:
        cursor.execute("ANALYZE")


def measure(runs: int) -> None:
    from django.contrib.auth.models import User

    client = Client()
    client.force_login(User.objects.get(username="admin"))
    print(f"{'':8}{'median':>12}{'first':>12}{'queries':>10}")
    for key in ("24h", "7d", "30d", "year"):
        cache.clear()
        with CaptureQueriesContext(connections["default"]) as queries:
            first = milliseconds(client, key)
        number = len(queries)  # which the next request forgets
        median = statistics.median(milliseconds(client, key) for _ in range(runs))
        print(f"{key:8}{median:>9.0f} ms{first:>9.0f} ms{number:>10}")


def milliseconds(client: Client, key: str) -> float:
    started = time.perf_counter()
    response = client.get("/admin/segment_fallback/dashboard/", {"range": key})
    if response.status_code != 200:
        raise SystemExit(f"the page answers {response.status_code}")
    return (time.perf_counter() - started) * 1000


if __name__ == "__main__":
    main()
