"""The serving project, with views and Celery tasks that track. SERVING_APPS: further apps, with commas."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator

from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.http.response import HttpResponseBase
from django.urls import path

from segment_fallback import atrack, track
from segment_fallback.tasks import propagate_identity
from tests.serving.project import *  # noqa: F403
from tests.serving.project import INSTALLED_APPS, app
from tests.serving.project import urlpatterns as endpoints

ROOT_URLCONF = __name__
INSTALLED_APPS += filter(None, os.environ.get("SERVING_APPS", "").split(","))
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


def twice(request: HttpRequest) -> HttpResponseBase:
    """Tracks two messages; ``how``: and answers, raises, or tracks a third one in the body of a stream."""
    name = request.GET["id"]
    track("u", "E", message_id=f"{name}-1")
    track("u", "E", message_id=f"{name}-2")
    if request.GET["how"] == "raises":
        raise ValueError("of the view's")
    if request.GET["how"] == "streams":
        return StreamingHttpResponse(parts(name))
    return HttpResponse("answer")


async def atwice(request: HttpRequest) -> HttpResponseBase:
    if request.GET["how"] == "streams":
        twice(request)
        return StreamingHttpResponse(aparts(request.GET["id"]))
    return twice(request)


here: set[str] = set()


async def meeting(request: HttpRequest) -> HttpResponse:
    """Tracks its visitor before and after so many others are here, too."""
    name = request.COOKIES["ajs_anonymous_id"]
    await atrack(event="before", message_id=f"{name}-before")
    here.add(name)
    while len(here) < int(request.GET["number"]):
        await asyncio.sleep(0.01)
    await request.segment.atrack("bound", message_id=f"{name}-bound")  # type: ignore[attr-defined]
    track(event="after", message_id=f"{name}-after")
    return HttpResponse("met")


def parts(name: str) -> Iterator[str]:
    yield "first"
    track("u", "E", message_id=f"{name}-3")
    yield "second"


async def aparts(name: str) -> AsyncIterator[str]:
    for part in parts(name):
        yield part


def publishing(request: HttpRequest) -> HttpResponse:
    """Leaves the rest to the worker: a task, and the handlers of an event."""
    from segment_fallback import emit  # needs the models

    outer.delay(request.GET["id"])
    emit("order.completed", name=request.GET["id"])
    return HttpResponse("published")


propagate_identity(app)


@app.task
def outer(name: str) -> None:
    import segment.analytics

    track(event="outer", message_id=f"{name}-outer")
    segment.analytics.write_key = "key"
    segment.analytics.track("u", "E", message_id=f"{name}-sdk")
    inner.delay(name)


@app.task
def inner(name: str) -> None:
    track(event="inner", message_id=f"{name}-inner")


@app.task
def fatal(name: str, how: str) -> None:
    """Ends a process of the worker's right after a call."""
    track("u", "E", message_id=f"{name}-{how}")
    if how == "exit":
        os._exit(1)
    os.kill(os.getpid(), signal.SIGKILL)


@app.task
def slow(name: str) -> None:
    track("u", "E", message_id=f"{name}-begun")
    time.sleep(2)
    track("u", "E", message_id=f"{name}-done")


urlpatterns = [*endpoints, path("track/", tracking), path("publish/", publishing)]
urlpatterns += [path("twice/", twice), path("atwice/", atwice), path("meeting/", meeting)]
