"""``profiles``: the store that the setting PROFILES names, made once a process at its first use."""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from segment_fallback.conf import get_settings
from segment_fallback.profiles.store import ProfileStore


class ProfilesHandler:
    """The store; anew after a fork or a change of settings. False where PROFILES is not set."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: ProfileStore | None = None
        self._made_from: object = None

    def __bool__(self) -> bool:
        return bool(get_settings().PROFILES)

    @property
    def store(self) -> ProfileStore:
        """Raises ImproperlyConfigured, or MissingExtra."""
        config = get_settings().PROFILES
        made = self._made
        if made is None or config is not self._made_from:
            with self._lock:
                if self._made is None or config is not self._made_from:
                    self._made, self._made_from = make_store(config), config
                made = self._made
        return made

    def forget(self) -> None:
        """Drop what was made: a child of a fork must not share its parent's connections and locks."""
        self.__init__()  # type: ignore[misc]


def make_store(config: Mapping[str, Any]) -> ProfileStore:
    """A store from PROFILES. Raises ImproperlyConfigured, or MissingExtra."""
    path = config.get("BACKEND")
    if not path:
        raise ImproperlyConfigured("SEGMENT_FALLBACK['PROFILES'] is not set")
    try:
        backend = import_string(path)
    except ImportError as error:
        if type(error) is not ImportError and not isinstance(error, ModuleNotFoundError):
            raise
        raise ImproperlyConfigured(f"SEGMENT_FALLBACK['PROFILES']: cannot import {path!r}: {error}") from error
    if not (isinstance(backend, type) and issubclass(backend, ProfileStore)):
        raise ImproperlyConfigured(f"SEGMENT_FALLBACK['PROFILES']: {path!r} is not a ProfileStore")
    try:
        return backend(**config.get("OPTIONS", {}))
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"SEGMENT_FALLBACK['PROFILES']['OPTIONS']: {error}") from error


profiles = ProfilesHandler()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=profiles.forget)
