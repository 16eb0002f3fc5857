"""Mount these where you like: ``path("s/", include("segment_fallback.urls"))``.

The first segment below the mount is the site's own, derived from its secret (``ENDPOINT_NAME`` fixes it).
"""

from __future__ import annotations

from django.urls import path, register_converter
from django.urls.converters import StringConverter

from segment_fallback.cdn import views as cdn
from segment_fallback.intake import collect, pixel, who_am_i
from segment_fallback.names import endpoint_names
from segment_fallback.page import external

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


register_converter(EndpointNameConverter, "segment_endpoint_name")
register_converter(DataConverter, "segment_data")

urlpatterns = [
    path("<segment_endpoint_name:name>/p/<slug:message_id>/<segment_data:data>", pixel.pixel, name="pixel"),
    path("<segment_endpoint_name:name>/p/<slug:message_id>/<segment_data:data>/<str:token>", pixel.pixel, name="pixel"),
    path("<segment_endpoint_name:name>/n/<str:token>", pixel.noscript, name="noscript"),
    path("<segment_endpoint_name:name>/e/v1/<slug:kind>", collect.collect, name="collect"),
    path("<segment_endpoint_name:name>/q", collect.calls, name="calls"),
    path("<segment_endpoint_name:name>/w", who_am_i.who_am_i, name="who_am_i"),
    path("<segment_endpoint_name:name>/f/<slug:digest>", external.script_file, name="page_script"),
    # Of Segment's CDN, for FIRST_PARTY. The page's `_cdn` is `script` without its "/<key>/main.js".
    path("<segment_endpoint_name:name>/c/<slug:key>/main.js", cdn.script, name="script"),
    path("<segment_endpoint_name:name>/c/v1/projects/<slug:key>/settings", cdn.source_settings, name="settings"),
    path("<segment_endpoint_name:name>/c/analytics-next/bundles/<str:file>", cdn.bundle, name="bundle"),
    path("<segment_endpoint_name:name>/c/next-integrations/<path:path>", cdn.integration, name="integration"),
]
