"""Attacks by method, by number, and as somebody else."""

from __future__ import annotations

from typing import Any

from django.core.signing import TimestampSigner

from segment_fallback.intake import identity
from segment_fallback.names import id_cookies, public_key
from segment_fallback.page import token
from tests.attacks.answers import CANARY, USER_ID, Check, Seen
from tests.attacks.attack import (
    PIXELS,
    SAME,
    TAKEN,
    Answer,
    Attack,
    Row,
    cookie,
    each,
    every,
    header,
    query,
)
from tests.attacks.endpoints import MESSAGE_ID, VISITOR, Endpoint, Hit
from tests.intake.posts import WRITE_KEY

# Methods


def without_body(seen: Seen, good: Seen) -> None:
    assert (seen.status, seen.body, seen.headers) == (good.status, b"", good.headers)


def preflight(seen: Seen, good: Seen) -> None:
    assert (seen.status, seen.body, seen.kept, seen.counted) == (204, b"", [], {})


def method(name: str) -> Attack:
    def change(hit: Hit) -> None:
        hit.method = name

    def answer(endpoint: Endpoint) -> Answer:
        if name == "OPTIONS" and "OPTIONS" in endpoint.methods:
            return preflight
        if name not in endpoint.methods:
            return "method"
        return without_body if name == "HEAD" else SAME

    return Attack(f"the method {name}", Row.METHOD, change, answer)


def overridden(hit: Hit) -> None:
    for name in ("x-http-method-override", "x-http-method", "x-method-override"):
        hit.headers[name] = "DELETE"
    hit.query = "_method=DELETE"


METHODS = [
    *map(
        method,
        ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT", "PROPFIND", "PURGE", "G\xcbT"),
    ),
    Attack("a method by another header", Row.METHOD, overridden),
]


# Floods


def limited(seen: Seen, good: Seen) -> None:
    """The first was taken, the others were not."""
    assert seen.counted == {"accepted": 1, "rate": 2}
    assert len(seen.kept) == 1
    assert seen.cookies == frozenset()
    assert seen.status in (200, 204, 429)


def not_limited(seen: Seen, good: Seen) -> None:
    """It writes nothing, or only what is signed."""
    assert (seen.status, seen.body) == (good.status, good.body)
    assert "rate" not in seen.counted


def nobody_locked_out(seen: Seen, good: Seen) -> None:
    assert "rate" not in seen.counted
    assert (seen.status, seen.body) == (good.status, good.body)


def stranger(hit: Hit) -> None:
    """Somebody new with each request."""
    hit.cookies.update({identity.ANONYMOUS_ID_COOKIE: f"stranger-{hit.turn}", id_cookies()[0]: ""})


def by_forwarded_addresses(hit: Hit) -> None:
    stranger(hit)
    hit.headers["x-forwarded-for"] = f"8.8.4.{hit.turn}"


def from_a_subscribers_addresses(hit: Hit) -> None:
    stranger(hit)
    hit.address = f"2a00:1450:1:2::{hit.turn:x}"


def mapped_addresses(hit: Hit) -> None:
    stranger(hit)
    hit.address = f"::ffff:8.8.8.{hit.turn}"


def flood(name: str, change: Any, check: Check = limited) -> Attack:
    answers = each((*PIXELS, "events", "calls"), check)
    if check is limited:
        answers["variations"] = "rate"
    return Attack(name, Row.FLOOD, change, answers, otherwise=not_limited, times=3, settings={"RATE_LIMIT": 1})


FLOODS = [
    flood("hits without end", lambda hit: None),
    flood("hits without end, each of another visitor", stranger),
    flood("hits without end, each with another X-Forwarded-For", by_forwarded_addresses),
    flood("hits without end, from the addresses of one subscriber", from_a_subscribers_addresses),
    flood("a flood that shuts out whoever has an address of IPv4", mapped_addresses, nobody_locked_out),
]


# Identity


def nobody_is(name: str) -> Check:
    """Whoever the visitor is taken for, it is not this one."""

    def check(seen: Seen, good: Seen) -> None:
        assert seen.status == good.status
        assert seen.counted == good.counted
        assert len(seen.kept) == len(good.kept)
        assert name not in str(seen.kept)
        assert name not in str(seen.headers)
        assert name.encode() not in seen.body

    return check


