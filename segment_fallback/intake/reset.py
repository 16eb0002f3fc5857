"""Makes the browser somebody new to us, as at a logout on a computer that several people use."""

from __future__ import annotations

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from segment_fallback.conf import Settings, get_settings
from segment_fallback.intake import identity, verify
from segment_fallback.intake.privacy import check_choices
from segment_fallback.outcome import Refused


@csrf_exempt
@transaction.non_atomic_requests
def reset(request: HttpRequest, name: str) -> HttpResponse:
    """204 for the visitor's own page, 403 for anybody else's. A script cannot do it: one of the cookies is HttpOnly."""
    response = _answer(request, get_settings())
    response["Cache-Control"] = "private, no-store"
    response["X-Content-Type-Options"] = "nosniff"
    response["Cross-Origin-Resource-Policy"] = "same-origin"
    return response


def _answer(request: HttpRequest, settings: Settings) -> HttpResponse:
    if request.method != "POST":
        return HttpResponse(status=405, headers={"Allow": "POST"})
    try:
        verify.check_page(request, settings)
    except Refused as refusal:
        return JsonResponse({"reason": refusal.outcome.value}, status=403)
    response = HttpResponse(status=204)
    reset_identity(request, response, settings)
    return response


def reset_identity(request: HttpRequest, response: HttpResponseBase, settings: Settings) -> None:
    """Another anonymousId for a browser that has one; none at all where the visitor wants none, or with COOKIELESS."""
    try:
        check_choices(request, settings)
        anew = not settings.COOKIELESS
    except Refused:
        anew = False
    identity.forget(request, response, settings, anew=anew)
