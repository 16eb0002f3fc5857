"""What ``track()`` costs a request, against segment-analytics-python's: ``python -m benchmarks.track``

Microseconds of processor time of the whole process, a call: a request that tracks, less the same request that does
not, both from the middleware to the end of the response. The visitor is signed in and has analytics.js's cookie.

Ours: the message completed from the request where it is about the visitor (ids, page, user agent, locale, address),
checked, made JSON, and after the response written to the buffer and counted. The SDK's: the call as its caller pays it,
with its defaults, until the message is in its queue, which is emptied outside of the measured time; where ours is about
the visitor, it is given what we add. "With its thread": and what that costs the same process later, to deliver it.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib.util
import inspect
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from django.core.management import call_command
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings

from benchmarks.harness import Report, Result, in_turn, main, number
from segment_fallback import message

ORDER = {
    "order_id": "A-1042",
    "total": 129.9,
    "currency": "EUR",
    "coupon": None,
    "products": [{"sku": "S-1", "name": "Shoe", "price": 64.95, "quantity": 2}],
}
VISITOR: dict[str, Any] = {
    "HTTP_HOST": "shop.example",
    "HTTP_USER_AGENT": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 "
    "Safari/537.36",
    "HTTP_ACCEPT_LANGUAGE": "de-DE,de;q=0.9,en;q=0.8",
    "HTTP_REFERER": "https://shop.example/cart/",
    "HTTP_COOKIE": "ajs_anonymous_id=8a7c2c1e-5d0f-4a57-9a53-0c8e6a3b7f11",
}
MEMORY = {"BACKEND": "segment_fallback.buffers.memory.MemoryBuffer"}
DATABASE = {"BACKEND": "segment_fallback.buffers.database.DatabaseBuffer", "OPTIONS": {"using": "track"}}

JSON = ("", ", with orjson") if importlib.util.find_spec("orjson") else ("",)

PAIRS = (
    ("track() about the visitor", "visitor", "the SDK's, given the same", "given"),
    ("track() about somebody else", "other", "the SDK's", "bare"),
)

Call = Callable[[HttpRequest], object]


def nothing(request: HttpRequest) -> None:
    """A view that tracks nothing."""


def context_of(request: HttpRequest) -> dict[str, Any]:
    """What our call adds of itself, as a site would write it by hand."""
    headers = request.headers
    page = {"path": request.path, "referrer": headers["Referer"], "search": "", "url": request.build_absolute_uri()}
    locale = headers["Accept-Language"].partition(",")[0]
    return {"ip": request.META["REMOTE_ADDR"], "userAgent": headers["User-Agent"], "locale": locale, "page": page}


def measure(report: Report, arguments: argparse.Namespace) -> None:
    client = sdk("a-source-of-others")
    calls = {**our_calls(), **sdk_calls(client)}

    def cost(call: Call) -> float:
        try:
            return timed(call, arguments.calls) - timed(nothing, arguments.calls)
        finally:
            client.queue.queue.clear()
            forget()

    def costs() -> dict[str, float]:
        return in_turn({name: functools.partial(cost, call) for name, call in calls.items()}, arguments.rounds)

    thread = statistics.median(later(10 * arguments.calls) for _ in range(5))
    with buffered(MEMORY):
        for extra in JSON:
            with written_by(extra):
                medians = costs()
            for what, call, against, contender in PAIRS:
                ours, theirs = medians[call], medians[contender]
                report.add(Result(f"{what}{extra}", against, ours, theirs, "µs", 1.0, at_most=True))
                both = f"{against}, with its thread"
                report.add(Result(f"{what}{extra}", both, ours, theirs + thread, "µs", 1.0, at_most=True))
    bare = medians["visitor"] / medians["bare"]
    report.note(
        f"About the visitor, whose page and browser we add, beside the SDK's without them: {number(bare)} times."
    )
    with database(), buffered(DATABASE):
        durable = in_turn({"visitor": lambda: cost(calls["visitor"])}, arguments.rounds)["visitor"]
    report.note(f"The same, durable in SQLite: {number(durable)} µs, one transaction a request.")
    report.note(f"The SDK's thread, later in the same process: {number(thread)} µs an event more.")


def our_calls() -> dict[str, Call]:
    from segment_fallback import track

    return {
        "visitor": lambda request: track(request.user.pk, "Order Completed", ORDER),
        "other": lambda request: track("4711", "Order Completed", ORDER),
    }


def sdk_calls(client: Any) -> dict[str, Call]:
    def given(request: HttpRequest) -> None:
        anonymous_id = request.COOKIES["ajs_anonymous_id"]
        client.track(request.user.pk, "Order Completed", ORDER, context_of(request), anonymous_id=anonymous_id)

    return {"given": given, "bare": lambda request: client.track("4711", "Order Completed", ORDER)}


@contextlib.contextmanager
def written_by(extra: str) -> Iterator[None]:
    """Our JSON written by the standard library, or by the extra."""
    with contextlib.nullcontext() if extra else mock.patch.object(message, "orjson", None):
        yield


def timed(call: Call, calls: int) -> float:
    """Microseconds of processor time of a request whose view makes that call."""
    from django.contrib.auth.models import User

    from segment_fallback.middleware import SegmentMiddleware

    def view(request: HttpRequest) -> HttpResponse:
        call(request)
        return HttpResponse("page")

    middleware: Any = SegmentMiddleware(view)
    factory, user = RequestFactory(**VISITOR), User(pk=42)
    started = time.process_time()
    for _ in range(calls):
        request = factory.get("/checkout/")
        request.user = user
        middleware(request).close()
    return (time.process_time() - started) / calls * 1e6


def sdk(write_key: str, **options: Any) -> Any:
    """The SDK's client as it comes, without what CAPTURE_SDK changes; without a thread unless ``send``."""
    from segment.analytics.client import Client

    for name in ("__init__", "_enqueue", "join"):
        setattr(Client, name, inspect.unwrap(getattr(Client, name)))
    client = Client(write_key, **{"send": False, **options})
    client.send = True
    return client


