from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING
from unittest.mock import patch

import pytest
from celery.contrib.testing.worker import start_worker
from django.urls import clear_url_caches

from segment_fallback.buffers import buffers
from segment_fallback.buffers.base import now_ms
from segment_fallback.delivery.flush import flush
from segment_fallback.doctor.delivery import event_arrives, flush_was_seen
from segment_fallback.doctor.finding import Finding, Level
from segment_fallback.doctor.run import SETUP, examine_setup, guarded
from segment_fallback.doctor.segment import api_answers, knows_write_keys
from segment_fallback.doctor.setup import Options, cache_keeps, duration, events_are_handled
from segment_fallback.doctor.workers import celery_works, find_app
from segment_fallback.events.handlers import registry
from segment_fallback.models import PendingEvent
from segment_fallback.testing import Answer, LocalSegment
from tests.doctor.setups import FAULTS, SEND, Fault, handlers, overdue_events, spool_at, with_app, without_table

if TYPE_CHECKING:
    from pytest_django import Settings

pytestmark = pytest.mark.django_db(transaction=True)

ROOT = Path(__file__).parents[2]


def bad(findings: Iterator[Finding]) -> dict[str, str]:
    """What is not well, by id."""
    return {finding.id: finding.what for finding in findings if finding.level is not Level.OK}


def apply(settings: Settings, fault: Fault) -> None:
    for name, value in fault.django.items():
        setattr(settings, name, value)
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, **fault.keys}


@pytest.mark.parametrize("kind", FAULTS)
def test_set_up_with_a_fault_is_found(settings: Settings, local_segment: LocalSegment, kind: str) -> None:
    fault = FAULTS[kind]
    apply(settings, fault)
    # Only what finds it: the others would wait for hosts that are not there.
    [examination] = [each for each in SETUP if each.__name__ in WHERE and kind in WHERE[each.__name__]]
    with fault.prepare(local_segment):
        found = bad(guarded(examination, fault.options))
    assert fault.says in found.get(kind, ""), found


WHERE = {
    "checks_are_silent": {"setup.check"},
    "buffers_answer": {"setup.buffer_unavailable", "setup.buffer_old", "setup.dead_letters"},
    "events_are_handled": {"setup.events_wait"},
    "spool_is_ready": {"setup.spool_unwritable", "setup.spool_waits"},
    "cache_keeps": {"setup.cache_unusable", "setup.cache_local"},
    "knows_write_keys": {"setup.write_key_unknown", "setup.cdn_unreachable", "setup.region"},
    "api_answers": {"setup.api_unreachable", "setup.clock"},
    "celery_works": {
        "setup.celery_missing",
        "setup.broker_unreachable",
        "setup.worker_missing",
        "setup.worker_unknown",
        "setup.schedule_missing",
    },
    "flush_was_seen": {"setup.flush_unseen", "setup.flush_failing", "setup.archive_lacks"},
    "event_arrives": {"setup.flush_untried", "setup.flush_not_run", "setup.flush_failed"},
}


def test_good_set_up_has_no_finding_but_what_cannot_be_seen(settings: Settings, local_segment: LocalSegment) -> None:
    flush()
    found = bad(examine_setup(Options(celery_app="tests.doctor.celery_apps:silent")))
    assert sorted(found) == ["setup.flush_untried", "setup.worker_unknown"]


def test_test_event_goes_the_whole_way_and_to_no_destination(local_segment: LocalSegment) -> None:
    found = bad(examine_setup(SEND))
    assert "setup.flush_failed" not in found
    [received] = local_segment.wait_for(1)
    assert received.message["event"] == "Segment Fallback Doctor"
    assert received.message["integrations"] == {"All": False}
    assert buffers["default"].depth() == 0


def test_test_event_that_segment_refuses_leaves_no_dead_letter(local_segment: LocalSegment) -> None:
    local_segment.answer_with(Answer(413), times=None)
    assert bad(examine_setup(SEND))["setup.flush_failed"].startswith("The test event was refused: HTTP 413")
    assert list(buffers["default"].dead_letters()) == []


