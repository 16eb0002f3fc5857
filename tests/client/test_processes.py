"""Calls of server code under real servers and in Celery's forks: after a preload, at SIGTERM, and killed."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from pytest_django import DjangoDbBlocker

from segment_fallback.models import OutcomeCount, WaitingMessage
from segment_fallback.testing import LocalSegment
from tests.databases import database
from tests.serving.site import PYTHON, ROOT, Site, wait_until

pytestmark = pytest.mark.slow

PROJECT = {"DJANGO_SETTINGS_MODULE": "tests.client.project"}


@pytest.fixture
def site(tmp_path: Path, django_db_blocker: DjangoDbBlocker) -> Iterator[Site]:
    settings = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(tmp_path / "site.sqlite3"),
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": "PRAGMA journal_mode=WAL"},
    }
    alias = f"site-{uuid4().hex}"
    with database(alias, settings, django_db_blocker):
        yield Site(tmp_path, alias, settings)


@pytest.fixture
def kept(site: Site, django_db_blocker: DjangoDbBlocker) -> Iterator[object]:
    with django_db_blocker.unblock():
        yield None


def track(site: Site, more: str = "") -> str:
    name = uuid4().hex
    site.get(f"/track/?id={name}{more}")
    return name


def ids(name: str) -> set[str]:
    return {f"{name}-call", f"{name}-sdk", f"{name}-thread"}


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("server", ["gunicorn preload", "uvicorn"])
def test_server_that_is_told_to_end_keeps_what_was_tracked(site: Site, server: str) -> None:
    """``SERVING_TOUCH``: what a process makes once was used before the fork."""
    tracked: list[str] = []

    def visit() -> None:
        for _ in range(10):
            tracked.append(track(site))

    with site.served_by(server, SERVING_TOUCH="1", **PROJECT) as process:
        visitors = [threading.Thread(target=visit) for _ in range(4)]
        for visitor in visitors:
            visitor.start()
        for visitor in visitors:
            visitor.join()
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert set.union(*map(ids, tracked)) - site.kept() == set(), site.log


@pytest.mark.usefixtures("kept")
def test_process_that_ends_right_after_the_response_loses_only_what_waited_for_it(site: Site) -> None:
    """``os._exit`` between the response and the write loses the request's own messages; after it, nothing."""
    with site.served_by("gunicorn sync", **PROJECT):
        after = track(site, "&die=after")
        wait_until(lambda: ids(after) <= site.kept(), lambda: site.log)
        wait_until(lambda: site.get("/sync/") == "here", lambda: site.log)
        before = track(site, "&die=first")
        wait_until(lambda: site.get("/sync/") == "here", lambda: site.log)
    assert ids(after) <= site.kept()
    assert site.kept() & ids(before) == {f"{before}-thread"}


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize("how", ["answers", "raises"])
@pytest.mark.parametrize("server", ["gunicorn sync", "gunicorn threads", "uvicorn"])
def test_messages_of_a_request_are_written_together_after_its_response(site: Site, server: str, how: str) -> None:
    site.settings = {"BUFFERS": {"default": {"BACKEND": "tests.client.buffer.NotingBuffer"}}}
    with site.served_by(server, **PROJECT):
        for url in ("twice", "atwice"):
            with answer(site, f"/{url}/?id={url}&how={how}") as response:
                assert (b"answer" if how == "answers" else b"of the view") in response.read()
            assert not {f"{url}-1", f"{url}-2"} & site.kept(), "the answer was there before"
            (site.directory / "go").touch()
            wait_until(lambda url=url: {f"{url}-1", f"{url}-2"} <= site.kept(), lambda: site.log)  # type: ignore[misc]
            wait_until(lambda: writes(site) != [], lambda: site.log)
            assert writes(site) == [2]
            for name in ("go", "writes"):
                (site.directory / name).unlink()


@pytest.mark.usefixtures("kept")
@pytest.mark.parametrize(
    ("server", "url"), [("gunicorn sync", "twice"), ("gunicorn threads", "twice"), ("uvicorn", "atwice")]
)
def test_messages_of_a_stream_are_written_between_its_parts(site: Site, server: str, url: str) -> None:
    """A body of the server's own kind: the other one Django reads to its end before it sends a part."""
    site.settings = {"BUFFERS": {"default": {"BACKEND": "tests.client.buffer.NotingBuffer"}}}
    with site.served_by(server, **PROJECT), answer(site, f"/{url}/?id=m&how=streams") as response:
        assert (response.read(5), site.kept()) == (b"first", set())
        (site.directory / "go").touch()
        assert response.read() == b"second"
        wait_until(lambda: len(writes(site)) > 1, lambda: site.log)
    assert site.kept() == {"m-1", "m-2", "m-3"}
    assert writes(site) == [2, 1]


@contextlib.contextmanager
def answer(site: Site, url: str) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", site.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", url)
        with connection.getresponse() as response:
            yield response


def writes(site: Site) -> list[int]:
    """How many messages each write to the buffer had."""
    file = site.directory / "writes"
    return [int(line) for line in file.read_text().split()] if file.exists() else []


@pytest.mark.usefixtures("kept")
def test_hundred_requests_at_once_do_not_mix_up_their_visitors(site: Site) -> None:
    names = [f"visitor-{number}" for number in range(100)]

    def meet(name: str) -> str | None:
        return site.get(f"/meeting/?number={len(names)}", {"Cookie": f"ajs_anonymous_id={name}"})

    with site.served_by("uvicorn", **PROJECT):
        with ThreadPoolExecutor(len(names)) as visitors:
            assert set(visitors.map(meet, names)) == {"met"}, site.log
        wait_until(lambda: len(site.kept()) == 3 * len(names), lambda: site.log)
    rows = WaitingMessage.objects.using(site.alias).values_list("message_id", "body")
    whose = {message_id: json.loads(bytes(body))["anonymousId"] for message_id, body in rows}
    assert whose == {f"{name}-{when}": name for name in names for when in ("before", "bound", "after")}


