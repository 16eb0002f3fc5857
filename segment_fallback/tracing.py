"""Spans for OpenTelemetry, of what takes time here: ``put``, ``flush`` and ``send``.

There is nothing to switch on. A process that is instrumented has loaded OpenTelemetry's API; where it has not, this
loads nothing and does nothing. No span carries a payload, a messageId or a key, nor the text of an exception, which
could quote one.
"""

from __future__ import annotations

import contextlib
import sys
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.trace import Span as ApiSpan

API = "opentelemetry.trace"


class Span:
    """A span under way, or none. A tracer that fails is no reason to fail here."""

    def __init__(self, manager: AbstractContextManager[ApiSpan] | None = None) -> None:
        self._manager = manager
        self._span: ApiSpan | None = None

    def __enter__(self) -> Span:
        if self._manager is not None:
            with contextlib.suppress(Exception):
                self._span = self._manager.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._span is None or self._manager is None:
            return
        if kind is not None:
            self.fail(kind.__name__)
        with contextlib.suppress(Exception):
            self._manager.__exit__(None, None, None)

    def set(self, **attributes: str | int) -> None:
        """Attributes, below ``segment_fallback.``."""
        if self._span is not None:
            with contextlib.suppress(Exception):
                self._span.set_attributes(_named(attributes))

    def fail(self, reason: str) -> None:
        """Say that it went wrong."""
        if self._span is not None:
            with contextlib.suppress(Exception):
                status = sys.modules[API].StatusCode.ERROR
                self._span.set_status(status, reason)


_NOTHING = Span()


def span(name: str, **attributes: str | int) -> Span:
    """A context manager: the span ``segment_fallback.<name>``, with attributes of that prefix."""
    api: Any = sys.modules.get(API)
    if api is not None:
        with contextlib.suppress(Exception):  # another thread may still be loading the API
            tracer = api.get_tracer("segment_fallback")
            manager = tracer.start_as_current_span(
                f"segment_fallback.{name}",
                kind=api.SpanKind.CLIENT if name == "send" else api.SpanKind.INTERNAL,
                attributes=_named(attributes),
                record_exception=False,
                set_status_on_exception=False,
            )
            return Span(manager)
    return _NOTHING


def _named(attributes: dict[str, str | int]) -> dict[str, str | int]:
    return {f"segment_fallback.{key}": value for key, value in attributes.items()}
