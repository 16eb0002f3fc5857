"""What is asked of a buffer, a spool or a cache for the page may fail; the page then says so."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from django.core.exceptions import ImproperlyConfigured

from segment_fallback.buffers.base import one_line
from segment_fallback.exceptions import SegmentFallbackError
from segment_fallback.log import log_fields

logger = logging.getLogger("segment_fallback")

Answer = TypeVar("Answer")


def ask(work: Callable[[], Answer], otherwise: Answer) -> tuple[Answer, str]:
    """The work's answer and no error, or the other one and what went wrong, in one line. Never raises."""
    try:
        return work(), ""
    except Exception as error:  # noqa: BLE001 - wrong settings, or what a backend of the site's own raises
        # Of what is not ours only the name: its text may quote a row.
        ours = isinstance(error, (SegmentFallbackError, ImproperlyConfigured))
        text = one_line(str(error)) if ours else type(error).__name__
        logger.warning("the dashboard got no answer: %s", text, extra=log_fields("dashboard_failed", reason=text))
        return otherwise, text
