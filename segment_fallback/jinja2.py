"""``{{ segment_snippet("Product", category="Shop") }}`` and ``segment_variation()`` for templates of Jinja2.

They are what Django's tags of these names are, and take the same arguments. In TEMPLATES, for Django's backend of
Jinja2: ``"OPTIONS": {"extensions": ["segment_fallback.jinja2.SegmentExtension"]}``; or, in a function of one's own
that makes the environment: ``env.globals.update(segment_globals)``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

try:
    from jinja2 import Environment, StrictUndefined, Undefined, pass_context
    from jinja2.ext import Extension
    from jinja2.runtime import Context
except ImportError as error:
    from segment_fallback.exceptions import MissingExtra

    raise MissingExtra("segment_fallback.jinja2", "jinja2") from error

from django.utils.safestring import SafeString

from segment_fallback.page import tag


@pass_context
def segment_snippet(context: Context, *arguments: Any, **more: Any) -> SafeString | str:
    """Segment's analytics.js with a fallback: see the tag. Put it last in the head."""
    named = {key: _defined(value) for key, value in more.items()}
    return tag.segment_snippet(context, *map(_defined, arguments), **named)


@pass_context
def segment_variation(context: Context, experiment: str | None = None) -> str:
    """Which variation of the page its visitor gets: ``{% set variation = segment_variation() %}``."""
    return tag.segment_variation(context, experiment)


def _defined(value: Any) -> Any:
    """A variable that there is not is an empty text, as in Django's templates; unless the site is strict about it."""
    return "" if isinstance(value, Undefined) and not isinstance(value, StrictUndefined) else value


segment_globals: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {"segment_snippet": segment_snippet, "segment_variation": segment_variation}
)
"""The functions, by the names that templates call them by."""


class SegmentExtension(Extension):
    """Gives every template of its environment the functions; a global of the site's own that is called so stays."""

    def __init__(self, environment: Environment) -> None:
        super().__init__(environment)
        for name, function in segment_globals.items():
            environment.globals.setdefault(name, function)
