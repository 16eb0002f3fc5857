"""Whether what waits is delivered: by the flushes that were seen, and by a test event that goes the whole way."""

from __future__ import annotations

import time

from django.core.exceptions import ImproperlyConfigured

from segment_fallback import message
from segment_fallback.buffers import Buffer, buffers
from segment_fallback.conf import get_settings, get_source
from segment_fallback.delivery.flush import flush
from segment_fallback.doctor.finding import Findings, Level, kind
from segment_fallback.doctor.setup import Options, duration
from segment_fallback.exceptions import BufferUnavailable, MissingExtra
from segment_fallback.status import read_status

UNSEEN = kind(
    "setup.flush_unseen",
    Level.ERROR,
    "Nothing leaves the buffer: beat does not run, has no schedule or no worker, or cron does not call segment_flush.",
    "Run exactly one `celery beat` with schedule_flush(app) in its app, and a worker; or `manage.py segment_flush` "
    "every minute by cron.",
)
FAILING = kind(
    "setup.flush_failing",
    Level.WARNING,
    "The flush runs and does not get its messages delivered. It tries again ever more slowly, and loses nothing.",
    "The error says why: see API_HOST, OAUTH, and the way out to the internet.",
)
ARCHIVE_LACKS = kind(
    "setup.archive_lacks",
    Level.WARNING,
    "Delivered messages are not in the archive, so that they cannot be replayed or counted anew.",
    "Look whether the storage of the archive can be written.",
)
UNTRIED = kind(
    "setup.flush_untried",
    Level.INFO,
    "Only an event that goes the whole way proves that all of it works. It is an event in your source, so the doctor "
    "asks first; it is marked, and goes to no destination (integrations: All is False).",
    'Call segment_doctor with --send: it sends one track event "Segment Fallback Doctor".',
)
NOT_RUN = kind(
    "setup.flush_not_run",
    Level.WARNING,
    "The way to Segment is free, and nobody but the doctor went it in that time.",
    "See that beat and a worker run, or cron; or give them longer by --wait.",
)
FAILED = kind(
    "setup.flush_failed",
    Level.ERROR,
    "What this event cannot, no other can.",
    "The error says why: see API_HOST, OAUTH, and the way out to the internet.",
)

EVENT = "Segment Fallback Doctor"
ANONYMOUS_ID = "segment-fallback-doctor"
"""One for all test events: Segment counts visitors."""
POLL = 0.2


def flush_was_seen(options: Options) -> Findings:
    """Each buffer was flushed a moment ago, without trouble."""
    status, settings = read_status(counting=False), get_settings()
    for buffer in status.buffers:
        age = (status.at - buffer.flushed) / 1000
        if buffer.error:
            continue  # another examination says so
        if last := buffer.trouble:
            yield FAILING(
                f"{last.failures} flushes of {buffer.alias!r} failed in a row: {last.error or 'who knows why'}."
            )
        elif age <= settings.HEALTH_MAX_SILENCE or buffer.is_flushed_at(status.at):
            yield UNSEEN.ok(f"The buffer {buffer.alias!r} was flushed {duration(age)} ago.")
        else:
            seen = f"The last flush of {buffer.alias!r} was {duration(age)} ago" if buffer.flushed else ""
            # Without server code that tracks, nothing waits there.
            forwards = settings.COLLECT == "forward"
            what = seen or f"No flush of {buffer.alias!r} was ever seen"
            yield UNSEEN(f"{what}.", level=Level.INFO if forwards else None)
    if status.unarchived:
        yield ARCHIVE_LACKS(f"The archive lacks {status.unarchived:,} messages, because its storage failed.")


def event_arrives(options: Options) -> Findings:
    """A marked event in the buffer is gone from it soon: delivered."""
    if get_source() is None:
        return
    if not options.send:
        yield UNTRIED("No test event was sent.")
        return
    try:
        buffer = buffers["default"]
    except (ImproperlyConfigured, MissingExtra):
        return  # another examination says so
    message_id = message.new_message_id()
    start = time.monotonic()
    try:
        buffer.put([_event(message_id)])
        while _waits(buffer, message_id) and time.monotonic() - start < options.wait:
            time.sleep(POLL)
        by_itself = not _waits(buffer, message_id)
        trouble = "" if by_itself else flush(["default"]).trouble
        letter = next((letter for letter in buffer.dead_letters() if letter.message.message_id == message_id), None)
        if letter:
            buffer.remove_dead_letters([message_id])
            yield FAILED(f"The test event was refused: {letter.reason}.")
        elif _waits(buffer, message_id):
            yield FAILED(f"The test event still waits: {trouble or 'another flush holds its part, or it backs off'}.")
        elif by_itself:
            yield FAILED.ok(f"The test event was delivered in {time.monotonic() - start:.1f} seconds.")
        else:
            yield NOT_RUN(
                f"The test event waited {options.wait:.0f} seconds, until the doctor's own flush delivered it."
            )
    except BufferUnavailable as error:
        yield FAILED(f"The test event could not be buffered: {error}.")


def _event(message_id: str) -> message.Message:
    event = {
        "type": "track",
        "event": EVENT,
        "messageId": message_id,
        "timestamp": message.timestamp(),
        "anonymousId": ANONYMOUS_ID,
        "properties": {"test": True},
        "context": {"ip": "0.0.0.0"},  # noqa: S104 - by which Segment knows that there is none
        "integrations": {"All": False},
    }
    return message.encode(event)


def _waits(buffer: Buffer, message_id: str) -> bool:
    return any(waiting.message_id == message_id for waiting in buffer.waiting_messages())
