"""What the tests of the CDN half run on: a first-party site whose CDN is the local Segment, over real HTTP."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.cache import caches
from django.http import HttpResponse
from django.test import Client
from django.urls import reverse

from segment_fallback.cdn import folder, views
from segment_fallback.cdn.store import store
from segment_fallback.names import endpoint_names, public_key
from segment_fallback.testing import LocalSegment

WRITE_KEY = "tests-write-key"
BUNDLE = "schemaFilter.bundle.a6a77355d52c20e3a83d.js"
"""One that builds no URLs, so that we change nothing in it but the source map's."""
LIBRARY_UPSTREAM = f"/analytics.js/v1/{WRITE_KEY}/analytics.min.js"
SETTINGS_UPSTREAM = f"/v1/projects/{WRITE_KEY}/settings"

Get = Callable[..., HttpResponse]


@pytest.fixture(autouse=True)
def nothing_known() -> Iterator[None]:
    """Neither this process nor the cache remembers a file."""
    yield
    store.forget()
    caches["default"].clear()
    folder._prepared.cache_clear()
    views._first_party_settings.cache_clear()


@pytest.fixture
def segment(local_segment: LocalSegment, settings: Any) -> LocalSegment:
    """The site's upstream."""
    assert local_segment.has_analytics_js, "npm install (in the checkout)"
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "FIRST_PARTY": True}
    return local_segment


def base() -> str:
    return f"/s/{endpoint_names()[0]}/c"


def script_url(source: str = "default") -> str:
    return reverse("segment_fallback:script", args=[endpoint_names()[0], public_key(source)])


def settings_url(source: str = "default") -> str:
    return reverse("segment_fallback:settings", args=[endpoint_names()[0], public_key(source)])


def bundle_url(name: str = BUNDLE) -> str:
    return reverse("segment_fallback:bundle", args=[endpoint_names()[0], name])


def integration_url(path: str) -> str:
    return reverse("segment_fallback:integration", args=[endpoint_names()[0], path])


def without_source_map(script: bytes) -> bytes:
    return script[: script.rindex(b"//# sourceMappingURL")]


def fetch(url: str, **headers: str) -> Any:
    return Client().get(url, headers={name.replace("_", "-"): value for name, value in headers.items()})


def asked(segment: LocalSegment, path: str = "/") -> list[str]:
    """The paths below ``path`` that the CDN was asked for."""
    return [request.path for request in segment.requests if request.path.startswith(path)]
