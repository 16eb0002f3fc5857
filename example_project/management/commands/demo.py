"""``manage.py demo``: the shop, a Celery worker, Celery beat and a local Segment, until Ctrl-C."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import requests
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from example_project import edge
from example_project.celery import app as celery
from example_project.prepare import USER, prepare
from example_project.settings import BASE_DIR, VAR

HOST = "127.0.0.1"
START_SECONDS = 60.0
STOP_SECONDS = 5.0

TRY = """
Open both side by side, and walk around in the shop. Then
  - block analytics.js with the switches at the top of the shop: page views arrive by the pixel, a few seconds later
  - block the Tracking API only: the pixel again. Allow it again and open another page: what analytics.js had kept
    arrives too, has the same messageId, and is dropped
  - switch JavaScript off: page views arrive by the image in <noscript>
  - open {shop}/offers/, enter an audience at {shop}/audience/, and see the offers change; with --varnish
    an edge cache is in front, which keeps a copy of them for each audience: X-Cache in the answer says HIT
  - use a blocker of your own, or read what each process says in {logs}
Ctrl-C stops everything.
"""


class Command(BaseCommand):
    help = "Runs the example: the shop, a Celery worker, Celery beat and a local Segment. Ctrl-C stops all of it."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=8000, help="of the shop (default: 8000)")
        parser.add_argument("--segment-port", type=int, default=8001, help="of the local Segment (default: 8001)")
        parser.add_argument("--varnish", action="store_true", help="put Varnish in front, with docs/edge/varnish.vcl")
        parser.add_argument("--origin-port", type=int, default=8002, help="of Django behind Varnish (default: 8002)")

    def handle(self, *args: Any, **options: Any) -> None:
        self._told_to_stop = False
        signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        before = {number: signal.signal(number, self._on_signal) for number in signals}
        try:
            self._run(options["port"], options["segment_port"], options["origin_port"] if options["varnish"] else None)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._told_to_stop = True

    def _run(self, port: int, segment_port: int, origin_port: int | None) -> None:
        shop, segment = f"http://{HOST}:{port}", f"http://{HOST}:{segment_port}"
        check_port(port, "--port")
        check_port(segment_port, "--segment-port")
        if port == segment_port:
            raise CommandError("--port and --segment-port must differ.")
        environment = {**os.environ, "EXAMPLE_SEGMENT_URL": segment, "PYTHONUNBUFFERED": "1"}
        if origin_port is not None:
            check_port(origin_port, "--origin-port")
            environment["EXAMPLE_PROXIES"] = "1"
        varnish = [] if origin_port is None else edge.varnish(VAR, HOST, port, origin_port)
        self._prepare()
        python = [sys.executable, "-m"]
        app = [*python, "celery", "--app", "example_project"]
        alone = ["--pool", "solo", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        children = Children(VAR, environment)
        try:
            children.start("segment", *python, "segment_fallback.testing", "--port", str(segment_port))
            children.start("shop", *python, "django", "runserver", "--noreload", f"{HOST}:{origin_port or port}")
            if varnish:
                children.start("varnish", *varnish)
            children.start("worker", *app, "worker", "--loglevel", "INFO", *alone)
            children.start("beat", *app, "beat", "--loglevel", "INFO")
            deadline = time.monotonic() + START_SECONDS
            while not (self._told_to_stop or (answers(f"{shop}/live/") and answers(f"{segment}/_local/messages"))):
                children.check()
                if time.monotonic() > deadline:
                    raise CommandError(f"Shop and Segment did not start in {START_SECONDS:.0f} s; see {VAR}.")
                time.sleep(0.1)
            if not self._told_to_stop:
                self._tell(shop, segment)
            while not self._told_to_stop:
                children.check()
                time.sleep(0.1)
            self.stdout.write("Stopping.")
        finally:
            children.stop()

    def _prepare(self) -> None:
        # What rode in the broker when the last demo ended is of no use: no event does, only "flush now".
        for leftover in [*VAR.glob("broker.sqlite3*"), *VAR.glob("beat-schedule*")]:
            leftover.unlink()
        # Worker and beat would make the broker's tables at the same time.
        with celery.connection_for_write() as connection:
            celery.amqp.queues[celery.conf.task_default_queue].bind(connection.default_channel).declare()
        prepare()

    def _tell(self, shop: str, segment: str) -> None:
        self.stdout.write(f"\n  The shop           {shop}/\n  What arrived       {shop}/live/")
        self.stdout.write(f"  The dashboard      {shop}/admin/segment_fallback/dashboard/ ({USER}, password {USER})")
        if not answers(f"{segment}/analytics.js/v1/{settings.SEGMENT_FALLBACK['WRITE_KEY']}/analytics.min.js"):
            self.stdout.write(
                "\nanalytics.js is not here, so page views can only arrive by the pixel: `npm ci` installs it."
            )
        self.stdout.write(TRY.format(shop=shop, logs=VAR / "*.log"))
        self.stdout.flush()


class Children:
    """The demo's processes. Each has a session of its own, so that a Ctrl-C reaches them only through us."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        self._folder = folder
        self._environment = {"DJANGO_SETTINGS_MODULE": "example_project.settings", **environment}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, *command: str) -> None:
        with self._log(name).open("wb") as log:
            self._processes[name] = subprocess.Popen(  # noqa: S603 - our own commands
                command,
                cwd=BASE_DIR,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def check(self) -> None:
        """Raise CommandError where one has ended."""
        for name, process in self._processes.items():
            if process.poll() is not None:
                log = self._log(name)
                tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
                raise CommandError(f"The {name} ended with status {process.returncode}. The end of {log}:\n\n{tail}")

    def stop(self) -> None:
        """End them all: politely, then not."""
        for process in self._processes.values():
            if process.poll() is None:
                process.send_signal(signal.SIGINT if "runserver" in process.args else signal.SIGTERM)  # type: ignore[operator]
        deadline = time.monotonic() + STOP_SECONDS
        for process in self._processes.values():
            try:
                process.wait(max(deadline - time.monotonic(), 0.1))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"


def check_port(port: int, option: str) -> None:
    """Raise CommandError where nobody could listen on the port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except (OSError, OverflowError) as error:
            raise CommandError(f"Port {port} cannot be used ({error}). Choose another one with {option}.") from error


def answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False
