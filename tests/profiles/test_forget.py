from __future__ import annotations

from io import StringIO

import pytest
from django.core.management import call_command
from django.test import override_settings

from segment_fallback.buffers.base import now_ms
from segment_fallback.delivery import forget as delivery
from segment_fallback.profiles import Ids, forget, profiles
from tests.profiles.posts import OURS

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """As AppConfig.ready does for a site with PROFILES."""
    monkeypatch.setattr(delivery, "places", {**delivery.places})
    monkeypatch.setattr(forget, "places", delivery.places)
    forget.register()


def run(*arguments: str) -> str:
    output = StringIO()
    call_command("segment_forget", *arguments, stdout=output)
    return output.getvalue()


def test_profiles_of_the_ids_are_forgotten_and_nobody_elses() -> None:
    with override_settings(SEGMENT_FALLBACK=OURS):
        told, people = now_ms() - 10, [Ids("ada"), Ids(anonymous_id="a-1"), Ids("bob")]
        for ids in people:
            profiles.store.update(ids, {"vip": True}, told)
        named = ("--user-id", "ada", "--user-id", "stranger", "--anonymous-id", "a-1")
        assert "profiles: 2\n" in run(*named, "--dry-run")
        assert profiles.store.get(people[0])
        assert "profiles: 2\n" in run(*named, "--yes")
        profiles.store.update(people[0], {"vip": True}, told)
        assert [profiles.store.get(ids) is None for ids in people] == [True, True, False]


def test_store_that_is_down_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    down = {"BACKEND": "segment_fallback.profiles.cache.CacheProfiles", "OPTIONS": {"alias": "missing"}}
    with override_settings(SEGMENT_FALLBACK={**OURS, "PROFILES": down}):
        run("--user-id", "ada", "--yes")
    assert "Not complete: profiles cannot be reached" in capsys.readouterr().err


def test_site_without_profiles_forgets_all_the_same() -> None:
    assert "profiles: 0\n" in run("--user-id", "ada", "--yes")
