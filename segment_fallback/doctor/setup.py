"""The set-up as this process sees it: settings, buffers, spool and cache."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from django.core.cache import caches
from django.core.checks import ERROR, WARNING, run_checks
from django.core.files.base import ContentFile

from segment_fallback.buffers.base import now_ms
from segment_fallback.buffers.spool import make_spool, spool_storage, spooled_at
from segment_fallback.conf import get_settings
from segment_fallback.doctor.finding import Findings, Level, kind
from segment_fallback.events import store
from segment_fallback.events.handlers import registry
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.status import read_status
from segment_fallback.wording import counted

CHECK = kind(
    "setup.check",
    Level.ERROR,
    "Django's own checks find it in the settings; each has an id, which `manage.py check` shows, too.",
    "See the check's own hint.",
)
BUFFER_UNAVAILABLE = kind(
    "setup.buffer_unavailable",
    Level.ERROR,
    "Messages wait in the buffer. While it is down they go to the spool, and nothing is delivered.",
    "The database: can this process reach it, and did `manage.py migrate` run? DynamoDB: `manage.py segment_table`.",
)
BUFFER_OLD = kind(
    "setup.buffer_old",
    Level.WARNING,
    "Nobody empties the buffer, or more comes in than a flush takes out. Segment gets the events late.",
    "Look at the findings about flush, worker and beat. If all of them are well: more OPTIONS parts, and more workers.",
)
DEAD_LETTERS = kind(
    "setup.dead_letters",
    Level.WARNING,
    "These messages were given up: Segment does not have them until somebody decides.",
    "`manage.py segment_dead_letters list` says why. Mend that, then replay or delete them.",
)
EVENTS_WAIT = kind(
    "setup.events_wait",
    Level.WARNING,
    "Nobody runs the handlers of emitted events, which a flush does not, or more is emitted than they get done.",
    "By cron: `manage.py segment_events --run` every minute, beside segment_flush. By Celery: one `celery beat` with "
    "schedule_flush(app), and a worker. With django.tasks: enqueue handle_events, too.",
)
SPOOL_UNWRITABLE = kind(
    "setup.spool_unwritable",
    Level.ERROR,
    "While the buffer is down, hits have nowhere to go, and are refused.",
    "Let the site's processes write to the folder segment-spool in BASE_DIR, or name a storage in SPOOL.",
)
SPOOL_WAITS = kind(
    "setup.spool_waits",
    Level.WARNING,
    "The buffer was down, and no flush has brought these messages back yet.",
    "The next flush drains the spool. If files stay: does the flush run on a machine that has this folder?",
)
CACHE_UNUSABLE = kind(
    "setup.cache_unusable",
    Level.ERROR,
    "FIRST_PARTY keeps analytics.js in this cache; without it each visitor's browser waits for Segment's CDN.",
    "Name a cache that works in CDN_CACHE: shared by all processes, with values of up to 3 MB.",
)
CACHE_LOCAL = kind(
    "setup.cache_local",
    Level.INFO,
    "Each process fetches analytics.js for itself, and serves it stale only if it has it.",
    "On a site with several processes name a cache in CDN_CACHE that all of them share.",
)


@dataclass(frozen=True)
class Options:
    """How thoroughly the set-up is examined."""

    send: bool = False
    """Whether a marked test event goes the whole way to Segment."""
    wait: float = 15.0
    """Seconds that the site's own flush gets to deliver it."""
    celery_app: str = ""
    """As in ``celery --app``; by default the one of the project."""


def checks_are_silent(options: Options) -> Findings:
    """What ``manage.py check --deploy`` says of this app."""
    found = 0
    for message in run_checks(include_deployment_checks=True):
        if not (message.id or "").startswith("segment_fallback.") or message.is_silenced():
            continue
        found += 1
        level = Level.ERROR if message.level >= ERROR else Level.WARNING if message.level >= WARNING else Level.INFO
        yield CHECK(f"{message.id}: {message.msg}", cure=message.hint or "", level=level)
    if not found:
        yield CHECK.ok("Django's checks find nothing in the settings.")


