"""The shop's pages, which any cache may keep, and the demo's own, which none may."""

from __future__ import annotations

from urllib.parse import urlsplit

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.shortcuts import render
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.cache import cache_control, never_cache
from django.views.decorators.clickjacking import xframe_options_sameorigin
from django.views.decorators.http import require_GET, require_http_methods

from example_project.arrivals import look
from example_project.catalogue import PIECES
from example_project.settings import LOCAL_SEGMENT
from example_project.switches import COOKIE, SWITCHES

# An edge cache keeps pages for an hour. Browsers ask again each time: with the demo's switches the same page comes
# with another header.
cacheable = cache_control(public=True, max_age=0, s_maxage=3600)


@require_GET
@cacheable
def home(request: HttpRequest) -> HttpResponse:
    return render(request, "shop/home.html", {"pieces": PIECES.values()})


@require_GET
@cacheable
def piece(request: HttpRequest, slug: str) -> HttpResponse:
    if slug not in PIECES:
        raise Http404(f"no piece {slug!r}")
    others = [other for other in PIECES.values() if other.slug != slug]
    return render(request, "shop/piece.html", {"piece": PIECES[slug], "others": others[:3]})


@require_GET
@cacheable
def kiln(request: HttpRequest) -> HttpResponse:
    return render(request, "shop/kiln.html", {"pieces": PIECES.values()})


@require_GET
@cacheable
def offers(request: HttpRequest) -> HttpResponse:
    """In three variations, which segment_variations.py declares."""
    return render(request, "shop/offers.html")


@require_GET
@never_cache
def live(request: HttpRequest) -> HttpResponse:
    """What arrived at Segment. Kept up to date by live.js, and by a refresh where scripts are off."""
    return render(request, "live/live.html", {"data": look(), "segment": LOCAL_SEGMENT, **_switches(request)})


@require_GET
@never_cache
def live_data(request: HttpRequest) -> JsonResponse:
    return JsonResponse(look())


@require_http_methods(["GET", "POST"])
@never_cache
@xframe_options_sameorigin
def switch(request: HttpRequest) -> HttpResponse:
    """The switches. The shop's pages have them in a frame: their own HTML is the same for everybody."""
    if request.method == "GET":
        came_from = urlsplit(request.headers.get("Referer", "")).path
        return render(request, "live/switch_frame.html", {"next": came_from, **_switches(request)})
    back = request.POST.get("next", "")
    if not url_has_allowed_host_and_scheme(back, allowed_hosts=None):
        back = "/"
    response = HttpResponseRedirect(back)
    if request.POST.get("switch") in SWITCHES:
        response.set_cookie(COOKIE, request.POST["switch"], httponly=True, samesite="Lax")
    return response


def _switches(request: HttpRequest) -> dict[str, object]:
    chosen = request.COOKIES.get(COOKIE, "")
    chosen = chosen if chosen in SWITCHES else "allowed"
    return {"switches": SWITCHES, "chosen": chosen, "explanation": SWITCHES[chosen].explanation}
