"""What visitors chose, honoured in one place, before anything is stored."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from django.http import HttpRequest

from segment_fallback.conf import Settings
from segment_fallback.outcome import Outcome, Refused


def check_choices(request: HttpRequest, settings: Settings) -> None:
    """Refuse a hit of somebody who does not want to be counted, or whom nobody has shown the page yet."""
    meta = request.META
    # "prefetch" or "prefetch;prerender": https://wicg.github.io/nav-speculation/prefetch.html#sec-purpose-header
    if meta.get("HTTP_SEC_PURPOSE", "").startswith("prefetch"):
        raise Refused(Outcome.PREFETCH)
    if settings.CONSENT and not consents(request, settings.CONSENT):
        raise Refused(Outcome.CONSENT)
    if settings.HONOUR_GPC and meta.get("HTTP_SEC_GPC") == "1":
        raise Refused(Outcome.GPC)
    if settings.HONOUR_DNT and meta.get("HTTP_DNT") == "1":
        raise Refused(Outcome.DNT)


def consents(request: HttpRequest, consent: Mapping[str, Any]) -> bool:
    """Whether the visitor's cookie says what CONSENT wants it to; of a CALLBACK only the page knows."""
    if "COOKIE" not in consent:
        return True
    value = unquote(request.COOKIES.get(consent["COOKIE"], ""))
    if "CONTAINS" in consent:
        return consent["CONTAINS"] in value
    return value == consent["VALUE"] if "VALUE" in consent else bool(value)
