"""What the local Segment answers: its own words, or what a test told it to say."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any


@dataclass(frozen=True)
class Answer:
    """One answer to one request.

    status    HTTP status; None: what Segment itself would answer, with its own headers and body
    headers   of the answer, beside Content-Length and CORS
    body      text or bytes
    delay     seconds to wait before it
    close     reset the connection instead of answering
    received  record the messages although the client is told otherwise, or nothing. Without it a `status` or
              `close` loses them; with a status of 200 that is a silent loss
    """

    status: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str | bytes = b""
    delay: float = 0.0
    close: bool = False
    received: bool = False

    def __post_init__(self) -> None:
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError(f"status must be 200 to 599, or None for Segment's own, not {self.status!r}")
        if self.status is not None and self.close:
            raise ValueError("status and close exclude each other: a reset connection has no status")
        if not 0 <= self.delay <= 86_400:
            raise ValueError(f"delay must be 0 to 86,400 seconds, not {self.delay!r}")

    @classmethod
    def hang(cls, seconds: float = 60.0, *, received: bool = False) -> Answer:
        """Say nothing for `seconds`, then reset the connection."""
        return cls(delay=seconds, close=True, received=received)

    @classmethod
    def cut(cls, *, received: bool = False) -> Answer:
        """Reset the connection at once; with `received`, between the request and the answer."""
        return cls(close=True, received=received)

    @classmethod
    def redirect(cls, url: str, status: int = 302) -> Answer:
        """Send the client elsewhere."""
        return cls(status=status, headers={"Location": url})

    @classmethod
    def slow(cls, seconds: float) -> Answer:
        """Segment's own answer, `seconds` late; the messages are recorded at once."""
        return cls(delay=seconds)


def as_json(content: Any, status: int = 200) -> Answer:
    """An answer whose body is `content` as JSON."""
    return Answer(status=status, headers={"Content-Type": "application/json"}, body=json.dumps(content))


def refusal(status: int, message: str) -> Answer:
    """An error in the form that the official SDKs read: `code` and `message`."""
    code = HTTPStatus(status).phrase.lower().replace(" ", "_")
    return as_json({"success": False, "code": code, "message": message}, status)


@dataclass
class Instruction:
    """An answer to give `left` more times (None: for ever) to requests whose path begins with `path`.

    `path` None means every endpoint that takes messages: neither the metrics nor the CDN.
    """

    answer: Answer
    left: int | None
    path: str | None

    def __post_init__(self) -> None:
        if self.left is not None and self.left < 1:
            raise ValueError(f"times must be 1 or more, or None for ever, not {self.left!r}")
        if self.path is not None and not self.path.startswith("/"):
            raise ValueError(f"path must begin with '/', or be None, not {self.path!r}")
