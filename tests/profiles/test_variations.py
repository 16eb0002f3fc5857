"""Which variation of a page its visitor gets, and what may never get into a page that others see."""

from __future__ import annotations

import io
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any, cast

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template import engines
from django.test import AsyncClient, Client, RequestFactory, override_settings
from django.urls import include, path, reverse
from django.utils.cache import patch_cache_control
from django.views.generic import View

from segment_fallback.buffers.base import now_ms
from segment_fallback.names import endpoint_names
from segment_fallback.profiles import assign, profiles, variations
from segment_fallback.profiles.checks import check_variations
from segment_fallback.profiles.store import Ids, Profile
from segment_fallback.profiles.variations import Experiment, registry, variation
from tests.intake.visits import waiting

pytestmark = pytest.mark.django_db

PAGE_HEADERS = {"sec-fetch-site": "same-origin", "referer": "http://testserver/", "sec-fetch-dest": "empty"}
NAMES = ["regular", "gold", "student"]


def choose(profile: Profile) -> str:
    return str(profile.traits["plan"])


def other_choose(profile: Profile) -> str:
    return "b"


def rendered(request: HttpRequest, template: str = "{% segment_variation as v %}{{ v }}") -> HttpResponse:
    text = engines["django"].from_string("{% load segment_fallback %}" + template).render({}, request)
    response = HttpResponse(text)
    patch_cache_control(response, public=True, max_age=60)
    return response


@variation(choose, NAMES)
def home(request: HttpRequest) -> HttpResponse:
    return rendered(request)


@variation(choose, NAMES, experiment="async-home")
async def ahome(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.segment.variation)  # type: ignore[attr-defined]


@variation(other_choose, ["a", "b"])
@variation(choose, NAMES, experiment="inner")
def two(request: HttpRequest) -> HttpResponse:
    return rendered(request, "{% segment_variation %}|{% segment_variation 'two' %}|{% segment_variation 'x' %}")


