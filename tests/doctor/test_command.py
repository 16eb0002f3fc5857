from __future__ import annotations

import io
import json
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.http import HttpResponse

from segment_fallback.doctor.finding import Level
from tests.doctor.conftest import Serve
from tests.doctor.site import with_header, with_page


def doctor(*arguments: str, **options: Any) -> str:
    """What the command prints."""
    out = io.StringIO()
    call_command("segment_doctor", *arguments, stdout=out, no_color=True, **options)
    return out.getvalue()


def test_error_ends_the_command_with_what_why_cure_and_link(serve: Serve) -> None:
    out = io.StringIO()
    with pytest.raises(CommandError, match=r"^1 error, 0 warnings, 1 remark; \d+ fine\.$") as caught:
        call_command("segment_doctor", serve(with_page(snippet="")), pages_only=True, stdout=out, no_color=True)
    assert caught.value.returncode == 1
    said = " ".join(out.getvalue().split())
    assert "error The page has no snippet of ours. why Nobody is told of this page's views" in said
    assert "mend Put {% load segment_fallback %}" in said
    assert "more docs/reference/doctor.md#page.snippet_missing" in said
    assert all(len(line) <= 120 for line in out.getvalue().splitlines())


def test_good_page_is_told_in_short(serve: Serve) -> None:
    url = serve()
    said = doctor(url, pages_only=True)
    assert said.splitlines()[0] == url
    assert "things are as they should be (-v 2)" in said
    assert "The page sets no cookie." not in said
    assert said.splitlines()[-1].startswith("0 errors, 0 warnings, 1 remark; ")


def test_what_is_well_shows_when_asked_for(serve: Serve) -> None:
    assert "  ok       The page sets no cookie." in doctor(serve(), pages_only=True, verbosity=2)


@pytest.mark.parametrize(("level", "fails"), [("error", False), ("WARNING", True), ("INFO", True)])
def test_fail_level_decides(serve: Serve, level: str, fails: bool) -> None:
    url = serve(with_header("Vary", "Cookie"))
    if fails:
        with pytest.raises(CommandError, match="0 errors, 1 warning"):
            doctor(url, "--pages-only", "--fail-level", level)
    else:
        assert "0 errors, 1 warning" in doctor(url, "--pages-only", "--fail-level", level)


def test_json_is_a_list_of_findings(serve: Serve) -> None:
    url = serve(with_header("Vary", "Cookie"))
    findings = json.loads(doctor(url, pages_only=True, json=True))
    [found] = [finding for finding in findings if finding["level"] == "warning"]
    assert found["id"] == "cache.vary_cookie"
    assert found["subject"] == url
    assert found["link"] == "docs/reference/doctor.md#cache.vary_cookie"
    assert {finding["level"] for finding in findings} <= {level.name.lower() for level in Level}
    assert set(found) == {"id", "level", "subject", "what", "why", "cure", "link"}


def test_several_pages_and_the_set_up_each_have_a_section(serve: Serve) -> None:
    url = serve(lambda request: HttpResponse(status=500))
    out = io.StringIO()
    with pytest.raises(CommandError):
        call_command(
            "segment_doctor", url, f"{url}?two", celery_app="tests.doctor.celery_apps:silent", stdout=out, no_color=True
        )
    assert [line for line in out.getvalue().splitlines() if line[:1] not in ("", " ")] == ["Set-up", url, f"{url}?two"]


def test_broken_settings_are_findings_and_do_not_stop_the_command(serve: Serve) -> None:
    out = io.StringIO()
    serve(keys={"PATIENCE": "5"})
    with pytest.raises(CommandError):
        call_command("segment_doctor", celery_app="tests.doctor.celery_apps:silent", stdout=out, no_color=True)
    assert "segment_fallback.E003: SEGMENT_FALLBACK['PATIENCE'] must be a number" in out.getvalue()


def test_pages_only_without_a_page_is_refused() -> None:
    with pytest.raises(CommandError, match="needs a URL"):
        doctor(pages_only=True)
