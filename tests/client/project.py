"""The serving project, with views that track."""

from __future__ import annotations

import os
import threading

from django.http import HttpRequest, HttpResponse
from django.urls import path

from segment_fallback import track
from tests.serving.project import *  # noqa: F403
from tests.serving.project import urlpatterns as endpoints

ROOT_URLCONF = __name__
MIDDLEWARE = ["tests.client.project.dying", "segment_fallback.middleware.SegmentMiddleware"]


def dying(get_response):  # type: ignore[no-untyped-def]
    """Ends the process as soon as the response was sent, before (``die=first``) or after what waits was written."""

    def middleware(request: HttpRequest) -> HttpResponse:
        response: HttpResponse = get_response(request)
        if when := request.GET.get("die"):
            place = 0 if when == "first" else len(response._resource_closers)  # type: ignore[attr-defined]
            response._resource_closers.insert(place, lambda: os._exit(1))  # type: ignore[attr-defined]
        return response

    return middleware


def tracking(request: HttpRequest) -> HttpResponse:
    import segment.analytics

    segment.analytics.write_key = "key"
    name = request.GET["id"]
    ids = [name + "-call", name + "-sdk", name + "-thread"]
    taken = [track("u", "E", message_id=ids[0])[0], segment.analytics.track("u", "E", message_id=ids[1])[0]]
    # Outside of the request's context: at once.
    thread = threading.Thread(target=track, args=("u", "E"), kwargs={"message_id": ids[2]})
    thread.start()
    thread.join()
    return HttpResponse("tracked" if all(taken) else "refused")


urlpatterns = [*endpoints, path("track/", tracking)]
