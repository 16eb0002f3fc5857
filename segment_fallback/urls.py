"""Mount these where you like: ``path("s/", include("segment_fallback.urls"))``.

The first segment below the mount is the site's own, derived from its secret (``ENDPOINT_NAME`` fixes it).
"""

from __future__ import annotations

from django.urls import path, register_converter

from segment_fallback.intake import pixel
from segment_fallback.names import endpoint_names

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


register_converter(EndpointNameConverter, "segment_endpoint_name")

urlpatterns = [
    path("<segment_endpoint_name:name>/p/<slug:message_id>/<slug:data>", pixel.pixel, name="pixel"),
    path("<segment_endpoint_name:name>/p/<slug:message_id>/<slug:data>/<str:token>", pixel.pixel, name="pixel"),
    path("<segment_endpoint_name:name>/n/<str:token>", pixel.noscript, name="noscript"),
]