class AsClass(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse(request.segment.variation)  # type: ignore[attr-defined]


@variation(choose, NAMES)
def snippet(request: HttpRequest) -> HttpResponse:
    return rendered(request, "{% segment_snippet %}")


def plain(request: HttpRequest) -> HttpResponse:
    return rendered(request, "[{% segment_variation %}]")


def for_gold(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{request.method} {request.path} {request.segment.variation}")  # type: ignore[attr-defined]


def for_others(request: HttpRequest) -> HttpResponse:
    return HttpResponseRedirect(request.get_full_path() + "next") if request.GET else HttpResponse("for others")


urlpatterns = [
    path("s/", include("segment_fallback.urls")),
    path("home/", home),
    path("ahome/", ahome),
    path("two/", two),
    path("class/", variation(choose, NAMES, experiment="class")(AsClass.as_view())),
    path("snippet/", snippet),
    path("plain/", plain),
    path("offers/", for_others),
    path("offers/gold/", for_gold),
]


OWN = {
    experiment.id: experiment
    for experiment in list(registry._experiments.values())
    if experiment.choose in (choose, other_choose)
}
for name in OWN:
    del registry._experiments[name]  # other modules' tests know none


@pytest.fixture(autouse=True)
def site(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.ROOT_URLCONF = __name__
    settings.SEGMENT_FALLBACK = use("visitor")
    monkeypatch.setattr(registry, "_experiments", dict(OWN))
    monkeypatch.setattr(registry, "by_path", {})
    cache.clear()
    variations._complain.cache_clear()


def use(mode: str, **more: Any) -> dict[str, Any]:
    store = {"BACKEND": "segment_fallback.profiles.cache.CacheProfiles"}
    own = {"WRITE_KEY": "wk", "OUTCOME_INTERVAL": 0, "SPOOL": "spool", "VARIATIONS": mode, "PROFILES": store}
    return {**own, **more}


class Browser:
    """Sends requests by WSGI's handler or by ASGI's, and keeps cookies."""

    def __init__(self, kind: str = "sync") -> None:
        self.client: Any = Client() if kind == "sync" else AsyncClient()

    def sign_in(self, name: str, **traits: Any) -> User:
        user: User = User.objects.get_or_create(username=name)[0]
        self.client.force_login(user)
        if traits:
            profiles.store.update(Ids(user_id=str(user.pk)), traits, now_ms())
        return user

    def get(self, url: str, **headers: str) -> HttpResponse:
        return self._send(self.client.get, url, headers=headers)

    def ask(self, content: Any = None, **headers: str) -> HttpResponse:
        """What the page's script asks."""
        url = reverse("segment_fallback:variations", args=[endpoint_names()[0]])
        body = content if isinstance(content, str) else json.dumps(content or {})
        return self._send(self.client.post, url, body, "text/plain", headers={**PAGE_HEADERS, **headers})

    def _send(self, method: Any, *args: Any, **kwargs: Any) -> HttpResponse:
        send = method if isinstance(self.client, Client) else async_to_sync(method)
        return cast(HttpResponse, send(*args, **kwargs))


@pytest.fixture(params=["sync", "async"])
def browser(request: pytest.FixtureRequest) -> Browser:
    return Browser(request.param)


def text(response: HttpResponse) -> str:
    return response.content.decode()


# By the visitor's profile


@pytest.mark.parametrize("url", ["/home/", "/ahome/", "/class/"])
def test_visitor_sees_the_variation_of_his_profile(browser: Browser, url: str) -> None:
    assert text(browser.get(url)) == "regular"
    browser.sign_in("ada", plan="gold")
    assert text(browser.get(url)) == "gold"
    browser.sign_in("bob", plan="student")
    assert text(browser.get(url)) == "student"
    browser.sign_in("eve")
    assert text(browser.get(url)) == "regular", "nothing is known of her"


def test_page_by_profile_varies_by_cookie_and_is_else_as_it_was(browser: Browser) -> None:
    response = browser.get("/home/")
    assert (response["Vary"], response["Cache-Control"]) == ("Cookie", "public, max-age=60")
    assert not response.cookies
    assert not browser.get("/plain/").has_header("Vary")


@pytest.mark.parametrize("plan", ["platinum", "", "email@mail.example", 5, None])
def test_what_is_not_declared_is_the_default_and_said_once(plan: Any, caplog: pytest.LogCaptureFixture) -> None:
    browser = Browser()
    browser.sign_in("ada", plan=plan, other=1)
    for _ in range(3):
        assert text(browser.get("/home/")) == "regular"
    [record] = [record for record in caplog.records if record.name == "segment_fallback"]
    assert record.segment["event"] == "variation_failed"  # type: ignore[attr-defined]
    assert "mail.example" not in record.getMessage()


def test_choose_that_fails_is_the_default_unless_errors_are_wanted(settings: Any) -> None:
    browser = Browser()
    browser.sign_in("ada", other=1)
    assert text(browser.get("/home/")) == "regular"
    settings.SEGMENT_FALLBACK = use("visitor", RAISE_ERRORS=True)
    with pytest.raises(KeyError):
        browser.get("/home/")


def test_several_experiments_of_a_page_are_each_known(browser: Browser) -> None:
    browser.sign_in("ada", plan="gold")
    assert text(browser.get("/two/")) == "gold|b|"


def test_page_without_variations_has_none(browser: Browser) -> None:
    assert text(browser.get("/plain/")) == "[]"


@pytest.mark.parametrize("mode", ["", "edge"])
def test_profile_does_not_decide_where_the_setting_does_not_say_so(browser: Browser, settings: Any, mode: str) -> None:
    settings.SEGMENT_FALLBACK = use(mode)
    browser.sign_in("ada", plan="gold")
    response = browser.get("/home/")
    assert text(response) == "regular"
    assert not response.has_header("Vary")


# Another path under the same URL


def test_other_path_is_served_under_the_same_url(browser: Browser) -> None:
    variation("/offers/", choose, {"regular": "/offers/", "gold": "/offers/gold/", "student": "/missing/"})
    assert text(browser.get("/offers/")) == "for others"
    browser.sign_in("ada", plan="gold")
    response = browser.get("/offers/?a=1")
    assert (response.status_code, text(response), response["Vary"]) == (200, "GET /offers/ gold", "Cookie")
    browser.sign_in("bob", plan="student")
    assert browser.get("/offers/").status_code == 404
    browser.sign_in("eve", plan="regular")
    assert browser.get("/offers/?a=1")["Location"] == "/offers/?a=1next"


def test_method_and_body_stay(settings: Any) -> None:
    variation("/offers/", choose, {"regular": "/offers/", "gold": "/offers/gold/"})
    browser = Browser()
    browser.sign_in("ada", plan="gold")
    assert text(browser.client.post("/offers/", {"a": 1})) == "POST /offers/ gold"


def test_path_without_other_paths_lets_its_view_decide(browser: Browser) -> None:
    variation("/plain/", choose, NAMES, experiment="by-path")
    browser.sign_in("ada", plan="gold")
    assert text(browser.get("/plain/")) == "[gold]"


# By the cookie, for an edge


@pytest.fixture
def edge(settings: Any) -> None:
    settings.SEGMENT_FALLBACK = use("edge", CLIENT_SIDE_TRAITS=["plan", "nick"])


def test_first_view_is_the_default_and_the_next_ones_are_the_visitors(browser: Browser, edge: None) -> None:
    browser.sign_in("ada", plan="gold")
    assert text(browser.get("/home/")) == "regular"
    told = browser.ask()
    assert json.loads(told.content)["variations"]["home"] == "gold"
    assert told["Cache-Control"] == "private, no-store"
    page = browser.get("/home/")
    assert (text(page), page["Cache-Control"]) == ("gold", "public, max-age=60")
    assert not page.has_header("Vary")
    assert not page.cookies


def test_cookie_is_the_same_for_all_visitors_of_a_variation(edge: None) -> None:
    cookies = []
    for name in ("ada", "bob"):
        browser = Browser()
        browser.sign_in(name, plan="gold")
        cookie = browser.ask().cookies[registry._experiments["home"].cookie]
        assert (cookie["httponly"], cookie["samesite"], cookie["path"]) == (True, "Lax", "/")
        cookies.append(cookie.value)
    assert len(set(cookies)) == 1
    assert cookies[0].startswith("home.gold.")


@pytest.mark.parametrize("secure", [False, True])
def test_cookie_is_secure_where_the_sessions_is(browser: Browser, edge: None, settings: Any, secure: bool) -> None:
    browser.sign_in("ada", plan="gold")
    settings.SESSION_COOKIE_SECURE = secure
    assert bool(browser.ask().cookies[registry._experiments["home"].cookie]["secure"]) is secure


def test_cookie_goes_where_the_default_is_the_visitors(browser: Browser, edge: None) -> None:
    ada = browser.sign_in("ada", plan="gold")
    browser.ask()
    profiles.store.update(Ids(user_id=str(ada.pk)), {"plan": "regular"}, now_ms() + 1)
    cookie = browser.ask().cookies[registry._experiments["home"].cookie]
    assert (cookie.value, cookie["max-age"]) == ("", 0)
    assert text(browser.get("/home/")) == "regular"


def test_forged_cookie_is_the_default(browser: Browser, edge: None) -> None:
    home = registry._experiments["home"]
    genuine = home.value("gold")
    browser.client.cookies[home.cookie] = genuine
    assert text(browser.get("/home/")) == "gold"
    for forged in ("gold", "home.gold.", genuine[:-1], genuine + "a", genuine.replace("gold", "student"), "é", ""):
        browser.client.cookies[home.cookie] = forged
        assert text(browser.get("/home/")) == "regular"
    browser.client.cookies[home.cookie] = registry._experiments["snippet"].value("gold")
    assert text(browser.get("/home/")) == "regular", "another page's"


def test_cookie_of_another_secret_is_the_default(browser: Browser, edge: None) -> None:
    home = registry._experiments["home"]
    browser.client.cookies[home.cookie] = home.value("gold")
    with override_settings(SECRET_KEY="another"):
        assert text(browser.get("/home/")) == "regular"


def test_cookieless_site_sets_no_cookie_and_everybody_gets_the_default(settings: Any) -> None:
    settings.SEGMENT_FALLBACK = use("edge", COOKIELESS=True, FIRST_PARTY=True)
    browser = Browser()
    browser.sign_in("ada", plan="gold")
    assert not browser.ask().cookies
    assert text(browser.get("/home/")) == "regular"


def test_uncached_view_of_the_site_may_set_the_cookies_itself(edge: None) -> None:
    browser = Browser()
    ada = browser.sign_in("ada", plan="gold")
    request = RequestFactory().get("/")
    request.user = ada
    response = HttpResponse()
    assign.set_variations(request, response)
    home = registry._experiments["home"]
    assert response.cookies[home.cookie].value == home.value("gold")


def test_every_page_of_a_variation_is_the_same(edge: None) -> None:
    pages = set()
    for name in ("ada", "bob"):
        browser = Browser()
        browser.sign_in(name, plan="gold", nick=f"nick of {name}")
        browser.ask()
        pages.add(re.sub(r'"t":"[^"]*"|/n/[^"]*', "", text(browser.get("/snippet/"))))
    [page] = pages
    assert '"seen":{"snippet":"gold"}' in page
    assert "nick" not in page


# What the page's script is told


def test_traits_are_those_of_the_list_and_escaped(browser: Browser, edge: None) -> None:
    browser.sign_in("ada", plan="gold", nick="</script><b>&", email="ada@mail.example")
    response = browser.ask()
    assert response["Content-Type"] == "application/json"
    assert not re.search(rb"[<>&]", response.content)
    assert json.loads(response.content)["traits"] == {"plan": "gold", "nick": "</script><b>&"}


def test_exposure_is_tracked_once_a_visitor_and_variation(browser: Browser, edge: None) -> None:
    ada = browser.sign_in("ada", plan="gold")
    for shown in ("regular", "gold", "gold"):
        told = json.loads(browser.ask({"home": shown}).content)["told"]
        assert told == {"home": shown}
    viewed = waiting()
    assert [event["event"] for event in viewed] == ["Variation Viewed"] * 2
    assert {event["userId"] for event in viewed} == {str(ada.pk)}
    assert [event["properties"] for event in viewed] == [
        {"experiment": "home", "variation": name, "nonInteraction": 1} for name in ("regular", "gold")
    ]
    assert {event["context"]["page"]["path"] for event in viewed} == {"/"}
    bob = Browser()
    bob.sign_in("bob")
    bob.ask({"home": "regular"})
    assert len({event["messageId"] for event in waiting()}) == 3


def test_stranger_is_given_an_id_by_which_segment_hears_of_him(browser: Browser, edge: None) -> None:
    response = browser.ask({"home": "regular"})
    [event] = waiting()
    assert event["anonymousId"] == response.cookies["ajs_anonymous_id"].value
    assert event["userId"] is None
    browser.ask({"home": "regular"})
    assert len(waiting()) == 1


@pytest.mark.parametrize("said", [{"home": "made up"}, {"made up": "gold"}, {"home": ["gold"]}, {"home": {}}, {"": ""}])
def test_what_is_not_declared_is_not_told(browser: Browser, edge: None, said: Any) -> None:
    assert json.loads(browser.ask(said).content)["told"] == {}
    assert waiting() == []


@pytest.mark.parametrize("header", ["sec-gpc", "dnt"])
def test_who_does_not_want_to_be_known_gets_what_strangers_get(browser: Browser, edge: None, header: str) -> None:
    browser.sign_in("ada", plan="gold", nick="a")
    browser.ask()
    response = browser.ask({"home": "gold"}, **{header: "1"})
    answer = json.loads(response.content)
    assert answer["variations"] == {experiment.id: experiment.default for experiment in registry.all()}
    assert (answer["told"], answer["traits"]) == ({"home": "gold"}, {})
    assert waiting() == []
    assert text(browser.get("/home/")) == "regular", "and the cookie is gone"


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ({"sec-fetch-site": "cross-site"}, "cross_site"),
        ({"referer": "https://evil.example/"}, "host"),
        ({"origin": "https://evil.example"}, "host"),
    ],
)
def test_other_pages_are_refused(browser: Browser, edge: None, headers: dict[str, str], reason: str) -> None:
    browser.sign_in("ada", plan="gold")
    response = browser.ask({"home": "gold"}, **headers)
    assert (response.status_code, json.loads(response.content)) == (403, {"reason": reason})
    assert response["Cache-Control"] == "private, no-store"
    assert not response.cookies


@pytest.mark.parametrize("body", ["", "[]", "{", '{"home": "regular", "a": "' + "b" * 5_000 + '"}'])
def test_body_that_cannot_be_read_tells_nothing(browser: Browser, edge: None, body: str) -> None:
    browser.sign_in("ada", plan="gold")
    answer = json.loads(browser.ask(body).content)
    assert (answer["variations"]["home"], answer["told"]) == ("gold", {})
    assert waiting() == []


def test_other_method_is_refused_and_there_is_nothing_where_it_is_off(browser: Browser, settings: Any) -> None:
    url = reverse("segment_fallback:variations", args=[endpoint_names()[0]])
    response = browser.get(url)
    assert (response.status_code, response["Allow"]) == (405, "POST")
    settings.SEGMENT_FALLBACK = use("")
    assert browser.ask().status_code == 404
    assert '"ask"' not in text(browser.get("/snippet/"))


# How they are declared


def sale(request: HttpRequest) -> HttpResponse:
    return HttpResponse()


wrong: Any = variation


@pytest.mark.parametrize(
    ("declare", "explanation"),
    [
        (lambda: variation(choose, ["only"])(sale), "2 to 20 names"),
        (lambda: variation(choose, ["a", "a"])(sale), "each once"),
        (lambda: variation(choose, "ab"), r"variation\(choose, names\): .+ names are a list"),
        (lambda: variation("/offers/", choose, "ab"), r'variation\("/path/", choose, names\): .+ names are a list'),
        (lambda: wrong("/offers/", choose), r'variation\("/path/", choose, names\): choose is a function'),
        (lambda: wrong("/offers/", NAMES), r'variation\("/path/", choose, names\): choose is a function'),
        (lambda: wrong(NAMES, choose), r"variation\(choose, names\): choose is a function"),
        (lambda: variation(choose, [str(number) for number in range(21)])(sale), "2 to 20 names"),
        (lambda: variation(choose, ["a", "b c"])(sale), "'b c' must be 1 to 40"),
        (lambda: variation(choose, ["a", "b"], experiment="a.b")(sale), "'a.b' must be 1 to 40"),
        (lambda: variation(other_choose, ["a", "b"], experiment="home")(sale), "two variations are called 'home'"),
        (lambda: variation(choose, ["a", "b"], experiment="home")(sale), "two variations are called 'home'"),
        (lambda: variation(choose, NAMES)(AsClass.as_view()), "needs experiment="),
        (lambda: variation("offers", choose, NAMES), "must begin with a slash"),
        (lambda: variation("/offers/", choose, {"a": "/", "b": "https://evil.example/"}), "must begin with a slash"),
        (lambda: variation("/offers/", cast(Any, "choose"), NAMES), "choose is a function"),
    ],
)
def test_what_cannot_be_is_refused(declare: Any, explanation: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=explanation):
        declare()


def test_w017_where_variations_are_declared_and_nothing_decides(settings: Any) -> None:
    assert check_variations(None) == []
    settings.SEGMENT_FALLBACK = use("")
    [message] = check_variations(None)
    assert message.id == "segment_fallback.W017"
    assert "'home'" in message.msg
    registry._experiments = {}
    assert check_variations(None) == []


def test_w018_for_a_cache_that_would_mix_variations(settings: Any) -> None:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "django.middleware.cache.UpdateCacheMiddleware"]
    assert check_variations(None) == []
    settings.SEGMENT_FALLBACK = use("edge")
    [message] = check_variations(None)
    assert message.id == "segment_fallback.W018"


