"""The local Segment: takes and refuses what the real one does, remembers everything, fails on demand.

Standard library only, so it also runs where Django is not set up.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from email.message import Message
from typing import Any

from segment_fallback.testing import cdn, control
from segment_fallback.testing.answers import Answer, Instruction, refusal
from segment_fallback.testing.server import CONTROL, Server
from segment_fallback.testing.tracking_api import MESSAGE_ENDPOINTS, METRICS, Received, judge

__all__ = ["Answer", "LocalSegment", "Received", "Request"]


@dataclass(frozen=True)
class Request:
    """One request that was seen, whatever came of it.

    path      with its query
    headers   names match in any case
    status    what it was answered, None where the connection was reset instead
    size      bytes of the body as sent
    messages  how many it carried, recorded or not, as far as it could be read
    """

    method: str
    path: str
    headers: Message
    status: int | None
    size: int
    messages: int


class LocalSegment:
    """Segment's Tracking API and CDN on 127.0.0.1, as a context manager or by `start` and `stop`.

    port          0 picks a free one; after a `stop`, `start` takes the same again: Segment down, and up
    analytics_js  folder of the npm package @segment/analytics-next, or node_modules: FileNotFoundError if it
                  is not there. By default $SEGMENT_ANALYTICS_NEXT, else a node_modules here or above, if any
    write_keys    the keys that exist; None: any will do
    host          the address to listen on: "0.0.0.0" in a container, whose port is published to your machine only
    """

    def __init__(
        self,
        port: int = 0,
        analytics_js: str | os.PathLike[str] | None = None,
        write_keys: Collection[str] | None = None,
        host: str = "127.0.0.1",
    ) -> None:
        self.port = port
        self.host = host
        self.write_keys = None if write_keys is None else frozenset(write_keys)
        self.analytics_js = cdn.find_package(analytics_js)
        self._server: Server | None = None
        self._changed = threading.Condition()
        self._messages: list[Received] = []
        self._requests: list[Request] = []
        self._instructions: list[Instruction] = []
        self._poison: list[Callable[[dict[str, Any]], bool]] = []

    def __enter__(self) -> LocalSegment:
        return self.start()

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> LocalSegment:
        """Listen. Raises OSError where the port is taken, RuntimeError where it listens already."""
        if self._server is not None:
            raise RuntimeError(f"already listening on {self.url}")
        self._server = Server(self.port, self._respond, self.host)
        self.port = self._server.port
        return self

    def stop(self) -> None:
        """Close everything at once, hanging connections included; what was received stays readable."""
        if self._server is not None:
            self._server.stop()
            self._server = None

    @property
    def url(self) -> str:
        """The origin of API and CDN both, "http://127.0.0.1:PORT"; known from the first start."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def has_analytics_js(self) -> bool:
        """Whether the CDN half can serve the library."""
        return self.analytics_js is not None

    @property
    def messages(self) -> list[Received]:
        """Every message taken, in order of arrival, a repeated one as often as it came."""
        with self._changed:
            return list(self._messages)

    @property
    def distinct(self) -> list[Received]:
        """The first message of each messageId, as Segment keeps them; those without one are all kept."""
        first: dict[object, Received] = {}
        for received in self.messages:
            first.setdefault(received.message_id or id(received), received)
        return list(first.values())

    @property
    def requests(self) -> list[Request]:
        """Every request to API and CDN, in order of arrival."""
        with self._changed:
            return list(self._requests)

    def wait_for(self, n: int, timeout: float = 10.0, type: str | None = None) -> list[Received]:  # noqa: A002
        """Return all messages (of `type`) as soon as there are `n` or more.

        Raises AssertionError, telling what did arrive, after `timeout` seconds.
        """

        def found() -> list[Received]:
            return [received for received in self._messages if type in (None, received.type)]

        with self._changed:
            if self._changed.wait_for(lambda: len(found()) >= n, timeout):
                return found()
            arrived = [f"{received.type} {received.message_id}" for received in self._messages]
            requests = [f"{request.method} {request.path} {request.status}" for request in self._requests]
        raise AssertionError(
            f"after {timeout} s Segment has {len(found())} of {n} {type or ''} messages. "
            f"Messages: {', '.join(arrived) or 'none'}. Requests: {', '.join(requests) or 'none'}."
        )

    def clear(self) -> None:
        """Forget the messages and requests seen so far; instructions stay."""
        with self._changed:
            self._messages.clear()
            self._requests.clear()

    def answer_with(self, answer: Answer, times: int | None = 1, path: str | None = None) -> None:
        """Give `answer` to the next `times` requests (None: to all) whose path begins with `path`.

        Instructions queue up: a request gets the first that fits it. Without a `path` all that carry messages
        fit; the CDN's only where `path` names them. Preflights are always answered normally. Raises
        ValueError for fewer `times` than 1 and for a `path` without its slash.
        """
        with self._changed:
            self._instructions.append(Instruction(answer, times, path))

    def refuse(self, predicate: Callable[[dict[str, Any]], bool]) -> None:
        """Answer 400 to every request with a message for which `predicate` is true, and record none of it."""
        with self._changed:
            self._poison.append(predicate)

    def answer_normally(self) -> None:
        """Drop all that `answer_with` and `refuse` asked for."""
        with self._changed:
            self._instructions.clear()
            self._poison.clear()

    def _respond(self, method: str, target: str, headers: Message, body: bytes, size: int) -> Answer:
        """Decide the answer and record what is to be recorded, before anything is answered."""
        if target.startswith(CONTROL):
            return control.answer(self, method, target, headers, body)
        path = target.partition("?")[0]
        answer, carried = self._own_answer(method, path, headers, body)
        taken = carried
        if any(poisoned(received.message) for poisoned in tuple(self._poison) for received in carried):
            answer, taken = refusal(400, "a message was refused"), []
        with self._changed:
            instructed = None if method == "OPTIONS" else self._next_instruction(path)
            if instructed is not None and instructed.status is None and not instructed.close:
                answer = replace(answer, delay=instructed.delay)
            elif instructed is not None:
                answer, taken = instructed, taken if instructed.received else []
            self._requests.append(Request(method, target, headers, answer.status, size, len(carried)))
            self._messages.extend(taken)
            self._changed.notify_all()
        return answer

    def _own_answer(self, method: str, path: str, headers: Message, body: bytes) -> tuple[Answer, list[Received]]:
        """What Segment would answer, and the messages it would take."""
        if method == "OPTIONS":
            return Answer(status=200), []
        if method == "POST" and (path in MESSAGE_ENDPOINTS or path == METRICS):
            return judge(path, headers, body, self.write_keys)
        if method in ("GET", "HEAD"):
            host = headers.get("Host", f"127.0.0.1:{self.port}")
            return cdn.answer(path, host, self.analytics_js, self.write_keys), []
        return refusal(404, "no such endpoint"), []

    def _next_instruction(self, path: str) -> Answer | None:
        for instruction in self._instructions:
            if path.startswith(instruction.path) if instruction.path else path in MESSAGE_ENDPOINTS:
                if instruction.left is not None:
                    instruction.left -= 1
                    if not instruction.left:
                        self._instructions.remove(instruction)
                return instruction.answer
        return None
