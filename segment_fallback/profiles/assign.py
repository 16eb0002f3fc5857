"""Tells a page's script which variations its visitor has, by cookies, and the traits that the page may know.

The page itself may come from any cache, so everything of a visitor's happens here, and no cache keeps the answer. Here
"Variation Viewed" is tracked, too: the script says which variations the page that it is on shows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.http.response import HttpResponseBase
from django.views.decorators.csrf import csrf_exempt

from segment_fallback.ambient import derived_id
from segment_fallback.client import send
from segment_fallback.conf import DAY, Settings, get_settings
from segment_fallback.intake import identity, verify
from segment_fallback.intake.body import read_json
from segment_fallback.intake.privacy import check_choices
from segment_fallback.intake.visitor import context_of
from segment_fallback.outcome import Refused
from segment_fallback.profiles.lookup import profile_of
from segment_fallback.profiles.store import Profile
from segment_fallback.profiles.variations import Experiment, client_side_traits, registry

EVENT = "Variation Viewed"
COOKIE_AGE = 30 * DAY
MAX_BODY = 4_000
"""Bytes: the names of a page's variations."""

_ESCAPES = {ord("<"): "\\u003C", ord(">"): "\\u003E", ord("&"): "\\u0026"}


@csrf_exempt
@transaction.non_atomic_requests
def variations(request: HttpRequest, name: str) -> HttpResponse:
    """``{"variations": {…}, "told": {…}, "traits": {…}}`` for the visitor's own page; 403 for anybody else's, 404
    where neither VARIATIONS nor CLIENT_SIDE_TRAITS is set.

    ``told``: of the variations that the page says it shows, those that Segment hears of.
    """
    response = _answer(request, get_settings())
    response["Cache-Control"] = "private, no-store"
    response["X-Content-Type-Options"] = "nosniff"
    response["Cross-Origin-Resource-Policy"] = "same-origin"
    return response


def set_variations(request: HttpRequest, response: HttpResponseBase) -> None:
    """Set the cookies of the visitor's variations now, on an answer that no cache keeps: after a login, say.

    Without it the page's script asks within a minute. Does nothing unless VARIATIONS is "edge".
    """
    _set_cookies(request, response, _chosen(profile_of(request)), get_settings())


def _answer(request: HttpRequest, settings: Settings) -> HttpResponse:
    if not settings.varies:
        return HttpResponse(status=404)
    if request.method != "POST":
        return HttpResponse(status=405, headers={"Allow": "POST"})
    try:
        verify.check_page(request, settings)
        verify.check_rate(identity.client_ip(request, settings), identity.visitor_key(request, settings), settings)
    except Refused as refusal:
        return JsonResponse({"reason": refusal.outcome.value}, status=403)
    seen = _seen(request)
    try:
        check_choices(request, settings)
    except Refused:
        # Who does not want to be known gets what strangers get, and is not heard of; so nothing is left to tell.
        chosen = _chosen(None)
        response = _json({"variations": chosen, "told": seen, "traits": {}})
        _set_cookies(request, response, chosen, settings)
        return response
    return _assigned(request, seen, settings)


def _chosen(profile: Profile | None) -> dict[str, str]:
    return {experiment.id: experiment.of_profile(profile) for experiment in registry.all()}


def _assigned(request: HttpRequest, seen: dict[str, str], settings: Settings) -> HttpResponse:
    profile, anonymous_id = profile_of(request), identity.anonymous_id(request, settings)
    minted = anonymous_id is None
    anonymous_id = anonymous_id or identity.new_anonymous_id()
    chosen = _chosen(profile)
    told = {
        experiment: variation
        for experiment, variation in seen.items()
        if _tell(request, experiment, variation, anonymous_id, settings)
    }
    response = _json({"variations": chosen, "told": told, "traits": client_side_traits(profile, settings)})
    _set_cookies(request, response, chosen, settings)
    identity.keep_anonymous_id(request, response, anonymous_id, settings, minted=minted)
    return response


def _seen(request: HttpRequest) -> dict[str, str]:
    """The variations that a page says it shows, as far as they are declared. A body that cannot be read says none."""
    try:
        said = read_json(request, MAX_BODY)
    except Refused:
        return {}
    declared = {experiment.id: experiment.names for experiment in registry.all()}
    return {experiment: name for experiment, name in said.items() if name in declared.get(experiment, ())}


def _tell(request: HttpRequest, experiment: str, variation: str, anonymous_id: str, settings: Settings) -> bool:
    """Track that the visitor saw the variation; once, as its messageId is made of the two. Whether it was taken."""
    user_id = identity.user_id(request, settings)
    message = {
        "type": "track",
        "event": EVENT,
        "messageId": derived_id("variation", experiment, variation, user_id or anonymous_id),
        "anonymousId": anonymous_id,
        "userId": user_id,
        "context": context_of(request, settings),
        "properties": {"experiment": experiment, "variation": variation, "nonInteraction": 1},
    }
    return send(message, fill=False)[0]


def _set_cookies(
    request: HttpRequest, response: HttpResponseBase, chosen: Mapping[str, str], settings: Settings
) -> None:
    """One for each variation that is not the default; none of another."""
    if settings.VARIATIONS != "edge" or settings.COOKIELESS:
        return
    for experiment in registry.all():
        name = chosen[experiment.id]
        if name != experiment.default:
            _set_cookie(request, response, experiment, name, settings)
        elif experiment.cookie in request.COOKIES:
            response.delete_cookie(experiment.cookie, domain=settings.COOKIE_DOMAIN, samesite="Lax")


def _set_cookie(
    request: HttpRequest, response: HttpResponseBase, experiment: Experiment, name: str, settings: Settings
) -> None:
    response.set_cookie(
        experiment.cookie,
        experiment.value(name),
        max_age=COOKIE_AGE,
        domain=settings.COOKIE_DOMAIN,
        secure=identity.is_secure(request),
        samesite="Lax",
        httponly=True,
    )


def _json(content: dict[str, Any]) -> HttpResponse:
    """As JSON that is safe inside of a script element, too. A trait that has no form in JSON was never stored."""
    text = json.dumps(content, allow_nan=False).translate(_ESCAPES)
    return HttpResponse(text, content_type="application/json")
