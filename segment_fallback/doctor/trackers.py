"""Other trackers, and consent managers, by what their snippets have in them: so that people see what else is there."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from segment_fallback.doctor.finding import Findings, Level, kind

if TYPE_CHECKING:
    from segment_fallback.doctor.page import Page  # a site's process that registers a tracker needs nothing of it

FOUND = kind(
    "trackers.found",
    Level.INFO,
    "It counts visits, too, and is not asked by our consent and Do Not Track settings. What Segment can forward to it "
    "as a destination need not be loaded by the page as well, or it is counted twice.",
    "Where it is not meant to be there, look in the templates and in the tag manager.",
)

TRACKERS: dict[str, re.Pattern[str]] = {}
"""Name → what only its snippet has in it, in any case."""


def register_tracker(name: str, *patterns: str) -> None:
    """Let the doctor tell of a tracker: regular expressions, searched in the page's HTML in any case.

    Raises ValueError without a pattern, and ``re.error`` for one that is none.
    """
    if not patterns:
        raise ValueError(f"the tracker {name!r} needs a pattern")
    TRACKERS[name] = re.compile("|".join(f"(?:{pattern})" for pattern in patterns), re.IGNORECASE)


for _name, _pattern in {
    "Google Analytics 4 (gtag.js)": r"googletagmanager\.com/gtag/js|gtag\(\s*['\"]config['\"]\s*,\s*['\"]G-",
    "Google Tag Manager": r"googletagmanager\.com/gtm\.js|googletagmanager\.com/ns\.html",
    "Universal Analytics (switched off by Google)": r"google-analytics\.com/(?:analytics|ga)\.js",
    "Google Ads": r"googleadservices\.com/pagead|gtag\(\s*['\"]config['\"]\s*,\s*['\"]AW-",
    "Meta (Facebook) Pixel": r"connect\.facebook\.net/[^\"']*/fbevents\.js|\bfbq\(\s*['\"]init|facebook\.com/tr\?",
    "Hotjar": r"static\.hotjar\.com|_hjSettings",
    "Matomo": r"(?:matomo|piwik)\.(?:js|php)\b|\b_paq\.push",
    "Plausible": r"plausible\.io/js|data-domain=[^>]*/js/(?:script|plausible)",
    "PostHog": r"posthog\.init\(|(?:app|eu|us)(?:-assets)?\.i?\.?posthog\.com",
    "Mixpanel": r"cdn\.mxpnl\.com|mixpanel\.init\(",
    "Amplitude": r"cdn\.amplitude\.com|amplitude\.(?:getInstance\(\)\.)?init\(",
    "RudderStack": r"cdn\.rudderlabs\.com|rudderanalytics\.load\(",
    "HubSpot": r"js(?:-\w+)?\.hs-(?:scripts|analytics)\.(?:com|net)|\b_hsq\b",
    "LinkedIn Insight Tag": r"snap\.licdn\.com|_linkedin_partner_id",
    "TikTok Pixel": r"analytics\.tiktok\.com|\bttq\.load\(",
    "Microsoft Clarity": r"clarity\.ms/tag",
    "Microsoft Advertising (UET)": r"bat\.bing\.com",
    "Heap": r"cdn\.heapanalytics\.com|\bheap\.load\(",
    "FullStory": r"fullstory\.com/s/fs\.js|_fs_org",
    "Pinterest Tag": r"s\.pinimg\.com/ct|\bpintrk\(",
    "X (Twitter) Pixel": r"static\.ads-twitter\.com|\btwq\(",
    "Snap Pixel": r"sc-static\.net/scevent",
    "Reddit Pixel": r"redditstatic\.com/ads/pixel\.js|\brdt\(\s*['\"]init",
    "Adobe Analytics": r"(?:assets|cdn)\.adobedtm\.com|\bs\.t\(\)\s*;|AppMeasurement",
    "Snowplow": r"snowplow(?:-tracker)?[\w.-]*/(?:sp|tracker)\.js|GlobalSnowplowNamespace",
    "Fathom": r"cdn\.usefathom\.com",
    "Umami": r"data-website-id=[^>]*umami|umami[^\"']*/(?:script|umami)\.js",
    "Simple Analytics": r"scripts\.simpleanalyticscdn\.com",
    "Cloudflare Web Analytics": r"static\.cloudflareinsights\.com",
    "New Relic Browser": r"js-agent\.newrelic\.com|NREUM",
    "Intercom": r"widget\.intercom\.io|intercomSettings",
    "Crazy Egg": r"script\.crazyegg\.com",
    "Mouseflow": r"cdn\.mouseflow\.com",
    "VWO": r"dev\.visualwebsiteoptimizer\.com|_vwo_code",
    "Optimizely": r"cdn\.optimizely\.com",
    "Klaviyo": r"static\.klaviyo\.com",
    "Yandex Metrica": r"mc\.yandex\.(?:ru|com)/metrika",
}.items():
    register_tracker(_name, _pattern)


CONSENT_MANAGERS: dict[str, tuple[re.Pattern[str], str]] = {
    name: (re.compile(pattern, re.IGNORECASE), cookie)
    for name, pattern, cookie in (
        ("OneTrust", r"cdn\.cookielaw\.org|otSDKStub|OptanonWrapper", "OptanonConsent"),
        ("Cookiebot", r"consent\.cookiebot\.(?:com|eu)", "CookieConsent"),
        ("Usercentrics", r"\busercentrics\.eu|usercentrics-root", "uc_user_interaction"),
        ("Didomi", r"sdk\.privacy-center\.org|didomiConfig", "didomi_token"),
        ("TrustArc", r"consent\.trustarc\.com", "notice_preferences"),
        ("Osano", r"cmp\.osano\.com", "osano_consentmanager"),
        ("CookieYes", r"cdn-cookieyes\.com", "cookieyes-consent"),
        ("iubenda", r"cdn\.iubenda\.com", "_iub_cs"),
        ("Axeptio", r"static\.axept\.io", "axeptio_cookies"),
        ("Klaro", r"\bklaro(?:\.min)?\.js|klaroConfig", "klaro"),
        ("tarteaucitron", r"tarteaucitron(?:\.min)?\.js|tarteaucitron\.init", "tarteaucitron"),
        ("a manager of IAB's TCF", r"__tcfapi", "euconsent-v2"),
    )
}
"""Name → what its snippet has in it, and the cookie that it sets."""


def others(page: Page) -> Findings:
    """What else counts this page's visits."""
    for name, pattern in TRACKERS.items():
        if pattern.search(page.document.text):
            yield FOUND(f"{name} is on the page, too.")


def consent_managers(page: Page) -> dict[str, str]:
    """The consent managers on a page, each with its cookie."""
    return {name: cookie for name, (pattern, cookie) in CONSENT_MANAGERS.items() if pattern.search(page.document.text)}
