"""What `manage.py check` says of variations."""

from __future__ import annotations

from collections.abc import Sequence

from django.apps import AppConfig
from django.conf import settings as django_settings
from django.core.checks import CheckMessage, Warning  # noqa: A004

from segment_fallback.conf import get_settings
from segment_fallback.profiles.variations import registry

CACHE = "django.middleware.cache.UpdateCacheMiddleware"


def check_variations(app_configs: Sequence[AppConfig] | None, **kwargs: object) -> list[CheckMessage]:
    """Variations that are declared are decided; and no cache that goes by the URL alone mixes them."""
    settings = get_settings()
    messages: list[CheckMessage] = []
    if not settings.VARIATIONS and (declared := registry.all()):
        hint = "Set SEGMENT_FALLBACK['VARIATIONS'] to 'visitor', or to 'edge' with an edge cache in front."
        text = f"{', '.join(repr(each.id) for each in declared)}: everybody gets the default, as VARIATIONS is not set."
        messages.append(Warning(text, hint=hint, id="segment_fallback.W017"))
    if settings.VARIATIONS == "edge" and CACHE in django_settings.MIDDLEWARE:
        hint = "Set VARIATIONS to 'visitor', or leave UpdateCacheMiddleware to the edge."
        text = "VARIATIONS 'edge' with Django's cache middleware, which keeps one variation for everybody."
        messages.append(Warning(text, hint=hint, id="segment_fallback.W018"))
    return messages
