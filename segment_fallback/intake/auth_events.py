"""AUTH_EVENTS: Django's signals say ``identify`` at a login, and ``alias`` at a login that follows a sign-up.

Segment joins what the visitor did before (anonymousId) with who he is (userId) by ``identify``; destinations such as
Mixpanel want ``alias``, once, when the user is new: https://segment.com/docs/connections/spec/alias/
"""

from __future__ import annotations

import logging
from typing import Any

from django.http import HttpRequest
from django.utils.module_loading import import_string

from segment_fallback import ambient
from segment_fallback.conf import get_settings
from segment_fallback.intake.visitor import Visitor
from segment_fallback.log import log_fields

logger = logging.getLogger("segment_fallback")


def note_sign_up(sender: object, instance: Any, created: bool, raw: bool = False, **kwargs: Any) -> None:
    """Receives ``post_save`` of the user model: a user who is created in a visitor's request may be that visitor."""
    visitor = ambient.current.get()
    if created and not raw and isinstance(visitor, Visitor) and get_settings().AUTH_EVENTS:
        visitor.signed_up = instance.pk


def identify_at_login(sender: object, request: HttpRequest | None, user: Any, **kwargs: Any) -> None:
    """Receives ``user_logged_in``. Never raises, unless RAISE_ERRORS is on."""
    visitor, settings = getattr(request, "segment", None), get_settings()
    if not settings.AUTH_EVENTS or not isinstance(visitor, Visitor):
        return
    try:
        traits = dict(import_string(settings.TRAITS)(user)) if settings.TRAITS else {}
    except Exception as error:
        if settings.RAISE_ERRORS:
            raise
        name = type(error).__name__
        extra = log_fields("traits_failed", reason=name)
        logger.error("TRAITS failed, and the user is identified without: %s", name, extra=extra)
        traits = {}
    if visitor.signed_up == user.pk and visitor.person().seen.anonymous_id:
        visitor.alias()
    visitor.identify(traits)
