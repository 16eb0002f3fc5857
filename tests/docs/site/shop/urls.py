from __future__ import annotations

from django.urls import include, path

from .views import checkout

urlpatterns = [path("checkout/", checkout), path("s/", include("segment_fallback.urls"))]
