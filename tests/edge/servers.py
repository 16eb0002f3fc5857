"""Starts the site under gunicorn, and Varnish or nginx before it with the very files of docs/edge."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from tests.e2e.conftest import missing
from tests.servers import free_port
from tests.serving.site import kill, wait_until

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs" / "edge"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def is_hit(self) -> bool:
        return self.headers["X-Cache"] == "HIT"


@dataclass
class Edge:
    """The site as visitors see it. ``kind``: varnish, nginx or django, which is Django's own cache middleware."""

    kind: str
    directory: Path
    alias: str
    """Of the site's database, among the tests' own."""
    port: int
    origin: int
    """The port at which gunicorn listens."""
    gunicorn: subprocess.Popen[str] | None = None
    connections: list[http.client.HTTPConnection] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str, headers: Mapping[str, str] | None = None, **options: Any) -> Answer:
        """A request of its own connection, from ``source`` (an address) to ``port``, with ``method`` and ``body``."""
        source = (options["source"], 0) if "source" in options else None
        port = options.get("port", self.port)
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30, source_address=source)
        with contextlib.closing(connection):
            return ask(connection, path, headers, options.get("method", "GET"), options.get("body"))

    def sign_in(self, name: str) -> str:
        """The Cookie header of somebody who has signed in."""
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        answer = self.get("/accounts/sign-in/", form, method="POST", body=urlencode({"name": name}))
        assert answer.status == 200, answer.body
        return "; ".join(cookie.partition(";")[0] for cookie in answer.headers.get_all("Set-Cookie", []))

    def log(self, name: str, url: str | None = None) -> list[dict[str, Any]]:
        """What the site wrote down: ``requests`` that reached it, ``rendered`` pages, uses of ``sessions``."""
        file = self.directory / f"{name}.jsonl"
        lines = map(json.loads, file.read_text().splitlines()) if file.exists() else ()
        return [line for line in lines if url in (None, line.get("url"))]

    def made(self, url: str) -> int:
        """How often Django had to make this page."""
        return len(self.log("rendered" if self.kind == "django" else "requests", url))


def ask(
    connection: http.client.HTTPConnection,
    path: str,
    headers: Mapping[str, str] | None = None,
    method: str = "GET",
    body: str | None = None,
) -> Answer:
    connection.request(method, path, body, dict(headers or {}))
    response = connection.getresponse()
    return Answer(response.status, response.headers, response.read())


