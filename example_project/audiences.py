"""The audience page: puts its visitor into an audience at the local Segment, and out of it."""

from __future__ import annotations

import uuid

import requests
from django.contrib.auth import login
from django.contrib.auth.models import User
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from example_project.settings import LOCAL_SEGMENT, SEGMENT_FALLBACK
from segment_fallback.names import endpoint_names
from segment_fallback.profiles.assign import set_variations
from segment_fallback.profiles.lookup import profile_of

AUDIENCES = {"collectors": "Collectors", "trade": "Trade"}


@require_http_methods(["GET", "POST"])
@never_cache
def audience(request: HttpRequest) -> HttpResponse:
    """Personal: no cache keeps it, and the edge passes its cookies."""
    name = request.POST.get("audience", "")
    if request.method == "POST" and name in AUDIENCES:
        if not request.user.is_authenticated:
            login(request, User.objects.create_user(f"visitor-{uuid.uuid4().hex[:8]}"))
        trouble = flip(request, name, member=request.POST.get("member") == "1")
        response = HttpResponseRedirect(reverse("audience") + ("?trouble=1" if trouble else ""))
        if not trouble:
            # The page's script would ask within a minute; where the site knows that something changed, it need not.
            set_variations(request, response)
        return response
    profile = profile_of(request)
    traits = profile.traits if profile else {}
    rows = [{"name": key, "label": label, "member": bool(traits.get(key))} for key, label in AUDIENCES.items()]
    return render(request, "shop/audience.html", {"audiences": rows, "trouble": "trouble" in request.GET})


def flip(request: HttpRequest, name: str, *, member: bool) -> bool:
    """Have the local Segment tell the site's webhook, as Segment would within minutes. Whether that failed."""
    webhook = request.build_absolute_uri(reverse("segment_fallback:profile_webhook", args=[endpoint_names()[0]]))
    wanted = {
        "url": webhook,
        "secret": SEGMENT_FALLBACK["PROFILE_SECRETS"][0],
        "user_id": str(request.user.pk),
        "audience": name,
        "member": member,
    }
    try:
        answer = requests.post(f"{LOCAL_SEGMENT}/_local/audience", json=wanted, timeout=10)
    except requests.RequestException:
        return True
    return not answer.ok or answer.json()["status"] != 200
