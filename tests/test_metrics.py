from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from django.test import RequestFactory
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from segment_fallback import metrics, status
from segment_fallback.buffers import buffers
from segment_fallback.buffers.accept import accept, acceptance
from segment_fallback.buffers.base import ARCHIVE
from segment_fallback.buffers.event_key import EventKey
from segment_fallback.conf import DAY
from segment_fallback.delivery.flush import flush
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.message import Message, encode
from segment_fallback.testing import Answer, LocalSegment
from tests.intake.visits import Visit

if TYPE_CHECKING:
    from pytest_django import Settings

pytestmark = pytest.mark.django_db

Values = dict[tuple[str, ...], float]


def scrape(**options: Any) -> Values:
    """(name, values of the labels by the labels' names …) → value, as Prometheus reads them from the view."""
    status.cheap.forget()
    status.full.forget()
    response = metrics.view(RequestFactory().get("/metrics/"), **options)
    assert response.status_code == 200
    assert response["Cache-Control"] == "no-store"
    text = response.content.decode()
    return {(s.name, *s.labels.values()): s.value for family in parse(text) for s in family.samples}


def put(*names: str) -> None:
    made = [{"type": "track", "event": "Bought", "messageId": name, "anonymousId": "a"} for name in names]
    accept([encode(message) for message in made])


def test_pipeline_that_is_well_has_every_gauge(local_segment: LocalSegment) -> None:
    flush()
    values = scrape()
    assert values["segment_fallback_up",] == 1
    assert values["segment_fallback_buffer_up", "default"] == 1
    assert values["segment_fallback_waiting_messages", "default"] == 0
    assert values["segment_fallback_oldest_message_age_seconds", "default"] == 0
    assert values["segment_fallback_dead_letters", "default"] == 0
    assert time.time() - values["segment_fallback_last_flush_timestamp_seconds", "default"] < 10
    assert values["segment_fallback_part_failures", "default", "0"] == 0
    assert values["segment_fallback_spool_files",] == values["segment_fallback_spool_bytes",] == 0
    assert values["segment_fallback_unarchived_messages",] == 0
    assert [value for key, value in values.items() if key[0] == "segment_fallback_problem"] == [0] * 5


def test_trouble_shows(local_segment: LocalSegment) -> None:
    buffers["default"].bury([Message("1", b"{}")], "a test")
    buffers["default"].note_failure(ARCHIVE, "gone", 7)
    acceptance.spool.put([Message("2", b"{}")])
    local_segment.answer_with(Answer(503), times=None)
    put("3")
    flush()
    acceptance.spool.put([Message("4", b"{}")])
    values = scrape()
    assert values["segment_fallback_waiting_messages", "default"] == 2
    assert 0 < values["segment_fallback_oldest_message_age_seconds", "default"] < 10
    assert values["segment_fallback_dead_letters", "default"] == 1
    assert values["segment_fallback_part_failures", "default", "0"] == 1
    assert values["segment_fallback_spool_files",] == 1
    assert values["segment_fallback_spool_bytes",] > 0
    assert values["segment_fallback_unarchived_messages",] == 7
    assert values["segment_fallback_problem", "dead_letters"] == 1
    assert values["segment_fallback_problem", "buffer_down"] == 0


def test_hits_and_deliveries_are_counted_by_how_they_came(local_segment: LocalSegment) -> None:
    Visit().send()
    Visit(referer="http://elsewhere.example/").send()
    put("1", "2")
    flush()
    values = scrape()
    assert values["segment_fallback_hits_total", "accepted", "pixel"] == 1
    assert values["segment_fallback_hits_total", "host", "pixel"] == 1
    assert values["segment_fallback_delivered_messages_total", "page", "pixel"] == 1
    assert values["segment_fallback_delivered_messages_total", "track", "server"] == 2
    assert not any("Bought" in key for key in values), "names of events are a visitor's to choose"


def test_counters_only_grow_and_begin_anew_at_midnight(monkeypatch: pytest.MonkeyPatch) -> None:
    midnight = int(time.time()) // DAY * DAY
    buffer = buffers["default"]

    def hits(at: float) -> Values:
        with monkeypatch.context() as patch:
            patch.setattr("segment_fallback.metrics.time.time", lambda: at)
            return {key[0:1]: value for key, value in scrape().items() if key[0].startswith("segment_fallback_hits")}

    assert hits(midnight + 1) == {}
    for hour, number in ((midnight - 3_600, 50), (midnight, 3), (midnight + 3_600, 4)):
        buffer.add_outcome_counts({(hour, "pixel", "accepted"): number})
    assert hits(midnight + 3_700) == {
        ("segment_fallback_hits_total",): 7,
        ("segment_fallback_hits_created",): midnight,
    }
    assert hits(midnight + DAY + 1) == {}


