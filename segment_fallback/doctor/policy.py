"""Referrer-Policy and consent: what may stop a snippet that is there."""

from __future__ import annotations

import re
from urllib.parse import urljoin

from segment_fallback.conf import get_settings
from segment_fallback.doctor.fetch import Answer, fetch, origin
from segment_fallback.doctor.finding import Findings, Level, kind
from segment_fallback.doctor.html import Element
from segment_fallback.doctor.page import Page
from segment_fallback.doctor.trackers import consent_managers

REFERRER = kind(
    "policy.referrer",
    Level.WARNING,
    "The pixel knows its page by the Referer. The script's image asks for one all the same; beacons, and an image that "
    "has lost its attribute, come without, and are believed by the page's cookie only.",
    "Send Referrer-Policy: same-origin, or strict-origin-when-cross-origin: neither tells other sites more.",
)
REFERRER_STRICT = kind(
    "policy.referrer_strict",
    Level.ERROR,
    "STRICT_REFERER refuses each hit without a Referer (referer_missing), and this policy strips it from beacons.",
    "Send Referrer-Policy: same-origin, or set STRICT_REFERER to False.",
)
CONSENT_IGNORED = kind(
    "policy.consent_ignored",
    Level.WARNING,
    "The page asks visitors for consent, and the snippet does not wait for their answer.",
    "Name the manager's cookie in CONSENT (docs/how-to/consent.md), or set AUTOLOAD to False for Segment's consent "
    "wrapper.",
)
CONSENT_UNSEEN = kind(
    "policy.consent_unseen",
    Level.WARNING,
    "Nothing is tracked before the visitor's consent is told; if nobody ever tells it, nothing is tracked at all.",
    "Compare CONSENT with what your consent manager does, by name and in upper and lower case: docs/how-to/consent.md.",
)
NO_LOAD = kind(
    "policy.no_load",
    Level.WARNING,
    "With AUTOLOAD = False nothing is loaded, sent or reported before the page's own code calls analytics.load().",
    "Call it, by Segment's consent wrapper say, or leave AUTOLOAD at True.",
)

STRIPPING = {"no-referrer", "origin", "strict-origin"}
"""Policies that keep the path even from the site itself."""
_POLICIES = {
    *STRIPPING,
    "no-referrer-when-downgrade",
    "same-origin",
    "origin-when-cross-origin",
    "strict-origin-when-cross-origin",
    "unsafe-url",
}
MAX_SCRIPTS = 10
"""How many scripts of the page are read."""

_LOAD = re.compile(r"analytics\.load\b|withOneTrust|createWrapper|analytics-consent")


def keeps_referer(page: Page) -> Findings:
    """The page's policy lets the site itself know which page sends a hit."""
    told = page.first.headers.get("Referrer-Policy", "").split(",")
    metas = [word for content in page.document.meta("name", "referrer") for word in content.split(",")]
    known = [word.strip().lower() for word in [*told, *metas] if word.strip().lower() in _POLICIES]
    policy = known[-1] if known else "strict-origin-when-cross-origin"
    if policy in STRIPPING and get_settings().STRICT_REFERER:
        yield REFERRER_STRICT(f"The page's Referrer-Policy is {policy}, and STRICT_REFERER is on.")
    elif policy in STRIPPING:
        bare = [image.line for image in _our_images(page) if image.attributes.get("referrerpolicy") != "same-origin"]
        lost = f"; and the image in line {bare[0]} has lost its referrerpolicy" if bare else ""
        yield REFERRER(f"The page's Referrer-Policy is {policy}{lost}.", level=None if bare else Level.INFO)
    else:
        yield REFERRER.ok(f"The page's Referrer-Policy, {policy}, leaves the site its Referer.")


def _our_images(page: Page) -> list[Element]:
    base = (page.hook.config or {}).get("b") if page.hook else None
    images = page.document.all("img")
    return [image for image in images if base and image.attributes.get("src", "").startswith(f"{base}n/")]


def waits_for_consent(page: Page) -> Findings:
    """Whoever is asked for consent is heard: the manager on the page and the settings agree."""
    hook, setting, managers = page.hook, get_settings().CONSENT, consent_managers(page)
    if hook is None:
        return
    if not hook.loads:
        if not _LOAD.search(_code(page)):
            yield NO_LOAD("AUTOLOAD is off, and neither the page nor its scripts call analytics.load().")
    elif "consent" not in (hook.config or {}):
        for name in managers:
            yield CONSENT_IGNORED(f"{name} is on the page, and the snippet does not wait for it: CONSENT is not set.")
    elif "COOKIE" in setting:
        cookie = setting["COOKIE"]
        if cookie not in {*managers.values(), *page.first.cookies} and cookie not in _code(page):
            yield CONSENT_UNSEEN(f"CONSENT waits for the cookie {cookie!r}, which nothing on the page names.")
        else:
            yield CONSENT_UNSEEN.ok(f"The cookie {cookie!r} of CONSENT is known to the page.")
    elif "segmentFallback.consent" not in _code(page):
        yield CONSENT_UNSEEN("CONSENT waits for the page's code, and none of it calls segmentFallback.consent().")


def _code(page: Page) -> str:
    """The page's own code: its inline scripts but for ours, and the files of its own host."""
    ours = {id(hook.element) for hook in page.hooks}
    scripts = [script for script in page.document.all("script") if id(script) not in ours]
    urls = [urljoin(page.first.url, script.attributes["src"]) for script in scripts if script.attributes.get("src")]
    own = [url for url in urls if origin(url) == origin(page.first.url)]
    answers = [fetch(url) for url in own[:MAX_SCRIPTS]]
    files = [answer.body.decode("utf-8", "replace") for answer in answers if isinstance(answer, Answer)]
    return "\n".join([*(script.text for script in scripts), *files])
