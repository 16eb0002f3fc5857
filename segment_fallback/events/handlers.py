"""Which handlers there are: functions registered with ``@on`` in each app's ``segment_events.py``."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any, TypeVar

from asgiref.sync import async_to_sync, iscoroutinefunction
from django.utils.module_loading import autodiscover_modules

from segment_fallback.events.event import Event

Function = TypeVar("Function", bound=Callable[[Event], Any])

MODULE = "segment_events"


@dataclass(frozen=True)
class Handler:
    """A function, and the events that it wants. What waits knows it by ``name``."""

    name: str
    function: Callable[[Event], Any]
    patterns: tuple[str, ...]
    inline: bool

    def wants(self, event_name: str) -> bool:
        return any(fnmatchcase(event_name, pattern) for pattern in self.patterns)

    def __call__(self, event: Event) -> None:
        function = self.function
        if iscoroutinefunction(function):
            function = async_to_sync(function)
        function(event)


class Registry:
    """The handlers of this process."""

    def __init__(self) -> None:
        self._handlers: dict[str, Handler] = {}
        self._lock = threading.RLock()
        self._discovered = self._discovering = False

    def add(self, handler: Handler) -> None:
        known = self._handlers.get(handler.name)
        if known is not None and known.function is handler.function:
            handler = replace(known, patterns=known.patterns + handler.patterns, inline=handler.inline)
        elif known is not None and (_place(known) != _place(handler) or "<lambda>" in handler.name):
            raise ValueError(f"two handlers have the name {handler.name!r}: give one another, by on(…, name=…)")
        self._handlers[handler.name] = handler

    def discover(self) -> None:
        """Import each app's ``segment_events``, once a process. Raises what one of them raises, each time."""
        if self._discovered:
            return
        with self._lock:
            if self._discovering:  # by what is being imported
                return
            self._discovering = True
            try:
                autodiscover_modules(MODULE)
                self._discovered = True
            finally:
                self._discovering = False

    def all(self) -> list[Handler]:
        self.discover()
        return sorted(self._handlers.values(), key=lambda handler: handler.name)

    def matching(self, event_name: str) -> list[Handler]:
        """The handlers of an event, by name."""
        return [handler for handler in self.all() if handler.wants(event_name)]


def _place(handler: Handler) -> tuple[str, str]:
    return handler.function.__module__, handler.function.__qualname__


registry = Registry()


def on(*patterns: str, inline: bool = False, name: str = "") -> Callable[[Function], Function]:
    """Register a handler of events whose name is, or matches, one of these: ``order.completed``, ``order.*``, ``*``.

    ``inline``: run it in the emitting process, after the commit, instead of in a worker; if it fails there, a worker
    tries again. ``name`` is how waiting events remember it; by default module and function: give one before you move
    a function, or what it had done already it does again. Raises TypeError for a pattern that is no text.
    """
    if not patterns:
        raise TypeError("on() needs the name of an event, or a pattern")
    for pattern in patterns:
        if not isinstance(pattern, str):  # a function, where @on stands bare above it
            raise TypeError(f'on() takes names of events, or patterns, not {pattern!r}: write @on("order.completed")')

    def register(function: Function) -> Function:
        own = name or f"{function.__module__}.{function.__qualname__}"
        registry.add(Handler(own, function, patterns, inline))
        return function

    return register
