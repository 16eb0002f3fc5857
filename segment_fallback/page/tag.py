"""What templates call, in Django's language and in Jinja2's: the snippet of their page, and its variations."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

from django.conf import settings as django_settings
from django.http import HttpRequest
from django.template import TemplateSyntaxError
from django.utils.safestring import SafeString

from segment_fallback.conf import DEFAULT_SOURCE, get_settings
from segment_fallback.log import log_fields
from segment_fallback.page.snippet import csp_nonce, render, variations_of
from segment_fallback.page.token import Page

logger = logging.getLogger("segment_fallback")


class Context(Protocol):
    """What a template of either language knows."""

    def get(self, key: str, /) -> Any: ...


def segment_snippet(
    context: Context,
    name: str | None = None,
    category: str | None = None,
    properties: Mapping[str, Any] | None = None,
    *,
    source: str = DEFAULT_SOURCE,
    noscript: bool = True,
    **more: Any,
) -> SafeString | str:
    """Segment's analytics.js with a fallback: ``{% segment_snippet "Product" category="Shop" sku=product.sku %}``.

    Put it last in the head. ``name`` and ``category`` are those of the page call; ``properties`` is a dict of
    further properties, and so are further keyword arguments. ``source`` is an alias of SOURCES. ``noscript=False``
    leaves the pixel for browsers without JavaScript out. Renders nothing where no WRITE_KEY is set.

    A mistake in the arguments or the set-up raises TemplateSyntaxError under DEBUG; on a live site it is logged,
    and the page goes without.
    """
    if not get_settings().WRITE_KEY:
        return ""
    try:
        request = _request(context)
        if not isinstance(request, HttpRequest):
            raise ValueError("the template has no request: render it with one, as render(request, …) does")
        if category and not name:
            raise ValueError("a category needs a name: analytics.js would take it for the name")
        if properties and not isinstance(properties, Mapping):
            raise TypeError(f"properties must be a dict, not {type(properties).__name__}")
        name, category = str(name) if name else None, str(category) if category else None
        page = Page(request.path, name, category, {**(properties or {}), **more}, source)
        return render(page, nonce=csp_nonce(request), noscript=noscript, seen=variations_of(request))
    except Exception as error:  # tracking never breaks a page: not by URLs that are not mounted either
        if django_settings.DEBUG:
            raise TemplateSyntaxError(f"segment_snippet: {error}") from error
        logger.exception("segment_snippet: nothing was rendered", extra=log_fields("render_failed"))
        return ""


def segment_variation(context: Context, experiment: str | None = None) -> str:
    """Which variation of the page its visitor gets: ``{% segment_variation as variation %}``, or as a text.

    ``experiment`` says of which, where a page takes part in several; by default of the last that was decided. Empty
    where the page has none.
    """
    visitor = getattr(_request(context), "segment", None)
    if experiment is None:
        return getattr(visitor, "variation", None) or ""
    return str(getattr(visitor, "variations", {}).get(experiment, ""))


def _request(context: Context) -> Any:
    return getattr(context, "request", None) or context.get("request")
