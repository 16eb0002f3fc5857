"""Who a visitor is from one request to the next: by two cookies, by none, and until a logout."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth import logout
from django.contrib.auth.models import User
from django.core.signing import TimestampSigner
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import include, path, reverse

from segment_fallback.conf import DAY, get_settings
from segment_fallback.intake import identity, login
from segment_fallback.names import endpoint_names, hint_cookie, id_cookies
from segment_fallback.page.snippet import load_options
from tests.intake.posts import PAGE_HEADERS, Sender, batch, call, calls, event, single
from tests.intake.visits import Visit, outcomes, waiting

pytestmark = pytest.mark.django_db

TWIN = "ajs_anonymous_id"
TRACKING = {"WRITE_KEY": "tests-write-key", "OUTCOME_INTERVAL": 0, "SPOOL": "spool", "FIRST_PARTY": True}


@pytest.fixture(autouse=True)
def first_party(settings: Any) -> None:
    settings.SEGMENT_FALLBACK = TRACKING


def keys(**more: Any) -> override_settings:
    return override_settings(SEGMENT_FALLBACK={**TRACKING, **more})


def hit(client: Client, way: str = "pixel") -> HttpResponse:
    """One accepted hit; its answer has the cookies that it sets, but for the page's token."""
    responses: dict[str, Callable[[], Any]] = {
        "pixel": lambda: Visit(client=client).send(),
        "noscript": lambda: Visit(client=client, script=False).send(),
        "collect": lambda: Sender(client).post("b", batch(event(messageId=str(time.monotonic_ns()), anonymousId=None))),
        "calls": lambda: Sender(client).post("q", calls(call("track", "A", message_id=f"{time.monotonic_ns():032x}"))),
    }
    response: HttpResponse = responses[way]()
    assert response.status_code in (200, 204)
    return response


WAYS = ["pixel", "noscript", "collect", "calls"]


def request_with(cookies: Mapping[str, Any], **more: Any) -> HttpRequest:
    request = RequestFactory().get("/", **more)
    request.COOKIES = {key: getattr(value, "value", value) for key, value in cookies.items()}
    return request


def proven(client: Client) -> str | None:
    return identity.proven_anonymous_id(request_with(client.cookies), get_settings())


