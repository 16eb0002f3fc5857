"""The pytest plugin: fixtures `local_segment` and `segment_messages`.

Registered as an entry point, so every pytest run where this package is installed imports it: it imports
nothing but pytest.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from segment_fallback.testing import CapturedMessages, LocalSegment


@pytest.fixture
def segment_messages() -> Iterator[CapturedMessages]:
    """What server code tracks in this test, collected instead of sent."""
    from segment_fallback.testing import captured_messages

    with captured_messages() as messages:
        yield messages


@pytest.fixture
def local_segment(request: pytest.FixtureRequest) -> Iterator[LocalSegment]:
    """A running local Segment, to which `SEGMENT_FALLBACK` points (`API_HOST`, `CDN_HOST`) for this test."""
    from segment_fallback.testing import LocalSegment

    with LocalSegment() as segment, _settings_point_at(segment.url, request):
        yield segment


@contextlib.contextmanager
def _settings_point_at(url: str, request: pytest.FixtureRequest) -> Iterator[None]:
    from django.conf import settings

    if not settings.configured and not os.environ.get("DJANGO_SETTINGS_MODULE"):
        yield
        return
    current = getattr(settings, "SEGMENT_FALLBACK", None)
    if current is None:
        yield
        return
    ours = {**current, "API_HOST": url, "CDN_HOST": url}
    if request.config.pluginmanager.hasplugin("django"):
        # Overrides must end in the reverse order of their beginning: this fixture sees to that, for the
        # test's own overrides too.
        request.getfixturevalue("settings").SEGMENT_FALLBACK = ours
        yield
        return
    from django.test import override_settings

    with override_settings(SEGMENT_FALLBACK=ours):
        yield
