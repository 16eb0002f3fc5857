"""What Segment says: whether it knows the write keys, in which region, and what time it is."""

from __future__ import annotations

import json
import time
from email.utils import parsedate_to_datetime
from urllib.parse import quote, urlsplit

from segment_fallback.checks import SEGMENT_HOSTS
from segment_fallback.conf import DEFAULT_SOURCE, Source, get_settings, get_source
from segment_fallback.doctor.fetch import Answer, NoAnswer, fetch
from segment_fallback.doctor.finding import Findings, Level, kind
from segment_fallback.doctor.setup import Options, duration

WRITE_KEY_UNKNOWN = kind(
    "setup.write_key_unknown",
    Level.ERROR,
    "Segment takes events for a write key that it does not know, answers 200, and drops them.",
    "Copy the write key from the source's settings in Segment: Connections, Sources, Settings, API Keys.",
)
CDN_UNREACHABLE = kind(
    "setup.cdn_unreachable",
    Level.WARNING,
    "With FIRST_PARTY this site fetches analytics.js from there; without, only the doctor asks it about the write key.",
    "Let this machine reach CDN_HOST over https (HTTPS_PROXY is used), or set SELF_HOSTED.",
)
REGION = kind(
    "setup.region",
    Level.ERROR,
    "A workspace of one region loses what is sent to the other, and nobody is told.",
    "Set API_HOST to where the source's own settings send: see the finding.",
)
API_UNREACHABLE = kind(
    "setup.api_unreachable",
    Level.ERROR,
    "Nothing is delivered; messages wait in the buffer.",
    "Let this machine reach API_HOST over https (HTTPS_PROXY is used), and look whether it is spelt right.",
)
CLOCK = kind(
    "setup.clock",
    Level.WARNING,
    "Events get wrong times, and leases and back-offs of several machines no longer agree.",
    "Let the machine keep its time by NTP.",
)

MAX_SKEW = 60.0
"""Seconds."""


def sources() -> list[Source]:
    """Every source with a write key."""
    return [source for alias in (DEFAULT_SOURCE, *get_settings().SOURCES) if (source := get_source(alias))]


def knows_write_keys(options: Options) -> Findings:
    """Segment's CDN has settings for each source, and they name the region that API_HOST is in."""
    cdn = get_settings().CDN_HOST.rstrip("/")
    for source in sources():
        answer = fetch(f"{cdn}/v1/projects/{quote(source.write_key, safe='')}/settings", Accept="application/json")
        if isinstance(answer, NoAnswer):
            yield CDN_UNREACHABLE(f"CDN_HOST, {cdn}, does not answer: {answer.detail}.")
            return
        if answer.status in (400, 403, 404):
            yield WRITE_KEY_UNKNOWN(
                f"Segment knows no source with the write key of {source.alias!r} (HTTP {answer.status})."
            )
        elif answer.status != 200:
            yield CDN_UNREACHABLE(f"CDN_HOST, {cdn}, answers with status {answer.status}.")
        else:
            yield WRITE_KEY_UNKNOWN.ok(f"Segment knows the write key of {source.alias!r}.")
            yield from _same_region(source, answer)


def _same_region(source: Source, answer: Answer) -> Findings:
    try:
        told = str(json.loads(answer.body)["integrations"]["Segment.io"]["apiHost"])
        host = urlsplit(f"//{told}").hostname
    except (ValueError, KeyError, TypeError, RecursionError):
        return
    own = urlsplit(source.api_host).hostname
    if host in SEGMENT_HOSTS and own in SEGMENT_HOSTS and host != own:
        what = f"The source {source.alias!r} reports to {host}, and API_HOST is {source.api_host}."
        yield REGION(what, cure=f"Set its API_HOST to {SEGMENT_HOSTS[host]!r}.")
    else:
        yield REGION.ok(f"The source {source.alias!r} and its API_HOST agree about the region.")


def api_answers(options: Options) -> Findings:
    """Each API_HOST can be reached from here, and has the time that we have."""
    for host in dict.fromkeys(source.api_host for source in sources()):
        before = time.time()
        answer = fetch(f"{host}/", follow=False, Accept="*/*")
        if isinstance(answer, NoAnswer):
            yield API_UNREACHABLE(f"API_HOST, {host}, does not answer: {answer.detail}.")
            continue
        yield API_UNREACHABLE.ok(f"API_HOST, {host}, can be reached.")
        try:
            theirs = parsedate_to_datetime(answer.headers.get("Date", "")).timestamp()
        except ValueError:
            continue
        skew = (before + time.time()) / 2 - theirs
        if abs(skew) > MAX_SKEW:
            ahead = "ahead of" if skew > 0 else "behind"
            yield CLOCK(f"This machine's clock is {duration(abs(skew))} {ahead} that of {host}.")
        else:
            yield CLOCK.ok(f"This machine's clock agrees with that of {host}.")