def later(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    then = time.time() + seconds
    monkeypatch.setattr("django.core.signing.time.time", lambda: then)


def anonymous_ids() -> list[str]:
    return [message["anonymousId"] for message in waiting()]


# Two cookies


@pytest.mark.parametrize("way", WAYS)
def test_new_visitor_gets_both_cookies_and_keeps_the_id(way: str) -> None:
    client = Client()
    first = hit(client, way)
    assert set(first.cookies) == {TWIN, id_cookies()[0]}
    assert "no-store" in first["Cache-Control"] or "private" in first["Cache-Control"]
    for other in WAYS:
        assert not hit(client, other).cookies
    assert anonymous_ids() == [first.cookies[TWIN].value] * 5


def test_signed_cookie_is_out_of_reach_of_scripts_and_of_other_sites() -> None:
    with keys(COOKIE_DOMAIN="shop.example"):
        cookies = Visit(headers={"wsgi.url_scheme": "https"}, referer="https://testserver/shop/").send().cookies
    morsel = cookies[id_cookies()[0]]
    assert (morsel["domain"], morsel["path"], morsel["samesite"]) == ("shop.example", "/", "Lax")
    assert (morsel["max-age"], morsel["httponly"], morsel["secure"]) == (365 * DAY, True, True)
    assert cookies[TWIN].value in morsel.value, "an id is no secret"


@pytest.mark.parametrize(
    ("host", "domain"),
    [
        ("shop.example", "shop.example"),
        ("www.shop.example:8000", "shop.example"),
        ("WWW.Shop.Example", "shop.example"),
        ("app.shop.example", "app.shop.example"),
        ("localhost:8000", ""),
        ("10.0.0.1", ""),
        ("[::1]:8000", ""),
    ],
)
def test_twin_has_the_domain_that_analytics_js_chooses(host: str, domain: str) -> None:
    request = RequestFactory(headers={"Host": host}).get("/")
    found = []
    for own in ({}, {"COOKIE_DOMAIN": "example"}):
        response = HttpResponse()
        with keys(**own), override_settings(ALLOWED_HOSTS=["*"]):
            identity.keep_anonymous_id(request, response, "one", get_settings(), minted=True)
        found.append([response.cookies[name]["domain"] for name in (TWIN, id_cookies()[0])])
    assert found == [[domain, ""], ["example", "example"]]


def test_host_that_is_not_allowed_does_not_break_a_page_of_the_site() -> None:
    request, response = RequestFactory(headers={"Host": "evil.example"}).get("/"), HttpResponse()
    request.COOKIES[TWIN] = "one"
    identity.forget(request, response, get_settings(), anew=False)
    assert response.cookies[TWIN]["domain"] == ""


def test_cookies_of_an_insecure_page_are_not_secure() -> None:
    cookies = hit(Client()).cookies
    assert not cookies[TWIN]["secure"]
    assert not cookies[id_cookies()[0]]["secure"]


def test_cookies_are_secure_where_the_sessions_is() -> None:
    with override_settings(SESSION_COOKIE_SECURE=True):
        cookies = hit(Client()).cookies
    assert cookies[TWIN]["secure"]
    assert cookies[id_cookies()[0]]["secure"]


@pytest.mark.parametrize("way", WAYS)
def test_twin_that_was_deleted_comes_back(way: str) -> None:
    client = Client()
    own = hit(client).cookies[TWIN].value
    del client.cookies[TWIN]
    response = hit(client, way)
    assert {name: morsel.value for name, morsel in response.cookies.items()} == {TWIN: own}
    assert anonymous_ids() == [own, own]


@pytest.mark.parametrize("way", WAYS)
def test_id_that_analytics_js_made_is_adopted(way: str) -> None:
    client = Client()
    client.cookies[TWIN] = "made-by-analytics-js"
    assert set(hit(client, way).cookies) == {id_cookies()[0]}
    del client.cookies[TWIN]
    hit(client, way)
    assert anonymous_ids() == ["made-by-analytics-js"] * 2


def test_id_that_analytics_js_can_only_tell_in_an_event_is_adopted() -> None:
    client = Client()
    response = Sender(client).post("t", single(anonymousId="told"))
    assert response.cookies[TWIN].value == "told"
    hit(client)
    assert anonymous_ids() == ["told", "told"]
    assert proven(client) is None


@pytest.mark.parametrize(
    ("header", "value"),
    [
        (f"{TWIN}=first; a=b; {TWIN}=second", "first"),
        (f"a=b;{TWIN} = first;{TWIN}=first;{TWIN}=second", "first"),
        (f"{TWIN}=%22first%22; {TWIN}=second", "first"),
        (f'{TWIN}="first"; {TWIN}=second', "first"),
        (f"{TWIN}=no id; {TWIN}=second", None),
        (f"old_{TWIN}=other; {TWIN}=first; {TWIN}_old=another", "first"),
        (f"old_{TWIN}=other; {TWIN}_old=another", None),
        (f"{TWIN}=first", "first"),
        ("a=b", None),
    ],
)
def test_twin_is_the_first_of_that_name_as_it_is_to_analytics_js(header: str, value: str | None) -> None:
    assert identity.twin(RequestFactory().get("/", HTTP_COOKIE=header)) == value


def test_page_view_has_the_first_id_where_the_host_and_the_domain_have_one_each() -> None:
    cookies = Visit(cookie=False, headers={"HTTP_COOKIE": f"{TWIN}=domains; {TWIN}=hosts"}).send().cookies
    assert anonymous_ids() == ["domains"]
    assert set(cookies) == {id_cookies()[0]}, "the browser's own is as it should be"


def test_twin_counts_where_the_two_differ() -> None:
    client = Client()
    hit(client)
    client.cookies[TWIN] = "after-a-reset"
    assert set(hit(client).cookies) == {id_cookies()[0]}
    del client.cookies[TWIN]
    hit(client)
    assert anonymous_ids()[1:] == ["after-a-reset"] * 2


@pytest.mark.parametrize("age", [0.9 * DAY, 1.1 * DAY, 364 * DAY])
def test_year_of_an_active_visitor_starts_anew_each_day(monkeypatch: pytest.MonkeyPatch, age: float) -> None:
    client = Client()
    own = hit(client).cookies[TWIN].value
    later(monkeypatch, age)
    response = hit(client)
    assert set(response.cookies) == ({id_cookies()[0]} if age > DAY else set())
    assert proven(client) == own
    assert not hit(client).cookies


def test_signature_of_more_than_a_year_ago_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    own = hit(client).cookies[TWIN].value
    del client.cookies[TWIN]
    later(monkeypatch, 366 * DAY)
    assert proven(client) is None
    assert hit(client).cookies[TWIN].value != own


def test_cookie_of_a_retired_secret_counts_and_is_signed_anew(settings: Any) -> None:
    client = Client()
    own = hit(client).cookies[TWIN].value
    old = id_cookies()[0]
    del client.cookies[TWIN]
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", [settings.SECRET_KEY]
    assert proven(client) == own
    response = hit(client)
    assert set(response.cookies) == {TWIN, id_cookies()[0], old}
    assert (response.cookies[old].value, response.cookies[old]["max-age"]) == ("", 0)
    settings.SECRET_KEY_FALLBACKS = []
    del client.cookies[TWIN]
    assert proven(client) == own
    hit(client)
    assert anonymous_ids() == [own] * 3


def sign(text: str, **more: Any) -> str:
    return TimestampSigner(salt=identity.SALT, **more).sign(text)


FORGED: dict[str, Callable[[], str]] = {
    "empty": lambda: "",
    "bare id": lambda: "m:forged",
    "no signature": lambda: "m:forged:1uRYAS:",
    "another key": lambda: sign("m:forged", key="other"),
    "another salt": lambda: TimestampSigner(salt="other").sign("m:forged"),
    "another text": lambda: sign("m:mine").replace("mine", "forged"),
    "another time": lambda: sign("m:forged").replace("m:forged:", "m:forged:0"),
    "odd time": lambda: TimestampSigner(salt=identity.SALT).sign("m:forged").replace(":1", ":!"),
    "odd id": lambda: sign("m:<script>"),
    "no id": lambda: sign("m"),
    "other bytes": lambda: "\udcff\x00é:é:é",
    "long": lambda: "m:" * 5_000,
}


@pytest.mark.parametrize("make", FORGED.values(), ids=FORGED)
def test_cookie_that_this_site_has_not_signed_is_none(make: Callable[[], str]) -> None:
    request = request_with({id_cookies()[0]: make()})
    assert identity.signed(request) is None
    assert identity.proven_anonymous_id(request, get_settings()) is None


def test_forged_cookie_is_replaced() -> None:
    client = Client()
    client.cookies[id_cookies()[0]] = FORGED["another key"]()
    response = hit(client)
    assert anonymous_ids() == [response.cookies[TWIN].value]
    assert "forged" not in response.cookies[id_cookies()[0]].value


@pytest.mark.parametrize("refused", [{"token": "forged"}, {"headers": {"HTTP_SEC_GPC": "1"}}])
def test_refused_hit_sets_no_cookie_and_renews_none(refused: dict[str, Any]) -> None:
    client = Client()
    client.cookies[TWIN] = "known"
    assert not Visit(client=client, **refused).send().cookies
    assert outcomes().get("accepted") is None


# What a server may rely on


def test_id_that_this_site_made_up_is_proven_from_the_next_request_on() -> None:
    client = Client()
    assert proven(client) is None
    own = hit(client).cookies[TWIN].value
    assert proven(client) == own
    del client.cookies[TWIN]
    assert proven(client) == own


def test_id_that_a_client_named_is_never_proven() -> None:
    """Else whoever knows somebody's id could have it signed by one hit, and read what is known of them by the next."""
    victim, thief = Client(), Client()
    known = hit(victim).cookies[TWIN].value
    hit(thief)
    thief.cookies[TWIN] = known
    for way in WAYS:
        hit(thief, way)
    assert proven(thief) is None
    del thief.cookies[TWIN]
    hit(thief)
    assert proven(thief) is None
    assert proven(victim) == known


def test_adopted_id_stays_adopted_when_it_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    client = Client()
    client.cookies[TWIN] = "adopted"
    hit(client)
    later(monkeypatch, 2 * DAY)
    assert set(hit(client).cookies) == {id_cookies()[0]}
    assert proven(client) is None


def test_former_visitors_id_is_not_proven_after_a_reset_by_the_page() -> None:
    client = Client()
    hit(client)
    client.cookies[TWIN] = "somebody-new"
    assert proven(client) is None


# Cookieless


COOKIELESS = {"COOKIELESS": True}
MORNING = 1_800_000_000 // DAY * DAY


def id_of(day: float = 0, *, ip: str = "198.51.100.7", agent: str = "Firefox", known: str = "") -> str | None:
    request = request_with({TWIN: known}, REMOTE_ADDR=ip, HTTP_USER_AGENT=agent)
    with pytest.MonkeyPatch.context() as patch, keys(**COOKIELESS):
        patch.setattr("segment_fallback.intake.identity.time.time", lambda: MORNING + day * DAY)
        return identity.anonymous_id(request, get_settings())


def test_cookieless_id_holds_for_a_day_an_address_and_a_browser() -> None:
    one = id_of()
    assert identity.is_anonymous_id(one)
    assert id_of(0.99) == one
    assert id_of(known="known") == one
    others = {id_of(1), id_of(ip="198.51.100.8"), id_of(agent="Chrome"), id_of(ip="odd")}
    with override_settings(SECRET_KEY="other"):
        others.add(id_of())
    assert len(others - {one}) == 5


@pytest.mark.parametrize("way", WAYS)
def test_cookieless_sets_no_cookie_and_reads_none(way: str) -> None:
    client = Client()
    with keys(**COOKIELESS):
        assert not hit(client, way).cookies
    known = Client()
    known.cookies[TWIN] = "known"
    known.cookies[id_cookies()[0]] = sign("m:known")
    with keys(**COOKIELESS):
        assert not hit(known, way).cookies
        assert proven(known) is None
    assert "known" not in anonymous_ids()


def test_cookieless_events_of_a_page_have_the_id_that_its_pixel_has() -> None:
    client = Client()
    with keys(**COOKIELESS):
        agent = {"HTTP_USER_AGENT": PAGE_HEADERS["user-agent"]}
        Visit(client=client, headers=agent).send()
        Sender(client).post("t", single(anonymousId="in-memory"))
    one, other = anonymous_ids()
    assert one == other


def test_cookieless_visitors_who_look_alike_are_not_limited_as_one() -> None:
    with keys(**COOKIELESS, RATE_LIMIT=10):
        for _ in range(5):
            Visit().send()
    assert outcomes() == {"accepted": 5}


def test_cookieless_analytics_js_keeps_nothing_in_the_browser() -> None:
    with keys(**COOKIELESS, LOAD_OPTIONS={"disableClientPersistence": False, "cookie": {}}):
        options = load_options(get_settings(), "https://api.segment.io")
    assert (options["disableClientPersistence"], options["cookie"]) == (True, {})
    assert "disableClientPersistence" not in load_options(get_settings(), "https://api.segment.io")


# Reset


def reset(client: Client, method: str = "POST", **headers: str) -> Any:
    url = reverse("segment_fallback:reset", args=[endpoint_names()[0]])
    return client.generic(method, url, headers={**PAGE_HEADERS, **headers})


def test_reset_makes_the_browser_somebody_new() -> None:
    client = Client()
    before = hit(client).cookies[TWIN].value
    response = reset(client)
    assert (response.status_code, response.content, response["Cache-Control"]) == (204, b"", "private, no-store")
    after = response.cookies[TWIN].value
    assert proven(client) == after != before
    assert response.cookies[TWIN]["max-age"] == response.cookies[id_cookies()[0]]["max-age"] == 365 * DAY
    assert not any("1970" in morsel["expires"] for morsel in response.cookies.values())
    hit(client)
    assert anonymous_ids() == [before, after]


@pytest.mark.parametrize(("more", "headers"), [(COOKIELESS, {}), ({}, {"sec-gpc": "1"}), ({}, {"dnt": "1"})])
def test_reset_only_deletes_where_no_id_is_wanted(more: dict[str, Any], headers: dict[str, str]) -> None:
    client = Client()
    hit(client)
    with keys(**more, COOKIE_DOMAIN="shop.example"):
        response = reset(client, **headers)
    assert {(m.value, m["max-age"], m["domain"]) for m in response.cookies.values()} == {("", 0, "shop.example")}
    assert set(response.cookies) == {TWIN, id_cookies()[0]}


def test_reset_of_a_browser_without_an_id_gives_it_none() -> None:
    response = reset(Client())
    assert (response.status_code, len(response.cookies)) == (204, 0)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_reset_is_a_post(method: str) -> None:
    client = Client()
    hit(client)
    response = reset(client, method)
    assert (response.status_code, response["Allow"], len(response.cookies)) == (405, "POST", 0)


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"sec-fetch-site": "cross-site"}, "cross_site"),
        ({"sec-fetch-site": "none"}, "cross_site"),
        ({"origin": "https://evil.example"}, "host"),
        ({"host": "evil.example"}, "host"),
    ],
)
def test_reset_is_for_pages_of_the_site(headers: dict[str, str], reason: str) -> None:
    client = Client()
    hit(client)
    response = reset(client, **headers)
    assert (response.status_code, response.json(), len(response.cookies)) == (403, {"reason": reason}, 0)
    assert response["Cache-Control"] == "private, no-store"


