from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from segment_fallback import tracing
from segment_fallback.buffers import buffers
from segment_fallback.buffers.accept import accept
from segment_fallback.delivery.flush import flush
from segment_fallback.exceptions import BufferUnavailable
from segment_fallback.message import encode
from segment_fallback.testing import Answer, LocalSegment
from tests.intake.visits import Visit

if TYPE_CHECKING:
    from pytest_django import Settings

pytestmark = pytest.mark.django_db

SECRET = "what-a-visitor-did"


class Breaking(SpanProcessor):
    """A site's own processor, when it is told to break."""

    at = ""

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if self.at == "start":
            raise RuntimeError("at the start")

    def on_end(self, span: ReadableSpan) -> None:
        if self.at == "end":
            raise RuntimeError("at the end")


@pytest.fixture(scope="module")
def instrumented() -> Iterator[tuple[InMemorySpanExporter, Breaking]]:
    """A process that is instrumented, for as long as these tests run: the API itself would keep its first provider."""
    exporter, breaking, provider = InMemorySpanExporter(), Breaking(), TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    provider.add_span_processor(breaking)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "get_tracer_provider", lambda: provider)
        yield exporter, breaking
    provider.shutdown()


@pytest.fixture
def spans(instrumented: tuple[InMemorySpanExporter, Breaking]) -> InMemorySpanExporter:
    instrumented[0].clear()
    return instrumented[0]


@pytest.fixture
def breaking(instrumented: tuple[InMemorySpanExporter, Breaking]) -> Iterator[Breaking]:
    yield instrumented[1]
    instrumented[1].at = ""


def put(*names: str) -> None:
    made = [{"type": "page", "messageId": name, "anonymousId": "a", "properties": {"a": SECRET}} for name in names]
    accept([encode(message) for message in made])


def told(spans: InMemorySpanExporter, name: str) -> list[dict[str, Any]]:
    """The attributes of the ended spans of that name, without their prefix, and what their status says."""
    found = [span for span in spans.get_finished_spans() if span.name == f"segment_fallback.{name}"]
    return [
        {key.removeprefix("segment_fallback."): value for key, value in (span.attributes or {}).items()}
        | ({"failed": span.status.description} if not span.status.is_ok and not span.status.is_unset else {})
        for span in found
    ]


def test_put_flush_and_send_are_spans(spans: InMemorySpanExporter, local_segment: LocalSegment) -> None:
    put("1", "2")
    flush()
    [kept], [flushed], [sent] = told(spans, "put"), told(spans, "flush"), told(spans, "send")
    assert kept.pop("bytes") > 100
    assert kept == {"messages": 2}
    assert flushed == {"buffer": "default", "part": 0, "delivered": 2, "buried": 0}
    assert sent.pop("bytes") > 100
    assert sent == {"source": "default", "messages": 2, "verdict": "delivered", "status": 200}


def test_sending_is_a_part_of_the_flush_and_of_nobody_else(
    spans: InMemorySpanExporter, local_segment: LocalSegment
) -> None:
    put("1")
    flush()
    by_name = {span.name.rpartition(".")[2]: span for span in spans.get_finished_spans()}
    parent = by_name["send"].parent
    assert parent is not None
    assert parent.span_id == by_name["flush"].context.span_id
    assert by_name["flush"].parent is None
    assert by_name["send"].kind is trace.SpanKind.CLIENT


def test_failure_is_told_without_what_was_sent(spans: InMemorySpanExporter, local_segment: LocalSegment) -> None:
    put("1")
    local_segment.answer_with(Answer(503))
    flush()
    [sent], [flushed] = told(spans, "send"), told(spans, "flush")
    assert (sent["verdict"], sent["status"]) == ("retry", 503)
    assert sent["failed"].startswith("HTTP 503")
    assert flushed["failed"].startswith("HTTP 503")
    assert flushed["delivered"] == 0


def test_segment_that_nobody_reaches_has_no_status(spans: InMemorySpanExporter, settings: Settings) -> None:
    settings.SEGMENT_FALLBACK = {**settings.SEGMENT_FALLBACK, "API_HOST": "http://127.0.0.1:9"}
    put("1")
    flush()
    [sent] = told(spans, "send")
    assert "status" not in sent
    assert sent["failed"].startswith("ConnectionError from ")


def test_put_that_fails_has_the_errors_name_only(spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(messages: Any) -> None:
        raise BufferUnavailable(SECRET)

    monkeypatch.setattr(buffers["default"], "put", fail)
    monkeypatch.setattr("segment_fallback.buffers.spool.Spool.put", lambda spool, messages: fail(messages))
    with pytest.raises(BufferUnavailable):
        put("1")
    assert told(spans, "put")[0]["failed"] == "BufferUnavailable"


def test_no_span_tells_a_payload_a_key_or_an_id(spans: InMemorySpanExporter, local_segment: LocalSegment) -> None:
    visit = Visit(properties={"a": SECRET})
    visit.send()
    flush()
    put("m-e-s-s-a-g-e")
    local_segment.answer_with(Answer(413))
    flush()
    everything = "".join(span.to_json() for span in spans.get_finished_spans())
    assert len(told(spans, "send")) == 2
    for secret in (SECRET, "tests-write-key", visit.message_id, "m-e-s-s-a-g-e"):
        assert secret not in everything


@pytest.mark.parametrize("at", ["start", "end"])
def test_tracer_that_breaks_breaks_nothing(at: str, breaking: Breaking, local_segment: LocalSegment) -> None:
    breaking.at = at
    assert Visit().send().status_code == 200
    assert flush().delivered == 1


def test_process_that_is_not_instrumented_has_no_spans(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    put("1")
    assert tracing.API not in sys.modules
    assert told(spans, "put") == []


def test_api_that_another_thread_is_still_loading_breaks_nothing(
    spans: InMemorySpanExporter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", type(sys)("half"))
    put("1")
    assert buffers["default"].depth() == 1
    assert told(spans, "put") == []
