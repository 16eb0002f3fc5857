"""Django signals that tell a site's own code what becomes of messages and hits.

They are sent where it happens: in a visitor's request, in a worker's flush. A receiver must be quick; if it raises,
Django logs that, and neither tracking nor delivery hears of it. What a receiver itself tracks is told to nobody, so
that none calls itself for ever. While nobody listens, a signal costs half a microsecond.
"""

from __future__ import annotations

import logging
import threading
from typing import Any

from django.dispatch import Signal

from segment_fallback.log import log_fields

logger = logging.getLogger("segment_fallback")

received = Signal(use_caching=True)
"""``messages`` were accepted: they are in the buffer, in the spool, or with COLLECT "forward" at Segment. The sender is
``Message``. What this process was told twice, and the buffer keeps once, is told twice here."""

refused = Signal(use_caching=True)
"""A hit, or ``number`` of them, was refused: ``outcome`` says why, ``way`` how it came. The sender is ``Outcome``."""

delivered = Signal(use_caching=True)
"""Segment took ``messages``, a batch for the ``source`` of that alias. The sender is ``Waiting``; with COLLECT
"forward" it is ``Message``. Where a flusher is killed, a batch may be told of twice, or not at all."""

buried = Signal(use_caching=True)
"""``messages`` became dead letters, for this ``reason``; ``source`` is the alias of the source that they were for. The
sender is ``Waiting``; it is ``Message`` where the tracking plan kept them from waiting."""

_telling = threading.local()


def tell(signal: Signal, sender: type, **named: Any) -> None:
    """Send the signal if anybody listens. Never raises for what a receiver does."""
    if not signal.has_listeners(sender) or getattr(_telling, "on", False):
        return
    _telling.on = True
    try:
        signal.send_robust(sender, **named)
    except Exception as error:  # noqa: BLE001 - async receivers cannot run in the thread of a loop
        name = type(error).__name__
        logger.error("the receivers of a signal could not be called: %s", name, extra=log_fields("signal", reason=name))
    finally:
        _telling.on = False