def later(events: int) -> float:
    """Microseconds an event that the SDK's thread needs to deliver it to a local Segment, which is another process."""
    command = [sys.executable, "-m", "segment_fallback.testing", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as segment:  # noqa: S603 - ours
        try:
            line = segment.stdout.readline() if segment.stdout else ""
            client = sdk("a-source-of-others", host=line.split("listens on ")[1].split()[0], send=True)
            client.track("42", "Order Completed", ORDER)
            client.flush()  # warms up
            started, own = time.process_time(), time.thread_time()
            for _ in range(events):
                client.track("42", "Order Completed", ORDER)
            own = time.thread_time() - own
            client.flush()
            spent = time.process_time() - started - own
            client.shutdown()
        finally:
            segment.terminate()
    return spent / events * 1e6


@contextlib.contextmanager
def buffered(buffer: dict[str, Any]) -> Iterator[None]:
    """Settings of a site with that buffer, and else the defaults."""
    with override_settings(SEGMENT_FALLBACK={"WRITE_KEY": "ours", "BUFFERS": {"default": buffer}}):
        yield
        counted()


def counted() -> None:
    """Write the counts that wait for their timer."""
    from segment_fallback.counting import write_all

    write_all()


def forget() -> None:
    """Empty the buffer, as a flush would."""
    from segment_fallback.buffers import buffers
    from segment_fallback.buffers.memory import MemoryBuffer
    from segment_fallback.models import WaitingMessage

    buffer = buffers["default"]
    if isinstance(buffer, MemoryBuffer):
        buffer.store.rows.clear()
    else:
        WaitingMessage.objects.using("track").all().delete()


@contextlib.contextmanager
def database() -> Iterator[None]:
    """SQLite in a file, set up as Django's documentation has it for production."""
    options = {"transaction_mode": "IMMEDIATE", "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"}
    with tempfile.TemporaryDirectory() as folder:
        own = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(Path(folder) / "db.sqlite3"), "OPTIONS": options}
        connections.databases["track"] = {**connections.databases["default"], **own}
        call_command("migrate", database="track", verbosity=0)
        yield
        connections["track"].close()


if __name__ == "__main__":
    main("track", "What track() costs a request", measure, rounds=45, calls=100)
