"""What a page carries: pure functions from a page to its HTML. Nothing here differs by visitor."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from django.core.signals import setting_changed
from django.http import HttpRequest
from django.urls import get_script_prefix, get_urlconf, reverse
from django.utils.html import escape, format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import get_language

from segment_fallback.conf import Settings, Source, get_settings, get_source
from segment_fallback.message import normalise
from segment_fallback.names import endpoint_names, hint_cookie, public_key, secrets
from segment_fallback.page import script
from segment_fallback.page.token import Page, sign

MAX_FRAMES = 200
"""Of some kilobytes each, in a process."""


def render(
    page: Page, *, nonce: str | None = None, noscript: bool = True, seen: Mapping[str, str] | None = None
) -> SafeString:
    """The snippet of a page: the page's script, and the pixel for browsers that run none.

    ``nonce`` is that of the response's Content-Security-Policy; ``seen`` says which variations the page shows, by
    experiment. Raises InvalidMessage for a property that has no form in JSON, and ValueError for an unknown source, or
    a description of the page too long for its token.
    """
    frame, token = frames.of(page.source), sign(page)
    own = configuration_of(page, token)
    if get_settings().varies:
        own["seen"] = dict(seen or {})
    nonce_attribute = format_html(' nonce="{}"', nonce) if nonce else ""
    script_element = f"<script{nonce_attribute}{frame.before}{frame.escape(_json(own)[1:])}{frame.after}"
    pixel = f"{frame.noscript[0]}{token}{frame.noscript[1]}" if noscript and frame.noscript else ""
    return mark_safe(script_element + pixel)  # noqa: S308 - escaped above; a token has nothing to escape


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


def configuration(page: Page, token: str) -> dict[str, Any]:
    """The argument of the page's script; its keys are explained at the head of ``snippet.js``, and of its parts.

    Pages that caches keep must go on working with later scripts: a key keeps its meaning.
    """
    return {**shared_configuration(page.source), **configuration_of(page, token)}


def configuration_of(page: Page, token: str) -> dict[str, Any]:
    """As far as it is the page's own."""
    return {"a": [page.category, page.name, page.plain_properties], "t": token}


def shared_configuration(alias: str) -> dict[str, Any]:
    """As far as all pages of a source have it alike. Raises ValueError where there is no such source."""
    settings, source = get_settings(), get_source(alias)
    if source is None:
        raise ValueError(f"SOURCES has no source {alias!r} with a write key")
    name = endpoint_names()[0]
    config: dict[str, Any] = {
        **_library(settings, source, name),
        "b": base(name),
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
    if settings.varies:
        config["ask"] = reverse("segment_fallback:variations", args=[name])
    return config


@dataclass(frozen=True)
class Frame:
    """The HTML around what is a page's own: the same for all pages of a source, and most of the work."""

    before: str
    """From where the script element's nonce would be, to the configuration's first key of the page's own."""
    after: str
    """From the end of the configuration."""
    escape: Callable[[str], str]
    """For the JSON between the two."""
    noscript: tuple[str, str] | None
    """Around the token; None where only code knows of a visitor's consent."""


def make_frame(alias: str) -> Frame:
    """The frame of a source's pages. Raises ValueError where there is no such source."""
    settings = get_settings()
    shared = f"{_json(shared_configuration(alias))[:-1]},"
    # Where only the page's own code knows of a visitor's consent, nobody can know it of one who runs no code.
    only_code_knows = settings.CONSENT.get("CALLBACK") or not settings.AUTOLOAD or not script.may_report(settings)
    noscript = None if only_code_knows else _noscript()
    if settings.EXTERNAL_SCRIPT:
        url = reverse("segment_fallback:page_script", args=[endpoint_names()[0], script.digest(settings)])
        return Frame(format_html(' src="{}" data-page="{}', url, shared), '"></script>', escape, noscript)
    before, _, after = script.inline(settings, "\0").partition("\0")
    return Frame(f">{before}{_escape_for_script(shared)}", f"{after}</script>", _escape_for_script, noscript)


def _noscript() -> tuple[str, str]:
    """The pixel for browsers that run no scripts, around its token; the server mints its messageId.

    Turbo and htmx parse the pages that they fetch as if there were no scripts, and there the image is one. Where
    scripts run, ``picture`` shows something else, which is nothing.
    """
    url = reverse("segment_fallback:noscript", args=[endpoint_names()[0], "-"]).removesuffix("-")
    # The page's own policy may hide the Referer by which the pixel knows its page.
    return (
        '<noscript><picture><source media="(scripting:enabled)" srcset="data:,">' + format_html('<img src="{}', url),
        '" alt="" width="1" height="1" referrerpolicy="same-origin"></picture></noscript>',
    )


class Frames:
    """The frames that this process has made. Each depends on the settings, and on where our URLs are mounted."""

    def __init__(self) -> None:
        self._made_for: Settings | None = None
        self._made: dict[object, Frame] = {}

    def of(self, alias: str) -> Frame:
        """The frame of a source's pages, here and now. Raises ValueError where there is no such source."""
        settings = get_settings()
        if settings is not self._made_for:
            self._made = {}
            self._made_for = settings
        made = self._made
        place = alias, get_urlconf(), get_script_prefix(), get_language(), secrets()
        frame = made.get(place)
        if frame is None:
            if len(made) >= MAX_FRAMES:
                made.clear()
            frame = made[place] = make_frame(alias)
        return frame

    def forget(self, **kwargs: Any) -> None:
        """For tests, which change Django's settings."""
        self.__init__()  # type: ignore[misc]


frames = Frames()
setting_changed.connect(frames.forget, dispatch_uid="segment_fallback.frames")


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


def _escape_for_script(text: str) -> str:
    return text.replace("<", "\\u003C").replace(">", "\\u003E").replace("&", "\\u0026")


_json = json.JSONEncoder(separators=(",", ":"), allow_nan=False).encode
