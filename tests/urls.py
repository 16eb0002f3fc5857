from __future__ import annotations

from django.urls import include, path

urlpatterns = [path("s/", include("segment_fallback.urls"))]
