"""Variations behind an edge: a thousand visitors, three copies, and nobody's data in any of them."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest

from segment_fallback.intake import identity
from segment_fallback.names import id_cookies
from tests.edge.servers import Answer, Edge, ask
from tests.edge.varied import VISITORS, assign, cookie_of, plan_of, shown, visitor, wanted, with_cookies
from tests.edge.visits import arrived

THREADS = 20


@pytest.fixture
def edge(varied: Edge) -> Edge:
    return varied


@pytest.fixture
def page() -> str:
    """The path of a page of three variations that nobody has asked for yet."""
    return f"/sale/{uuid4().hex}/"


def visits(edge: Edge, page: str, numbers: Sequence[int]) -> list[tuple[str, str, Answer, Answer]]:
    """Of each visitor: the first view, the second one, and the two answers of the second view's page and endpoint."""
    seen = []
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", edge.port, timeout=30)) as connection:
        for number in numbers:
            cookie = cookie_of(number)
            first = ask(connection, page, {"Cookie": cookie})
            told = assign(connection, page, cookie, shown(first))
            second = ask(connection, page, {"Cookie": with_cookies(cookie, told)})
            assign(connection, page, cookie, shown(second))
            seen.append((shown(first), shown(second), second, told))
    return seen


def test_thousand_visitors_of_three_variations_cost_three_pages(edge: Edge, page: str) -> None:
    with ThreadPoolExecutor(THREADS) as threads:
        shares = [range(first, VISITORS, THREADS) for first in range(THREADS)]
        found = list(threads.map(lambda numbers: visits(edge, page, numbers), shares))
    by_number = {
        number: seen
        for share, each in zip(shares, found, strict=True)
        for number, seen in zip(share, each, strict=True)
    }

    assert {first for first, *_ in by_number.values()} == {"regular"}, "nobody is known at his first view"
    assert {number: second for number, (_, second, *_) in by_number.items()} == {n: wanted(n) for n in range(VISITORS)}
    assert edge.made(page) == 3

    # Nobody's data, in no copy: all cached answers, headers and all, are three, and say nothing of a visitor.
    copies = {(second, page_.body) for _, second, page_, _ in by_number.values()}
    assert len(copies) == 3
    for _, _, page_, _ in by_number.values():
        text = f"{page_.headers}".encode() + page_.body
        assert not re.search(rb"visitor-\d|mail\.example|GA1\.|made up", text)
        assert not {"set-cookie", "vary"} & {name.lower() for name in page_.headers}
        assert page_.headers["Cache-Control"] == "public, max-age=0, s-maxage=60"

    # Traits go to the visitor alone, and only those of the list.
    for number, (_, _, _, told) in by_number.items():
        assert json.loads(told.body)["traits"] == ({"plan": plan_of(number)} if plan_of(number) else {})
        assert told.headers["Cache-Control"] == "private, no-store"
        assert not told.is_hit

    viewed = [event for event in arrived(edge, page) if event.get("event") == "Variation Viewed"]
    heard = {(event["anonymousId"], event["properties"]["variation"]) for event in viewed}
    assert heard == {(visitor(n), name) for n in range(VISITORS) for name in ("regular", wanted(n))}
    assert len(viewed) == len(heard), "once a visitor and variation"


def genuine(edge: Edge, page: str, number: int) -> str:
    """The cookie of a visitor's variation, as his browser got it."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", edge.port, timeout=30)) as connection:
        answer = assign(connection, page, cookie_of(number), "regular")
    [own] = [each for each in answer.headers.get_all("Set-Cookie", []) if "=sale." in each]
    assert "HttpOnly" in own
    return own.partition(";")[0]


def test_forged_cookies_get_the_default_and_make_no_copies(edge: Edge, page: str) -> None:
    gold = genuine(edge, page, 1)
    name, _, value = gold.partition("=")
    default = edge.get(page)
    forged = [
        value[:-1] + ("a" if value[-1] != "a" else "b"),
        value.replace("gold", "student"),
        value.replace("sale", "other"),
        value + "x",
        value + ".x",
        "sale.gold.",
        "sale.made-up.aaaa",
        f"x{value}",
        *(f"sale.gold.{uuid4().hex}" for _ in range(50)),
    ]
    for each in forged:
        answer = edge.get(page, {"Cookie": f"a=1; {name}={each}; b=2"})
        assert (shown(answer), answer.is_hit, answer.body) == ("regular", True, default.body), each
    assert shown(edge.get(page, {"Cookie": f"a=1; x{gold}"})) == "regular"
    for headers in ({"X-Variations": f"{gold}; "}, {"X-Variations": uuid4().hex}):
        assert edge.get(page, headers).is_hit
    assert edge.made(page) == 1
    assert shown(edge.get(page, {"Cookie": f"a=1;{gold}"})) == "gold"
    assert edge.get(page, {"Cookie": f"b={uuid4().hex}; {gold}; c=2"}).is_hit
    assert edge.made(page) == 2


def test_page_without_variations_has_one_copy(edge: Edge, page: str) -> None:
    other, gold = f"/shop/{uuid4().hex}/", genuine(edge, page, 1)
    for cookie in ("", gold, cookie_of(2)):
        edge.get(other, {"Cookie": cookie})
    assert edge.made(other) == 1
    assert shown(edge.get(f"{page}?page=2", {"Cookie": gold})) == "gold"


def test_django_hears_of_no_other_cookie_where_it_makes_a_variation(edge: Edge, page: str) -> None:
    gold = genuine(edge, page, 1)
    edge.get(page, {"Cookie": f"{cookie_of(1)}; {gold}"})
    [request] = edge.log("requests", page)
    assert request["COOKIE"].strip("; ") == gold


def test_personal_page_has_its_cookies_beside_those_of_variations(edge: Edge, page: str) -> None:
    ada = edge.sign_in("ada")
    answer = edge.get("/accounts/", {"Cookie": f"{genuine(edge, page, 1)}; {ada}"})
    assert (answer.body, answer.is_hit) == (b"ada", False)


def test_lookup_by_a_forged_id_finds_nothing(edge: Edge, page: str) -> None:
    forged = [
        f"{identity.ANONYMOUS_ID_COOKIE}={visitor(1)}",
        f"{identity.ANONYMOUS_ID_COOKIE}={visitor(1)}; {id_cookies()[0]}=m:{visitor(1)}:aaaaaa:bbbb",
        f"{identity.ANONYMOUS_ID_COOKIE}={visitor(1)}; {cookie_of(3).rpartition('; ')[2]}",
    ]
    for cookie in forged:
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", edge.port, timeout=30)) as connection:
            told = json.loads(assign(connection, page, cookie, "regular").body)
        assert (told["variations"]["sale"], told["traits"]) == ("regular", {})


def test_personal_fragment_of_a_page_that_all_share(edge: Edge) -> None:
    page = f"/fragments/{uuid4().hex}/"
    bodies = set()
    for number in (1, 2, 3):
        whole = edge.get(page, {"Cookie": cookie_of(number)})
        bodies.add(whole.body)
        [url] = re.findall(r'hx-get="([^"]+)"', whole.body.decode())
        fragment = edge.get(url, {"Cookie": cookie_of(number)})
        plan = plan_of(number)
        assert fragment.body.decode() == (f"{visitor(number)}@mail.example" if plan else "a stranger")
        assert "no-store" in fragment.headers["Cache-Control"]
        assert not fragment.is_hit
    assert len(bodies) == edge.made(page) == 1
    assert edge.get("/accounts/greeting/").body == b"a stranger"
