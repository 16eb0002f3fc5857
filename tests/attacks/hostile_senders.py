"""Attacks by who asks and from where: tokens, hosts, Referers, Origins."""

from __future__ import annotations

import time
from typing import Any

from django.core.signing import Signer, TimestampSigner

from segment_fallback.intake import identity
from segment_fallback.page import token
from tests.attacks.answers import CANARY, USER_ID, Check, Seen
from tests.attacks.attack import (
    PAGES,
    PIXELS,
    SAME,
    TAKEN,
    URL_PIXEL,
    Answer,
    Attack,
    Row,
    each,
    every,
    header,
)
from tests.attacks.endpoints import Hit, own_name

TODAY = int(time.time() // 86_400)
PAGE = [TODAY, "/shop/", "Product", None, {}, ""]
EVIL = "evil.example"


def replaced(make: Any) -> Any:
    """Another token, made of the good one; where none is asked for, as a cookie and in the query."""

    def change(hit: Hit) -> None:
        other = make(hit.token or token.sign(token.Page("/shop/")))
        if hit.token is None:
            hit.cookies[own_name()] = other.replace('"', "")
            hit.query = "token=1"
        else:
            hit.token = other

    return change


def signed(content: Any, **how: Any) -> str:
    return Signer(**{"salt": token.SALT, **how}).sign_object(content, compress=True)


def anonymous_id() -> str:
    return TimestampSigner(salt=identity.SALT).sign("m:somebody")


def no_token(hit: Hit) -> None:
    hit.cookies.pop(own_name(), None)
    hit.token, hit.query = None, "token="


def token_by_another_name(hit: Hit) -> None:
    hit.cookies["token"] = hit.token or "x"
    no_token(hit)


def forged(name: str, make: Any, answer: str = "token_invalid") -> Attack:
    return Attack(name, Row.FORGERY, replaced(make), each(PIXELS, answer))


TOKENS = [
    forged("a token that is made up", lambda good: "WzFd:forged"),
    forged("a token with another first letter", lambda good: f"X{good[1:]}"),
    forged("a token cut short", lambda good: good[:-4]),
    forged("a token without its signature", lambda good: good.partition(":")[0]),
    forged("a token signed with another salt", lambda good: signed(PAGE, salt="other")),
    forged("a token signed with another SECRET_KEY", lambda good: signed(PAGE, key="of another site")),
    forged(
        "another thing that this site signs, as a token",
        lambda good: anonymous_id(),
    ),
    forged("a token of another form", lambda good: signed([1, 2, 3])),
    forged("a token that says it is packed, and is not signed", lambda good: f".eJwDAAAAAAE:{good[-20:]}"),
    forged("a token of 3,000 letters", lambda good: "A" * 3_000),
    forged("a token that is too old", lambda good: signed([TODAY - 400, *PAGE[1:]]), "token_expired"),
    Attack("no token", Row.FORGERY, no_token, {"pixel": "token_missing", "noscript": "token_invalid"}),
    Attack(
        "a token in another cookie",
        Row.FORGERY,
        token_by_another_name,
        {"pixel": "token_missing", "noscript": "token_invalid"},
    ),
    Attack(
        "another page's token",
        Row.FORGERY,
        replaced(lambda good: token.sign(token.Page("/other/"))),
        # A cookie of the pixel's own URL is a script's of this site, which may report later what it could not then.
        {"pixel": TAKEN, URL_PIXEL: "referer_mismatch", "noscript": "referer_mismatch"},
    ),
]


def sent_again(seen: Seen, good: Seen) -> None:
    """One event, though it was taken twice."""
    assert seen.without("headers", "counted", "upstream") == good.without("headers", "counted", "upstream")
    assert seen.counted == {outcome: 2 * number for outcome, number in good.counted.items()}


def counted_again(seen: Seen, good: Seen) -> None:
    assert (seen.status, seen.kept) == (good.status, good.kept * 2)


def unchanged(seen: Seen, good: Seen) -> None:
    assert (seen.status, seen.body, seen.upstream) == (good.status, good.body, good.upstream)


REPLAY = Attack(
    "the same request again",
    Row.FORGERY,
    lambda hit: None,
    each(("pixel", "events", "server", "calls", "hook"), sent_again, noscript=counted_again),
    otherwise=unchanged,
    times=2,
)


# Hosts, Referers and Origins


def another_host(host: str, answer: str = "host") -> Attack:
    answers = each((*PIXELS, *PAGES, "server"), answer, settings="bad request" if answer == "host" else SAME)
    return Attack(f"Host: {host!r}", Row.FORGERY, header("host", host), {**answers, "metrics": unreadable})


def unreadable(seen: Seen, good: Seen) -> None:
    """Answered as always, and no page of another site may read it."""
    assert (seen.status, seen.body, seen.kept) == (good.status, good.body, [])
    assert "Access-Control-Allow-Origin" not in seen.headers


def names(host: str) -> Check:
    """The settings are those of the host that asks, and of one that is allowed."""

    def check(seen: Seen, good: Seen) -> None:
        assert (seen.status, seen.upstream) == (good.status, good.upstream)
        assert f'"apiHost": "{host}/s/'.encode().replace(b" ", b"") in seen.body.replace(b" ", b"")

    return check


HOSTS = [
    *(another_host(host) for host in (EVIL, f"testserver.{EVIL}", f"testserver@{EVIL}", f"testserver {EVIL}", "",)),
    another_host("testserver:80:80"),
    another_host(f"testserver\r\nX-Evil: {CANARY}"),
    Attack("Host with another port", Row.FORGERY, header("host", "testserver:8443"),
           {"settings": names("testserver:8443")}),
    Attack("Host with a dot behind it", Row.FORGERY, header("host", "testserver."), {"settings": names("testserver.")}),
]  # fmt: skip

BROWSERS = (*PIXELS, *PAGES, "server")
"""A library that names a page is judged as a page."""


def referer(text: str | None, **answers: Answer) -> Attack:
    found = answers or each(BROWSERS, "host")
    return Attack(f"Referer: {text!r}", Row.FORGERY, header("referer", text), found)


NO_REFERER: dict[str, Answer] = {
    "pixel": SAME,
    URL_PIXEL: "referer_missing",
    "noscript": "referer_missing",
    "server": "referer_missing",
}
"""As good as none: a page of this site says same-origin, and has a cookie that no other could set."""


def as_a_page(seen: Seen, good: Seen) -> None:
    """Taken as an event of the visitor's, whoever it says it is."""
    assert (seen.status, seen.body, seen.counted) == (good.status, good.body, good.counted)
    assert [event["userId"] for event in seen.kept] == [str(USER_ID)]


REFERERS = [
    *map(
        referer,
        (
            f"http://{EVIL}/shop/",
            "http://evil-testserver/shop/",
            f"http://testserver.{EVIL}/shop/",
            f"http://testserver@{EVIL}/shop/",
            "http://visitor@testserver/shop/",
            f"http://{EVIL}/testserver/shop/",
            f"http://{EVIL}\\@testserver/shop/",
            "http://testserver%2e/shop/",
            f"http://testserver\r\nX-Evil: {CANARY}/shop/",
        ),
    ),
    *(
        referer(text, **NO_REFERER)
        for text in ("data:text/html,shop", "about:srcdoc", "//testserver/shop/", "http://[", "file:///shop/")
    ),
    referer(None, **{**NO_REFERER, "server": SAME}),
    Attack(
        "Referer of another page",
        Row.FORGERY,
        header("referer", "http://testserver/other/"),
        {"pixel": SAME, URL_PIXEL: "referer_mismatch", "noscript": "referer_mismatch", "server": as_a_page},
    ),
]


def origin(text: str, answer: str, **others: Answer) -> Attack:
    answers = {**each((*PAGES, "server"), answer), "metrics": unreadable, **others}
    return Attack(f"Origin: {text!r}", Row.FORGERY, header("origin", text), answers)


ORIGINS = [
    *(
        origin(text, "host")
        for text in (
            f"https://{EVIL}",
            f"http://testserver.{EVIL}",
            "http://evil-testserver",
            f"http://testserver@{EVIL}",
            f"http://testserver\r\nX-Evil: {CANARY}",
        )
    ),
    Attack(
        "a sandboxed frame, or a page of another scheme",
        Row.FORGERY,
        every(header("origin", "null"), header("sec-fetch-site", "cross-site")),
        {**each(BROWSERS, "cross_site"), "metrics": unreadable},
    ),
    Attack(
        "a sandboxed frame in a browser that says nothing of sites",
        Row.FORGERY,
        every(header("origin", "null"), header("sec-fetch-site", None)),
        {**each((*PAGES, "server"), "referer_missing"), "metrics": unreadable},
    ),
    Attack(
        "an extension's page",
        Row.FORGERY,
        every(header("origin", "chrome-extension://abc"), header("sec-fetch-site", "none")),
        {**each(BROWSERS, "cross_site"), "metrics": unreadable},
    ),
]


def site(value: str, answers: dict[str, Answer] | None = None) -> Attack:
    found = each(BROWSERS, "cross_site") if answers is None else answers
    return Attack(f"Sec-Fetch-Site: {value!r}", Row.FORGERY, header("sec-fetch-site", value), found)


SITES = [
    *map(site, ("cross-site", "none", "", "Same-Origin", "same-origin, cross-site")),
    site("same-site", {**each(PIXELS, "cross_site"), "server": "referer_missing"}),
    Attack(
        "a page's request without anything that says so",
        Row.FORGERY,
        every(*(header(name, None) for name in ("sec-fetch-site", "origin", "referer"))),
        {
            **dict.fromkeys(("calls", "who", "reset", *PIXELS), "referer_missing"),
            # Then it is a server's, and needs the key that no page shows.
            "events": "write_key",
            "metrics": unreadable,
        },
    ),
]


ATTACKS = [*TOKENS, REPLAY, *HOSTS, *REFERERS, *ORIGINS, *SITES]
