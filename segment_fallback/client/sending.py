"""``send``: the one way of a message of server code into the buffer.

Nothing of it raises into the caller unless RAISE_ERRORS is on: it is counted, and logged in one line.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, Protocol, TypeVar

from asgiref.sync import sync_to_async
from django.db import connections, transaction

from segment_fallback import ambient, plan
from segment_fallback.ambient import Ambient
from segment_fallback.buffers.accept import accept
from segment_fallback.client.build import LIBRARY, completed, finished, is_about, plain
from segment_fallback.client.scope import Scope, surroundings
from segment_fallback.conf import DEFAULT_SOURCE, get_settings, is_loud
from segment_fallback.exceptions import BufferUnavailable, InvalidMessage, PlanViolation, SpoolFull
from segment_fallback.log import log_fields
from segment_fallback.message import Message, Way, encode_plain
from segment_fallback.outcome import Outcome, Refused
from segment_fallback.tally import tally

logger = logging.getLogger("segment_fallback")

Sent = tuple[bool, dict[str, Any]]
"""What the SDK returns: whether the message was taken, and the message."""

Value = TypeVar("Value")


class Collector(Protocol):
    """Stands in for buffer and counts while somebody tests."""

    def take(self, messages: Sequence[Message]) -> None: ...

    def refuse(self, outcome: Outcome, message: Mapping[str, Any]) -> None: ...


collectors: list[Collector] = []
"""The last one gets everything; with none of them it is the buffer."""


def send(
    message: Mapping[str, Any],
    *,
    source: str = DEFAULT_SOURCE,
    on_commit: bool | None = None,
    about: Scope | None = None,
    fill: bool = True,
    library: Mapping[str, str] = LIBRARY,
) -> Sent:
    """Take one message, in the fields of Segment's spec, for delivery; ``(True, message)`` if that is certain.

    Ids and context that it does not name are those of the request, the task or the event around it, unless it names
    somebody else; those of ``about``, where given, in any case. Without ``fill`` it stays as it is. ``on_commit``: only
    if the transaction commits, by default what ON_COMMIT says. In a coroutine this waits for the disk; ``asend`` does
    not.
    """
    return off_the_loop(
        lambda: _send(message, source=source, on_commit=on_commit, about=about, fill=fill, library=library)
    )


async def asend(message: Mapping[str, Any], **options: Any) -> Sent:
    """``send`` for async code: it keeps no other coroutine waiting."""
    return await sync_to_async(send)(message, **options)


def _send(
    message: Mapping[str, Any],
    *,
    source: str,
    on_commit: bool | None,
    about: Scope | None,
    fill: bool,
    library: Mapping[str, str],
) -> Sent:
    settings = get_settings()
    scope = about or ambient.current.get()
    # A handler of an event is run again, and says the same then: it had better know that something went wrong.
    raising = settings.RAISE_ERRORS or bool(scope and scope.seed)
    full = dict(message)
    try:
        if source not in settings.sources:
            if source == DEFAULT_SOURCE:
                raise Refused(Outcome.DISABLED)
            raise InvalidMessage("source", f"SOURCES has no {source!r} with a write key")
        if scope and fill:
            full = _filled(full, scope, sure=about is not None)
        full = plain(finished(full, library), strict=raising)
        encoded = encode_plain(full, way=Way.SERVER, source=source)
        if plan.blocks(full, encoded, keep=not collectors):
            raise Refused(Outcome.PLAN)
        if settings.ON_COMMIT if on_commit is None else on_commit:
            connection = transaction.get_connection()
            if connection.in_atomic_block:
                connection.on_commit(lambda: _later_or_now(encoded, scope, raising=False), robust=True)
                return True, full
        return _later_or_now(encoded, scope, raising=raising), full
    except Refused as refusal:
        _decline(refusal.outcome, full)
    except InvalidMessage as error:
        _refuse(_CODES.get(error.code, Outcome.INVALID), full)
        if raising:
            raise
        extra = log_fields("call_refused", code=error.code, reason=str(error))
        logger.warning("a message by server code was refused: %s", error, extra=extra)
    except PlanViolation:
        raise  # in development only: the plan sees to that
    except Exception as error:
        if raising:
            raise
        # Without its text, which may hold what nobody should find in a log.
        reason = type(error).__name__
        extra = log_fields("call_failed", reason=reason)
        logger.error("a message by server code could not be taken: %s", reason, extra=extra)
        _refuse(Outcome.UNAVAILABLE, full)
    return False, full


def _filled(message: dict[str, Any], scope: Ambient, *, sure: bool) -> dict[str, Any]:
    """The message with what is around it; ``sure``: it is about who is there, whatever it names. Raises Refused."""
    person, moment = surroundings(scope, message)
    message |= {key: value for key, value in moment.items() if message.get(key) is None}
    return completed(message, person) if sure or is_about(message, person) else message


_CODES = {"size": Outcome.SIZE, "depth": Outcome.MALFORMED, "no_id": Outcome.NO_ID, "source": Outcome.DISABLED}


def _later_or_now(message: Message, scope: Ambient | None, *, raising: bool) -> bool:
    return (isinstance(scope, Scope) and scope.defer(message)) or write([message], raising=raising)


def write(messages: Sequence[Message], *, raising: bool = False) -> bool:
    """Make the messages durable now; whether that worked. Never raises, unless ``raising``."""
    if collectors:
        collectors[-1].take(messages)
        return True
    try:
        accept(messages)
        outcome = Outcome.ACCEPTED
    except (SpoolFull, BufferUnavailable) as error:
        if raising:
            raise
        extra = log_fields("lost", number=len(messages), reason=str(error))
        logger.error("%d messages by server code are lost: %s", len(messages), error, extra=extra)
        outcome = Outcome.SPOOL_FULL if isinstance(error, SpoolFull) else Outcome.UNAVAILABLE
    except Exception:
        if raising:
            raise
        extra = log_fields("lost", number=len(messages))
        logger.exception("%d messages by server code are lost", len(messages), extra=extra)
        outcome = Outcome.UNAVAILABLE
    tally.add(Way.SERVER, outcome, len(messages))
    return outcome is Outcome.ACCEPTED


def _refuse(outcome: Outcome, message: Mapping[str, Any]) -> None:
    if collectors:
        collectors[-1].refuse(outcome, message)
    else:
        tally.add(Way.SERVER, outcome)


def _decline(outcome: Outcome, message: Mapping[str, Any]) -> None:
    """Refuse what is nobody's mistake; in development somebody wonders, and is told."""
    _refuse(outcome, message)
    if is_loud():
        extra = log_fields("call_refused", code=outcome.value, reason=outcome.explanation)
        logger.warning(
            "a message by server code was not taken, %s: %s", outcome.value, outcome.explanation, extra=extra
        )


def off_the_loop(function: Callable[[], Value]) -> Value:
    """Call it; from a coroutine in a thread of its own, because Django's ORM refuses to work in a loop's."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return function()

    def call() -> Value:
        try:
            return function()
        finally:
            connections.close_all()  # those of this thread

    with ThreadPoolExecutor(1, thread_name_prefix="segment_fallback") as thread:
        return thread.submit(copy_context().run, call).result()
