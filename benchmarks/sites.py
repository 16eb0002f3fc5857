"""Serves the benchmarks' site (benchmarks/project.py), and lets wrk load it with the hits of real visitors.

    with site("granian wsgi", first=OURS) as served:
        served.load(PIXEL, seconds=5)

Settings say where the hits go: ``settings={"BUFFERS": …}``; what a buffer needs besides (a table) is the caller's.
"""

from __future__ import annotations

import contextlib
import http.client
import itertools
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.core.signing import TimestampSigner
from django.test import override_settings
from django.urls import reverse

from benchmarks import project
from segment_fallback.intake.identity import ANONYMOUS_ID_COOKIE, SALT
from segment_fallback.message import new_message_id
from segment_fallback.names import endpoint_names, id_cookies
from segment_fallback.page import token
from tests.intake.visits import encode
from tests.servers import NotInstalled, free_port

ROOT = Path(__file__).parents[1]
PATIENCE = 30.0
"""Seconds in which a server must answer."""

VISITORS = 500
BARE, PIXEL = "bare", "pixel"
"""What wrk may ask for: a bare view, or our pixel."""

OURS, AT_ONCE = "segment_fallback.middleware.SegmentMiddleware", "benchmarks.project.at_once"
"""Middlewares that may come first: ours, and one that answers what the bare view answers without asking anything."""

PYTHON = [sys.executable, "-m"]
SERVERS: Mapping[str, Callable[[int], Sequence[str]]] = {
    "gunicorn threads": lambda port: [
        *(*PYTHON, "gunicorn", "--no-control-socket", "--bind", f"127.0.0.1:{port}", "--workers", "1"),
        *("--threads", "4", "--keep-alive", "60", "benchmarks.applications:wsgi"),
    ],
    "granian wsgi": lambda port: [*_granian(port), "--interface", "wsgi", "benchmarks.applications:wsgi"],
    "granian asgi": lambda port: [*_granian(port), "--interface", "asgi", "benchmarks.applications:asgi"],
    "uvicorn": lambda port: [
        *(*PYTHON, "uvicorn", "--port", str(port), "--no-access-log", "--lifespan", "off", "--log-level", "warning"),
        "benchmarks.applications:asgi",
    ],
}
"""One process each, so that the other core is wrk's."""
WAITING: Mapping[str, Callable[[int], Sequence[str]]] = {
    "gunicorn 16 threads": lambda port: [
        *(*PYTHON, "gunicorn", "--no-control-socket", "--bind", f"127.0.0.1:{port}", "--workers", "1"),
        *("--threads", "16", "--keep-alive", "60", "benchmarks.applications:wsgi"),
    ],
    "granian wsgi 16 threads": lambda port: [
        *_granian(port),
        *("--blocking-threads", "16", "--interface", "wsgi", "benchmarks.applications:wsgi"),
    ],
}
"""Those with threads enough to wait for a disk or a network."""


