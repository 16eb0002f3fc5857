"""Pixels a second beside a bare view's: ``python -m benchmarks.pixel [--rounds 3] [--seconds 3] [--write]``

The pixel does all that it ever does: every check of a visitor who comes again, the message built and kept, in memory.
The bare view answers the same image behind the middleware of `startproject`, and does nothing else. Each server is one
process; wrk loads the sites in turn from the same machine, with the headers that a browser sends. "At once" is a
middleware, placed first, that answers the image and asks nothing: no pixel can be faster behind Django's handler.
"""

from __future__ import annotations

import argparse

from benchmarks.harness import Report, Result, in_turn, main

ASGI = ("uvicorn", "granian asgi")
EARLY, ROUTED, EARLY_ASGI = 1.4, 0.85, 2.0
"""The goals: so many times the bare view's requests a second."""


def measure(report: Report, arguments: argparse.Namespace) -> None:
    from benchmarks.sites import AT_ONCE, BARE, OURS, PIXEL, SERVERS, site

    for server in SERVERS:
        with site(server, first=OURS) as early, site(server) as plain, site(server, first=AT_ONCE) as least:
            contenders = {
                "bare": lambda plain=plain: plain.load(BARE, arguments.seconds),
                "early": lambda early=early: early.load(PIXEL, arguments.seconds),
                "routed": lambda plain=plain: plain.load(PIXEL, arguments.seconds),
                "at once": lambda least=least: least.load(BARE, arguments.seconds),
            }
            rates = in_turn(contenders, arguments.rounds)
        goal = EARLY_ASGI if server in ASGI else EARLY
        against = f"bare view, {server}"
        report.add(Result("pixel", against, rates["early"], rates["bare"], "requests/s", goal))
        if server in ASGI:
            report.note(f"pixel by URL routing, {server}: {rates['routed']:,.0f} requests/s")
        else:
            report.add(Result("pixel, routed", against, rates["routed"], rates["bare"], "requests/s", ROUTED))
            ratio = rates["at once"] / rates["bare"]
            report.note(f"at once, {server}: {rates['at once']:,.0f} requests/s, {ratio:.3g} times the bare view's")


if __name__ == "__main__":
    main("pixel", "Pixels a second, of one process", measure, rounds=3, seconds=3)
