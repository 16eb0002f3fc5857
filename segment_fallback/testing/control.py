"""The local Segment's own API, under /_local/, for those who are in another process.

    GET    /_local/messages?since=N  {"next": M, "messages": [{"message", "type", "way", "endpoint",
                                     "received_at"}]}: all after the first N; ask with since=M the next time
    DELETE /_local/messages          forget the messages and requests
    POST   /_local/answer            the fields of an Answer and the arguments of `answer_with`:
                                     {"status": 429, "headers": {"Retry-After": "2"}, "times": 3}
    DELETE /_local/answer            answer normally again
    POST   /_local/audience          {"url", "secret", "user_id", "audience", "member": bool}: tell the webhook at the
                                     url that the user has entered or left the audience; {"status"} of its answer

A browser page may only GET, and only from the same origin: no other site may read or steer what runs on a
developer's machine.
"""

from __future__ import annotations

import json
from email.message import Message
from http.client import HTTPException
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from segment_fallback.testing.answers import Answer, as_json, refusal
from segment_fallback.testing.webhook import tell_audience

if TYPE_CHECKING:
    from segment_fallback.testing.receiver import LocalSegment

_FIELDS: dict[str, type | tuple[type, ...]] = {
    "status": (int, type(None)),
    "headers": dict,
    "body": str,
    "delay": (int, float),
    "close": bool,
    "received": bool,
    "times": (int, type(None)),
    "path": (str, type(None)),
}


def answer(segment: LocalSegment, method: str, target: str, headers: Message, body: bytes) -> Answer:
    """Answer a request for `target`, a path under /_local/ with its query."""
    origin = headers.get("Origin")
    if origin is not None and (method != "GET" or origin != f"http://{headers.get('Host')}"):
        return refusal(403, "a page may only GET this, and only from its own origin")
    path, _, query = target.partition("?")
    try:
        if (method, path) == ("GET", "/_local/messages"):
            return as_json(_messages(segment, query))
        if (method, path) == ("DELETE", "/_local/messages"):
            segment.clear()
        elif (method, path) == ("POST", "/_local/answer"):
            _instruct(segment, body)
        elif (method, path) == ("DELETE", "/_local/answer"):
            segment.answer_normally()
        elif (method, path) == ("POST", "/_local/audience"):
            return as_json({"status": _tell(body)})
        else:
            known = "GET and DELETE /_local/messages, POST and DELETE /_local/answer, POST /_local/audience"
            return refusal(404, f"there are {known}")
    except (OSError, HTTPException) as error:
        return refusal(502, f"the webhook does not answer: {error}")
    except ValueError as error:
        return refusal(400, str(error))
    return as_json({"success": True})


def _messages(segment: LocalSegment, query: str) -> dict[str, Any]:
    since = int(parse_qs(query).get("since", ["0"])[0])
    if since < 0:
        raise ValueError("since must not be negative")
    messages = segment.messages
    return {
        "next": len(messages),
        "messages": [
            {
                "message": received.message,
                "type": received.type,
                "way": received.way,
                "endpoint": received.endpoint,
                "received_at": received.received_at.isoformat(),
            }
            for received in messages[since:]
        ],
    }


def _tell(body: bytes) -> int:
    match json.loads(body):
        case {
            "url": str(url),
            "secret": str(secret),
            "user_id": str(user_id),
            "audience": str(audience),
            "member": bool(member),
            **more,
        } if not more:
            return tell_audience(url, secret, user_id, audience, member=member)
    raise ValueError("expected a JSON object of url, secret, user_id, audience and member")


def _instruct(segment: LocalSegment, body: bytes) -> None:
    wanted = json.loads(body)
    if not isinstance(wanted, dict) or wanted.keys() - _FIELDS.keys():
        raise ValueError(f"expected a JSON object with some of: {', '.join(_FIELDS)}")
    for name, value in wanted.items():
        if not isinstance(value, _FIELDS[name]):
            raise ValueError(f"{name} cannot be {value!r}")
    times, path = wanted.pop("times", 1), wanted.pop("path", None)
    segment.answer_with(Answer(**wanted), times=times, path=path)
