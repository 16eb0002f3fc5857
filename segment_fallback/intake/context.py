"""What a browser's request tells of the visit, in the form in which analytics.js tells it.

The rules are those of ``@segment/analytics-next`` 1.84 (MIT): its page tools and its environment enrichment.
"""

from __future__ import annotations

import functools
import re
from typing import Any
from urllib.parse import quote, unquote_plus, urlsplit

from django.http import HttpRequest

from segment_fallback import __version__
from segment_fallback.message import Way

_BRAND = re.compile(r'"((?:[^"\\]|\\.)*)"\s*;\s*v="([^"]*)"')


def environment(request: HttpRequest) -> dict[str, Any]:
    """``userAgent``, ``userAgentData`` and ``locale``, from the headers that carry them."""
    header = request.META.get
    context: dict[str, Any] = {"userAgent": header("HTTP_USER_AGENT", "")[:1000]}
    if brands := _brands(header("HTTP_SEC_CH_UA", "")[:1000]):
        context["userAgentData"] = {
            "brands": [{"brand": brand, "version": version} for brand, version in brands],
            "mobile": header("HTTP_SEC_CH_UA_MOBILE") == "?1",
            "platform": header("HTTP_SEC_CH_UA_PLATFORM", "")[:100].strip('"'),
        }
    # The first language of the list is navigator.language.
    if locale := header("HTTP_ACCEPT_LANGUAGE", "").partition(",")[0].partition(";")[0].strip()[:35]:
        context["locale"] = locale
    return context


@functools.lru_cache(maxsize=100)  # a version of a browser says the same to all
def _brands(header: str) -> list[tuple[str, str]]:
    return _BRAND.findall(header)


def library(way: Way) -> dict[str, str]:
    """``context.library`` of an event that we make ourselves."""
    return {"name": "django-segment-fallback", "version": __version__, "way": way.value}


def page_context(*, origin: str, path: str, search: str, title: str, referrer: str, canonical: str) -> dict[str, str]:
    """``context.page``: path and url follow ``<link rel=canonical>`` where the page has one."""
    url = origin + path + search
    if canonical:
        path = _canonical_path(canonical)
        url = canonical if "?" in canonical else canonical + search
    return {"path": path, "referrer": referrer, "search": search, "title": title, "url": url}


def _canonical_path(canonical: str) -> str:
    try:
        parts = urlsplit(canonical)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme and parts.netloc:
        return quote(parts.path, safe="/%:@!$&'()*+,;=~-._") or "/"
    return canonical if canonical.startswith("/") else "/" + canonical


def campaign(search: str) -> dict[str, str]:
    """``context.campaign`` from the ``utm_`` parameters; ``utm_campaign`` is its ``name``."""
    found: dict[str, str] = {}
    if "utm_" not in search:
        return found
    for parameter in search.removeprefix("?").replace("?", "&").split("&"):
        key, _, value = parameter.partition("=")
        if "utm_" in key and len(key) > 4:
            found["name" if key[4:] == "campaign" else key[4:]] = unquote_plus(value)
    return found
