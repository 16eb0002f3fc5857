"""What `manage.py check` says of FIRST_PARTY, and of EAGER, which needs it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Error, Warning  # noqa: A004

from segment_fallback.cdn.files import LIBRARY
from segment_fallback.conf import get_settings

EAGER_HOLD = 15
"""Seconds that a view's own event may well need to come, and to find its pixel still waiting."""


def check_first_party(app_configs: Sequence[AppConfig] | None, **kwargs: object) -> list[CheckMessage]:
    """FIRST_PARTY finds what it serves, and where to keep it; EAGER has what it needs."""
    settings = get_settings()
    messages: list[CheckMessage] = []
    folder = settings.SELF_HOSTED
    if folder is not None and not Path(folder, LIBRARY).is_file():
        hint = "Copy the files of node_modules/@segment/analytics-next/dist/umd there; give an absolute path."
        text = f"SEGMENT_FALLBACK['SELF_HOSTED']: the folder {folder!r} has no {LIBRARY}."
        messages.append(Error(text, hint=hint, id="segment_fallback.E009"))
    if settings.CDN_CACHE not in django_settings.CACHES:
        hint = f"CACHES has {', '.join(map(repr, django_settings.CACHES))}."
        text = f"SEGMENT_FALLBACK['CDN_CACHE']: CACHES has no alias {settings.CDN_CACHE!r}."
        messages.append(Error(text, hint=hint, id="segment_fallback.E010"))
    short = settings.COLLECT == "buffer" and settings.hold < EAGER_HOLD
    if settings.EAGER and (short or not settings.FIRST_PARTY):
        text = f"EAGER with a HOLD of {settings.hold} seconds: Segment keeps many a view's pixel, not its own event."
        hint = f"Leave HOLD out, or set it to {EAGER_HOLD} or more."
        if not settings.FIRST_PARTY:
            text = "EAGER is on without FIRST_PARTY: no view's own event can take the place of its pixel's."
            hint = "Set FIRST_PARTY to True, or EAGER to False."
        messages.append(Warning(text, hint=hint, id="segment_fallback.W008"))
    return messages
