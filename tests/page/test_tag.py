from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

import django
import pytest
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.template import Context, RequestContext, Template, TemplateSyntaxError
from django.test import Client, RequestFactory
from django.urls import include, path
from django.utils.crypto import get_random_string
from django.utils.functional import SimpleLazyObject, empty, lazystr

from segment_fallback.page.token import verify
from tests.page.html import Found, parse

SHOP = "{% load segment_fallback %}{% segment_snippet 'Product' category='Shop' sku='A-1' %}"


def shop(request: HttpRequest, product: str = "") -> HttpResponse:
    return HttpResponse(Template(SHOP).render(RequestContext(request)))


urlpatterns = [path("s/", include("segment_fallback.urls")), path("shop/", shop), path("shop/<slug:product>/", shop)]


@pytest.fixture
def _shop(settings: Any) -> None:
    settings.ROOT_URLCONF = __name__


def tag(arguments: str = "", **context: Any) -> str:
    """What the tag renders on the page /shop/."""
    template = Template(f"{{% load segment_fallback %}}{{% segment_snippet {arguments} %}}")
    return template.render(Context({"request": RequestFactory().get("/shop/?utm_source=x"), **context}))


def page_call(arguments: str = "", **context: Any) -> list[Any]:
    return parse(tag(arguments, **context)).page_call


# what it says


@pytest.mark.parametrize(
    ("arguments", "call"),
    [
        ("", [None, None, {}]),
        ("'Product'", [None, "Product", {}]),
        ("'Product' 'Shop'", ["Shop", "Product", {}]),
        ("name='Product' category='Shop'", ["Shop", "Product", {}]),
        ("'' category=''", [None, None, {}]),
        ("nothing category=nothing", [None, None, {}]),
        ("lazy", [None, "Lazy", {}]),
        ("5", [None, "5", {}]),
        ("sku='A-1' price=19.9", [None, None, {"sku": "A-1", "price": 19.9}]),
        ("'P' 'S' extra", ["S", "P", {"colour": "red", "sku": "old"}]),
        ("properties=extra sku='new'", [None, None, {"colour": "red", "sku": "new"}]),
        ("properties=nothing", [None, None, {}]),
        ("price=price day=day id=id lazy=lazy tags=tags", [None, None, {
            "price": 19.9, "day": "2025-01-02", "id": "12345678-1234-5678-1234-567812345678", "lazy": "Lazy",
            "tags": ["a", "b"]}]),
    ],
)  # fmt: skip
def test_tag_makes_the_page_call(arguments: str, call: list[Any]) -> None:
    context = {
        "extra": {"colour": "red", "sku": "old"},
        "nothing": None,
        "lazy": lazystr("Lazy"),
        "price": Decimal("19.90"),
        "day": date(2025, 1, 2),
        "id": uuid.UUID("12345678-1234-5678-1234-567812345678"),
        "tags": {"b", "a"},
    }
    assert page_call(arguments, **context) == call


def test_tag_signs_the_path_without_the_query() -> None:
    page = verify(parse(tag("'Product' category='Shop' sku='A'")).config["t"])
    assert (page.path, page.name, page.category, page.properties) == ("/shop/", "Product", "Shop", {"sku": "A"})


def test_tag_takes_a_variable_for_data_and_not_for_markup() -> None:
    text = "</script><!--\"'\u2028"
    assert page_call("name category=name x=name", name=text) == [text, text, {"x": text}]


def test_tag_renders_script_and_noscript() -> None:
    assert [name for name, _ in parse(tag()).tags] == ["script", "noscript", "picture", "source", "img"]


def test_tag_leaves_noscript_out_on_demand() -> None:
    assert [name for name, _ in parse(tag("noscript=False")).tags] == ["script"]


def test_tag_renders_nothing_without_a_write_key(settings: Any) -> None:
    settings.SEGMENT_FALLBACK = {"WRITE_KEY": ""}
    assert tag("category='alone'") == ""


# mistakes

MISTAKES = [
    ("category='Shop'", "a category needs a name"),
    ("'' category='Shop'", "a category needs a name"),
    ("sku=bad", "a value of type bytes has no form in JSON"),
    ("properties='text'", "properties must be a dict, not SafeString"),
    ("x=huge", "the limit is"),
]


@pytest.mark.parametrize(("arguments", "text"), MISTAKES)
def test_mistake_is_raised_under_debug(settings: Any, arguments: str, text: str) -> None:
    settings.DEBUG = True
    with pytest.raises(TemplateSyntaxError, match=f"^segment_snippet: .*{text}"):
        tag(arguments, bad=b"x", huge=get_random_string(5_000))


@pytest.mark.parametrize(("arguments", "text"), MISTAKES)
def test_mistake_on_a_live_site_costs_the_snippet_and_is_logged(
    caplog: pytest.LogCaptureFixture, arguments: str, text: str
) -> None:
    assert tag(arguments, bad=b"x", huge=get_random_string(5_000)) == ""
    [record] = caplog.records
    assert (record.name, record.levelno) == ("segment_fallback", logging.ERROR)
    assert text in caplog.text


@pytest.mark.parametrize("request_", [None, "text", object()], ids=["none", "text", "object"])
def test_page_without_request_says_how_to_give_it(settings: Any, request_: object) -> None:
    assert tag(request=request_) == ""
    settings.DEBUG = True
    with pytest.raises(TemplateSyntaxError, match=r"no request: render it with one, as render\(request, …\) does"):
        tag(request=request_)


def test_page_needs_no_context_processor_for_its_request(settings: Any) -> None:
    settings.TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates"}]
    html = Template(SHOP).render(RequestContext(RequestFactory().get("/shop/")))
    assert verify(parse(html).config["t"]).path == "/shop/"


