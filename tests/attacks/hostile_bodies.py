"""Attacks by the body of a POST: its length, its form, its packing and its values."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

from tests.attacks.answers import Check, Seen
from tests.attacks.attack import (
    BODIES,
    SAME,
    TAKEN,
    Answer,
    Attack,
    Row,
    body,
    each,
    say,
)
from tests.attacks.endpoints import Hit

JSON = ("events", "server", "calls")


def refused(reason: str, **others: Answer) -> dict[str, Answer]:
    """By the Tracking API, the endpoint for calls and, for the same reason unless said otherwise, the webhook."""
    return {**each(JSON, reason), "hook": reason, **others}


def odd(name: str, content: bytes | Callable[[Hit], bytes], answers: dict[str, Answer], **headers: str) -> Attack:
    return Attack(name, Row.BODY, body(content, **headers), answers)


def text_of(hit: Hit) -> str:
    return json.dumps(hit.content if hit.content is not None else {})


def with_value(raw: str) -> Callable[[Hit], bytes]:
    """The good body, with a property whose value is written so."""

    def make(hit: Hit) -> bytes:
        if not hit.event:
            return f'{{"said": {raw}}}'.encode()
        hit.event["properties"]["said"] = "VALUE"
        return text_of(hit).replace('"VALUE"', raw).encode()

    return make


def length(value: str) -> Callable[[Hit], None]:
    def change(hit: Hit) -> None:
        hit.body = hit.packed() or b"{}"
        hit.environ["CONTENT_LENGTH"] = value

    return change


def kind(content_type: str) -> Callable[[Hit], None]:
    def change(hit: Hit) -> None:
        hit.content_type = content_type
        hit.body = hit.packed() or b"{}"

    return change


def kept_value(expected: Any) -> Check:
    """The event is kept, with this in place of what was said."""

    def check(seen: Seen, good: Seen) -> None:
        assert seen.without("kept") == good.without("kept")
        assert [event["properties"]["said"] for event in seen.kept] == [expected]

    return check


def kept_without(key: str) -> Check:
    def check(seen: Seen, good: Seen) -> None:
        assert seen == good
        assert key not in str(seen.kept)

    return check


def nested(depth: int, start: str = "[", end: str = "]") -> str:
    return start * depth + "1" + end * depth


def many(hit: Hit) -> bytes:
    """Of a batch or of calls 100,000 events of one letter; of others a field that nobody reads."""
    content = dict(hit.content or {})
    content["c" if "c" in content else "batch"] = [0] * 100_000
    return json.dumps(content, separators=(",", ":")).encode()


def batch_of_batches(hit: Hit) -> bytes:
    content = dict(hit.content or {})
    inner = {**content, "type": "batch"}
    content["c" if "c" in content else "batch"] = [inner]
    return json.dumps(content).encode()


def duplicate(hit: Hit) -> bytes:
    key = "k" if "c" in (hit.content or {}) else "writeKey"
    return (text_of(hit)[:-1] + f', "{key}": "x"}}').replace("{,", "{").encode()


def id_object(hit: Hit) -> None:
    hit.options["userId"] = {"$ne": 1}
    hit.query = "userId[$ne]=1"


def top_level(hit: Hit) -> None:
    extra = {"__proto__": {"admin": True}, "constructor": {"prototype": {"admin": True}}, "isAdmin": True}
    hit.event.update(extra)
    hit.query = "__proto__[admin]=1"


BOMB = gzip.compress(b" " * 20_000_000)
LIST = b"[" * 20_000
UNREAD: dict[str, Answer] = {"hook": "malformed"}
"""The webhook's body is what its sender signed: it knows no packing."""