def test_old_flush_is_found(local_segment: LocalSegment, monkeypatch: pytest.MonkeyPatch) -> None:
    flush()
    later = now_ms() + 360_000
    monkeypatch.setattr("segment_fallback.status.now_ms", lambda: later)
    assert bad(flush_was_seen(Options())) == {"setup.flush_unseen": "The last flush of 'default' was 6 minutes ago."}


def test_events_that_are_not_due_are_well(local_segment: LocalSegment) -> None:
    with overdue_events(local_segment):
        PendingEvent.objects.update(next_try=now_ms() - 60_000)
        assert [finding.level for finding in events_are_handled(Options())] == [Level.OK]


def test_site_without_handlers_or_table_needs_nobody_to_run_them(
    local_segment: LocalSegment, monkeypatch: pytest.MonkeyPatch
) -> None:
    with overdue_events(local_segment):
        monkeypatch.setattr(registry, "_handlers", {})
        assert list(events_are_handled(Options())) == []
    with handlers(), without_table(local_segment, PendingEvent):
        assert list(events_are_handled(Options())) == []


def test_site_that_forwards_needs_no_flush(settings: Settings, local_segment: LocalSegment) -> None:
    apply(settings, Fault("", {"FIRST_PARTY": True, "COLLECT": "forward"}))
    [finding] = flush_was_seen(Options())
    assert (finding.id, finding.level) == ("setup.flush_unseen", Level.INFO)


def test_worker_that_answers_is_well(monkeypatch: pytest.MonkeyPatch) -> None:
    # It would make this app every test's, and change the root logger.
    monkeypatch.setattr("celery.contrib.testing.worker.setup_app_for_worker", lambda app, *args: app.finalize())
    app = find_app("tests.doctor.celery_apps:lonely")
    assert app is not None
    with start_worker(app, perform_ping_check=False, pool="solo"):
        assert bad(celery_works(with_app("lonely"))) == {}