def test_page_of_a_site_that_has_not_mounted_the_urls_is_not_broken(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.ROOT_URLCONF = "django.contrib.auth.urls"
    assert tag() == ""
    assert "'segment_fallback' is not a registered namespace" in caplog.text


def test_page_with_a_property_that_fails_is_not_broken(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> str:
        raise OSError("database is down")

    assert tag("x=lazy", lazy=SimpleLazyObject(fail)) == ""
    assert "database is down" in caplog.text


# cacheable


class Untouchable:
    """Stands for session and user: whoever looks at it makes the page uncacheable."""

    def __getattribute__(self, name: str) -> Any:
        raise AssertionError(f"the tag reads {name}")

    def __bool__(self) -> bool:
        raise AssertionError("the tag tests it")


def test_tag_reads_neither_session_nor_user() -> None:
    request = RequestFactory().get("/shop/")
    request.session = Untouchable()  # type: ignore[assignment]
    request.user = Untouchable()  # type: ignore[assignment]
    assert parse(tag("'Product'", request=request, user=request.user)).page_call == [None, "Product", {}]


@pytest.mark.django_db
@pytest.mark.usefixtures("_shop")
def test_page_is_the_same_bytes_for_everybody() -> None:
    signed_in = Client()
    signed_in.force_login(User.objects.create(username="ann"))
    known = Client(headers={"user-agent": "Firefox", "accept-language": "de", "dnt": "1", "sec-gpc": "1"})
    known.cookies["ajs_anonymous_id"] = "a-1"
    pages = [
        Client().get("/shop/"),
        Client().get("/shop/?utm_source=x&ajs_aid=evil"),
        signed_in.get("/shop/"),
        known.get("/shop/", REMOTE_ADDR="203.0.113.9"),
    ]
    assert len({page.content for page in pages}) == 1
    assert parse(pages[0].text).page_call == ["Shop", "Product", {"sku": "A-1"}]
    for page in pages:
        assert not page.has_header("Vary")
        assert not page.cookies


@pytest.mark.usefixtures("_shop")
def test_page_of_another_path_differs() -> None:
    assert Client().get("/shop/").content != Client().get("/shop/other/").content


# Content-Security-Policy


class LazyNonce(SimpleLazyObject):  # type: ignore[type-arg]
    """As in Django 6: false until somebody has read it."""

    def __bool__(self) -> bool:
        return self._wrapped is not empty


def django_6_csp(get_response: Callable[[HttpRequest], HttpResponseBase]) -> Callable[[HttpRequest], HttpResponseBase]:
    """What Django 6's ContentSecurityPolicyMiddleware does, for Django 5.2."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        nonce = LazyNonce(lambda: get_random_string(22))
        request._csp_nonce = nonce  # type: ignore[attr-defined]
        response = get_response(request)
        if nonce:
            response["Content-Security-Policy"] = f"script-src 'self' 'nonce-{nonce}'"
        return response

    return middleware


def policy_and_page(settings: Any, middleware: str) -> tuple[str, Found]:
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, middleware]
    response = Client().get("/shop/")
    return response["Content-Security-Policy"], parse(response.text)


@pytest.mark.usefixtures("_shop")
def test_script_carries_the_nonce_of_django_csp(settings: Any) -> None:
    settings.CONTENT_SECURITY_POLICY = {"DIRECTIVES": {"script-src": ["'self'", django_csp_nonce()]}}
    policy, found = policy_and_page(settings, "csp.middleware.CSPMiddleware")
    assert f"'nonce-{found.attributes('script')['nonce']}'" in policy
    assert found.page_call == ["Shop", "Product", {"sku": "A-1"}]


def django_csp_nonce() -> object:
    from csp.constants import NONCE

    return NONCE


@pytest.mark.usefixtures("_shop")
def test_script_carries_the_nonce_of_django_6(settings: Any) -> None:
    middleware = f"{__name__}.django_6_csp"
    if django.VERSION >= (6, 0):
        settings.SECURE_CSP = {"script-src": ["'self'", "<CSP_NONCE_SENTINEL>"]}
        middleware = "django.middleware.csp.ContentSecurityPolicyMiddleware"
    policy, found = policy_and_page(settings, middleware)
    assert f"'nonce-{found.attributes('script')['nonce']}'" in policy


def test_nonce_is_escaped_and_an_empty_one_left_out() -> None:
    request = RequestFactory().get("/")
    request.csp_nonce = '"><script>'  # type: ignore[attr-defined]
    assert parse(tag(request=request)).attributes("script") == {"nonce": '"><script>'}
    request.csp_nonce = ""  # type: ignore[attr-defined]
    assert parse(tag(request=request)).attributes("script") == {}


# several sources


def test_tag_reports_to_the_source_that_it_names(settings: Any) -> None:
    docs = {"WRITE_KEY": "docs-key", "API_HOST": "https://events.eu1.segmentapis.com"}
    settings.SEGMENT_FALLBACK = {"WRITE_KEY": "wk", "SOURCES": {"docs": docs}}
    config = parse(tag("source='docs'")).config
    assert config["k"] == "docs-key"
    assert "/docs-key/" in config["u"]
    assert config["o"]["integrations"]["Segment.io"]["apiHost"] == "events.eu1.segmentapis.com/v1"
    assert verify(config["t"]).source == "docs"


def test_tag_of_an_unknown_source_says_so(settings: Any) -> None:
    settings.DEBUG = True
    with pytest.raises(TemplateSyntaxError, match="SOURCES has no source 'nope' with a write key"):
        tag("source='nope'")
