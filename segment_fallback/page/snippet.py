"""What a page carries: pure functions from a page to its HTML. Nothing here differs by visitor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlsplit

from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from segment_fallback.conf import Settings, Source, get_settings, get_source
from segment_fallback.message import normalise
from segment_fallback.names import endpoint_names, hint_cookie, public_key
from segment_fallback.page import script
from segment_fallback.page.token import Page, sign

_SCRIPT_ESCAPES = {ord("<"): "\\u003C", ord(">"): "\\u003E", ord("&"): "\\u0026"}


def render(
    page: Page, *, nonce: str | None = None, noscript: bool = True, seen: Mapping[str, str] | None = None
) -> SafeString:
    """The snippet of a page: the page's script, and the pixel for browsers that run none.

    ``nonce`` is that of the response's Content-Security-Policy; ``seen`` says which variations the page shows, by
    experiment. Raises InvalidMessage for a property that has no form in JSON, and ValueError for an unknown source, or
    a description of the page too long for its token.
    """
    settings = get_settings()
    page = replace(page, properties=normalise(page.properties))
    token = sign(page)
    config = configuration(page, token)
    if settings.varies:
        ask = reverse("segment_fallback:variations", args=[endpoint_names()[0]])
        config |= {"ask": ask, "seen": dict(seen or {})}
    nonce_attribute = format_html(' nonce="{}"', nonce) if nonce else ""
    if settings.EXTERNAL_SCRIPT:
        url = reverse("segment_fallback:page_script", args=[endpoint_names()[0], script.digest(settings)])
        html = format_html('<script{} src="{}" data-page="{}"></script>', nonce_attribute, url, _json(config))
    else:
        source = script.inline(settings, _json(config).translate(_SCRIPT_ESCAPES))
        html = mark_safe(f"<script{nonce_attribute}>{source}</script>")  # noqa: S308 - escaped above
    # Where only the page's own code knows of a visitor's consent, nobody can know it of one who runs no code.
    only_code_knows = settings.CONSENT.get("CALLBACK") or not settings.AUTOLOAD or not script.may_report(settings)
    return html + render_noscript(token) if noscript and not only_code_knows else html


def csp_nonce(request: HttpRequest) -> str | None:
    """The nonce of the response's Content-Security-Policy: django-csp's, or that of Django 6.0 and later."""
    # Both are lazy; reading one is what puts it into the header. They are falsy until then.
    for attribute in ("csp_nonce", "_csp_nonce"):
        nonce = getattr(request, attribute, None)
        if nonce is not None:
            return str(nonce)
    return None


def variations_of(request: HttpRequest) -> Mapping[str, str]:
    """The variations that the page shows, by experiment."""
    return getattr(getattr(request, "segment", None), "variations", {})


def render_noscript(token: str) -> SafeString:
    """The pixel for browsers that run no scripts; the server mints its messageId.

    Turbo and htmx parse the pages that they fetch as if there were no scripts, and there the image is one. Where
    scripts run, ``picture`` shows something else, which is nothing.
    """
    url = reverse("segment_fallback:noscript", args=[endpoint_names()[0], token])
    # The page's own policy may hide the Referer by which the pixel knows its page.
    return format_html(
        '<noscript><picture><source media="(scripting:enabled)" srcset="data:,">'
        '<img src="{}" alt="" width="1" height="1" referrerpolicy="same-origin"></picture></noscript>',
        url,
    )


def configuration(page: Page, token: str) -> dict[str, Any]:
    """The argument of the page's script; its keys are explained at the head of ``snippet.js``, and of its parts.

    Pages that caches keep must go on working with later scripts: a key keeps its meaning.
    """
    settings, source = get_settings(), get_source(page.source)
    if source is None:
        raise ValueError(f"SOURCES has no source {page.source!r} with a write key")
    name = endpoint_names()[0]
    config: dict[str, Any] = {
        **_library(settings, source, name),
        "a": [page.category, page.name, page.properties],
        "b": base(name),
        "t": token,
        "c": name,
        "w": round(settings.PATIENCE * 1000),
    }
    if settings.COOKIELESS:
        config["n"] = 1
    if settings.AUTOLOAD:
        config["o"] = normalise(load_options(settings, source.api_host))
    if settings.FIRST_PARTY:
        config["api"] = reverse("segment_fallback:events", args=[name, "p"]).removesuffix("p")
    if settings.CONSENT:
        config["consent"] = consent(settings.CONSENT)
    if settings.IDENTIFY:
        config |= {"hint": hint_cookie(), "me": reverse("segment_fallback:who_am_i", args=[name])}
    if settings.NAVIGATION == "auto":
        config["auto"] = 1
    return config


def _library(settings: Settings, source: Source, name: str) -> dict[str, str]:
    """Where analytics.js comes from, and the write key that it is to use."""
    if settings.FIRST_PARTY:
        key = public_key(source.alias)
        url = reverse("segment_fallback:script", args=[name, key])
        return {"k": key, "h": url.removesuffix(f"/{key}"), "u": url}
    cdn = settings.CDN_HOST.rstrip("/")
    url = f"{cdn}/analytics.js/v1/{quote(source.write_key, safe='')}/analytics.min.js"
    # analytics.js recognises its own URL over https only.
    return {"k": source.write_key, "u": url, **({} if cdn.startswith("https:") else {"h": cdn})}


def consent(setting: Mapping[str, Any]) -> dict[str, Any]:
    """CONSENT, as the page's script reads it."""
    if "COOKIE" not in setting:
        return {}
    told = {"n": setting["COOKIE"], "v": setting.get("VALUE", "")}
    return {**told, "v": setting["CONTAINS"], "x": 1} if "CONTAINS" in setting else told


def base(name: str) -> str:
    """The URL below which our endpoints are."""
    return reverse("segment_fallback:calls", args=[name]).removesuffix("q")


def load_options(settings: Settings, api_host: str) -> dict[str, Any]:
    """The options of ``analytics.load``."""
    options: dict[str, Any] = {"useQueryString": False, **settings.LOAD_OPTIONS}
    if settings.COOKIELESS:
        options["disableClientPersistence"] = True
    if settings.FIRST_PARTY:
        # The names of destinations, which blockers look for in URLs, in a form of the site's own: see cdn/opaque.py.
        return {"obfuscate": True, **options}
    if api_host != Settings.API_HOST:
        host = urlsplit(api_host)
        integrations: Mapping[str, Any] = options.get("integrations", {})
        segment = {"apiHost": f"{host.netloc}/v1", "protocol": host.scheme}
        own = integrations.get("Segment.io", True)  # a dict of options, or whether to send at all
        if own is True or isinstance(own, Mapping):
            own = {**segment, **(own if isinstance(own, Mapping) else {})}
        options["integrations"] = {**integrations, "Segment.io": own}
    return options


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)
