"""The pytest plugin, in test runs of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import segment_fallback

pytest_plugins = ["pytester"]

SETTINGS = 'SECRET_KEY = "x"\nSEGMENT_FALLBACK = {"WRITE_KEY": "wk", "API_HOST": "https://api.segment.io"}\n'
POINTS = """
from django.conf import settings

def test_points(local_segment):
    assert settings.SEGMENT_FALLBACK == {
        "WRITE_KEY": "wk", "API_HOST": local_segment.url, "CDN_HOST": local_segment.url,
    }

def test_restored():
    assert settings.SEGMENT_FALLBACK["API_HOST"] == "https://api.segment.io"
"""


@pytest.fixture
def project(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> pytest.Pytester:
    """An empty project whose pytest loads our plugin and no other."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.setenv("PYTHONPATH", str(Path(segment_fallback.__file__).parent.parent))
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    return pytester


def run(project: pytest.Pytester, *args: str) -> pytest.RunResult:
    return project.runpytest_subprocess("-p", "segment_fallback.testing.fixtures", "-Werror", *args)


def test_fixture_runs_a_segment_without_any_django_settings(project: pytest.Pytester) -> None:
    project.makepyfile(
        """
        import urllib.request

        seen = []

        def test_up(local_segment):
            seen.append(local_segment)
            body = b'{"writeKey": "wk", "messageId": "m-1"}'
            headers = {"Content-Type": "application/json"}
            urllib.request.urlopen(
                urllib.request.Request(local_segment.url + "/v1/page", body, headers)
            ).close()
            assert local_segment.messages[0].message_id == "m-1"

        def test_down():
            seen[0].start()  # would raise if it still listened
            seen[0].stop()
        """
    )
    run(project).assert_outcomes(passed=2)


def test_fixture_leaves_settings_without_ours_alone(project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "site_settings")
    project.makepyfile(
        site_settings='SECRET_KEY = "x"',
        test_it="""
        from django.conf import settings

        def test_points(local_segment):
            assert not hasattr(settings, "SEGMENT_FALLBACK")
        """,
    )
    run(project).assert_outcomes(passed=1)


def test_fixture_points_settings_without_pytest_django(
    project: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "site_settings")
    project.makepyfile(site_settings=SETTINGS, test_it=POINTS)
    run(project).assert_outcomes(passed=2)


def test_fixture_points_settings_with_pytest_django(project: pytest.Pytester) -> None:
    project.makepyfile(
        site_settings=SETTINGS,
        test_it=POINTS
        + """
def test_own_override_ends_in_order(settings, local_segment):
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "WRITE_KEY": "mine"}
    assert settings.SEGMENT_FALLBACK["API_HOST"] == local_segment.url

def test_restored_again():
    assert settings.SEGMENT_FALLBACK["API_HOST"] == "https://api.segment.io"
""",
    )
    run(project, "-p", "django", "--ds=site_settings").assert_outcomes(passed=4)


def test_plugin_imports_nothing_heavy() -> None:
    code = "import sys, segment_fallback.testing.fixtures; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    heavy = {"django.conf", "requests", "boto3", "celery", "http.server", "segment_fallback.testing.receiver"}
    assert not heavy & set(loaded.split())
