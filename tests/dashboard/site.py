"""The site of ``project.py``, running as a process of its own, and a browser's context that is signed in to it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.servers import free_port

ROOT = Path(__file__).parents[2]
FILL = "import django; django.setup(); from tests.dashboard import fill; fill.users(); fill.fill(trouble={trouble})"


@contextlib.contextmanager
def running(folder: Path, *, trouble: bool = False, **settings: Any) -> Iterator[str]:
    """URL of the site, filled, with these keys in SEGMENT_FALLBACK."""
    cache = {"LAST_EVENTS": True, **settings}
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.dashboard.project",
        "PYTHONPATH": str(ROOT),
        "DASHBOARD_DIR": str(folder),
        "DASHBOARD_SETTINGS": json.dumps(cache),
    }
    python = [sys.executable, "-W", "error"]
    subprocess.run([*python, "-m", "django", "migrate", "--verbosity", "0"], env=environment, cwd=ROOT, check=True)
    subprocess.run([*python, "-c", FILL.format(trouble=trouble)], env=environment, cwd=ROOT, check=True)
    port = free_port()
    with (folder / "site.log").open("w") as log:
        process = subprocess.Popen(
            [*python, "-m", "django", "runserver", "--noreload", f"localhost:{port}"],
            env=environment,
            cwd=ROOT,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(f"http://localhost:{port}/admin/login/", folder / "site.log")
        yield f"http://localhost:{port}"
    finally:
        process.terminate()
        process.wait(20)


def wait_for(url: str, log: Path) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError as error:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the site did not start:\n{log.read_text()}") from error
            time.sleep(0.1)
        else:
            return
