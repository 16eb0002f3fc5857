"""Tells a page of ours who is signed in. Asked only where the hint of a login is, so seldom; never cached."""

from __future__ import annotations

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse

from segment_fallback.conf import Settings, get_settings
from segment_fallback.intake import identity, login, verify
from segment_fallback.outcome import Refused


@transaction.non_atomic_requests
def who_am_i(request: HttpRequest, name: str) -> HttpResponse:
    """``{"userId": text or null}`` for the visitor's own page; 404 without IDENTIFY, 403 for anybody else's page."""
    response = _answer(request, get_settings())
    response["Cache-Control"] = "private, no-store"
    response["X-Content-Type-Options"] = "nosniff"
    response["Cross-Origin-Resource-Policy"] = "same-origin"
    return response


def _answer(request: HttpRequest, settings: Settings) -> HttpResponse:
    if not settings.IDENTIFY:
        return HttpResponse(status=404)
    if request.method != "GET":
        return HttpResponse(status=405, headers={"Allow": "GET"})
    try:
        verify.check_page(request, settings)
    except Refused as refusal:
        return JsonResponse({"reason": refusal.outcome.value}, status=403)
    user_id = identity.user_id(request, settings)
    response = JsonResponse({"userId": user_id})
    if user_id is None:
        login.clear_hint(response)  # forged, or of a session that has ended: nobody need ask again
    return response
