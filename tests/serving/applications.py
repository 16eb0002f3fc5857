"""The WSGI and ASGI applications of the project: what a server is pointed at."""

from __future__ import annotations

import os

from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

wsgi = get_wsgi_application()
asgi = get_asgi_application()


def touch() -> None:
    """Use what a process makes once, as a site that works at its start does; then servers fork."""
    from django.db import connections

    from segment_fallback.buffers.accept import accept, acceptance
    from segment_fallback.intake.verify import limiter
    from segment_fallback.message import Message, Way
    from segment_fallback.outcome import Outcome
    from segment_fallback.tally import tally

    accept([Message("before-the-fork", b"{}")])
    acceptance.spool.put([Message("before-the-fork-too", b"{}")])
    tally.add(Way.SERVER, Outcome.ACCEPTED)
    limiter.hit("key", 1)
    connections.close_all()


if os.environ.get("SERVING_TOUCH"):
    touch()
