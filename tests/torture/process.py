"""What runs in a process of its own: ``python -m tests.torture.process ROLE``, always to be killed."""

# ruff: noqa: S311 - nothing here is secret
from __future__ import annotations

import ctypes
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

CLOCK = "TORTURE_CLOCK"
"""Environment variable: by how many seconds this process's clock is wrong."""


def die_with_parent() -> None:
    """Let the kernel kill this process when the driver ends, however it ends. Linux only."""
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def move_clock(seconds: int) -> None:
    """Make the clock wrong, before anybody has imported its functions."""
    if seconds:
        right, right_ns = time.time, time.time_ns
        time.time = lambda: right() + seconds
        time.time_ns = lambda: right_ns() + seconds * 1_000_000_000


def ready() -> None:
    """Tell the driver that this process does its work now."""
    from tests.torture.site import DIR

    (DIR / "ready").mkdir(exist_ok=True)
    (DIR / "ready" / str(os.getpid())).touch()


def flusher() -> None:
    """``manage.py segment_flush``, again and again."""
    from django.core.management import CommandError, call_command

    ready()
    while True:
        try:
            call_command("segment_flush", "--budget", "5")
        except CommandError as error:
            sys.stderr.write(f"{error}\n")
        time.sleep(random.uniform(0.05, 0.3))


def flush_once() -> None:
    """One flush, with time enough for all there is."""
    from segment_fallback.delivery.flush import flush

    sys.stdout.write(f"{flush(budget=300)}\n")


def web() -> None:
    """A web server with threads."""
    from django.core.servers.basehttp import get_internal_wsgi_application, run

    run("127.0.0.1", int(sys.argv[2]), get_internal_wsgi_application(), threading=True, on_bind=lambda _: ready())


def load() -> None:
    from tests.torture.load import Load

    generator = Load(web_port=int(sys.argv[2]))
    ready()
    generator.run()


def worker() -> None:
    from tests.torture.celery_app import app

    ready()
    app.worker_main(["worker", "--pool", "solo", "--loglevel", "WARNING"])


def beat() -> None:
    from tests.torture.celery_app import app

    ready()
    # A schedule's file does not survive a kill; beat would throw it away.
    schedule = Path(os.environ.get("TMPDIR", "/tmp")) / f"torture-beat-{os.getpid()}"  # noqa: S108
    app.start(["beat", "--loglevel", "WARNING", "--schedule", str(schedule)])


ROLES: dict[str, Callable[[], None]] = {role.__name__: role for role in (flusher, flush_once, web, load, worker, beat)}


def main() -> None:
    die_with_parent()
    move_clock(int(os.environ.get(CLOCK, "0")))
    import django

    django.setup()
    ROLES[sys.argv[1]]()


if __name__ == "__main__":
    main()
