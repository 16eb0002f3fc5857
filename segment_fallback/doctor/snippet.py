"""What became of our snippet on its way to the visitor."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from segment_fallback.conf import get_settings, get_source
from segment_fallback.doctor.finding import Findings, Level, kind
from segment_fallback.doctor.page import Page
from segment_fallback.page import script
from segment_fallback.page.token import InvalidToken, verify

SNIPPET_MISSING = kind(
    "page.snippet_missing",
    Level.ERROR,
    "Nobody is told of this page's views: neither Segment nor the site's own pixel.",
    "Put {% load segment_fallback %}{% segment_snippet %} last in the head of the base template, or set INJECT.",
)
SNIPPET_TWICE = kind(
    "page.snippet_twice",
    Level.WARNING,
    "The page is larger than it need be, and with noscript images each view without JavaScript counts twice.",
    "Keep one: look for a second {% segment_snippet %} in an included or an extended template.",
)
SNIPPET_OTHER = kind(
    "page.snippet_other",
    Level.ERROR,
    "Two snippets make two page calls with two messageIds: each view counts twice.",
    "Remove the other one, from the template, django-analytical or the tag manager; ours takes its place.",
)
SCRIPT_HELD_BACK = kind(
    "page.script_held_back",
    Level.ERROR,
    "A browser does not run a script of that type. Whatever is to run it later runs it too late, or never: whoever "
    "leaves before is not counted.",
    "Cloudflare: switch Rocket Loader off for these pages. A consent manager: let it leave this script alone and use "
    "the setting CONSENT, which waits for consent by itself.",
)
SNIPPET_ALTERED = kind(
    "page.snippet_altered",
    Level.WARNING,
    "Something between Django and the visitor has rewritten the script (an HTML optimiser, a minifier), or the page is "
    "a copy from before an upgrade or another setting. A rewritten script may no longer fall back.",
    "Purge the page from the caches. If it stays, let the optimiser leave inline scripts alone, or use "
    "EXTERNAL_SCRIPT.",
)
NOSCRIPT_MISSING = kind(
    "page.noscript_missing",
    Level.WARNING,
    "Visitors without JavaScript are not counted.",
    "Take noscript=False out of the tag, or let the HTML optimiser leave <noscript> alone.",
)
TOKEN_INVALID = kind(
    "page.token_invalid",
    Level.ERROR,
    "The site refuses each view of this page that comes by the pixel (token_invalid).",
    "If SECRET_KEY was changed, put the old one into SECRET_KEY_FALLBACKS, or purge the page from the caches. Run the "
    "doctor with the settings of the site that the URL belongs to.",
)
TOKEN_EXPIRED = kind(
    "page.token_expired",
    Level.ERROR,
    "A cache keeps this copy longer than TOKEN_MAX_AGE, and the site refuses its views (token_expired).",
    "Purge the page from the caches; let them keep it for less long, or raise TOKEN_MAX_AGE.",
)
TOKEN_PATH = kind(
    "page.token_path",
    Level.WARNING,
    "The site refuses a view without JavaScript whose Referer is another page than the token's (referer_mismatch).",
    "A proxy that rewrites paths must tell Django by SCRIPT_NAME. If one page is kept for several paths, let the cache "
    "tell the paths apart.",
)
CLASSIC = re.compile(
    r"SNIPPET_VERSION|cdn\.segment\.(?:com|io)/(?:analytics\.js|next-integrations|v1)|analytics\._writeKey"
    r"|/analytics\.js/v1/"
)
"""What Segment's own snippet has in it, in its versions and in other apps' copies."""

_LOAD = re.compile(r"\banalytics\.load\s*\(\s*[\"']")


def has_snippet(page: Page) -> Findings:
    """One snippet, ours."""
    hooks = page.hooks
    if not hooks and get_source() is None:
        yield SNIPPET_MISSING("The page has no snippet: WRITE_KEY is empty, so tracking is off.", level=Level.INFO)
    elif not hooks:
        yield SNIPPET_MISSING("The page has no snippet of ours.")
    elif len(hooks) > 1:
        lines = ", ".join(str(hook.element.line) for hook in hooks)
        yield SNIPPET_TWICE(f"The page has our snippet {len(hooks)} times, in lines {lines}.")
    else:
        yield SNIPPET_MISSING.ok(f"The snippet is there, in line {hooks[0].element.line}.")
    ours = {id(hook.element) for hook in hooks}
    for element in page.document.all("script"):
        text = element.attributes.get("src", "") or element.text
        loads = _LOAD.search(text) and (page.hook is None or page.hook.loads)
        if id(element) not in ours and (CLASSIC.search(text) or loads):
            yield SNIPPET_OTHER(f"Line {element.line} loads Segment's analytics.js by another snippet.")


def is_intact(page: Page) -> Findings:
    """The hook is as it was rendered, and a browser runs it."""
    for hook in page.hooks:
        attributes = hook.element.attributes
        if not hook.element.runs:
            kind_of = attributes["type"][:60]
            yield SCRIPT_HELD_BACK(f"The snippet's script has the type {kind_of!r}, which no browser runs.")
        elif "defer" in attributes or "async" in attributes:
            yield SNIPPET_ALTERED("The snippet's script was made async or defer, so that it runs later than it should.")
        elif hook.config is None:
            yield SNIPPET_ALTERED(
                "The snippet is there, but its script was rewritten: its configuration is unreadable."
            )
        elif not hook.is_external and not _is_ours(hook.element.text):
            yield SNIPPET_ALTERED("The snippet's script is not the one that this site renders now.")
        else:
            yield SNIPPET_ALTERED.ok("The snippet is as it was rendered.")


def _is_ours(text: str) -> bool:
    before, after = script.inline(get_settings(), "\0").split("\0")
    return text.startswith(before) and text.endswith(after)


def has_noscript(page: Page) -> Findings:
    """The image for visitors without JavaScript."""
    if page.hook is None or page.hook.config is None:
        return
    settings = get_settings()
    if settings.CONSENT.get("CALLBACK") or not settings.AUTOLOAD or not script.may_report(settings):
        return  # only the page's code knows whether it may
    start = f"{page.hook.config['b']}n/"
    found = [image for image in page.document.all("img") if image.attributes.get("src", "").startswith(start)]
    if not any(image.in_noscript for image in found):
        yield NOSCRIPT_MISSING("The page has no image of ours in <noscript>.")
    else:
        yield NOSCRIPT_MISSING.ok("The image for visitors without JavaScript is there.")


def has_token(page: Page) -> Findings:
    """The page's token is this site's, and as young as it must be."""
    if page.hook is None or page.hook.config is None:
        return
    try:
        described = verify(page.hook.config["t"])
    except InvalidToken:
        yield TOKEN_INVALID("The page's token was not signed with this site's SECRET_KEY.")
        return
    limit = get_settings().TOKEN_MAX_AGE
    days = max(described.age, 0) / 86_400
    if described.age > limit:
        yield TOKEN_EXPIRED(f"The page was rendered {int(days)} days ago; TOKEN_MAX_AGE allows {limit / 86_400:.0f}.")
    else:
        yield TOKEN_INVALID.ok(f"The page's token is valid, and {days:.0f} days old.")
    path = unquote(urlsplit(page.first.url).path, errors="replace") or "/"
    if described.path != path:
        yield TOKEN_PATH(f"The page's token is for {described.path[:100]!r}, and the page is at {path[:100]!r}.")
