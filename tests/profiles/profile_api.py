"""A Profile API on this machine, which answers as Segment's does, or as it should not."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from email.message import Message
from typing import Any

from segment_fallback.testing.answers import Answer
from segment_fallback.testing.server import Server

NOT_FOUND = Answer(status=404, body='{"error":{"code":"not_found","message":"The resource was not found"}}')


@dataclass
class ProfileAPI:
    """``answer`` gives the next answers; ``asked`` has the request targets, ``headers`` those of the last."""

    answer: Callable[[], Answer] = lambda: NOT_FOUND
    asked: list[str] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    url: str = ""

    def respond(self, method: str, target: str, headers: Message, body: bytes, size: int) -> Answer:
        self.asked.append(f"{method} {target}")
        self.headers = dict(headers.items())
        return self.answer()

    def says(self, traits: Any, *, delay: float = 0.0, has_more: bool = False) -> None:
        text = json.dumps({"traits": traits, "cursor": {"url": "", "has_more": has_more, "next": "", "limit": 200}})
        self.answer = lambda: Answer(status=200, body=text, delay=delay)


@contextlib.contextmanager
def profile_api() -> Iterator[ProfileAPI]:
    api = ProfileAPI()
    server = Server(0, api.respond)
    api.url = f"http://127.0.0.1:{server.port}"
    try:
        yield api
    finally:
        server.stop()


@contextlib.contextmanager
def dripping(start: bytes, pause: float) -> Iterator[str]:
    """A server that writes this, and then a space every so many seconds, for as long as somebody reads."""
    stopping = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.05)

        def drip(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                connection.recv(65_536)
                connection.sendall(start)
                while not stopping.wait(pause):
                    connection.sendall(b" ")

        def serve() -> None:
            while not stopping.is_set():
                with contextlib.suppress(TimeoutError):
                    connection = listener.accept()[0]
                    connection.settimeout(1)
                    threading.Thread(target=drip, args=(connection,), daemon=True).start()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stopping.set()
            thread.join()


def eventually(condition: Callable[[], Any], seconds: float = 5.0) -> Any:
    """What the condition gives as soon as it is true."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.005)
    return found
