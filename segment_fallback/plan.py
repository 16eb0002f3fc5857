"""A tracking plan: which track calls there may be, and what their properties are.

Declared in each app's ``segment_plan.py``, which is imported when the first message is made::

    @planned("Order Completed")
    @dataclass
    class OrderCompleted:
        order_id: str
        total: float
        coupon: str | None = None

or with a TypedDict, or ``planned("Order Completed", schema={…})``. What it declares is a JSON Schema, of which
``segment_fallback.plan_schema`` checks a part. Without declarations nothing is checked, seen or written.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from django.db import connections, router, transaction
from django.db.models import F
from django.utils.module_loading import autodiscover_modules

from segment_fallback.buffers import buffers
from segment_fallback.buffers.base import now_ms
from segment_fallback.buffers.database import DatabaseBuffer
from segment_fallback.conf import get_settings, is_loud
from segment_fallback.exceptions import PlanViolation
from segment_fallback.message import Message, normalise
from segment_fallback.models import SeenEvent
from segment_fallback.plan_schema import check_schema, schema_of, validate

logger = logging.getLogger("segment_fallback")

Declaration = TypeVar("Declaration", bound=type)

MODULE = "segment_plan"

MAX_NAMES = 500
"""Names that the table of seen events holds beside those that are declared: whoever puts an id into an event's name
must not fill a database."""
OTHERS = "(others)"


class Plan:
    """What is declared in this process."""

    def __init__(self) -> None:
        self._schemas: dict[str, Mapping[str, Any]] = {}
        self._lock = threading.RLock()
        self._discovered = self._discovering = False

    def declare(self, event: str, schema: Mapping[str, Any]) -> None:
        check_schema(schema)
        if self._schemas.get(event, schema) != schema:
            raise ValueError(f"the plan has {event!r} already, with other properties")
        self._schemas[event] = schema

    @property
    def schemas(self) -> Mapping[str, Mapping[str, Any]]:
        """The JSON Schema of each event's properties. Imports each app's ``segment_plan``, once a process."""
        if not self._discovered:
            with self._lock:
                if not self._discovering:
                    self._discovering = True
                    try:
                        autodiscover_modules(MODULE)
                    except Exception:
                        if is_loud():
                            raise
                        logger.exception("the tracking plan could not be imported; what there is of it is in force")
                    finally:
                        self._discovering = False
                    self._discovered = True
        return self._schemas


plan = Plan()


def planned(event: str, *, schema: Mapping[str, Any] | None = None) -> Callable[[Declaration], Declaration]:
    """Declare an event: decorates a dataclass or TypedDict of its properties; or called with a ``schema``, a JSON
    Schema of them. Raises TypeError for a type or a keyword that is not understood."""
    if schema is not None:
        plan.declare(event, schema)

    def declare(declaration: Declaration) -> Declaration:
        if schema is not None:
            raise TypeError("a schema was given already")
        plan.declare(event, schema_of(declaration))
        return declaration

    return declare


def check(event: str, properties: Mapping[str, Any]) -> list[str]:
    """What is wrong with an event's properties, in words, without their values; nothing for an undeclared event.

    They may be as the caller gave them, or as JSON has them. Raises InvalidMessage for what has no form in JSON.
    """
    schema = plan.schemas.get(event)
    return [] if schema is None else validate(normalise(properties), schema, "properties")


def blocks(message: Mapping[str, Any], encoded: Message) -> bool:
    """Hold a message, about to be kept as ``encoded``, against the plan: whether it must not go.

    Counts what it sees. A violation raises PlanViolation in development (``conf.is_loud``). Else it is counted and
    logged; with PLAN_BLOCK the message is a dead letter when this returns True. Raises BufferUnavailable.
    """
    if message.get("type") != "track" or not plan.schemas:
        return False
    event = str(message.get("event"))
    found = check(event, message.get("properties") or {})
    seen.add(event, found)
    if not found:
        return False
    text = f"{event!r} is not as planned: {'; '.join(found)}"
    if is_loud():
        raise PlanViolation(text)
    logger.warning("%s", text)
    if get_settings().PLAN_BLOCK:
        buffers["default"].bury([encoded], f"plan: {'; '.join(found)}")
        return True
    return False


class Seen:
    """What this process has seen and not written yet: written every OUTCOME_INTERVAL seconds, and at the end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._violations: Counter[str] = Counter()
        self._last: dict[str, str] = {}
        self._timer: threading.Timer | None = None

    def add(self, event: str, violations: list[str]) -> None:
        """Count a message. Never raises."""
        interval = get_settings().OUTCOME_INTERVAL
        name = "".join(c if c.isprintable() else "?" for c in event[:100])
        with self._lock:
            if name not in self._counts and len(self._counts) >= MAX_NAMES and name not in plan.schemas:
                name = OTHERS
            self._counts[name] += 1
            if violations:
                self._violations[name] += 1
                self._last[name] = "; ".join(violations).encode("ascii", "replace").decode()[:200]
            if interval and self._timer is None:
                self._timer = threading.Timer(interval, self._on_timer)
                self._timer.daemon = True
                self._timer.start()
        if not interval:
            self.write()

    def write(self) -> None:
        """Write what is pending; a database that fails gets it the next time."""
        with self._lock:
            counts, self._counts = self._counts, Counter()
            violations, self._violations = self._violations, Counter()
            last, self._last = self._last, {}
            self._timer = None
        if not counts:
            return
        try:
            _add_seen(counts, violations, last)
        except Exception as error:  # noqa: BLE001 - a count that fails must not fail the message that it counts
            logger.warning("%d messages could not be noted as seen yet: %s", counts.total(), error)
            with self._lock:
                self._counts.update(counts)
                self._violations.update(violations)
                self._last = {**last, **self._last}

    def _on_timer(self) -> None:
        try:
            self.write()
        finally:
            connections.close_all()  # those of the timer's own thread

    def forget(self) -> None:
        """What a parent has counted is the parent's to write."""
        self.__init__()  # type: ignore[misc]


def _add_seen(counts: Mapping[str, int], violations: Mapping[str, int], last: Mapping[str, str]) -> None:
    database = router.db_for_write(SeenEvent)
    rows = SeenEvent.objects.using(database)

    def add() -> None:
        with transaction.atomic(using=database):
            # Sorted: two processes that change the same rows in different orders would wait for each other.
            for name, number in sorted(counts.items()):
                changes: dict[str, Any] = {"count": F("count") + number, "last_seen": now_ms()}
                if name in violations:
                    changes |= {"violations": F("violations") + violations[name], "last_violation": last[name]}
                if rows.filter(name=name).update(**changes):
                    continue
                kept = name if name in plan.schemas or rows.count() < MAX_NAMES else OTHERS
                rows.get_or_create(name=kept)
                rows.filter(name=kept).update(**changes)

    DatabaseBuffer(using=database).run(add)


seen = Seen()
atexit.register(seen.write)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=seen.forget)
