from __future__ import annotations

from django.contrib import admin
from django.urls import include, path

from example_project import views
from example_project.audiences import audience

urlpatterns = [
    path("", views.home, name="home"),
    path("pieces/<slug:slug>/", views.piece, name="piece"),
    path("kiln/", views.kiln, name="kiln"),
    path("offers/", views.offers, name="offers"),
    path("audience/", audience, name="audience"),
    path("s/", include("segment_fallback.urls")),
    path("admin/", admin.site.urls),
    path("live/", views.live, name="live"),
    path("live/data/", views.live_data, name="live-data"),
    path("live/switch/", views.switch, name="switch"),
]
