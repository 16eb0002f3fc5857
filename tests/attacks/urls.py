"""A site with all of our endpoints, and a webhook of its own."""

from __future__ import annotations

from django.urls import include, path

from segment_fallback.events import webhook_view

WEBHOOK_SECRET = "of-the-webhook"

urlpatterns = [
    path("s/", include("segment_fallback.urls")),
    path("hooks/paid", webhook_view("invoice.paid", secret=WEBHOOK_SECRET)),
]