@pytest.mark.parametrize("early", [True, False], ids=["early", "routed"])
def test_reset_needs_no_csrf_token(settings: Any, early: bool) -> None:
    ours = ["segment_fallback.middleware.SegmentMiddleware"] if early else []
    settings.MIDDLEWARE = [*ours, "django.middleware.csrf.CsrfViewMiddleware"]
    assert reset(Client(enforce_csrf_checks=True)).status_code == 204


# Logout


def leave(request: HttpRequest) -> HttpResponse:
    logout(request)
    return HttpResponse("bye")


def plain(request: HttpRequest) -> HttpResponse:
    return HttpResponse("a page")


urlpatterns = [path("s/", include("segment_fallback.urls")), path("leave/", leave), path("", plain)]


@pytest.fixture(params=["sync", "async"])
def get(request: pytest.FixtureRequest, settings: Any) -> Callable[[Client, str], Any]:
    """A request of a client with its cookies, by WSGI's handler or by ASGI's."""
    settings.ROOT_URLCONF = __name__

    def get(client: Client, url: str) -> Any:
        if request.param == "sync":
            return client.get(url)
        other = AsyncClient()
        other.cookies = client.cookies
        return async_to_sync(other.get)(url)

    return get


@pytest.fixture
def ada() -> Client:
    client = Client()
    client.force_login(User.objects.create_user("ada"))
    hit(client)
    return client


