"""Segment's HTTP Tracking API: what it takes, what it refuses.

Source of the rules: https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/, the
official SDKs and analytics.js. Like Segment, it answers 200 to nearly everything: a message without ids or
event name is taken as it came.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timezone
from email.message import Message
from typing import Any, NoReturn

from segment_fallback.testing.answers import Answer, as_json, refusal

MAX_BODY = 500 * 1024
"""Bytes of a request, compressed and not; past it 400."""
MAX_MESSAGE = 32 * 1024
"""Bytes of one message as compact UTF-8 JSON; past it 400."""
MAX_BATCH = 2_500
"""Messages of a batch. Past it: 200 and a silent loss, here of the whole batch, which a test notices best."""

TYPES = ("identify", "track", "page", "screen", "group", "alias")
_SINGLE = {f"/v1/{name}": name for name in TYPES} | {f"/v1/{name[0]}": name for name in TYPES}
_BATCH = {"/v1/batch", "/v1/b"}
METRICS = "/v1/m"
"""Where analytics.js reports on itself: answered 200, no messages."""
MESSAGE_ENDPOINTS = _SINGLE.keys() | _BATCH


@dataclass(frozen=True)
class Received:
    """One message that Segment took.

    message      as it came: the item of a batch, or the whole body of a single call
    endpoint     path it was posted to
    sent_at      `sentAt` of the request, None where it has none
    write_key    from the body, else from Basic auth
    received_at  when it arrived, UTC
    headers      of the request; names match in any case
    """

    message: dict[str, Any]
    endpoint: str
    sent_at: str | None
    write_key: str
    received_at: datetime
    headers: Message

    @property
    def type(self) -> str | None:
        """`page`, `track` …: the message's own, else its endpoint's."""
        return _text(self.message.get("type")) or _SINGLE.get(self.endpoint)

    @property
    def message_id(self) -> str | None:
        """The messageId, by which Segment deduplicates."""
        return _text(self.message.get("messageId"))

    @property
    def way(self) -> str:
        """How it came: `javascript` if by analytics.js itself, else `context.library.way`, else `server`."""
        context = self.message.get("context")
        library = context.get("library") if isinstance(context, dict) else None
        if not isinstance(library, dict):
            return "server"
        return "javascript" if library.get("name") == "analytics.js" else str(library.get("way") or "server")


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


class _RefusedError(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.answer = refusal(status, message)


def judge(
    path: str, headers: Message, body: bytes, write_keys: Collection[str] | None
) -> tuple[Answer, list[Received]]:
    """Answer a POST to `path` as Segment would, with the messages it takes from it.

    Any write key will do where `write_keys` is None, but there must be one.
    """
    try:
        payload = _parse(headers, body)
        write_key = _text(payload.get("writeKey")) or _basic_user(headers.get("Authorization", ""))
        if not write_key or (write_keys is not None and write_key not in write_keys):
            raise _RefusedError(401, "unknown write key: send it as `writeKey` or as user name of Basic auth")
        messages = _messages(path, payload)
    except _RefusedError as refused:
        return refused.answer, []
    except RecursionError:
        return refusal(400, "the body is nested too deeply"), []
    now = datetime.now(timezone.utc)
    sent_at = _text(payload.get("sentAt"))
    taken = [Received(message, path, sent_at, write_key, now, headers) for message in messages]
    return as_json({"success": True}), taken


def _parse(headers: Message, body: bytes) -> dict[str, Any]:
    if headers.get_content_type() not in ("application/json", "text/plain"):
        raise _RefusedError(400, "the content type must be application/json or text/plain")
    if headers.get("Content-Encoding", "").lower() == "gzip":
        body = _gunzip(body)
    if len(body) > MAX_BODY:
        raise _RefusedError(400, f"the body is over {MAX_BODY} bytes")
    try:
        payload = json.loads(body, parse_constant=_no_constant)
    except ValueError:
        raise _RefusedError(400, "the body is not valid JSON") from None
    if not isinstance(payload, dict):
        raise _RefusedError(400, "the body must be a JSON object")
    return payload


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")  # Python's json takes NaN and Infinity, Segment does not


def _gunzip(body: bytes) -> bytes:
    stream = zlib.decompressobj(wbits=31)
    try:
        text = stream.decompress(body, MAX_BODY + 1)  # never unpacks a bomb
    except zlib.error:
        text = b""
    if len(text) <= MAX_BODY and not stream.eof:
        raise _RefusedError(400, "the body is not valid gzip")
    return text


def _basic_user(authorization: str) -> str:
    scheme, _, credentials = authorization.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(credentials).decode().partition(":")[0]
    except ValueError:
        return ""


def _messages(path: str, payload: dict[str, Any]) -> list[dict[str, Any]]:
    if path == METRICS:
        return []
    messages = payload.get("batch") if path in _BATCH else [payload]
    if not isinstance(messages, list) or not all(isinstance(message, dict) for message in messages):
        raise _RefusedError(400, "`batch` must be a list of messages")
    if any(_size(message) > MAX_MESSAGE for message in messages):
        raise _RefusedError(400, f"a message is over {MAX_MESSAGE} bytes")
    return messages if len(messages) <= MAX_BATCH else []


def _size(message: dict[str, Any]) -> int:
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
    return len(text.encode("utf-8", "surrogatepass"))
