from __future__ import annotations

from django.apps import AppConfig


class SegmentFallbackConfig(AppConfig):
    """Registers the checks; reads no setting and imports no optional package."""

    name = "segment_fallback"
    verbose_name = "Segment fallback"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django.contrib.auth.signals import user_logged_in, user_logged_out

        from segment_fallback import checks  # noqa: F401 - registers them
        from segment_fallback.intake import identity

        user_logged_in.connect(identity.hint_at_login, dispatch_uid="segment_fallback.hint")
        user_logged_out.connect(identity.forget_at_logout, dispatch_uid="segment_fallback.hint")