VICTIM = f"victim-{CANARY}"


def same_answer(seen: Seen, good: Seen) -> None:
    assert (seen.status, seen.body) == (good.status, good.body)


def is_not_the_victim(seen: Seen, good: Seen) -> None:
    assert (seen.status, seen.counted, len(seen.kept)) == (good.status, good.counted, len(good.kept))
    assert VICTIM not in [event.get("anonymousId") for event in seen.kept]


def adopted(seen: Seen, good: Seen) -> None:
    """The event has the id, as analytics.js on any page would have it, and stays the signed-in visitor's. What comes of
    it is signed as a client's word (test_identity.py), for which the server shows nothing."""
    assert (seen.status, seen.counted) == (good.status, good.counted)
    assert [(event["anonymousId"], event["userId"]) for event in seen.kept] == [(VICTIM, str(USER_ID))]
    assert seen.cookies == {id_cookies()[0]}


def adopted_by_cookie(seen: Seen, good: Seen) -> None:
    """The same, where there is no event: no profile is looked up by it."""
    assert (seen.status, seen.body, seen.kept) == (good.status, good.body, [])
    assert seen.cookies == {id_cookies()[0]}


def _id_cookie(text: str, **how: Any) -> str:
    return TimestampSigner(**{"salt": identity.SALT, **how}).sign(text)


class _LongAgo(TimestampSigner):
    def timestamp(self) -> str:
        return "1aaaaa"


def id_cookie(name: str, value: Any) -> Attack:
    """The signed cookie is not what this site wrote, and there is no other."""

    def change(hit: Hit) -> None:
        hit.cookies.update({id_cookies()[0]: value(), identity.ANONYMOUS_ID_COOKIE: ""})

    return Attack(name, Row.IDENTITY, change, otherwise=nobody_is(VICTIM))


def swapped(hit: Hit) -> None:
    hit.cookies.update({identity.ANONYMOUS_ID_COOKIE: _id_cookie(f"m:{VICTIM}"), id_cookies()[0]: VICTIM})


def another_session(hit: Hit) -> None:
    hit.cookies["sessionid"] = VICTIM


def signed_out(seen: Seen, good: Seen) -> None:
    """Nobody is signed in, and nothing else has changed."""
    assert seen.status == good.status
    assert seen.counted == good.counted
    assert [event["userId"] for event in seen.kept] == [None] * len(good.kept)


def knows_nobody(seen: Seen, good: Seen) -> None:
    assert (seen.status, seen.body) == (200, b'{"userId": null}')


def ids_in_the_body(hit: Hit) -> None:
    hit.options.update(userId=VICTIM, anonymousId=VICTIM)
    hit.query = f"userId={VICTIM}"


def facts_in_the_context(hit: Hit) -> None:
    external = [{"id": VICTIM, "type": "user_id", "collection": "users", "encoding": "none"}]
    context = {"externalIds": external, "ip": "6.6.6.6", "userAgent": CANARY}
    hit.options["context"] = context
    hit.query = "ip=6.6.6.6"


def alias(hit: Hit) -> None:
    hit.event.update(type="alias", userId=VICTIM, previousId=VISITOR)
    if isinstance(hit.content, dict) and "c" in hit.content:
        hit.content["c"][0][2][:-1] = ["alias", VICTIM, VISITOR]
    hit.query = f"previousId={VICTIM}"


def without_ids(seen: Seen, good: Seen) -> None:
    """The event says what it said, of the same visitor."""
    [event], [other] = seen.kept, good.kept
    ours = ("userId", "anonymousId", "messageId")
    assert {key: event[key] for key in ours} == {key: other[key] for key in ours}
    assert CANARY not in str(event)
    assert "6.6.6.6" not in str(event)
    assert event["userId"] == str(USER_ID)


def keys(value: str) -> Any:
    def change(hit: Hit) -> None:
        hit.key, hit.query = value, f"writeKey={value}"
        if isinstance(hit.content, dict):
            hit.content["k" if "c" in hit.content else "writeKey"] = value

    return change


def key_of_pages(hit: Hit) -> None:
    hit.query = "writeKey=1"
    if isinstance(hit.content, dict):
        hit.content["writeKey"] = public_key()


FILES_OF_A_KEY = {"analytics.js": "missing", "settings": "missing"}

