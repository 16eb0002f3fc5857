"""Starts the project under a real server, sends it hits, and counts at both ends."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from django.core.files.storage import FileSystemStorage
from django.urls import reverse

from segment_fallback.buffers.spool import Spool
from segment_fallback.message import new_message_id
from segment_fallback.models import WaitingMessage
from segment_fallback.names import endpoint_names
from segment_fallback.page import token
from tests.intake.visits import encode
from tests.servers import free_port

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0
PYTHON = [sys.executable, "-m"]

SERVERS: Mapping[str, Callable[[int], Sequence[str]]] = {
    "gunicorn sync": lambda port: [*_gunicorn(port), "--workers", "2"],
    "gunicorn threads": lambda port: [*_gunicorn(port), "--workers", "2", "--threads", "8"],
    "gunicorn preload": lambda port: [*_gunicorn(port), "--workers", "2", "--threads", "4", "--preload"],
    "granian wsgi": lambda port: [*_granian(port), "--interface", "wsgi", "tests.serving.applications:wsgi"],
    "granian asgi": lambda port: [*_granian(port), "--interface", "asgi", "tests.serving.applications:asgi"],
    "uvicorn": lambda port: [*PYTHON, "uvicorn", "--port", str(port), "tests.serving.applications:asgi"],
}


def _gunicorn(port: int) -> list[str]:
    return [
        *PYTHON,
        "gunicorn",
        "--no-control-socket",
        "--bind",
        f"127.0.0.1:{port}",
        "tests.serving.applications:wsgi",
    ]


def _granian(port: int) -> list[str]:
    return [*PYTHON, "granian", "--workers", "2", "--host", "127.0.0.1", "--port", str(port)]


@dataclass
class Site:
    """The project: its files, its database, and how to reach it. ``alias``: its database among the tests' own."""

    directory: Path
    alias: str
    database: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    port: int = field(default_factory=free_port)

    @property
    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.serving.project",
            "PYTHONPATH": str(ROOT),
            "SERVING_DIR": str(self.directory),
            "SERVING_DATABASE": json.dumps(self.database),
            "SERVING_SETTINGS": json.dumps(self.settings),
        }

    @contextlib.contextmanager
    def process(self, command: Sequence[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
        """A process of the site's, killed at the end with all that it has started."""
        with (self.directory / "log").open("a") as log:
            process = subprocess.Popen(
                command,
                env={**self.environment, **environment},
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if "tests.serving.function" in command else log,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        try:
            yield process
        finally:
            kill(process)

    @contextlib.contextmanager
    def served_by(self, server: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
        """The site under this server, which answers already."""
        with self.process(SERVERS[server](self.port), **environment) as process:
            wait_until(lambda: self.get("/sync/") == "here", lambda: f"{server} did not start:\n{self.log}")
            yield process

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text()[-2_000:]

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> str | None:
        """The body of the answer, or its outcome where it has one; None where there is no answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("GET", path, headers=dict(headers or {}))
            response = connection.getresponse()
            body = response.read()
            if response.status == 200:
                return response.headers["X-Segment-Fallback"] or body.decode()
        return None

    def hit(self) -> str | None:
        """One page view; its messageId if it was accepted."""
        name, message_id = endpoint_names()[0], new_message_id()
        headers = {
            "Cookie": f"{name}={token.sign(token.Page('/shop/', None, None, {}))}",
            "Referer": f"http://127.0.0.1:{self.port}/shop/",
            "Sec-Fetch-Site": "same-origin",
            "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Chrome/156.0.0.0",
        }
        seen = encode(0, "", "", "", "A shop")
        answer = self.get(reverse("segment_fallback:pixel", args=[name, message_id, seen]), headers)
        return message_id if answer == "accepted" else None

    def kept(self) -> set[str]:
        """The messageIds in the buffer and in the spool."""
        waiting = set(WaitingMessage.objects.using(self.alias).values_list("message_id", flat=True))
        spool = Spool(FileSystemStorage(location=self.directory / "segment-spool"), 10**9)
        return waiting | {message.message_id for name in spool.files() for message in spool.read(name) or []}


class Visitors:
    """Threads that visit until they are told to stop, and note the messageIds of the hits that were accepted."""

    def __init__(self, site: Site, threads: int = 8) -> None:
        self.accepted: list[str] = []
        self._site = site
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._visit) for _ in range(threads)]

    def _visit(self) -> None:
        while not self._stop.is_set():
            message_id = self._site.hit()
            if message_id is not None:
                self.accepted.append(message_id)
            else:
                time.sleep(0.02)

    def __enter__(self) -> Visitors:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)

    def wait_for(self, number: int) -> None:
        wait_until(lambda: len(self.accepted) >= number, lambda: f"{len(self.accepted)} accepted:\n{self._site.log}")


def wait_until(condition: Callable[[], bool], explain: Callable[[], str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(explain())
        time.sleep(0.05)


def kill(process: subprocess.Popen[Any]) -> None:
    """SIGKILL to the process and all that it has started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()
