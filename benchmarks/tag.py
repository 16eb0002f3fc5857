"""What ``{% segment_snippet %}`` adds to a page that no cache has: ``python -m benchmarks.tag``

Microseconds of processor time in which a page's template is rendered, with the tag, and with one that returns a
constant text; for a page that was rendered before on that day, and for pages that were not.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.harness import Report, Result, in_turn, main, number

TEMPLATE = "<!doctype html><html><head><title>{{ product }}</title>%s</head><body><h1>{{ product }}</h1></body></html>"
OURS = '{% load segment_fallback %}{% segment_snippet "Product" category="Shop" sku=sku %}'
CONSTANT = "{% constant_snippet %}"


def measure(report: Report, arguments: argparse.Namespace) -> None:
    from django.template import Context, Engine, Library

    library = Library()

    @library.simple_tag(takes_context=True)
    def constant_snippet(context: Context) -> str:
        return "<script></script>"

    engine = Engine(
        builtins=["django.template.defaulttags"],
        libraries={"segment_fallback": "segment_fallback.templatetags.segment_fallback"},
    )
    engine.template_builtins.append(library)
    ours, theirs = (engine.from_string(TEMPLATE % tag) for tag in (OURS, CONSTANT))

    def again() -> Iterator[str]:
        return itertools.repeat("/shop/shoes/", arguments.pages)

    paths = (f"/shop/shoes-{page}/" for page in itertools.count())
    medians = in_turn(
        {
            "ours": lambda: timed(ours, again()),
            "theirs": lambda: timed(theirs, again()),
            "new": lambda: timed(ours, itertools.islice(paths, arguments.pages)),
        },
        arguments.rounds,
    )
    figures = medians["ours"], medians["theirs"]
    report.add(
        Result("a page, rendered again", "a tag of a constant", *figures, "µs", 20, at_most=True, difference=True)
    )
    report.note(
        f"A page that was not rendered before on that day: {number(medians['new'] - medians['theirs'])} µs more."
    )


def timed(template: Any, paths: Iterator[str]) -> float:
    """Microseconds of processor time a page."""
    from django.template import RequestContext
    from django.test import RequestFactory

    contexts = [RequestContext(RequestFactory().get(path), {"product": "Shoes", "sku": "S-1"}) for path in paths]
    started = time.process_time()
    for context in contexts:
        template.render(context)
    return (time.process_time() - started) / len(contexts) * 1e6


if __name__ == "__main__":
    main("tag", "What the tag adds to a page", measure, rounds=41, pages=1_000)