def test_logout_makes_the_browser_somebody_new(ada: Client, get: Any) -> None:
    before = ada.cookies[TWIN].value
    with keys(RESET_AT_LOGOUT=True):
        assert not get(ada, "/").cookies
        response = get(ada, "/leave/")
    assert set(response.cookies) == {TWIN, id_cookies()[0], "sessionid"}
    assert response.cookies[TWIN].value != before
    hit(ada)
    assert anonymous_ids() == [before, response.cookies[TWIN].value]


@pytest.mark.parametrize(
    ("more", "cookies"),
    [
        ({}, set()),
        ({"IDENTIFY": True}, {"hint"}),
        ({"RESET_AT_LOGOUT": True}, {"ids"}),
        ({"RESET_AT_LOGOUT": True, "IDENTIFY": True}, {"ids", "hint"}),
        ({"RESET_AT_LOGOUT": True, "COOKIELESS": True}, {"ids"}),
    ],
)
def test_logout_sets_the_cookies_that_the_settings_ask_for(
    ada: Client, get: Any, more: dict[str, Any], cookies: set[str]
) -> None:
    with keys(**more):
        response = get(ada, "/leave/")
    named = {"hint": {hint_cookie()}, "ids": {TWIN, id_cookies()[0]}}
    assert set(response.cookies) - {"sessionid"} == set().union(*(named[name] for name in cookies))
    if "COOKIELESS" in more:
        assert not response.cookies[TWIN].value


def test_cookieless_login_leaves_no_hint(get: Any) -> None:
    user = User.objects.create_user("ada")
    for more, hinted in (({}, True), (COOKIELESS, False)):
        request = RequestFactory().get("/")
        with keys(IDENTIFY=True, **more):
            login.hint_at_login(User, request, user=user)
            assert login.has_cookies_to_set(request) is hinted
