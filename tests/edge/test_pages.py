"""Pages stay cacheable: one copy for everybody, from the second request on, with nothing of a visitor's in it."""

from __future__ import annotations

from pathlib import Path
from uuid import uuid4

import pytest

from segment_fallback.names import endpoint_names
from tests.edge.conftest import proxies
from tests.edge.servers import Edge, running
from tests.serving.site import kill, wait_until

OTHER = {"User-Agent": "another", "Accept-Language": "fr", "Cookie": "ajs_anonymous_id=b; csrftoken=c; _ga=GA1.1"}


def test_page_is_the_same_for_everybody_and_a_hit_from_the_second_request_on(edge: Edge, page: str) -> None:
    ada = {"Cookie": edge.sign_in("ada")}
    first, *others = [edge.get(page, headers) for headers in ({}, ada, OTHER, {"Cookie": edge.sign_in("bob")}, {})]
    assert first.status == 200
    assert b"<noscript><picture" in first.body
    assert not first.is_hit
    assert {other.body for other in others} == {first.body}
    assert edge.kind == "django" or all(other.is_hit for other in others)
    assert edge.made(page) == 1


def test_page_has_no_cookie_and_varies_by_nothing(edge: Edge, page: str) -> None:
    for headers in ({}, {"Cookie": edge.sign_in("ada")}, OTHER):
        answer = edge.get(page, headers)
        assert answer.headers["Cache-Control"] == "public, max-age=60"
        assert not {"set-cookie", "vary"} & {name.lower() for name in answer.headers}


def test_session_is_never_read_on_a_page(edge: Edge, page: str) -> None:
    """Asked of Django itself, past the edge, which does not even tell it the cookies."""
    ada = {"Cookie": edge.sign_in("ada")}
    before = len(edge.log("sessions"))
    assert edge.get(page, ada, port=edge.origin).status == 200
    assert len(edge.log("sessions")) == before
    assert edge.get("/accounts/", ada, port=edge.origin).body == b"ada"
    assert len(edge.log("sessions")) > before


def test_personal_page_is_each_visitors_own(edge: Edge) -> None:
    for name in ("ada", "bob", "ada"):
        answer = edge.get("/accounts/", {"Cookie": edge.sign_in(name)})
        assert (answer.body, answer.is_hit) == (name.encode(), False)
    assert edge.get("/accounts/").body == b"nobody"


@proxies
def test_page_that_says_nothing_to_caches_is_made_each_time(edge: Edge) -> None:
    before = edge.made("/silent/")
    assert not any(edge.get("/silent/").is_hit for _ in range(3))
    assert edge.made("/silent/") == before + 3


@proxies
def test_page_with_a_cookie_in_its_answer_is_not_kept(edge: Edge) -> None:
    answers = [edge.get("/careless/") for _ in range(3)]
    assert all(answer.headers["Set-Cookie"] and not answer.is_hit for answer in answers)


@proxies
def test_django_does_not_hear_of_cookies_where_it_makes_a_page_for_all(edge: Edge, page: str) -> None:
    edge.get(page, OTHER)
    edge.get(page, OTHER, method="POST", body="")
    assert [(line["method"], bool(line["COOKIE"])) for line in edge.log("requests", page)] == [
        ("GET", False),
        ("POST", True),
    ]


@proxies
def test_request_with_credentials_gets_an_answer_of_its_own(edge: Edge, page: str) -> None:
    edge.get(page)
    assert not edge.get(page, {"Authorization": "Basic YTpi"}).is_hit
    assert edge.get(page).is_hit


@proxies
@pytest.mark.parametrize(
    ("asked", "shared"),
    [
        ("?utm_source=news", ""),
        ("?utm_source=a&utm_medium=b&gclid=c&fbclid=d&utm_campaign=May%20sale", ""),
        ("?page=2&utm_source=a", "?page=2"),
        ("?utm_source=a&page=2", "?page=2"),
        ("?utm_source=a&page=2&gclid=b&sort=up&msclkid=c", "?page=2&sort=up"),
        ("?page=utm_source&not_utm_x=1", "?page=utm_source&not_utm_x=1"),
        ("?a=b%26utm_source=c", "?a=b%26utm_source=c"),
    ],
)
def test_marketing_parameters_share_the_page(edge: Edge, page: str, asked: str, shared: str) -> None:
    edge.get(page + shared)
    assert edge.get(page + asked).is_hit
    assert edge.made(page + shared) == 1


@proxies
@pytest.mark.parametrize(
    ("asked", "target"),
    [("?utm_source=a&gclid=b", "?utm_source=a&gclid=b"), ("?page=2", "?page=2"), ("", "")],
)
def test_redirect_to_the_path_with_a_slash_keeps_the_campaign(edge: Edge, page: str, asked: str, target: str) -> None:
    answer = edge.get(page.removesuffix("/") + asked)
    assert (answer.status, answer.headers["Location"]) == (301, page + target)


@proxies
def test_path_with_an_escaped_question_mark_is_another_page(edge: Edge) -> None:
    value = uuid4().hex
    assert edge.get(f"/shop/odd/%3Fa={value}").body == b"another page"
    assert b"<noscript>" in edge.get(f"/shop/odd/?a={value}").body
    assert edge.get(f"/shop/odd/%3Fa={value}").body == b"another page"


@proxies
def test_hosts_and_schemes_have_copies_of_their_own(edge: Edge, page: str) -> None:
    edge.get(page)
    assert not edge.get(page, {"Host": "shop.example"}).is_hit
    if edge.kind == "varnish":
        assert not edge.get(page, {"X-Forwarded-Proto": "https"}).is_hit
        assert [line["X_FORWARDED_PROTO"] for line in edge.log("requests", page)] == ["http", "http", "https"]


@proxies
def test_visitor_cannot_say_by_which_scheme_he_came_and_to_which_host(edge: Edge, page: str) -> None:
    edge.get(page, {"X-Forwarded-Proto": "https", "X-Forwarded-Host": "shop.example"}, source="127.0.0.2")
    [request] = edge.log("requests", page)
    assert (request["X_FORWARDED_PROTO"], request["X_FORWARDED_HOST"]) == ("http", None)


@pytest.mark.parametrize("kind", ["varnish", "nginx"])
def test_old_page_is_shown_while_django_is_down(kind: str, tmp_path: Path) -> None:
    with running(kind, tmp_path, "", {}) as edge:
        edge.get("/brief/")
        assert edge.gunicorn
        kill(edge.gunicorn)
        wait_until(lambda: is_old(edge), lambda: f"{edge.get('/brief/')}")
        assert edge.get("/accounts/").status in (502, 503)
        for path in ("q", "e/p", f"n/{'a' * 10}"):
            answer = edge.get(f"/s/{endpoint_names()[0]}/{path}")
            assert (answer.status, answer.is_hit) == (503, False), "which browsers keep, and send again"


def is_old(edge: Edge) -> bool:
    """Whether the page that lasts for a second is shown for longer."""
    answer = edge.get("/brief/")
    assert (answer.status, answer.body) == (200, b"a page of the last second")
    return answer.headers["X-Cache"] == "STALE" or int(answer.headers["Age"] or 0) > 2
