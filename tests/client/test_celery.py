"""Tasks that know whose request published them, with a real worker and a broker in memory."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery
from celery.contrib.testing.worker import start_worker
from celery.signals import before_task_publish, task_postrun, task_prerun
from django.http import HttpRequest, HttpResponse
from django.test import Client
from django.urls import path

from segment_fallback import ambient, track
from segment_fallback.tasks import propagate_identity
from segment_fallback.testing import CapturedMessages
from tests.intake.visits import CHROMIUM

app = Celery("tests.client.test_celery", broker="memory://", backend="cache+memory://", set_as_current=False)
done: queue.Queue[str] = queue.Queue()


@app.task
def outer() -> None:
    track(event="outer")
    inner.delay()


@app.task
def inner() -> None:
    track(event="inner")
    track("another", "inner of another")
    done.put("inner")


@app.task
def alone() -> None:
    done.put("nobody" if ambient.current.get() is None else "somebody")


def view(request: HttpRequest) -> HttpResponse:
    outer.delay()
    return HttpResponse("later")


urlpatterns = [path("", view)]


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # It would make this app every test's, and change the root logger.
    monkeypatch.setattr("celery.contrib.testing.worker.setup_app_for_worker", lambda app, *args: app.finalize())
    # The one that the worker's own thread takes tasks from.
    monkeypatch.setattr("celery._state.default_app", app)
    propagate_identity(app)
    name = f"segment_fallback.{id(app)}"
    try:
        with start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=30):
            yield
    finally:
        before_task_publish.disconnect(dispatch_uid="segment_fallback")
        task_prerun.disconnect(dispatch_uid=name)
        task_postrun.disconnect(dispatch_uid=name)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("worker")
@pytest.mark.django_db(transaction=True)
def test_task_is_about_the_visitor_whose_request_published_it(
    segment_messages: CapturedMessages, settings: Any
) -> None:
    settings.ROOT_URLCONF = __name__
    client = Client()
    client.cookies["ajs_anonymous_id"] = "visitor-1"
    assert client.get("/", **CHROMIUM).status_code == 200  # type: ignore[arg-type]
    assert done.get(timeout=30) == "inner"
    for event in ("outer", "inner"):
        message = segment_messages.assert_tracked(event, anonymous_id="visitor-1", times=1)
        assert message["context"]["userAgent"] == CHROMIUM["HTTP_USER_AGENT"]
        assert message["context"]["page"]["path"] == "/"
    assert set(segment_messages.assert_tracked("inner of another")["context"]) == {"library"}
    alone.delay()
    assert done.get(timeout=30) == "nobody"


@pytest.mark.django_db
def test_visitor_who_does_not_want_it_is_not_carried_along(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    carried: list[Any] = []
    settings.ROOT_URLCONF = __name__
    monkeypatch.setattr(outer, "delay", lambda: carried.append(ambient.current.get().fields()))  # type: ignore[union-attr]
    Client().get("/", HTTP_SEC_GPC="1", HTTP_COOKIE="ajs_anonymous_id=visitor-1")
    assert carried == [{}]
