"""Whether the site's own endpoints answer from outside as they must, and where the page's scripts come from."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

from segment_fallback.checks import LIST_PRONE
from segment_fallback.doctor.cache import is_hit
from segment_fallback.doctor.fetch import Answer, NoAnswer, fetch, without_login
from segment_fallback.doctor.finding import Findings, Level, kind
from segment_fallback.doctor.page import Page, our_urls
from segment_fallback.intake.pixel import GIF

UNREACHABLE = kind(
    "endpoint.unreachable",
    Level.ERROR,
    "Where analytics.js is blocked, no view of this page arrives.",
    "Look whether the edge or a firewall cuts this path off.",
)
MISSING = kind(
    "endpoint.missing",
    Level.ERROR,
    "Where analytics.js is blocked, no view of this page arrives.",
    "Mount segment_fallback.urls where the page says, let the edge pass that path, or purge a page that is older than "
    "the mount, the SECRET_KEY or the ENDPOINT_NAME.",
)
REDIRECTED = kind(
    "endpoint.redirected",
    Level.ERROR,
    "A redirect costs the beacon and the Tracking API their event, and the pixel its Referer.",
    "Serve the page by the scheme and host to which it redirects; look at SECURE_SSL_REDIRECT (behind a proxy it needs "
    "SECURE_PROXY_SSL_HEADER), PREPEND_WWW and the edge's own rules.",
)
REFUSED = kind(
    "endpoint.refused",
    Level.ERROR,
    "Where analytics.js is blocked, no view of this page arrives.",
    "400: the edge must pass Host, and ALLOWED_HOSTS have it. 403: look at logins, firewalls and bot protection. 5xx: "
    "see the site's log; 503 says that buffer and spool are both down.",
)
ALTERED = kind(
    "endpoint.altered",
    Level.ERROR,
    "What the page's script hears is not from our view, so that it takes a loss for a success.",
    "Let the edge pass this path as it is (docs/how-to/edge-caching.md): no image optimiser, and no catch-all page of "
    "another app.",
)
KEPT = kind(
    "endpoint.kept",
    Level.ERROR,
    "A cache answers in the site's place: those views never arrive.",
    "Let the edge pass everything below our mount but c/ and f/: docs/how-to/edge-caching.md.",
)
STORABLE = kind(
    "endpoint.storable",
    Level.WARNING,
    "The answer has lost its Cache-Control: no-store, so browsers and caches may keep it and send no view.",
    "Let the edge leave the headers of this path alone.",
)
LISTED = kind(
    "endpoint.listed",
    Level.WARNING,
    "Blockers' lists look for such words in any site's URLs: the pixel is blocked, too.",
    "Mount the URLs at a short path that means nothing, such as 's/', or choose another ENDPOINT_NAME.",
)
SCRIPT_MISSING = kind(
    "endpoint.script_missing",
    Level.ERROR,
    "With EXTERNAL_SCRIPT this file is all there is: without it nothing is loaded and nothing is reported.",
    "Let the edge pass f/ below our mount, and purge pages that are older than the mount.",
)
LIBRARY_MISSING = kind(
    "endpoint.library_missing",
    Level.WARNING,
    "Every view comes by the pixel, after the visitor has waited for analytics.js in vain.",
    "Does the source exist, and is CDN_HOST right? With FIRST_PARTY: can this site reach CDN_HOST?",
)


def pixel_answers(page: Page) -> Findings:
    """The pixel gives its GIF to a hit that it refuses: a noscript image with a token that is none."""
    urls = [page.hook.config["b"]] if page.hook and page.hook.config else our_urls()[:1]
    if not urls:
        return
    url = urljoin(page.first.url, f"{urls[0]}n/doctor")
    answer = fetch(url, follow=False, Referer=without_login(page.first.url), Accept="image/*")
    path = urlsplit(url).path
    if isinstance(answer, NoAnswer):
        yield UNREACHABLE(f"The pixel, {path}, does not answer: {answer.detail}.")
    elif 300 <= answer.status < 400:
        yield REDIRECTED(f"The pixel, {path}, redirects to {answer.headers.get('Location', '')[:100]!r}.")
    elif answer.status == 404:
        yield MISSING(f"The pixel, {path}, is not there (404).")
    elif answer.status != 200:
        yield REFUSED(f"The pixel, {path}, answers with status {answer.status}.")
    elif answer.body != GIF:
        yield ALTERED(
            f"The pixel, {path}, answers with {answer.content_type[:60] or 'something'!r} that is not our GIF."
        )
    else:
        yield from _passed_uncached(url, path, answer)


def _passed_uncached(url: str, path: str, answer: Answer) -> Findings:
    again = fetch(url, follow=False, Accept="image/*")
    if isinstance(again, Answer) and is_hit(again):
        yield KEPT(f"The pixel, {path}, was answered by a cache.")
    elif "no-store" not in answer.headers.get("Cache-Control", "").lower():
        yield STORABLE(f"The pixel, {path}, answers without Cache-Control: no-store.")
    else:
        yield REFUSED.ok(f"The pixel answers at {path}, and no cache keeps it.")


def path_means_nothing(page: Page) -> Findings:
    """No word of blockers' lists in the path of our endpoints."""
    if page.hook is None or page.hook.config is None:
        return
    url = str(page.hook.config["b"])
    word = LIST_PRONE.search(url)
    if word:
        yield LISTED(f"The path of our endpoints, {url[:100]!r}, has the segment {word[1]!r}.")
    else:
        yield LISTED.ok("The path of our endpoints has no word of blockers' lists.")


def scripts_come(page: Page) -> Findings:
    """analytics.js, and the page's own script where that is a file."""
    if page.hook is None or page.hook.config is None:
        return
    if page.hook.is_external:
        fault = _no_script(urljoin(page.first.url, page.hook.element.attributes.get("src", "")))
        if fault:
            yield SCRIPT_MISSING(f"The page's script does not come: {fault}.")
    fault = _no_script(urljoin(page.first.url, str(page.hook.config["u"])))
    if fault:
        yield LIBRARY_MISSING(f"analytics.js does not come: {fault}.")
    else:
        yield LIBRARY_MISSING.ok("analytics.js comes.")


def _no_script(url: str) -> str:
    """Why there is no script at a URL; empty where there is. Does not name the URL: it may have the write key."""
    answer = fetch(url, Accept="*/*")
    if isinstance(answer, NoAnswer):
        return answer.detail
    if answer.status != 200:
        return f"status {answer.status}"
    return "" if "javascript" in answer.content_type else f"it has Content-Type {answer.content_type[:60]!r}"
