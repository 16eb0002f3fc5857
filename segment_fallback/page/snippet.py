"""What a page carries: pure functions from a page to its HTML. Nothing here differs by visitor."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from typing import Any
from urllib.parse import quote, urlsplit

from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from segment_fallback.conf import Settings, get_settings, get_source
from segment_fallback.message import normalise
from segment_fallback.names import endpoint_names
from segment_fallback.page.token import Page, sign

_SCRIPT_ESCAPES = {ord("<"): "\\u003C", ord(">"): "\\u003E", ord("&"): "\\u0026"}


def render(page: Page, *, nonce: str | None = None, noscript: bool = True) -> SafeString:
    """The snippet of a page: the inline script, and the pixel for browsers that run none.

    ``nonce`` is that of the response's Content-Security-Policy. Raises InvalidMessage for a property that has no
    form in JSON, and ValueError for an unknown source, or a description of the page too long for its token.
    """
    page = replace(page, properties=normalise(page.properties))
    token = sign(page)
    script = script_source() + "(" + _json_in_script(configuration(page, token)) + ")"
    nonce_attribute = format_html(' nonce="{}"', nonce) if nonce else ""
    html = f"<script{nonce_attribute}>{script}</script>"
    return mark_safe(html + render_noscript(token) if noscript else html)  # noqa: S308 - escaped above


def render_noscript(token: str) -> SafeString:
    """The pixel for browsers that run no scripts; the server mints its messageId."""
    url = reverse("segment_fallback:noscript", args=[endpoint_names()[0], token])
    # The page's own policy may hide the Referer by which the pixel knows its page.
    return format_html(
        '<noscript><img src="{}" alt="" width="1" height="1" referrerpolicy="same-origin"></noscript>', url
    )


def configuration(page: Page, token: str) -> dict[str, Any]:
    """The argument of the page's script; its keys are explained at the head of ``snippet.js``."""
    settings, source = get_settings(), get_source(page.source)
    if source is None:
        raise ValueError(f"SOURCES has no source {page.source!r} with a write key")
    key = quote(source.write_key, safe="")
    cdn = settings.CDN_HOST.rstrip("/")
    name = endpoint_names()[0]
    return {
        "k": source.write_key,
        "h": cdn,
        "u": f"{cdn}/analytics.js/v1/{key}/analytics.min.js",
        "o": normalise(load_options(settings, source.api_host)),
        "a": [page.category, page.name, page.properties],
        "p": pixel_base(name),
        "t": token,
        "c": name,
        "w": round(settings.PATIENCE * 1000),
        "g": int(settings.HONOUR_GPC),
        "d": int(settings.HONOUR_DNT),
    }


def pixel_base(name: str) -> str:
    """The URL of the pixel, up to the messageId that the browser mints."""
    example = "0" * 32
    return reverse("segment_fallback:pixel", args=[name, example, "W10"])[: -len(example) - len("/W10")]


def load_options(settings: Settings, api_host: str) -> dict[str, Any]:
    """The options of ``analytics.load``."""
    options: dict[str, Any] = {"useQueryString": False, **settings.LOAD_OPTIONS}
    if api_host != Settings.API_HOST:
        host = urlsplit(api_host)
        integrations: Mapping[str, Any] = options.get("integrations", {})
        segment = {"apiHost": f"{host.netloc}/v1", "protocol": host.scheme}
        own = integrations.get("Segment.io", True)  # a dict of options, or whether to send at all
        if own is True or isinstance(own, Mapping):
            own = {**segment, **(own if isinstance(own, Mapping) else {})}
        options["integrations"] = {**integrations, "Segment.io": own}
    return options


@functools.cache
def script_source() -> str:
    """The minified script as an expression: a function that takes the configuration."""
    source = resources.files("segment_fallback").joinpath("static/segment_fallback/snippet.min.js").read_text("utf-8")
    return source.strip().removesuffix("(CONFIG);")


def _json_in_script(value: object) -> str:
    """JSON that is data wherever it stands in a script: no tag, no entity and no line separator can end it."""
    return json.dumps(value, separators=(",", ":"), allow_nan=False).translate(_SCRIPT_ESCAPES)