def test_worker_that_does_not_know_the_task_is_found(tmp_path: Path) -> None:
    """Both in processes of their own, because this one has told every app of the task."""
    environment = {**os.environ, "TESTS_BROKER_FOLDER": str(tmp_path), "DJANGO_SETTINGS_MODULE": "tests.settings"}
    command = [sys.executable, "-m", "celery", "-A", "tests.doctor.worker_without_tasks", "worker", "--pool", "solo"]
    code = (
        "import django; django.setup()\n"
        "from segment_fallback.doctor.workers import celery_works\n"
        "from segment_fallback.doctor.setup import Options\n"
        "for f in celery_works(Options(celery_app='tests.doctor.celery_apps:shared')): print(f.id, int(f.level))"
    )
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        deadline, said = time.monotonic() + 30, ""
        while "setup.task_unknown 40" not in said and time.monotonic() < deadline:
            ask = subprocess.run(
                [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
            )
            said = ask.stdout
    finally:
        worker.terminate()
        worker.wait(20)
    assert "setup.task_unknown 40" in said, (said, (tmp_path / "log").read_text())


def test_scheduler_of_its_own_is_no_error() -> None:
    [finding] = [f for f in celery_works(with_app("own_scheduler")) if f.id == "setup.schedule_missing"]
    assert finding.level is Level.INFO


def test_password_of_the_broker_is_not_shown() -> None:
    found = " ".join(f"{finding.what} {finding.cure}" for finding in celery_works(with_app("down")))
    assert "OperationalError" in found
    assert "not-to-be-shown" not in found


def test_write_key_is_not_shown(settings: Settings, local_segment: LocalSegment) -> None:
    apply(settings, Fault("", {"WRITE_KEY": "not-to-be-shown", "CDN_HOST": "http://127.0.0.1:1"}))
    said = [str(finding.as_json()) for finding in examine_setup(Options(celery_app="tests.doctor.celery_apps:silent"))]
    assert any("Connection refused" in text for text in said)
    assert not any("not-to-be-shown" in text for text in said)


def test_spool_is_left_as_it_was(settings: Settings, local_segment: LocalSegment, tmp_path: Path) -> None:
    apply(settings, Fault("", django=spool_at(str(tmp_path))))
    list(examine_setup(Options(celery_app="tests.doctor.celery_apps:silent")))
    assert list(tmp_path.iterdir()) == []


def test_examination_that_fails_is_a_finding_and_the_next_goes_on(
    settings: Settings, local_segment: LocalSegment
) -> None:
    settings.ROOT_URLCONF = "tests.no_such_module"
    clear_url_caches()
    found = bad(examine_setup(Options(celery_app="tests.doctor.celery_apps:silent")))
    clear_url_caches()
    assert found["doctor.failed"] == "The examination checks_are_silent failed: ModuleNotFoundError."
    assert "setup.flush_untried" in found


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0, "a second"),
        (30, "30 seconds"),
        (119, "119 seconds"),
        (240, "4 minutes"),
        (9_000, "2 hours"),
        (1e6, "12 days"),
    ],
)
def test_duration_is_said_in_words(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_test_event_is_not_buffered_where_the_buffer_is_down(local_segment: LocalSegment) -> None:
    with without_table(local_segment):
        found = bad(examine_setup(SEND))
    assert "does not answer" in found["setup.buffer_unavailable"]
    assert found["setup.flush_failed"].startswith("The test event could not be buffered")


def test_buffer_that_cannot_be_made_is_left_to_the_checks(settings: Settings, local_segment: LocalSegment) -> None:
    apply(settings, Fault("", {"BUFFERS": {"default": {"BACKEND": "shop.NoSuchBuffer"}}}))
    found = bad(examine_setup(SEND))
    assert "shop.NoSuchBuffer" in found["setup.buffer_unavailable"]
    assert not {"doctor.failed", "setup.flush_failed"} & set(found)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (Answer(500), "setup.cdn_unreachable"),
        (Answer(200, body="no JSON"), None),
        (Answer(200, body="[]"), None),
        (Answer(403), "setup.write_key_unknown"),
    ],
)
def test_answers_of_the_cdn_are_understood(local_segment: LocalSegment, answer: Answer, kind: str | None) -> None:
    local_segment.answer_with(answer, times=None, path="/v1/projects/")
    assert list(bad(knows_write_keys(Options()))) == ([kind] if kind else [])


def test_cache_that_fails_is_found(settings: Settings) -> None:
    nowhere = {"default": {"BACKEND": "django.core.cache.backends.db.DatabaseCache", "LOCATION": "no_such_table"}}
    apply(settings, Fault("", {"FIRST_PARTY": True}, {"CACHES": nowhere}))
    assert "'default' fails" in bad(cache_keeps(Options()))["setup.cache_unusable"]


def test_cache_of_files_keeps_and_is_left_empty(settings: Settings, tmp_path: Path) -> None:
    files = {"default": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": str(tmp_path)}}
    apply(settings, Fault("", {"FIRST_PARTY": True}, {"CACHES": files}))
    assert bad(cache_keeps(Options())) == {}
    assert list(tmp_path.iterdir()) == []


def test_app_of_the_project_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "example_project.settings")
    app = find_app()
    assert app is not None
    assert app.main == "example_project"


def test_test_event_waits_for_the_sites_own_flush(local_segment: LocalSegment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("segment_fallback.doctor.delivery.time.sleep", lambda seconds: flush())
    found = {finding.id: finding.what for finding in event_arrives(Options(send=True, wait=60))}
    assert list(found) == ["setup.flush_failed"]
    assert found["setup.flush_failed"].startswith("The test event was delivered in ")


def test_site_that_is_switched_off_sends_no_test_event(settings: Settings, local_segment: LocalSegment) -> None:
    apply(settings, Fault("", {"WRITE_KEY": ""}))
    assert list(event_arrives(SEND)) == []
    assert buffers["default"].depth() == 0


@pytest.mark.parametrize("date", ["", "yesterday"])
def test_answer_without_a_time_says_nothing_of_the_clock(local_segment: LocalSegment, date: str) -> None:
    with patch.object(BaseHTTPRequestHandler, "date_time_string", lambda *_: date):
        assert bad(api_answers(Options())) == {}
