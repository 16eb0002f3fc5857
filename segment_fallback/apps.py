from __future__ import annotations

from django.apps import AppConfig
from django.apps import apps as global_apps


class SegmentFallbackConfig(AppConfig):
    """Registers the checks and the signals' receivers, and waits for the SDK; imports no optional package."""

    name = "segment_fallback"
    verbose_name = "Segment fallback"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from django.conf import settings as django_settings
        from django.contrib.auth.signals import user_logged_in, user_logged_out
        from django.db.models.signals import post_save

        from segment_fallback import checks  # noqa: F401 - registers them
        from segment_fallback.client import sdk
        from segment_fallback.conf import get_settings
        from segment_fallback.intake import auth_events, login
        from segment_fallback.profiles import forget
        from segment_fallback.profiles.lookup import merge_at_login

        user_logged_in.connect(login.hint_at_login, dispatch_uid="segment_fallback.hint")
        user_logged_out.connect(login.forget_at_logout, dispatch_uid="segment_fallback.hint")
        user_logged_in.connect(auth_events.identify_at_login, dispatch_uid="segment_fallback.identify")
        user_logged_in.connect(merge_at_login, dispatch_uid="segment_fallback.profiles")
        user = django_settings.AUTH_USER_MODEL
        if user.partition(".")[0] in global_apps.app_configs:  # a site may have no users at all
            post_save.connect(auth_events.note_sign_up, sender=user, dispatch_uid="segment_fallback.sign_up")
        if get_settings().PROFILES:
            forget.register()
        if get_settings().PROFILE_API:
            from segment_fallback.profiles import api  # noqa: F401 - no page is to wait until `requests` is loaded
        if get_settings().CAPTURE_SDK:
            sdk.capture()