def _granian(port: int) -> list[str]:
    return [*PYTHON, "granian", "--workers", "1", "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]


@dataclass
class Hit:
    """One request of a visitor: what stands before and after its messageId in the path, and its headers."""

    before: str
    after: str
    headers: Mapping[str, str]

    def path(self, message_id: str) -> str:
        return self.before + message_id + self.after


def hits(what: str, number: int = VISITORS) -> list[Hit]:
    """A request of each of so many visitors, who came before, in the project's settings; the same in every run."""
    # Another project may be the one in force.
    with override_settings(SECRET_KEY=project.SECRET_KEY, ROOT_URLCONF=project.__name__):
        return [_hit(what, visitor) for visitor in range(number)]


def _hit(what: str, visitor: int) -> Hit:
    name, mark = endpoint_names()[0], new_message_id()
    chance = random.Random(visitor)  # noqa: S311 - nothing is kept secret by it
    own = str(uuid.UUID(int=chance.getrandbits(128), version=4))
    page = token.sign(token.Page("/shop/shoes/", "Shoes", "Shop", {"price": 20, "brand": "Ours"}))
    data = encode(137, "Europe/Berlin", "", "", "Shoes of all sizes", "?utm_source=letter", "https://www.example.com/")
    before, after = reverse("segment_fallback:pixel", args=[name, mark, data, page]).split(mark)
    signed = TimestampSigner(salt=SALT).sign(f"m:{own}")
    address = ".".join(str(chance.randrange(1, 255)) for _ in range(2))
    cookies = {"_ga": "GA1.1.1234567890.1712345678", ANONYMOUS_ID_COOKIE: own, id_cookies()[0]: signed, name: page}
    headers = {
        "Host": "shop.example",
        "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 "
        "Safari/537.36",
        "Accept": "image/avif,image/webp,image/apng,image/svg+xml,image/*,*/*;q=0.8",
        "Accept-Encoding": "gzip, deflate, br, zstd",
        "Accept-Language": "en-GB,en;q=0.9",
        "Cookie": "; ".join(f"{key}={value}" for key, value in cookies.items()),
        "Referer": "http://shop.example/shop/shoes/?utm_source=letter",
        "Sec-CH-UA": '"Chromium";v="141", "Not?A_Brand";v="8"',
        "Sec-CH-UA-Mobile": "?0",
        "Sec-CH-UA-Platform": '"Linux"',
        "Sec-Fetch-Dest": "image",
        "Sec-Fetch-Mode": "no-cors",
        "Sec-Fetch-Site": "same-origin",
        "X-Forwarded-For": f"81.2.{address}",
    }
    # The bare view gets what its visitors' browsers would send: the same headers, and an id that no cache knows.
    return Hit(before, after, headers) if what == PIXEL else Hit("/bare.gif?id=", "", headers)


@dataclass
class Served:
    """A site that answers."""

    port: int
    log: Path

    def load(self, what: str, seconds: int = 5, connections: int = 8) -> float:
        """Requests a second, by one thread of wrk. Raises RuntimeError where not every one was answered and, of ours,
        accepted."""
        before = self.counts()
        with tempfile.TemporaryDirectory() as folder:
            script = Path(folder, "hits.lua")
            script.write_text(lua(hits(what)), encoding="utf-8")
            options = ["--threads", "1", "--connections", str(connections), "--duration", f"{seconds}s"]
            command = [wrk(), *options, "--script", str(script), f"http://127.0.0.1:{self.port}/"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - ours
        try:
            told = json.loads(done.stdout.rpartition("RESULT ")[2])
        except ValueError:
            raise RuntimeError(f"wrk failed: {done.stdout}{done.stderr}") from None
        after = self.counted(before, told["requests"] if what == PIXEL else 0)
        new = {outcome: after[outcome] - before.get(outcome, 0) for outcome in after}
        accepted = new.pop("accepted", 0)
        if told["errors"] or any(new.values()) or (what == PIXEL and accepted < told["requests"]):
            raise RuntimeError(f"wrk counts {told}, the site {accepted} accepted and {new}:\n{self.log.read_text()}")
        return float(told["requests"]) / float(told["seconds"])

    def counted(self, before: Mapping[str, int], accepted: int) -> dict[str, int]:
        """How the hits so far ended, when so many more were accepted: what a timer writes may take its time."""
        deadline = time.monotonic() + PATIENCE
        while True:
            found = self.counts()
            if found.get("accepted", 0) - before.get("accepted", 0) >= accepted or time.monotonic() > deadline:
                return found
            time.sleep(0.1)

    def counts(self) -> dict[str, int]:
        """How the hits so far ended."""
        found: dict[str, int] = json.loads(self.get("/counts/"))
        return found

    def get(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            if response.status != 200:
                raise RuntimeError(f"{path} answers {response.status}:\n{self.log.read_text()}")
            return response.read()


@contextlib.contextmanager
def site(
    server: str,
    *,
    first: str = "",
    settings: Mapping[str, Any] | None = None,
    database: Mapping[str, Any] | None = None,
) -> Iterator[Served]:
    """The site under one of SERVERS or WAITING. ``first``: a middleware placed before all others, such as OURS,
    which answers our endpoints early; ``settings``: further keys of SEGMENT_FALLBACK; ``database``: its entry of
    DATABASES."""
    port = free_port()
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": project.__name__,
        "PYTHONPATH": str(ROOT),
        "BENCHMARK_SETTINGS": json.dumps(settings or {}),
        "BENCHMARK_FIRST": first,
        **({"BENCHMARK_DATABASE": json.dumps(database)} if database else {}),
    }
    with tempfile.TemporaryDirectory() as folder:
        served = Served(port, Path(folder, "log"))
        with served.log.open("ab") as log:
            process = subprocess.Popen(  # noqa: S603 - ours
                {**SERVERS, **WAITING}[server](port),
                env=environment,
                cwd=ROOT,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            _wait_for(served, process)
            yield served
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_for(served: Served, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            served.get("/bare.gif")
        except (OSError, http.client.HTTPException):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the site did not start:\n{served.log.read_text()}") from None
            time.sleep(0.05)
        else:
            return


def wrk() -> str:
    """The program. Raises NotInstalled."""
    found = shutil.which("wrk")
    if found is None:
        raise NotInstalled("no wrk: apt-get install wrk")
    return found


def lua(requests: Sequence[Hit]) -> str:
    """wrk's script: these requests over and over, each with a messageId of its own."""
    befores = (json.dumps(f"GET {hit.before}") for hit in requests)
    afters = (json.dumps(f"{hit.after} HTTP/1.1\r\n{_lines(hit.headers)}\r\n") for hit in requests)
    rows = ",\n".join(itertools.chain.from_iterable(zip(befores, afters, strict=True)))
    return SCRIPT.replace("ROWS", rows).replace("RUN", uuid.uuid4().hex[:16])


def _lines(headers: Mapping[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in headers.items())


SCRIPT = """local rows = {
ROWS
}
local row, count = 1, 0
function request()
  count = count + 1
  row = row < #rows - 1 and row + 2 or 1
  return rows[row] .. string.format("RUN%016x", count) .. rows[row + 1]
end
function done(summary)
  local errors = summary.errors
  io.write(string.format(
    'RESULT {"requests": %d, "seconds": %f, "errors": %d}',
    summary.requests,
    summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout
  ))
end
"""
