"""Templates of Jinja2, by Django's own backend for them, beside Django's templates."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.template import TemplateSyntaxError, engines
from django.test import Client, RequestFactory, override_settings
from django.urls import include, path
from jinja2 import Environment, StrictUndefined

from segment_fallback.jinja2 import SegmentExtension, segment_globals
from tests.page.html import parse

EXTENSION = {"extensions": ["segment_fallback.jinja2.SegmentExtension"]}
DJANGO = "{% load segment_fallback %}{% segment_snippet "


def with_globals(**options: Any) -> Environment:
    """What a site writes that has an environment of its own."""
    environment = Environment(**options)  # noqa: S701 - Django's backend asks for autoescape
    environment.globals.update(segment_globals)
    return environment


def engine(**options: Any) -> Any:
    """Django's backend of Jinja2."""
    with override_settings(TEMPLATES=[{"BACKEND": "django.template.backends.jinja2.Jinja2", "OPTIONS": options}]):
        return engines["jinja2"]


def render(source: str, request: HttpRequest | None = None, options: Any = None, **context: Any) -> str:
    request = request or RequestFactory().get("/shop/?utm_source=x")
    html: str = engine(**(EXTENSION if options is None else options)).from_string(source).render(context, request)
    return html


@pytest.fixture
def _still(monkeypatch: pytest.MonkeyPatch) -> None:
    """The moment at which a page was rendered is in its token."""
    monkeypatch.setattr("time.time", lambda: 1_790_000_000.0)


@pytest.mark.usefixtures("_still")
@pytest.mark.parametrize("options", [EXTENSION, {"environment": f"{__name__}.with_globals"}], ids=["extension", "own"])
@pytest.mark.parametrize(
    ("jinja", "django"),
    [
        ("", ""),
        ("'Product'", "'Product'"),
        ("'Product', category='Shop', sku=product.sku", "'Product' category='Shop' sku=product.sku"),
        ("name, properties=extra, noscript=False", "name properties=extra noscript=False"),
        ("missing, sku=product.missing", "missing sku=product.missing"),
    ],
)
def test_function_renders_the_bytes_of_the_tag(options: Any, jinja: str, django: str) -> None:
    context = {"name": "</script>&", "product": {"sku": "A-1"}, "extra": {"colour": "<red>"}}
    request = RequestFactory().get("/shop/?utm_source=x")
    by_tag = engines["django"].from_string(f"{DJANGO}{django} %}}").render(context, request)
    assert by_tag.startswith("<script>")
    assert render(f"{{{{ segment_snippet({jinja}) }}}}", request, options, **context) == by_tag


def test_variation_is_that_of_the_page() -> None:
    request = RequestFactory().get("/")
    request.segment = type("Visitor", (), {"variation": "b", "variations": {"price": "low"}})  # type: ignore[attr-defined]
    text = (
        "{% set found = segment_variation() %}{{ found }}, {{ segment_variation('price') }}{{ segment_variation('x') }}"
    )
    assert render(text, request) == "b, low"
    assert render("{{ segment_variation() }}") == ""


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("category='Shop'", "a category needs a name"),
        ("sku=product", "has no form in JSON"),
        ("source='nope'", "SOURCES has no source 'nope'"),
    ],
)
def test_mistake_is_raised_under_debug_and_logged_on_a_live_site(
    settings: Any, caplog: pytest.LogCaptureFixture, call: str, message: str
) -> None:
    source = f"{{{{ segment_snippet({call}) }}}}"
    assert render(source, product=object()) == ""
    [record] = caplog.records
    assert (record.name, record.levelno) == ("segment_fallback", logging.ERROR)
    settings.DEBUG = True
    with pytest.raises(TemplateSyntaxError, match=message):
        render(source, product=object())


def test_strict_environment_is_told_of_what_there_is_not(settings: Any) -> None:
    strict = {**EXTENSION, "undefined": StrictUndefined}
    assert render("{{ segment_snippet(sku=product) }}", options=strict) == ""
    settings.DEBUG = True
    with pytest.raises(TemplateSyntaxError, match="StrictUndefined has no form in JSON"):
        render("{{ segment_snippet(sku=product) }}", options=strict)


def test_macro_that_is_imported_without_its_page_says_so(settings: Any) -> None:
    """``{% import %}`` hides the request; ``with context`` shows it."""
    settings.DEBUG = True
    jinja = engine(**EXTENSION)
    jinja.env.loader = type(jinja.env.loader)(searchpath=[])
    macro = jinja.env.from_string("{% macro head() %}{{ segment_snippet() }}{% endmacro %}")
    request = RequestFactory().get("/shop/")
    with pytest.raises(TemplateSyntaxError, match="the template has no request"):
        jinja.from_string("{% import macro as m %}{{ m.head() }}").render({"macro": macro}, request)
    page = jinja.from_string("{% import macro as m with context %}{{ m.head() }}").render({"macro": macro}, request)
    assert parse(page).page_call == [None, None, {}]


def test_extension_leaves_what_the_environment_has() -> None:
    environment = Environment(autoescape=True)
    environment.globals["segment_snippet"] = "mine"
    environment.add_extension(SegmentExtension)
    assert environment.globals["segment_snippet"] == "mine"
    assert "segment_variation" in environment.globals


def shop(request: HttpRequest) -> HttpResponse:
    return HttpResponse(render("{{ segment_snippet('Shop') }}", request))


urlpatterns = [path("shop/", shop), path("s/", include("segment_fallback.urls"))]


@pytest.mark.usefixtures("_still")
def test_page_of_a_view_carries_the_nonce_of_its_policy(settings: Any) -> None:
    from csp.constants import NONCE

    settings.ROOT_URLCONF = __name__
    settings.CONTENT_SECURITY_POLICY = {"DIRECTIVES": {"script-src": [NONCE]}}
    settings.MIDDLEWARE = [*settings.MIDDLEWARE, "csp.middleware.CSPMiddleware"]
    response = Client().get("/shop/")
    found = parse(response.text)
    assert found.page_call == [None, "Shop", {}]
    assert f"'nonce-{found.attributes('script')['nonce']}'" in response["Content-Security-Policy"]


def test_module_without_jinja2_names_the_extra_that_brings_it() -> None:
    code = "import sys; sys.modules['jinja2'] = None; import segment_fallback.jinja2"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert run.stderr.splitlines()[-1] == (
        "segment_fallback.exceptions.MissingExtra: segment_fallback.jinja2 needs an optional package: "
        "pip install 'django-segment-fallback[jinja2]'"
    )
