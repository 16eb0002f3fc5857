"""What SegmentMiddleware costs an ordinary page: ``python -m benchmarks.middleware``

Calls the middleware around a view that does nothing, and an empty middleware around the same view, in turn, so that
what else the machine does falls on both; sync, and in a coroutine. Medians: microseconds of processor time a call,
their difference, and the ratio.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import django
from asgiref.sync import markcoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory


class Empty:
    """What any middleware costs that is a class."""

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        return self.get_response(request)


class AsyncEmpty(Empty):
    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        super().__init__(get_response)
        markcoroutinefunction(self)

    async def __call__(self, request: HttpRequest) -> Any:
        return await self.get_response(request)


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--rounds", type=int, default=41)
    options.add_argument("--calls", type=int, default=20_000, help="of each round")
    arguments = options.parse_args()
    from segment_fallback.middleware import SegmentMiddleware

    request, response = RequestFactory().get("/shop/shoes/"), HttpResponse("page")

    def page(request: HttpRequest) -> HttpResponse:
        return response

    async def apage(request: HttpRequest) -> HttpResponse:
        return response

    print(f"{'':8}{'empty µs':>10}{'ours µs':>10}{'more µs':>10}{'ratio':>8}")
    for name, around in (
        ("sync", (sync_rounds, Empty(page), SegmentMiddleware(page))),
        ("async", (async_rounds, AsyncEmpty(apage), SegmentMiddleware(apage))),
    ):
        measure, *middlewares = around
        rounds: list[list[float]] = []
        for number in range(arguments.rounds + 1):
            figures = [measure(middleware, request, arguments.calls) for middleware in middlewares]
            if number:  # the first one warms up
                rounds.append(figures)
        empty, ours = (statistics.median(figures) for figures in zip(*rounds, strict=True))
        more = statistics.median(ours - empty for empty, ours in rounds)
        print(f"{name:8}{empty:10.2f}{ours:10.2f}{more:10.2f}{ours / empty:8.1f}")


def sync_rounds(middleware: Any, request: HttpRequest, calls: int) -> float:
    """Microseconds of processor time a call."""
    started = time.process_time()
    for _ in range(calls):
        middleware(request)
    return (time.process_time() - started) / calls * 1e6


def async_rounds(middleware: Any, request: HttpRequest, calls: int) -> float:
    async def run() -> float:
        started = time.process_time()
        for _ in range(calls):
            await middleware(request)
        return (time.process_time() - started) / calls * 1e6

    return asyncio.run(run())


if __name__ == "__main__":
    main()