def test_page_without_the_middleware_says_what_is_missing(settings: Any) -> None:
    settings.MIDDLEWARE = []
    with pytest.raises(ImproperlyConfigured, match="SegmentMiddleware"):
        Browser().get("/home/")


# What an edge is told


def printed(*arguments: str) -> str:
    out = io.StringIO()
    call_command("segment_variations", *arguments, stdout=out)
    return out.getvalue()


def test_command_lists_what_is_declared() -> None:
    home = registry._experiments["home"]
    assert f"home: regular, gold, student; cookie {home.cookie}\n" in printed()


@pytest.mark.parametrize("edge_", ["varnish", "nginx", "cloudfront", "cloudflare"])
def test_command_prints_every_genuine_value_and_no_default(edge_: str) -> None:
    plain_text = printed(f"--{edge_}").replace("\\.", ".")
    for experiment in registry.all():
        for name in experiment.names:
            assert (experiment.value(name) in plain_text) is (name != experiment.default)


def test_command_refuses_what_is_no_regular_expression() -> None:
    for only in ("(", 'a"b'):
        with pytest.raises(CommandError, match="--only"):
            printed("--varnish", "--only", only)


def test_rules_of_cloudflare_name_each_cookie() -> None:
    rules = json.loads(printed("--cloudflare", "--only", "^/home"))["rules"]
    assert len(rules) == len(registry.all())
    for rule, experiment in zip(rules, registry.all(), strict=True):
        key = rule["action_parameters"]["cache_key"]["custom_key"]
        assert key == {"cookie": {"include": [experiment.cookie]}}
        assert 'matches "^/home"' in rule["expression"]


