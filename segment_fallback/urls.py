"""Mount these where you like: ``path("s/", include("segment_fallback.urls"))``.

The first segment below the mount is the site's own, derived from its secret (``ENDPOINT_NAME`` fixes it).
"""

from __future__ import annotations

from django.urls import path, register_converter
from django.urls.converters import StringConverter

from segment_fallback.cdn import views as cdn
from segment_fallback.intake import collect, pixel, reset, who_am_i
from segment_fallback.names import endpoint_names
from segment_fallback.page import external
from segment_fallback.profiles import assign, webhook

app_name = "segment_fallback"


class EndpointNameConverter:
    """The names under which this site's endpoints answer now; read live, so that a rotated secret takes effect."""

    regex = "[A-Za-z0-9_-]{1,40}"

    def to_python(self, value: str) -> str:
        if value not in endpoint_names():
            raise ValueError("not this site's name")
        return value

    def to_url(self, value: str) -> str:
        return value


class DataConverter(StringConverter):
    """What a browser says of a view: base64, but for the slash."""

    regex = "[A-Za-z0-9+_=]+"


class LetterConverter(StringConverter):
    """What analytics.js calls a kind of event."""

    regex = "[a-z]"


register_converter(EndpointNameConverter, "segment_endpoint_name")
register_converter(DataConverter, "segment_data")
register_converter(LetterConverter, "segment_letter")

NOT_FOR_PAGES = [
    # Server libraries append /v1/… to the host that they are given.
    path("<segment_endpoint_name:name>/e/v1/<slug:kind>", collect.collect, name="collect"),
    # What analytics.js itself calls the files of the CDN: it would ask so in a version that writes these paths in
    # another way than cdn/rewrite.py knows.
    path("<segment_endpoint_name:name>/c/v1/projects/<slug:key>/settings", cdn.source_settings, name="cdn_settings"),
    path("<segment_endpoint_name:name>/c/analytics-next/bundles/<str:file>", cdn.bundle, name="cdn_bundle"),
    path("<segment_endpoint_name:name>/c/next-integrations/<path:path>", cdn.integration, name="cdn_integration"),
]
"""Paths with words in them, which a list could name. Below the endpoint's name no URL that a page asks for has any."""

urlpatterns = [
    # The page's script asks for the first.
    path("<segment_endpoint_name:name>/p/<slug:message_id>/<segment_data:data>/<str:token>", pixel.pixel, name="pixel"),
    path("<segment_endpoint_name:name>/p/<slug:message_id>/<segment_data:data>", pixel.pixel, name="pixel"),
    path("<segment_endpoint_name:name>/n/<str:token>", pixel.noscript, name="noscript"),
    path("<segment_endpoint_name:name>/e/<segment_letter:kind>", collect.collect, name="events"),
    path("<segment_endpoint_name:name>/q", collect.calls, name="calls"),
    path("<segment_endpoint_name:name>/w", who_am_i.who_am_i, name="who_am_i"),
    path("<segment_endpoint_name:name>/r", reset.reset, name="reset"),
    path("<segment_endpoint_name:name>/h", webhook.webhook, name="profile_webhook"),
    path("<segment_endpoint_name:name>/v", assign.variations, name="variations"),
    path("<segment_endpoint_name:name>/f/<slug:digest>", external.script_file, name="page_script"),
    # Of Segment's CDN, for FIRST_PARTY. The page's `_cdn` is `script` without its "/<key>".
    path("<segment_endpoint_name:name>/c/<slug:key>", cdn.script, name="script"),
    path("<segment_endpoint_name:name>/c/b/<str:file>", cdn.bundle, name="bundle"),
    path("<segment_endpoint_name:name>/c/i/<path:path>", cdn.integration, name="integration"),
    path("<segment_endpoint_name:name>/c/<slug:key>/s", cdn.source_settings, name="settings"),
    *NOT_FOR_PAGES,
]
