"""What SegmentMiddleware costs an ordinary page: ``python -m benchmarks.middleware``

Calls the middleware around a view that does nothing, and an empty middleware around the same view, in turn; sync, and
in a coroutine. Microseconds of processor time a call.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from collections.abc import Callable
from typing import Any

from asgiref.sync import markcoroutinefunction
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from benchmarks.harness import Report, Result, in_turn, main


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


def measure(report: Report, arguments: argparse.Namespace) -> None:
    from segment_fallback.middleware import SegmentMiddleware

    request, response = RequestFactory().get("/shop/shoes/"), HttpResponse("page")

    def page(request: HttpRequest) -> HttpResponse:
        return response

    async def apage(request: HttpRequest) -> HttpResponse:
        return response

    def cost(timed: Callable[..., float], middleware: Any) -> Callable[[], float]:
        return lambda: timed(middleware, request, arguments.calls)

    ours, empty = SegmentMiddleware(page), Empty(page)
    medians = in_turn({"ours": cost(in_a_loop, ours), "empty": cost(in_a_loop, empty)}, arguments.rounds)
    add(report, "an ordinary page, sync", medians, 1.0)
    ours, empty = SegmentMiddleware(apage), AsyncEmpty(apage)
    medians = in_turn({"ours": cost(in_a_coroutine, ours), "empty": cost(in_a_coroutine, empty)}, arguments.rounds)
    add(report, "an ordinary page, async", medians, 1.5)


def add(report: Report, what: str, medians: dict[str, float], goal: float) -> None:
    figures = medians["ours"], medians["empty"]
    report.add(Result(what, "an empty middleware", *figures, "µs", goal, at_most=True, difference=True))


def in_a_loop(middleware: Any, request: HttpRequest, calls: int) -> float:
    """Microseconds of processor time a call."""
    started = time.process_time()
    for _ in range(calls):
        middleware(request)
    return (time.process_time() - started) / calls * 1e6


def in_a_coroutine(middleware: Any, request: HttpRequest, calls: int) -> float:
    async def run() -> float:
        started = time.process_time()
        for _ in range(calls):
            await middleware(request)
        return (time.process_time() - started) / calls * 1e6

    return asyncio.run(run())


if __name__ == "__main__":
    main("middleware", "What SegmentMiddleware costs an ordinary page", measure, rounds=41, calls=20_000)