def buffers_answer(options: Options) -> Findings:
    """Each buffer can be read, its oldest message is young, and nothing was given up."""
    status, settings = read_status(), get_settings()
    for buffer in status.buffers:
        if buffer.error:
            yield BUFFER_UNAVAILABLE(f"The buffer {buffer.alias!r} does not answer: {buffer.error}.")
            continue
        age = (status.at - buffer.oldest) / 1000 if buffer.oldest is not None else 0.0
        if age > settings.HEALTH_MAX_AGE + settings.hold:
            waiting = f"waiting in the buffer {buffer.alias!r}"
            yield BUFFER_OLD(f"{counted(buffer.waiting, 'message')} {waiting}, the oldest for {duration(age)}.")
        else:
            waiting = f"{counted(buffer.waiting, 'message')} waiting in it"
            yield BUFFER_UNAVAILABLE.ok(f"The buffer {buffer.alias!r} answers; {waiting}.")
        if buffer.dead_letters:
            yield DEAD_LETTERS(f"The buffer {buffer.alias!r} has {counted(buffer.dead_letters, 'dead letter')}.")


def events_are_handled(options: Options) -> Findings:
    """No event has been due for long. Nothing of a site that has no handlers, or no table of events."""
    if not registry.all():
        return
    limit = get_settings().HEALTH_MAX_AGE
    try:
        number, since = store.overdue(limit)
    except BufferUnavailable:
        return
    if number:
        age = duration((now_ms() - since) / 1000)
        yield EVENTS_WAIT(f"{counted(number, 'event')} waiting for handlers, the oldest due for {age}.")
    else:
        yield EVENTS_WAIT.ok("No event waits for its handlers past its time.")


def duration(seconds: float) -> str:
    """About how long that is, in words."""
    for unit, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} seconds" if seconds >= 2 else "a second"


def spool_is_ready(options: Options) -> Findings:
    """The spool takes a file, gives it back and forgets it; and holds none but this."""
    name = f"doctor-{secrets.token_hex(8)}.probe"
    try:
        storage = spool_storage()
        saved = storage.save(name, ContentFile(b"doctor"))
        try:
            with storage.open(saved) as file:
                same = file.read() == b"doctor"
        finally:
            storage.delete(saved)
        waiting = make_spool().files()
    except Exception as error:  # noqa: BLE001 - storages raise what they like
        yield SPOOL_UNWRITABLE(f"The spool takes no file: {type(error).__name__}.")
        return
    if not same:
        yield SPOOL_UNWRITABLE("The spool does not give back what was written to it.")
    elif waiting:
        age = time.time() - spooled_at(waiting[0])
        yield SPOOL_WAITS(f"{len(waiting):,} files wait in the spool, the oldest for {duration(age)}.")
    else:
        yield SPOOL_UNWRITABLE.ok("The spool can be written, and is empty.")


def cache_keeps(options: Options) -> Findings:
    """The cache of FIRST_PARTY keeps what it is given."""
    settings = get_settings()
    if not settings.FIRST_PARTY or settings.SELF_HOSTED:
        return
    key, value = f"segment_fallback.doctor.{secrets.token_hex(8)}", b"x" * 1_000_000
    try:
        cache = caches[settings.CDN_CACHE]
        cache.set(key, value, 60)
        kept = cache.get(key) == value
        cache.delete(key)
    except Exception as error:  # noqa: BLE001 - caches raise what their servers' libraries have
        yield CACHE_UNUSABLE(f"The cache {settings.CDN_CACHE!r} fails: {type(error).__name__}.")
        return
    if not kept:
        yield CACHE_UNUSABLE(f"The cache {settings.CDN_CACHE!r} does not keep a file of a megabyte.")
    elif type(cache).__name__ == "LocMemCache":
        yield CACHE_LOCAL(f"The cache {settings.CDN_CACHE!r} is this process's own.")
    else:
        yield CACHE_UNUSABLE.ok(f"The cache {settings.CDN_CACHE!r} keeps analytics.js.")