@contextlib.contextmanager
def process(command: Sequence[str], log: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A process in a session of its own, killed at the end with all that it has started."""
    with log.open("a") as output:
        started = subprocess.Popen(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    try:
        yield started
    finally:
        kill(started)


@contextlib.contextmanager
def running(kind: str, directory: Path, alias: str, settings: Mapping[str, Any]) -> Iterator[Edge]:
    """The site behind this edge, both of which answer already. ``settings``: further keys of SEGMENT_FALLBACK."""
    origin = free_port()
    environment = {
        "DJANGO_SETTINGS_MODULE": "tests.edge.project",
        "PYTHONPATH": str(ROOT),
        "EDGE_DIR": str(directory),
        "EDGE_SETTINGS": json.dumps(settings),
        **({"EDGE_CACHE": "1"} if kind == "django" else {}),
    }
    gunicorn = [sys.executable, "-m", "gunicorn", "--no-control-socket", "--threads", "16"]
    log = directory / "log"
    if settings.get("VARIATIONS") == "edge":
        printer = [sys.executable, "-m", "django", "segment_variations", f"--{kind}", "--only", "^/sale/[^/]*/$"]
        printed = subprocess.run(printer, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
        (directory / "variations").write_text(printed.stdout)
    with contextlib.ExitStack() as stack:
        port = stack.enter_context(EDGES[kind](directory, origin))
        command = [*gunicorn, "--bind", f"127.0.0.1:{origin}", "tests.edge.wsgi"]
        edge = Edge(kind, directory, alias, port, origin)
        edge.gunicorn = stack.enter_context(process(command, log, **environment))
        for each in (origin, port):
            wait_until(lambda port=each: answers(edge, port), lambda: log.read_text()[-3_000:])  # type: ignore[misc]
        yield edge


def answers(edge: Edge, port: int) -> bool:
    try:
        return edge.get("/silent/", port=port).status == 200
    except (OSError, http.client.HTTPException):
        return False


@contextlib.contextmanager
def varnish(directory: Path, origin: int) -> Iterator[int]:
    program = shutil.which("varnishd", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        missing("no Varnish: apt-get install varnish")
    port = free_port()
    vcl = directory / "varnish.vcl"
    printed = directory / "variations"
    include = f'vcl 4.1;\ninclude "{printed}";\n' if printed.exists() else "vcl 4.1;\n"
    vcl.write_text(replaced("varnish.vcl", {'.port = "8000";': f'.port = "{origin}";', "vcl 4.1;\n": include}))
    # Its workers would run as Debian's user for them, who may not look into this directory.
    quiet = ["-j", "none", "-F", "-p", "vsl_space=1M", "-s", "malloc,20m"]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as workdir:
        command = [str(program), *quiet, "-n", workdir, "-f", str(vcl), "-a", f"127.0.0.1:{port}"]
        with process(command, directory / "log"):
            yield port


@contextlib.contextmanager
def nginx(directory: Path, origin: int) -> Iterator[int]:
    port = free_port()
    own = {
        "server 127.0.0.1:8000;": f"server 127.0.0.1:{origin};",
        "listen 8080;": f"listen 127.0.0.1:{port};",
        "/var/lib/nginx/django ": f"{directory}/cache ",
    }
    printed = directory / "variations"
    if printed.exists():
        own['map "" $segment_variations { default ""; }'] = printed.read_text()
    with running_nginx(directory, replaced("nginx.conf", own)):
        yield port


@contextlib.contextmanager
def custom_proxy(directory: Path, segment: str) -> Iterator[tuple[int, int]]:
    """nginx before ``segment`` (host and port), as before Segment's two hosts. Yields the ports of CDN and API."""
    cdn, api = free_port(), free_port()
    own = {
        "listen 8081;": f"listen 127.0.0.1:{cdn};",
        "listen 8082;": f"listen 127.0.0.1:{api};",
        "set $segment_cdn cdn.segment.com;": f"set $segment_cdn {segment};",
        "set $segment_api api.segment.io;": f"set $segment_api {segment};",
        "https://$segment_cdn": "http://$segment_cdn",
        "https://$segment_api": "http://$segment_api",
    }
    with running_nginx(directory, replaced("custom-proxy.conf", own)):
        yield cdn, api


@contextlib.contextmanager
def running_nginx(directory: Path, site: str) -> Iterator[None]:
    """nginx with this file in its context "http", and all else below the directory."""
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if program is None:
        missing("no nginx: apt-get install nginx-light")
    (directory / "site.conf").write_text(site)
    names = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{name}_temp_path {directory}/{name};" for name in names)
    # Its workers would run as "nobody", who may not look into this directory.
    user = "user root;" if os.geteuid() == 0 else ""
    main = f"daemon off; {user} pid {directory}/nginx.pid; error_log {directory}/log; events {{}}"
    http_ = f"http {{ access_log off; {temporary} include {directory}/site.conf; }}"
    (directory / "nginx.conf").write_text(f"{main}\n{http_}\n")
    command = [str(program), "-p", str(directory), "-c", str(directory / "nginx.conf"), "-e", str(directory / "log")]
    with process(command, directory / "log"):
        yield


@contextlib.contextmanager
def django(directory: Path, origin: int) -> Iterator[int]:
    yield origin


EDGES: Mapping[str, Callable[[Path, int], contextlib.AbstractContextManager[int]]] = {
    "varnish": varnish,
    "nginx": nginx,
    "django": django,
}


def replaced(name: str, own: Mapping[str, str]) -> str:
    """A file of docs/edge, but for its addresses."""
    text = (DOCS / name).read_text()
    for documented, ours in own.items():
        assert text.count(documented) == 1, f"{name} must have {documented!r} once"
        text = text.replace(documented, ours)
    return text
