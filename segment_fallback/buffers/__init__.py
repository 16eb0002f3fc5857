"""Where messages wait: ``buffers["default"]`` is the backend that ``BUFFERS`` names."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from segment_fallback.buffers.base import Buffer
from segment_fallback.conf import get_settings

__all__ = ["Buffer", "buffers"]


class BufferHandler:
    """The buffers by alias, each made once a process at its first use; anew after a fork or a change of settings."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: tuple[object, dict[str, Buffer]] = (None, {})
        """What they were made from, and by alias those that were made."""

    def __getitem__(self, alias: str) -> Buffer:
        config = get_settings().BUFFERS
        made_from, made = self._made
        if config is not made_from:
            with self._lock:
                made_from, made = self._made
                if config is not made_from:
                    made = {}
                    self._made = config, made
        buffer = made.get(alias)
        if buffer is None:
            with self._lock:
                buffer = made.get(alias) or made.setdefault(alias, make_buffer(alias, dict(config.get(alias, {}))))
        return buffer

    def __iter__(self) -> Iterator[str]:
        return iter(get_settings().BUFFERS)

    def forget(self) -> None:
        """Drop what was made: a child of a fork must not share its parent's connections and locks."""
        self.__init__()  # type: ignore[misc]


def make_buffer(alias: str, config: dict[str, Any]) -> Buffer:
    """A buffer from one entry of ``BUFFERS``. Raises ImproperlyConfigured, or MissingExtra."""
    path = config.get("BACKEND")
    if not path:
        raise ImproperlyConfigured(f"SEGMENT_FALLBACK['BUFFERS'] has no alias {alias!r}")
    try:
        backend = import_string(path)
    except ImportError as error:
        if type(error) is not ImportError and not isinstance(error, ModuleNotFoundError):
            raise
        raise ImproperlyConfigured(
            f"SEGMENT_FALLBACK['BUFFERS'][{alias!r}]: cannot import {path!r}: {error}"
        ) from error
    if not (isinstance(backend, type) and issubclass(backend, Buffer)):
        raise ImproperlyConfigured(f"SEGMENT_FALLBACK['BUFFERS'][{alias!r}]: {path!r} is not a Buffer")
    try:
        return backend(**config.get("OPTIONS", {}))
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"SEGMENT_FALLBACK['BUFFERS'][{alias!r}]['OPTIONS']: {error}") from error


buffers = BufferHandler()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=buffers.forget)
