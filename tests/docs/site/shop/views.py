from __future__ import annotations

from django.http import HttpRequest, HttpResponse

from segment_fallback import identify, track
from segment_fallback.profiles import Profile


def by_plan(profile: Profile) -> str:
    return "gold" if profile.traits.get("plan") == "gold" else "regular"


def checkout(request: HttpRequest) -> HttpResponse:
    identify("ann", {"plan": "pro"})
    track("ann", "Order Completed", {"total": 12.5, "sku": "A-1"})
    return HttpResponse("thank you")
