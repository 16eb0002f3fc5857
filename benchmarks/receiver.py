"""A Segment that does next to nothing, in a process of its own: so that it is not what a benchmark measures.

It reads whole requests, answers each 200 after ``latency`` seconds, and says afterwards what has come:

    with receiver(latency=0.05) as segment:
        ...  # send to segment.url
        segment.take()
"""

from __future__ import annotations

import contextlib
import gzip
import multiprocessing
import re
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection

MESSAGE_ID = re.compile(rb'"messageId": ?"([^"]+)"')
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n{"success":true}'
KEPT = 200
"""Bodies that are kept before their ids are looked up: in most rounds none is, until the round is over."""


@dataclass(frozen=True)
class Received:
    """What has come: ``distinct`` messageIds in so many messages, of so many requests."""

    distinct: int
    messages: int
    requests: int


@dataclass(frozen=True)
class Receiver:
    """The process, as seen from the benchmark."""

    url: str
    pipe: Connection

    def take(self) -> Received:
        """What has come since this was last asked."""
        self.pipe.send(None)
        received: Received = self.pipe.recv()
        return received

    def expect(self, number: int) -> Received:
        """What has come. Raises RuntimeError where it is not so many messages, each once."""
        received = self.take()
        if (received.distinct, received.messages) != (number, number):
            raise RuntimeError(f"{received} of {number} messages")
        return received


@contextlib.contextmanager
def receiver(latency: float = 0.0) -> Iterator[Receiver]:
    """A receiver that takes so many seconds for each answer."""
    # Not forked: a child would have this process's connections to databases.
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=run, args=(there, latency), daemon=True)
    process.start()
    try:
        yield Receiver(here.recv(), here)
    finally:
        process.terminate()
        process.join()


class Books:
    """What has come."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bodies: list[bytes] = []
        self._ids: set[bytes] = set()
        self._messages = self._requests = 0

    def add(self, body: bytes) -> None:
        """Keep a request's body."""
        with self._lock:
            self._bodies.append(body)
            if len(self._bodies) >= KEPT:
                self._read()

    def take(self) -> Received:
        """What has come, and begin anew."""
        with self._lock:
            self._read()
            received = Received(len(self._ids), self._messages, self._requests)
            self._ids, self._messages, self._requests = set(), 0, 0
            return received

    def _read(self) -> None:
        for body in self._bodies:
            found = MESSAGE_ID.findall(gzip.decompress(body) if body.startswith(b"\x1f\x8b") else body)
            self._ids.update(found)
            self._messages += len(found)
        self._requests += len(self._bodies)
        self._bodies = []


def run(pipe: Connection, latency: float) -> None:
    """Serve until the process is ended."""
    books = Books()
    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    threading.Thread(target=accept, args=(listener, books, latency), daemon=True).start()
    pipe.send(f"http://127.0.0.1:{listener.getsockname()[1]}")
    with contextlib.suppress(EOFError):
        while True:
            pipe.recv()
            pipe.send(books.take())


def accept(listener: socket.socket, books: Books, latency: float) -> None:
    """A thread a connection."""
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection, books, latency), daemon=True).start()


def serve(connection: socket.socket, books: Books, latency: float) -> None:
    """Answer one request after the other, until the other side hangs up."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with connection, connection.makefile("rb", 1 << 16) as stream, contextlib.suppress(ConnectionError):
        while stream.readline():
            length = 0
            while (line := stream.readline().strip()) != b"":
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            books.add(stream.read(length))
            if latency:
                time.sleep(latency)
            connection.sendall(ANSWER)
