"""A Django project as ``startproject`` makes it, with this app as README has it, under a real server."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from django.http.cookie import SimpleCookie

from segment_fallback.message import new_message_id
from tests.intake.visits import encode
from tests.page.html import parse
from tests.servers import PATIENCE, free_port, running

KEY = "compat-write-key"

SETTINGS = """
import os
ALLOWED_HOSTS = ["127.0.0.1", "localhost"]
INSTALLED_APPS += ["segment_fallback"]
MIDDLEWARE.insert(0, "segment_fallback.middleware.SegmentMiddleware")
SEGMENT = os.environ.get("SEGMENT", "http://127.0.0.1:9")
SEGMENT_FALLBACK = {"WRITE_KEY": "compat-write-key", "API_HOST": SEGMENT, "CDN_HOST": SEGMENT, "OUTCOME_INTERVAL": 0}
"""

URLS = """
from django.contrib import auth
from django.http import HttpResponse
from django.template import engines
from django.urls import include

PAGE = "{% load segment_fallback %}{% segment_snippet name %}"

def page(request, **context):
    return HttpResponse(engines["django"].from_string(PAGE).render(context, request))

def log_in(request):
    auth.login(request, auth.get_user_model().objects.get())
    return HttpResponse("in")

urlpatterns = [path("", page), path("things/", page, {"name": "Things"}), path("log-in/", log_in)]
urlpatterns += [path("s/", include("segment_fallback.urls"))]
"""

BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Chrome/156.0.0.0",
    "Sec-Fetch-Site": "same-origin",
}


@dataclass
class Project:
    """The project in a directory of its own. ``environment``: beside the tests' own."""

    directory: Path
    environment: dict[str, str] = field(default_factory=dict)
    prefix: Sequence[str] = ()
    """What every command is run by."""

    @classmethod
    def start(cls, directory: Path, settings: str = "", urls: str = "") -> Project:
        """``startproject``, with these lines below ours in its settings and its URLs."""
        directory.mkdir()
        project = cls(directory)
        project.run("-m", "django", "startproject", "shop", ".")
        project.append("shop/settings.py", SETTINGS + textwrap.dedent(settings))
        project.append("shop/urls.py", URLS + urls)
        return project

    def append(self, file: str, text: str) -> None:
        with (self.directory / file).open("a") as output:
            output.write(text)

    def run(self, *arguments: str, fails: bool = False) -> str:
        """What Python prints, run in the project's directory; with ``fails`` what it complains of, too."""
        command = [*self.prefix, sys.executable, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **self.options)
        assert bool(done.returncode) is fails, done.stdout + done.stderr
        return f"{done.stdout}{done.stderr}" if fails else str(done.stdout)

    def manage(self, *arguments: str) -> str:
        return self.run("manage.py", *arguments)

    def shell(self, code: str) -> str:
        """What a piece of code prints where Django is set up."""
        return self.run("-c", f"import django; django.setup()\n{textwrap.dedent(code)}")

    @property
    def options(self) -> dict[str, Any]:
        own = {"DJANGO_SETTINGS_MODULE": "shop.settings", "PYTHONPATH": "."}
        return {"cwd": self.directory, "env": {**os.environ, **own, **self.environment}}

    @contextlib.contextmanager
    def served(self, root_path: str | None = None, **environment: str) -> Iterator[str]:
        """The URL of the project under gunicorn; with ``root_path`` below it, by ASGI, under uvicorn."""
        port = free_port()
        options = ["gunicorn", "--no-control-socket", "--bind", f"127.0.0.1:{port}", "--threads", "4", "shop.wsgi"]
        if root_path is not None:
            options = ["uvicorn", "--port", str(port), "--root-path", root_path, "shop.asgi:application"]
        command = [*self.prefix, sys.executable, "-m", *options]
        own = self.options
        with running(command, port, cwd=own["cwd"], env={**own["env"], **environment}) as url:
            yield url

    def waiting(self) -> list[str]:
        """The names of the page views that wait, and how each came."""
        return self.shell(
            """
            import json
            from segment_fallback.buffers import buffers
            for message in buffers["default"].waiting_messages():
                body = json.loads(message.body)
                print(body["type"], body.get("name") or body.get("event"), message.way.value)
            """
        ).splitlines()


class Visitor:
    """A browser without a window: it sees pages, and does what their scripts would."""

    def __init__(self, server: str, host: str | None = None, *, cut: str = "") -> None:
        """``host``: what the server is called; ``cut``: what a proxy in front of it takes off a path."""
        self.server = server
        self.origin = f"http://{host}" if host else server
        self.cut = cut
        self.session = requests.Session()
        self.session.headers.update({**BROWSER, **({"Host": host} if host else {})})
        self.config: dict[str, Any] = {}
        self.page = ""
        self.cookies: dict[str, str] = {}
        """The paths of the cookies that were set, by name."""

    def see(self, path: str) -> requests.Response:
        """Load a page; its snippet's argument is in ``config`` then."""
        response = self.get(path)
        assert response.status_code == 200, response.text
        self.config = parse(response.text).config
        self.page = self.origin + path
        return response

    def get(self, path: str, **headers: str) -> requests.Response:
        return self._ask("GET", path, headers)

    def pixel(self, **headers: str) -> str:
        """Report the page's view as its script does where analytics.js is blocked; what came of it."""
        path = f"{self.config['b']}p/{new_message_id()}"
        data = encode(0, "Europe/Berlin", "", "", "A shop", "", "")
        cookies = {self.config["c"]: self.config["t"]}
        return outcome(self._ask("GET", f"{path}/{data}/{self.config['t']}", headers, cookies=cookies))

    def event(self, **headers: str) -> str:
        """Post a page event as analytics.js does in FIRST_PARTY; what came of it."""
        body = {"type": "page", "name": "By JavaScript", "messageId": new_message_id(), "writeKey": self.config["k"]}
        told = {"Origin": self.origin, "Content-Type": "text/plain", **headers}
        return outcome(self._ask("POST", f"{self.config['api']}p", told, json=body))

    def who_am_i(self) -> Any:
        return self.get(self.config["me"]).json()["userId"]

    def _ask(self, method: str, path: str, headers: Mapping[str, str], **more: Any) -> requests.Response:
        assert path.startswith(f"{self.cut}/")
        told = {"Referer": self.page, **headers} if self.page else headers
        url = self.server + path.removeprefix(self.cut)
        response = self.session.request(method, url, headers=dict(told), timeout=30, **more)
        for value in response.raw.headers.getlist("Set-Cookie"):
            self.cookies |= {name: morsel["path"] for name, morsel in SimpleCookie(value).items()}
        return response


def outcome(response: requests.Response) -> str:
    """Under DEBUG every answer of ours says it."""
    return response.headers["X-Segment-Fallback"]


def python(code: str, *flags: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run code apart from the tests."""
    command: Sequence[str] = [sys.executable, *flags, "-c", code]
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
        env={**os.environ, **(environment or {})},
    )