def test_function_of_cloudfront_leaves_genuine_cookies_alone(tmp_path: Path) -> None:
    node = shutil.which("node")
    assert node, "node runs the function"
    home = registry._experiments["home"]
    source = (Path(__file__).parents[2] / "docs/edge/cloudfront-variations.js").read_text()
    own = 'var KNOWN = {};\nvar ONLY = new RegExp("");'
    assert own in source
    cookies = {home.cookie: home.value("gold"), "sessionid": "secret"}
    asked = [
        ("/home/", "GET", cookies),
        ("/home/", "GET", {**cookies, home.cookie: home.value("gold") + "x"}),
        ("/other/", "GET", cookies),
        ("/home/", "POST", cookies),
    ]
    events = [
        {"request": {"uri": uri, "method": method, "cookies": {name: {"value": value} for name, value in sent.items()}}}
        for uri, method, sent in asked
    ]
    script = tmp_path / "function.js"
    script.write_text(
        source.replace(own, printed("--cloudfront", "--only", "^/home/"))
        + f"\nconsole.log(JSON.stringify({json.dumps(events)}.map((event) => handler(event).cookies)));"
    )
    result = subprocess.run([node, script], capture_output=True, text=True, check=True)
    assert json.loads(result.stdout) == [{home.cookie: {"value": home.value("gold")}}, {}, {}, {}]


def test_experiment_has_no_value_for_its_default() -> None:
    assert set(Experiment("e", choose, ("a", "b")).values.values()) == {"b"}
