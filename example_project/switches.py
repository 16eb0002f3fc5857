"""The demo's switches: what a visitor's blocker would do, done by a Content-Security-Policy.

A real blocker sits in the browser and needs nothing of this. Here a cookie says what to block, and the middleware
adds a header that makes the browser block it. A page's bytes stay the same for everybody, as a cache needs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse

from example_project.settings import LOCAL_SEGMENT

COOKIE = "demo_switch"

# What analytics.js may still fetch where only the Tracking API is blocked: its settings and bundles.
_CDN_ONLY = "{segment}/v1/projects/ {segment}/analytics-next/"


@dataclass(frozen=True)
class Switch:
    """A state of the visitor's browser, and the policy that brings it about."""

    label: str
    explanation: str
    policy: str = ""


SWITCHES: Mapping[str, Switch] = {
    "allowed": Switch(
        "analytics.js allowed",
        "analytics.js loads and reports straight to Segment. The site's server hears nothing.",
    ),
    "script": Switch(
        "analytics.js blocked",
        "The script does not load. The page asks the site's own pixel instead, at once.",
        "script-src 'self' 'unsafe-inline'",
    ),
    "api": Switch(
        "Tracking API blocked",
        "analytics.js loads but cannot send. The pixel takes over; what analytics.js kept arrives later, "
        "with the same messageId.",
        f"script-src 'self' 'unsafe-inline' {{segment}}; connect-src 'self' {_CDN_ONLY}",
    ),
    "javascript": Switch(
        "JavaScript off",
        "No script runs at all. The browser shows what is in <noscript>: an image of the site's own.",
        # Everything but allow-scripts.
        "sandbox allow-same-origin allow-forms allow-popups allow-popups-to-escape-sandbox allow-top-navigation",
    ),
}


def switch_middleware(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Adds the chosen policy to the shop's pages."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response = get_response(request)
        chosen = SWITCHES.get(request.COOKIES.get(COOKIE, ""))
        if chosen and chosen.policy and not request.path.startswith(("/live/", "/admin/")):
            response["Content-Security-Policy"] = chosen.policy.format(segment=LOCAL_SEGMENT)
            response["Cache-Control"] = "no-store"  # this visitor's header is nobody else's
        return response

    return middleware
