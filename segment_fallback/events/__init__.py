"""The event gateway: what happens is emitted once, where it happens; handlers decide what Segment hears of it.

``emit("order.completed", order=order)`` writes one row, PendingEvent, and nothing else: no broker is asked, so that a
request costs what an INSERT costs, and neither a broker nor a worker that is down loses an event.

- **Transactions.** The row is written inside the caller's transaction: both become durable at one moment, or neither
  does. That is more than ``transaction.on_commit`` gives, where a process may die between commit and callback. Where
  the caller's transaction is another database's, ``on_commit`` of that one writes the row. ``on_commit=False`` writes
  at once, by a connection of its own: the event stays whatever becomes of the transaction.
- **Payload.** JSON, as message.normalise writes it. A model instance becomes a reference (model and primary key),
  with field values of that moment where ``snapshot(order, "total")`` asks for them. Nothing is pickled, and no handler
  is named: which handlers an event has, a worker's own code says when it runs them.
- **Handlers.** ``segment_events.py`` of each app, imported at the first emit or run, or where Celery's worker starts.
  ``@on("order.*")``. A worker claims due rows by one conditional UPDATE (a lease: the same statement on every database,
  and a killed worker's rows are free when it ends). Each handler is tried, and tried again, by itself; one that
  succeeded is not run again.
- **Once.** What a handler sends has the event's time, the caller's identity, and a messageId derived from event,
  handler and ordinal. So a handler that failed half-way, or ran twice, counts once.
- **The end.** A handler that keeps failing leaves the row, with its traceback, as failed; ``manage.py segment_events``
  shows it and tries again. An event that nobody handles is looked at for an hour (its handler may be about to be
  deployed), then counted as unhandled and forgotten.

The rows are in the database that Django's routers name for this app. A site whose messages wait in DynamoDB, and that
has no database, cannot use the gateway.
"""

from __future__ import annotations

from segment_fallback.events.event import Event, Reference, snapshot
from segment_fallback.events.handlers import on
from segment_fallback.events.outbox import aemit, emit
from segment_fallback.events.tracked import track_model
from segment_fallback.events.webhook import webhook_view

__all__ = ["Event", "Reference", "aemit", "emit", "on", "snapshot", "track_model", "webhook_view"]
