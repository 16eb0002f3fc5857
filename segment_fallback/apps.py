from __future__ import annotations

from django.apps import AppConfig


class SegmentFallbackConfig(AppConfig):
    """Registers the checks; reads no setting and imports no optional package."""

    name = "segment_fallback"
    verbose_name = "Segment fallback"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from segment_fallback import checks  # noqa: F401 - registers them