def test_openmetrics_says_when_a_counter_began() -> None:
    put("1")
    Visit().send()
    response = metrics.view(RequestFactory().get("/", HTTP_ACCEPT="application/openmetrics-text; version=1.0.0"))
    assert response["Content-Type"].startswith("application/openmetrics-text")
    families = {family.name: family for family in parse_openmetrics(response.content.decode())}  # type: ignore[no-untyped-call]
    created = [s.value for s in families["segment_fallback_hits"].samples if s.name.endswith("_created")]
    assert created == [int(time.time()) // DAY * DAY]


def test_several_buffers_are_told_apart_and_their_deliveries_added(settings: Settings) -> None:
    memory = {"BACKEND": "segment_fallback.buffers.memory.MemoryBuffer"}
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "BUFFERS": {"default": memory, "old": memory}}
    hour = int(time.time()) // 3600 * 3600
    for alias, number in (("default", 2), ("old", 3)):
        buffers[alias].put([Message(f"{alias}{index}", b"{}") for index in range(number)])
        buffers[alias].set_event_counts(hour, {EventKey(hour, "pixel", "page"): number})
    values = scrape()
    assert values["segment_fallback_waiting_messages", "default"] == 2
    assert values["segment_fallback_waiting_messages", "old"] == 3
    assert values["segment_fallback_delivered_messages_total", "page", "pixel"] == 5


def test_buffer_that_is_down_is_said_and_the_rest_stays(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> Any:
        raise BufferUnavailable("gone")

    for name in ("leases", "outcome_counts", "way_counts"):
        monkeypatch.setattr(buffers["default"], name, fail)
    values = scrape()
    assert values["segment_fallback_buffer_up", "default"] == 0
    assert values["segment_fallback_problem", "buffer_down"] == 1
    assert values["segment_fallback_spool_files",] == 0
    assert ("segment_fallback_waiting_messages", "default") not in values
    assert ("segment_fallback_unarchived_messages",) not in values
    assert not any(key[0].endswith("_total") for key in values)


def test_look_that_has_no_answer_is_not_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status.Look, "status", lambda look: None)
    assert scrape()["segment_fallback_up",] == 0


def test_dear_buffer_has_no_gauges_that_cost_money_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(buffers["default"]), "counting_costs", True)
    assert ("segment_fallback_waiting_messages", "default") not in scrape()
    assert scrape(counting=True)["segment_fallback_waiting_messages", "default"] == 0


def test_collector_is_registered_without_asking_a_buffer(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = CollectorRegistry(auto_describe=True)
    with monkeypatch.context() as patch:
        patch.setattr(metrics, "buffers", None)
        patch.setattr(status, "buffers", None)
        metrics.register(registry)
    with pytest.raises(ValueError, match="Duplicated timeseries"):
        metrics.register(registry)
    names = {family.name for family in parse(generate_latest(registry).decode())}
    assert "segment_fallback_waiting_messages" in names
    described = {metric.name for metric in metrics.SegmentCollector().describe()}
    assert {metric.name for metric in metrics.SegmentCollector().collect()} == described


def test_documented_alert_rules_are_of_metrics_that_there_are() -> None:
    text = (Path(__file__).parent.parent / "docs/how-to/monitoring.md").read_text("utf-8")
    rules = set(
        re.findall(r"segment_fallback_(\w+?)(?:_total)?[\[{ ]", text.partition("groups:")[2].partition("```")[0])
    )
    assert rules
    assert rules <= {*metrics.GAUGES, *metrics.COUNTERS}


def test_metrics_are_the_same_from_every_process() -> None:
    """All of it is read from the buffer: what a process has in memory makes no difference."""
    Visit().send()
    first = {key: value for key, value in scrape().items() if "age" not in key[0]}
    buffers.forget()
    assert {key: value for key, value in scrape().items() if "age" not in key[0]} == first
    assert first["segment_fallback_hits_total", "accepted", "pixel"] == 1