CELERY = [*PYTHON, "celery", "--app", "tests.client.project:app"]
HANDLER = """
from segment_fallback import on, track
@on("order.completed")
def tell(event):
    track(event="Told", properties={{"name": event["name"], "by": {by!r}}})
"""


@pytest.fixture
def shop(site: Site, local_segment: LocalSegment) -> dict[str, str]:
    """The environment of a site that has an app with handlers, and that delivers."""
    (site.directory / "shop").mkdir()
    (site.directory / "shop" / "__init__.py").touch()
    site.settings = {"API_HOST": local_segment.url}
    path = os.pathsep.join([str(ROOT), str(site.directory)])
    return {**PROJECT, "SERVING_APPS": "shop", "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def deploy(site: Site, by: str) -> None:
    (site.directory / "shop" / "segment_events.py").write_text(HANDLER.format(by=by))


@contextlib.contextmanager
def worker(site: Site, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """Celery with two forks, and beat."""
    forks = ["worker", "--pool", "prefork", "--concurrency", "2", "--beat", "--schedule", str(site.directory / "beat")]
    with site.process([*CELERY, *forks], **environment) as process:
        yield process


def publish(site: Site, visitor: str = "visitor") -> str:
    name = uuid4().hex
    headers = {"Cookie": f"ajs_anonymous_id={visitor}", "User-Agent": f"browser of {visitor}"}
    assert site.get(f"/publish/?id={name}", headers) == "published", site.log
    return name


def told(segment: LocalSegment) -> dict[str, str]:
    """Who handled which event."""
    events = (received.message for received in segment.distinct)
    return {m["properties"]["name"]: m["properties"]["by"] for m in events if m["event"] == "Told"}


@pytest.mark.usefixtures("kept")
def test_tasks_and_handlers_in_forks_are_about_the_visitor_whose_request_caused_them(
    site: Site, shop: dict[str, str], local_segment: LocalSegment
) -> None:
    deploy(site, "worker")
    with site.served_by("gunicorn preload", **shop), worker(site, shop):
        names = {publish(site, f"visitor-{number}"): f"visitor-{number}" for number in range(10)}
        wait_until(lambda: len(local_segment.distinct) == 4 * len(names), lambda: site.log)
    found = {(r.message["event"], str(r.message_id)): r.message for r in local_segment.distinct}
    for name, visitor in names.items():
        for event in ("outer", "inner"):
            message = found[event, f"{name}-{event}"]
            assert message["anonymousId"] == visitor
            assert message["context"]["userAgent"] == f"browser of {visitor}"
        assert found["E", f"{name}-sdk"]["anonymousId"] is None
    handled = {m["properties"]["name"]: m["anonymousId"] for m in found.values() if m["event"] == "Told"}
    assert handled == names


@pytest.mark.usefixtures("kept")
def test_worker_that_was_restarted_alone_runs_the_new_code(
    site: Site, shop: dict[str, str], local_segment: LocalSegment
) -> None:
    deploy(site, "old")
    with site.served_by("gunicorn sync", **shop):
        with worker(site, shop) as process:
            first = publish(site)
            wait_until(lambda: told(local_segment) == {first: "old"}, lambda: site.log)
            deploy(site, "new")
            second = publish(site)
            wait_until(lambda: second in told(local_segment), lambda: site.log)
            process.send_signal(signal.SIGTERM)
            process.wait(30)
        third = publish(site)  # no worker runs
        with worker(site, shop):
            wait_until(lambda: third in told(local_segment), lambda: site.log)
    assert told(local_segment) == {first: "old", second: "old", third: "new"}


@pytest.mark.usefixtures("kept")
def test_task_that_kills_its_process_right_after_a_call_loses_nothing(
    site: Site, shop: dict[str, str], local_segment: LocalSegment
) -> None:
    with worker(site, shop):
        for name in ("a-exit", "a-kill", "b-exit"):  # one by one: Celery forgets what a dying fork had before it
            call(site, shop, "fatal", *name.split("-"))
            wait_until(lambda name=name: name in arrived(local_segment), lambda: site.log)  # type: ignore[misc]


@pytest.mark.usefixtures("kept")
def test_worker_that_is_told_to_end_finishes_its_tasks(
    site: Site, shop: dict[str, str], local_segment: LocalSegment
) -> None:
    site.settings = {**site.settings, "OUTCOME_INTERVAL": 3_600}
    call(site, shop, "slow", "a")
    with worker(site, shop) as process:
        wait_until(lambda: "a-begun" in arrived(local_segment) | site.kept(), lambda: site.log)
        process.send_signal(signal.SIGTERM)
        process.wait(30)
    assert {"a-begun", "a-done"} <= arrived(local_segment) | site.kept()
    counts = OutcomeCount.objects.using(site.alias).filter(way="server", outcome="accepted")
    assert sum(counts.values_list("count", flat=True)) == 2, "what a fork has counted it writes at its end"


def call(site: Site, environment: dict[str, str], task: str, *arguments: str) -> None:
    """Publish a task from outside of a request."""
    code = f"from tests.client.project import {task}; {task}.delay(*{arguments!r})"
    merged = {**site.environment, **environment}
    subprocess.run([*PYTHON[:1], "-c", code], env=merged, check=True, cwd=ROOT, timeout=60)


def arrived(segment: LocalSegment) -> set[str]:
    return {str(received.message_id) for received in segment.distinct}
