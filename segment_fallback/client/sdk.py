"""Existing code that calls ``segment.analytics.track(…)``: its messages wait in our buffer.

The SDK's ``Client`` is changed where it stands, so that it does not matter who imported it, when and by which name: at
once if it is loaded already, else right after its own code ran at its first import. Nobody's import of the SDK is
ours. A client whose write key is one of ours starts no thread and queues nothing; checks, results and JSON are the
SDK's own, and values that it would drop survive. Any other client is left as it is.
"""

from __future__ import annotations

import functools
import importlib.machinery
import inspect
import logging
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType
from typing import Any

from segment_fallback.client.sending import Sent, send
from segment_fallback.conf import DEFAULT_SOURCE, get_settings, get_source
from segment_fallback.log import log_fields

logger = logging.getLogger("segment_fallback")

MODULE = "segment.analytics.client"


def capture() -> None:
    """Change the SDK's Client, now or as soon as somebody imports it."""
    if MODULE in sys.modules:
        change(sys.modules[MODULE])
    elif not any(isinstance(finder, _AtImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AtImport())


class _AtImport(MetaPathFinder):
    """Finds nothing by itself; waits for one module, and changes it when it was executed."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != MODULE:
            return None
        sys.meta_path.remove(self)
        specs = (finder.find_spec(fullname, path, target) for finder in sys.meta_path)
        spec = next(filter(None, specs), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_change(module: ModuleType) -> None:
                execute(module)
                change(module)

            spec.loader.exec_module = execute_and_change  # type: ignore[method-assign]
        return spec


def change(module: ModuleType) -> None:
    """Let the module's Client keep messages in our buffer. Does nothing to one that was changed, or is unknown."""
    client: Any = module.Client
    if hasattr(client, "segment_fallback"):
        return
    if not {"__init__", "_enqueue", "join"} <= vars(client).keys():
        logger.warning(
            "CAPTURE_SDK does not know this version of segment-analytics-python, and leaves it alone",
            extra=log_fields("sdk_unknown"),
        )
        return
    client.segment_fallback = None
    client.__init__ = _init(client.__init__)
    client._enqueue = _enqueue(client._enqueue, module)
    client.join = _join(client.join)


def _init(init: Callable[..., None]) -> Callable[..., None]:
    signature = inspect.signature(init)

    @functools.wraps(init)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> None:
        arguments = signature.bind(self, *args, **kwargs)
        arguments.apply_defaults()
        source = source_of(arguments.arguments["write_key"])
        if source is None:
            init(self, *args, **kwargs)
            return
        sends = arguments.arguments["send"]
        # Without it the SDK starts no thread, and registers nothing for the end of the process.
        arguments.arguments["send"] = False
        init(*arguments.args, **arguments.kwargs)
        self.send, self.segment_fallback = sends, source

    return wrapper


def _enqueue(enqueue: Callable[..., Sent], module: Any) -> Callable[..., Sent]:
    @functools.wraps(enqueue)
    def wrapper(self: Any, msg: dict[str, Any]) -> Sent:
        # A client that is older than our change has its threads; its messages are ours all the same.
        source = self.segment_fallback or source_of(self.write_key)
        if source is None or not self.send:
            return enqueue(self, msg)
        for name, kind in (("integrations", dict), ("type", str), ("context", dict)):
            module.require(name, msg[name], kind)
        if msg["timestamp"] is not None:
            module.require("timestamp", msg["timestamp"], module.datetime)
            msg["timestamp"] = module.guess_timezone(msg["timestamp"])
        if msg.get("messageId") is None:
            msg["messageId"] = module.uuid4()
        library = {"name": "analytics-python", "version": module.VERSION}
        return send(msg, source=source, fill=False, library=library)

    return wrapper


def _join(join: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(join)
    def wrapper(self: Any) -> None:
        if self.segment_fallback is None:  # else there is no thread to wait for, and with sync_mode not even a list
            join(self)

    return wrapper


def source_of(write_key: object) -> str | None:
    """The alias of the source that has this write key; None for a stranger's, or without CAPTURE_SDK."""
    settings = get_settings()
    if settings.CAPTURE_SDK and write_key:
        for alias in (DEFAULT_SOURCE, *settings.SOURCES):
            source = get_source(alias)
            if source and source.write_key == write_key:
                return alias
    return None
