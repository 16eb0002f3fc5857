"""What `manage.py check` says of the anonymousId's cookies."""

from __future__ import annotations

import re
from collections.abc import Sequence

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Warning  # noqa: A004

from segment_fallback.conf import get_settings


def check_cookies(app_configs: Sequence[AppConfig] | None, **kwargs: object) -> list[CheckMessage]:
    """Browsers will take the anonymousId's cookies; and a site that wants none gets what it expects."""
    settings = get_settings()
    messages: list[CheckMessage] = []
    domain = (settings.COOKIE_DOMAIN or "").lower().removeprefix(".")
    allowed = django_settings.ALLOWED_HOSTS if settings.ALLOWED_HOSTS is None else settings.ALLOWED_HOSTS
    hosts = [f".{host.lower().removeprefix('.')}" for host in allowed]
    fault = ""
    if settings.COOKIE_DOMAIN is not None and "." not in domain:
        fault = "is no domain of yours"
    elif domain and hosts and ".*" not in hosts and not any(host.endswith(f".{domain}") for host in hosts):
        fault = "is the domain of none of ALLOWED_HOSTS"
    if fault:
        hint = "Write the registrable domain of your hosts, such as 'example.com' for 'www.example.com', or None."
        text = f"SEGMENT_FALLBACK['COOKIE_DOMAIN']: {settings.COOKIE_DOMAIN!r} {fault}; browsers refuse such cookies."
        messages.append(Warning(text, hint=hint, id="segment_fallback.W009"))
    if settings.COOKIE_DOMAIN is None and not settings.COOKIELESS and (host := _below_a_domain(allowed)):
        hint = "Set COOKIE_DOMAIN to the registrable domain of the hosts, such as 'example.com' for 'shop.example.com'."
        text = (
            f"COOKIE_DOMAIN is None: at {host!r} a browser may keep two cookies ajs_anonymous_id, the site's for the "
            "host and analytics.js's for the domain above it, so that a reset of one is undone by the other."
        )
        messages.append(Warning(text, hint=hint, id="segment_fallback.W019"))
    if settings.COOKIELESS and (settings.IDENTIFY or not settings.FIRST_PARTY):
        text = "COOKIELESS with IDENTIFY: no page learns the userId, because that needs a cookie."
        hint = "Set IDENTIFY to False; events that reach the site's own host carry the userId all the same."
        if not settings.FIRST_PARTY:
            text = "COOKIELESS without FIRST_PARTY: each page that reports by analytics.js counts as another visitor."
            hint = "Set FIRST_PARTY to True, so that the site gives every event its anonymousId."
        messages.append(Warning(text, hint=hint, id="segment_fallback.W010"))
    return messages


def _below_a_domain(allowed: Sequence[str]) -> str | None:
    """The first of these hosts that has a domain above it, as far as the list tells without that of public suffixes."""
    # Of "www." the cookies have the domain above it.
    hosts = [host.lower().removeprefix("www.") for host in allowed]
    for host in hosts:
        name = host.removeprefix(".")
        parent = name.partition(".")[2]
        if host != name and parent:
            return host
        related = any(f".{other}".endswith(f".{parent}") for other in hosts if other != host)
        # An address of IPv4 ends in a number; two companies may have names below "co.uk".
        if related and "." in parent and not parent[-1].isdigit() and not _SHARED_BY_MANY.match(parent):
            return host
    return None


_SHARED_BY_MANY = re.compile(r"(?:ac|co|com|edu|go|gov|ne|net|or|org)\.[a-z]{2}\Z")
"""What many registrable domains are below, as far as that is a habit."""
