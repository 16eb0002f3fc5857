"""``profile_of(request)``: what is known of the visitor, by ids that the visitor proved.

The userId is that of Django's auth. The anonymousId is believed only from our own signed cookie, and only where this
site made it up; what analytics.js's cookie says, anybody can write.
"""

from __future__ import annotations

import logging
import os
import time
from typing import Any

from asgiref.sync import sync_to_async
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest

from segment_fallback.conf import Settings, get_settings
from segment_fallback.exceptions import MissingExtra, ProfilesUnavailable
from segment_fallback.intake import identity
from segment_fallback.intake.privacy import check_choices
from segment_fallback.log import log_fields
from segment_fallback.outcome import Refused
from segment_fallback.profiles.handler import profiles
from segment_fallback.profiles.store import Ids, Profile, profile

logger = logging.getLogger("segment_fallback")

PAUSE = 5.0
"""Seconds for which a process asks a store no more that has failed: no page is to wait for it again and again."""
_KEPT = "_segment_profile"


class Lookup:
    """This process's look-ups, and until when it pauses."""

    def __init__(self) -> None:
        self._paused_until = float("-inf")

    def of(self, request: HttpRequest) -> Profile | None:
        settings = get_settings()
        if not settings.PROFILES:
            return None
        try:
            ids = proven_ids(request, settings)
            kept: tuple[Ids, Profile | None] | None = getattr(request, _KEPT, None)
            if kept is None or kept[0] != ids:  # who signs in or out is somebody else from then on
                kept = ids, self._find(ids, settings) if ids else None
                setattr(request, _KEPT, kept)
            return kept[1]
        except Exception as error:  # noqa: BLE001 - a page goes on without
            self._fail(error)
            return None

    def merge(self, request: HttpRequest) -> None:
        """What was known of the visitor's browser is known of the user who signs in. Never raises."""
        settings = get_settings()
        if settings.PROFILES and time.monotonic() >= self._paused_until:
            try:
                profiles.store.merge(proven_ids(request, settings))
            except Exception as error:  # noqa: BLE001 - a login goes on without
                self._fail(error)

    def _find(self, ids: Ids, settings: Settings) -> Profile | None:
        if time.monotonic() < self._paused_until:
            return None
        began, store = time.monotonic(), profiles.store
        records = store.records(ids)
        if ids.user_id and ids.anonymous_id and (known := records.get(ids.keys[1])) and known.traits:
            store.merge(ids)
        if ids.user_id and settings.PROFILE_API:
            from segment_fallback.profiles.api import pulls  # loads `requests`

            pulled = pulls.pull(ids.user_id, records.get(ids.keys[0]), began=began)
            return profile(ids, [*records.values(), *([pulled] if pulled else [])])
        return profile(ids, records.values())

    def _fail(self, error: Exception) -> None:
        known = isinstance(error, (ProfilesUnavailable, ImproperlyConfigured, MissingExtra))
        if known:
            self._paused_until = time.monotonic() + PAUSE
        reason = str(error) if known else type(error).__name__
        logger.error("a profile could not be looked up: %s", reason, extra=log_fields("no_profile", reason=reason))

    def forget(self) -> None:
        """For the child of a fork, and for tests."""
        self.__init__()  # type: ignore[misc]


lookup = Lookup()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lookup.forget)


def profile_of(request: HttpRequest) -> Profile | None:
    """What is known of the visitor; None where nothing is, or nothing may be told, or the store does not answer.

    Never raises. Looked up once a request. Reads cookies and session, so no cache may share what is made of it.
    """
    return lookup.of(request)


aprofile_of = sync_to_async(profile_of)
"""``profile_of`` for async code."""


def proven_ids(request: HttpRequest, settings: Settings) -> Ids:
    """The ids that are the visitor's beyond doubt; none of one who does not want to be known."""
    try:
        check_choices(request, settings)
    except Refused:
        return Ids()
    return Ids(identity.user_id(request, settings), identity.proven_anonymous_id(request, settings))


def merge_at_login(sender: object, request: HttpRequest | None, **kwargs: Any) -> None:
    """Receives ``user_logged_in``: only here is it certain that a browser's id and a user's are one person's."""
    if request is not None:
        lookup.merge(request)
