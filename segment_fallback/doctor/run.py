"""Every examination, in its order; and what becomes of one that fails itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TypeVar

from segment_fallback.doctor import (
    cache,
    cause,
    csp,
    delivery,
    endpoint,
    policy,
    segment,
    setup,
    snippet,
    trackers,
    varies,
    workers,
)
from segment_fallback.doctor.fetch import without_login
from segment_fallback.doctor.finding import Finding, Findings, Level, kind
from segment_fallback.doctor.page import Page, arrive, came_whole
from segment_fallback.doctor.setup import Options

FAILED = kind(
    "doctor.failed",
    Level.WARNING,
    "What this examination would have found is not known.",
    "Mend what else was found first. If it stays, report it with the name of the examination and of the error.",
)

SETUP: Sequence[Callable[[Options], Findings]] = (
    setup.checks_are_silent,
    setup.buffers_answer,
    setup.events_are_handled,
    setup.spool_is_ready,
    setup.cache_keeps,
    segment.knows_write_keys,
    segment.api_answers,
    workers.celery_works,
    delivery.flush_was_seen,
    delivery.event_arrives,
)

PAGE: Sequence[Callable[[Page], Findings]] = (
    came_whole,
    snippet.has_snippet,
    snippet.is_intact,
    snippet.has_noscript,
    snippet.has_token,
    varies.is_the_same,
    cache.sets_no_cookie,
    cache.varies_little,
    cache.is_kept,
    cause.has_causes,
    policy.keeps_referer,
    csp.lets_snippet_work,
    policy.waits_for_consent,
    endpoint.pixel_answers,
    endpoint.path_means_nothing,
    endpoint.scripts_come,
    trackers.others,
)

Subject = TypeVar("Subject", Options, Page)


def examine_setup(options: Options) -> Iterator[Finding]:
    """What is to be said of the set-up."""
    for examination in SETUP:
        yield from guarded(examination, options)


def examine_page(url: str) -> Iterator[Finding]:
    """What is to be said of the page at a URL."""
    page, subject = arrive(url), without_login(url)
    if isinstance(page, Finding):
        yield replace(page, subject=subject)
        return
    for examination in PAGE:
        for finding in guarded(examination, page):
            yield replace(finding, subject=subject)


def guarded(examination: Callable[[Subject], Findings], subject: Subject) -> Iterator[Finding]:
    """What an examination finds; one that fails is a finding, too."""
    try:
        yield from examination(subject)
    except Exception as error:  # noqa: BLE001 - whatever is wrong with a site, the other examinations go on
        yield FAILED(f"The examination {examination.__name__} failed: {type(error).__name__}.")