IDENTITIES = [
    id_cookie("an id's cookie that nobody signed", lambda: f"m:{VICTIM}"),
    id_cookie("an id's cookie signed with another salt", lambda: _id_cookie(f"m:{VICTIM}", salt="other")),
    id_cookie("an id's cookie signed with another SECRET_KEY", lambda: _id_cookie(f"m:{VICTIM}", key="other")),
    id_cookie("an id's cookie of the last century", lambda: _LongAgo(salt=identity.SALT).sign(f"m:{VICTIM}")),
    id_cookie("an id's cookie with another id under its signature",
              lambda: _id_cookie("m:a").replace("m:a", f"m:{VICTIM}")),
    id_cookie("a page's token as an id's cookie", lambda: token.sign(token.Page(f"/{VICTIM}")).replace("=", "")),
    Attack("the cookies of an id with their names swapped", Row.IDENTITY, swapped, otherwise=is_not_the_victim),
    Attack("another visitor's id in the cookie of analytics.js", Row.IDENTITY, cookie("ajs_anonymous_id", VICTIM),
           each((*PIXELS, "events", "calls"), adopted, variations=adopted_by_cookie)),
    Attack("a session's cookie that is made up", Row.IDENTITY, another_session,
           each((*PIXELS, "events", "calls"), signed_out, who=knows_nobody, variations=same_answer),
           otherwise=same_answer),
    Attack("analytics.js's own cookies of a user", Row.IDENTITY,
           every(cookie("ajs_user_id", VICTIM), cookie("ajs_group_id", VICTIM))),
    Attack("ids in the link", Row.IDENTITY, query(f"ajs_uid={VICTIM}&ajs_aid={VICTIM}&userId={VICTIM}&uid={VICTIM}")),
    Attack("ids in headers", Row.IDENTITY,
           every(*(header(name, VICTIM) for name in ("remote-user", "x-remote-user", "x-user-id", "x-anonymous-id")))),
    Attack("ids in the body", Row.IDENTITY, ids_in_the_body, each(("server", "hook"), TAKEN)),
    Attack("ids by which profiles merge, and an address, in the context", Row.IDENTITY, facts_in_the_context,
           {"events": without_ids, "calls": without_ids, **each(("server", "hook"), TAKEN)}),
    Attack("merging the visitor with somebody else", Row.IDENTITY, alias,
           {"batch": "identity", "calls": "identity", "event": "invalid", **each(("server", "hook"), TAKEN)}),
    Attack("the write key, from a page", Row.IDENTITY,
           every(keys(WRITE_KEY), lambda hit: hit.options.update(userId=VICTIM)),
           {**FILES_OF_A_KEY, **each(("server", "hook"), TAKEN)}),
    Attack("the key that pages show, from a server", Row.IDENTITY, key_of_pages,
           {"server": "write_key", "hook": TAKEN}),
    Attack("a key that no source has", Row.PATH, keys("x" * 32),
           {**FILES_OF_A_KEY, **each(("events", "server", "calls"), "write_key"), "hook": TAKEN}),
]  # fmt: skip


def id_of_message(name: str, value: str, pixel: Answer) -> Attack:
    def change(hit: Hit) -> None:
        hit.message_id = value
        hit.options["messageId"] = value
        hit.query = "messageId=1"

    answers = {"pixel": pixel, **each(("events", "server", "calls"), new_id), "hook": TAKEN}
    return Attack(name, Row.MESSAGE_ID, change, answers)


def new_id(seen: Seen, good: Seen) -> None:
    """Kept under an id that we made up."""
    assert seen.without("kept") == good.without("kept")
    assert [len(event["messageId"]) for event in seen.kept] == [32]
    assert seen.kept[0]["messageId"] != MESSAGE_ID


MESSAGE_IDS = [
    id_of_message("a messageId of 100 letters", "a" * 100, "malformed"),
    id_of_message("a messageId of letters that are not ASCII", "\u0430" * 32, "missing"),
    id_of_message("a messageId with a null byte", "0a" * 15 + "\0a", "missing"),
    id_of_message("a messageId of two lines", "0a" * 16 + "\n", "missing"),
    id_of_message("a messageId of spaces", " " * 32, "missing"),
]

ATTACKS = [*METHODS, *FLOODS, *IDENTITIES, *MESSAGE_IDS]
