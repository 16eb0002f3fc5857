"""What a profile's look-up adds to a page, from the store: ``python -m benchmarks.profiles``

Milliseconds of ``profile_of`` for users of whom the store has a profile of twenty traits, one request after the other;
then with the Profile API hanging, for users of whom it has none. Without ``--postgresql`` (the URL of an empty
database) the database is SQLite, in a file.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import django
from django.http import HttpRequest
from django.test import RequestFactory, override_settings

STORES = {
    "database": "segment_fallback.profiles.database.DatabaseProfiles",
    "cache": "segment_fallback.profiles.cache.CacheProfiles",
}
BUDGET = 0.05


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--users", type=int, default=5_000)
    options.add_argument("--postgresql", metavar="URL", help="such as postgresql://user:password@localhost/empty")
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        set_up(arguments.postgresql, folder)
        print(f"{'':24}{'median ms':>11}{'p99 ms':>9}{'max ms':>9}")
        for name, path in STORES.items():
            with override_settings(SEGMENT_FALLBACK={"WRITE_KEY": "x", "PROFILES": {"BACKEND": path}}):
                fill(arguments.users)
                show(name, [timed(user, find=True) for user in range(arguments.users)])
        hanging(min(arguments.users, 1_000))


def set_up(url: str | None, folder: str) -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    from django.conf import settings

    own: dict[str, Any] = {"ENGINE": "django.db.backends.sqlite3", "NAME": f"{folder}/db.sqlite3"}
    if url:
        parts = urlsplit(url)
        own = {"ENGINE": "django.db.backends.postgresql", "NAME": parts.path[1:], "HOST": parts.hostname}
        own |= {"PORT": parts.port or "", "USER": parts.username or "", "PASSWORD": parts.password or ""}
    settings.DATABASES = {"default": own}
    # All users must fit: by default a cache of a process keeps 300.
    cache = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "OPTIONS": {"MAX_ENTRIES": 1_000_000}}
    settings.CACHES = {"default": cache}
    django.setup()
    from django.core.management import call_command

    call_command("migrate", verbosity=0)


def fill(users: int) -> None:
    from django.db import transaction

    from segment_fallback.buffers.base import now_ms
    from segment_fallback.profiles import Ids, profiles

    traits = {f"trait_{number}": f"value {number}" for number in range(19)} | {"vip": True}
    with transaction.atomic():
        for user in range(users):
            profiles.store.update(Ids(str(user)), traits, now_ms())


def request_of(user: int) -> HttpRequest:
    from django.contrib.auth.models import User

    request = RequestFactory().get("/")
    request.user = User(pk=user)
    return request


def timed(user: int, *, find: bool) -> float:
    """Milliseconds of a page's one look-up."""
    from segment_fallback.profiles.lookup import profile_of

    request = request_of(user)
    began = time.perf_counter()
    found = profile_of(request)
    took = (time.perf_counter() - began) * 1000
    if (found is not None) != find:
        raise SystemExit(f"user {user} has {found!r}")
    return took


def hanging(users: int) -> None:
    from segment_fallback.profiles import api  # noqa: F401 - as AppConfig.ready loads it where PROFILE_API is set
    from segment_fallback.testing.answers import Answer
    from segment_fallback.testing.server import Server

    respond: Callable[..., Answer] = lambda *asked: Answer.hang(60)  # noqa: E731
    server = Server(0, respond)
    own = {"SPACE": "s", "TOKEN": "t", "HOST": f"http://127.0.0.1:{server.port}", "TIMEOUT": BUDGET}
    keys = {"WRITE_KEY": "x", "PROFILES": {"BACKEND": STORES["database"]}, "PROFILE_API": own}
    with override_settings(SEGMENT_FALLBACK=keys):
        show("Profile API hanging", [timed(user, find=False) for user in range(10**6, 10**6 + users)])
    server.stop()


def show(name: str, took: list[float]) -> None:
    p99 = statistics.quantiles(took, n=100)[98]
    print(f"{name:24}{statistics.median(took):11.2f}{p99:9.2f}{max(took):9.2f}")


if __name__ == "__main__":
    main()