ATTACKS = [
    odd("a body of 500,001 bytes", b" " * 500_001, refused("size")),
    odd("a body of 100,000 events", many, {"batch": "size", "server": "size", "calls": "size", "hook": "size"}),
    odd("a body of batches in a batch", batch_of_batches,
        {"batch": "invalid", "server": "invalid", "calls": "malformed", "hook": TAKEN}),
    odd("an event of 10,000 properties", with_value(json.dumps(dict.fromkeys(map(str, range(10_000)), 1))),
        refused("size")),
    odd("a text of 40,000 letters", with_value('"' + "x" * 40_000 + '"'), refused("size", hook=TAKEN)),
    Attack("a length of 999,999,999", Row.BODY, length("999999999"), refused("size")),
    Attack("a length of 5,000 digits", Row.BODY, length("9" * 5_000), refused("size")),
    Attack("a negative length", Row.BODY, length("-5"), refused("malformed", hook="signature")),
    Attack("a length that is no number", Row.BODY, length("0x10"), refused("malformed", hook="size")),
    Attack("a length of Arabic digits", Row.BODY, length("\u0665"), refused("malformed", hook="signature")),
    odd("a body nested 20,000 deep", LIST, refused("malformed")),
    odd("objects nested 9,000 deep", b'{"a":' * 9_000, refused("malformed")),
    odd("a property nested 25 deep", with_value(nested(25)), refused("malformed")),
    odd("a property nested 5,000 deep", with_value(nested(5_000)), refused("malformed")),
    odd("NaN", with_value("NaN"), refused("malformed", hook=kept_value(None))),
    odd("Infinity", with_value("-Infinity"), refused("malformed", hook=kept_value(None))),
    odd("a number past the range of a double", with_value("1e999"), each(BODIES, kept_value(None))),
    odd("a number of 5,000 digits", with_value("9" * 5_000), refused("invalid", hook="malformed")),
    odd("a lone surrogate", with_value('"\\ud800"'), each(BODIES, kept_value("?"))),
    odd("keys of Object's prototype", with_value('{"__proto__": {"a": 1}, "constructor": 1}'),
        each(BODIES, kept_value({"__proto__": {"a": 1}, "constructor": 1}))),
    Attack("fields of Object's prototype", Row.BODY, top_level,
           {**each(("events", "server", "calls"), kept_without("admin")), "hook": TAKEN}),
    odd("a key that comes twice", duplicate, {**each(JSON, "write_key"), "hook": TAKEN}),
    odd("a mark of byte order", lambda hit: b"\xef\xbb\xbf" + text_of(hit).encode(), refused("malformed", hook=SAME)),
    odd("UTF-16", lambda hit: text_of(hit).encode("utf-16"), refused("malformed", hook=SAME)),
    odd("bytes that are no UTF-8", b'{"a": "\xff"}', refused("malformed")),
    odd("a bomb in gzip", BOMB, refused("size", hook="malformed"), content_encoding="gzip"),
    odd("a bomb in gzip, in gzip", gzip.compress(BOMB), refused("malformed"), content_encoding="gzip"),
    odd("gzip that ends early", lambda hit: gzip.compress(text_of(hit).encode())[:-9], refused("malformed"),
        content_encoding="gzip"),
    odd("gzip that is none", lambda hit: text_of(hit).encode(), refused("malformed", hook=SAME),
        content_encoding="gzip"),
    odd("a bomb in deflate", zlib.compress(b" " * 20_000_000), refused("content_type", **UNREAD),
        content_encoding="deflate"),
    odd("a body in Brotli", b"\x1b", refused("content_type", **UNREAD), content_encoding="br"),
    odd("a body packed twice", BOMB, refused("content_type", **UNREAD), content_encoding="gzip, gzip"),
    *(
        Attack(f"a body of {content_type}", Row.BODY, kind(content_type), refused("content_type", hook=SAME))
        for content_type in ("multipart/form-data; boundary=x", "application/xml", "application/x-www-form-urlencoded",
                             "text/html", "application/json-patch+json", "text/plainx", "x" * 5_000)
    ),
    Attack("a charset that there is not", Row.BODY, kind("application/json; charset=evil")),
    Attack("the charset UTF-7", Row.BODY, kind("text/plain; charset=utf-7")),
    odd("an empty body", b" ", refused("malformed")),
    odd("a list", b"[]", refused("malformed")),
    odd("null", b"null", refused("malformed")),
    odd("two values", b"{}{}", refused("malformed")),
    Attack("an object for an id", Row.BODY, id_object, refused("invalid", hook=TAKEN)),
    Attack("a list for the properties", Row.BODY, say(properties=[1]), refused("invalid", hook=TAKEN)),
    Attack("an event of no name", Row.BODY, say(event=""), refused("invalid", hook=TAKEN)),
    Attack("a type that there is not", Row.BODY, say(type="__proto__"),
           {**refused("invalid", hook=TAKEN), "calls": SAME}),
]  # fmt: skip
